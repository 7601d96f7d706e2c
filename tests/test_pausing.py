"""clihelper pause and resume, and clihelper.Pause, on consumers of a real broker."""

from __future__ import annotations

import json
import statistics
import subprocess
import time

import pytest

from tests.paused import KINDS, Paused, Queue
from tests.proxy import Proxy
from tests.test_control import clihelper

BAR = 0.1
"""seconds from a command to its effect"""


@pytest.fixture
def queue(broker, queue_name):
    queue = Queue(broker.url(), queue_name)
    yield queue
    queue.close()


@pytest.fixture
def start(tmp_path, broker, queue_name):
    """Makes the program, to be entered."""

    def make(**options):
        return Paused(tmp_path, options.pop('url', broker.url()), queue_name, **options)

    return make


ALL = [('single', ''), ('threads', ''), ('coroutines', ''), ('batches', ''),
       ('single', 'workers: 3'), ('coroutines', 'workers: 2')]


@pytest.mark.parametrize(('kind', 'daemon'), ALL)
def test_a_paused_queue_is_not_handled_until_it_is_resumed(start, queue, kind, daemon):
    with start(kind=kind, daemon=daemon) as program:
        queue.send(*range(20))
        program.wait_notes(20)
        program.do('pause', queue.name)
        queue.send(*range(20, 40))
        queue.wait_left(20)
        assert len(program.bodies('run')) == 20
        program.do('resume', queue.name)
        program.wait_notes(40)
        assert sorted(map(int, program.bodies())) == list(range(40))
        assert program.stop() == 0
    queue.wait_left(0)


IN_HAND = {'single': 1, 'threads': 3, 'coroutines': 2, 'batches': 1}
"""how many messages a process handles at the same time"""


@pytest.mark.parametrize(('kind', 'daemon'), ALL)
def test_what_is_in_hand_ends_and_what_was_prefetched_goes_back(
    start, queue, tmp_path, kind, daemon
):
    with start(kind=kind, daemon=daemon) as program:
        workers = int(daemon.rpartition(' ')[2] or 1)
        for number in range(IN_HAND[kind] * workers):
            queue.send('slow')
            program.wait_notes(number + 1, 'run')
        queue.send(*range(10))
        program.do('pause')
        (tmp_path / 'go').touch()
        program.wait_notes(IN_HAND[kind] * workers)
        queue.wait_left(10)
        assert set(program.bodies('run')) == {'slow'}
        assert program.stop() == 0
    queue.wait_left(10)


def test_pause_and_resume_take_effect_at_once(start, queue, figure):
    pauses, resumes = [], []
    with start(daemon='workers: 4') as program:
        queue.send(*['nap'] * 6000)
        for _ in range(5):
            program.wait_notes(len(program.bodies()) + 20)
            asked = time.monotonic()
            program.request('pause')
            time.sleep(2 * BAR)
            runs = program.notes('run')
            pauses.append(max(when for when, _, _ in runs) - asked)
            asked = time.monotonic()
            program.request('resume')
            program.wait_notes(len(runs) + 1)
            resumes.append(min(when for when, *_ in program.notes('run') if when > asked) - asked)
        assert queue.left() > 0
    figure('pause to no message handled', f'{max(pauses) * 1000:.0f} ms')
    figure('resume to the first message', f'{max(resumes) * 1000:.0f} ms')
    assert statistics.median(pauses) < BAR
    assert statistics.median(resumes) < BAR


def test_a_pause_does_not_near_the_limit_of_the_broker(start, queue, tmp_path):
    limited = 'arguments: {x-queue-type: quorum, x-delivery-limit: 4}'
    with start(options=limited) as program:
        queue.send(*['slow'] * 15)
        for number in range(10):
            program.wait_notes(number + 1, 'run')
            queue.wait_left(0)
            program.do('pause')
            (tmp_path / 'go').touch()
            program.wait_notes(number + 1)
            queue.wait_left(14 - number)
            (tmp_path / 'go').unlink()
            program.do('resume')
        (tmp_path / 'go').touch()
        program.wait_notes(15)
        assert program.stop() == 0
    assert len(program.bodies('run')) == 15
    queue.wait_left(0)
    assert queue.dead() == []


def test_it_is_kept_over_a_reload_and_a_restart(start, queue):
    with start(daemon='workers: 2') as program:
        program.do('pause', queue.name)
        program.do('reload')
        queue.send(1)
        assert list(program.status()['paused']) == [queue.name]
        assert program.stop() == 0
    with start() as program:
        assert list(program.status()['paused']) == [queue.name]
        queue.wait_left(1)
        assert program.bodies() == []
        program.do('resume')
        program.wait_notes(1)
        assert program.stop() == 0
    with start() as program:
        queue.send(2)
        program.wait_notes(2)


def test_without_a_state_directory_it_says_that_it_is_not_kept(start, queue):
    with start(kept=False) as program:
        done = program.ask('pause')
        assert done.returncode == 0
        assert 'not kept over a restart' in done.stderr
        program.do('reload', '--in-place')
        assert program.status()['paused']


def test_what_was_paused_can_be_told_everywhere(start, queue, tmp_path):
    with start(daemon=f'workers: 2, metrics: "unix:{tmp_path}/http"') as program:
        answer = json.loads(program.do('pause', '--json', queue.name))
        assert answer == {'paused': [queue.name], 'kept': True}
        program.wait_line(f'queue {queue.name} is paused')
        assert f'  queue {queue.name}: paused for ' in program.do('status')
        fact = program.status()['paused'][queue.name]
        assert (fact['by'], fact['until'], fact['tries']) == ('operator', None, False)
        assert program.ask('status', '--ready').returncode == 0
        paused = f'clihelper_queue_paused{{queue="{queue.name}",by="operator"}}'
        assert f'{paused} 1' in program.do('metrics')
        page = subprocess.run(['curl', '-s', '--unix-socket', tmp_path / 'http',
                               'http://localhost/status'], capture_output=True, text=True)
        assert json.loads(page.stdout)['paused'][queue.name]['by'] == 'operator'
        program.do('resume')
        program.wait_line(f'queue {queue.name} is consumed')
        assert f'{paused} 0' in program.do('metrics')
        assert program.status()['paused'] == {}


def test_what_cannot_be_paused_is_one_line(start, queue, tmp_path):
    with start() as program:
        done = program.ask('pause', 'nothing')
        assert (done.returncode, done.stderr.count('\n')) == (2, 1)
        assert f"no queue 'nothing', but {queue.name}" in done.stderr
    assert program.ask('pause').returncode == 7
    for command in ('pause', 'resume'):
        assert clihelper(command).returncode == 2
        shown = clihelper(command, '--help').stdout
        assert f'Example: clihelper {command} ' in shown
        assert '77 if it is not yours' in shown


def test_a_file_that_says_nothing_is_told_and_pauses_nothing(start, queue, tmp_path):
    (tmp_path / 'paused.paused').write_text('{"all": ')
    with start() as program:
        program.wait_line('does not say what is paused, so nothing is')
        queue.send(1)
        program.wait_notes(1)


@pytest.mark.parametrize('kind', KINDS)
def test_a_stop_while_paused_is_at_once(start, queue, kind):
    with start(kind=kind) as program:
        program.do('pause')
        queue.send(*range(5))
        begun = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - begun < 2
    queue.wait_left(5)


@pytest.mark.parametrize('kind', KINDS)
def test_a_connection_that_is_lost_while_paused_consumes_nothing_later(
    start, queue, broker, kind
):
    with Proxy(broker.port) as proxy, start(kind=kind, url=proxy.url) as program:
        program.do('pause')
        proxy.cut()
        program.wait_line(f'not for now: {queue.name}')
        queue.send(*range(5))
        queue.wait_left(5)
        program.do('resume')
        program.wait_notes(5)


def test_a_partitioned_queue_is_paused_as_a_whole(start, broker, queue_name):
    with start(options='partitions: 3', daemon='workers: 2') as program:
        program.do('pause', queue_name)
        assert list(program.status()['paused']) == [queue_name]
        parts = [Queue(broker.url(), f'{queue_name}.{number}') for number in range(3)]
        for part in parts:
            part.send(1)
            part.wait_left(1)
        program.do('resume', queue_name)
        program.wait_notes(3)
        for part in parts:
            part.close()


def test_a_loop_of_its_own_waits_while_its_queue_is_paused(start, queue):
    with start(kind='iterating') as program:
        program.wait_line(f'consuming {queue.name}')
        queue.send(1)
        program.wait_notes(1)
        program.do('pause')
        queue.send(2)
        queue.wait_left(1)
        program.do('resume')
        program.wait_notes(2)
        program.do('pause')
        assert program.stop() == 0


def test_a_worker_that_starts_later_knows_what_is_paused(start, queue):
    with start(daemon='workers: 2') as program:
        program.do('pause')
        program.do('workers', '4')
        program.wait_line('not for now')
        program.wait_line('not for now')
        queue.send(1)
        queue.wait_left(1)


def test_memory_can_be_paused(tmp_path, queue_name):
    with Paused(tmp_path, 'memory://', queue_name) as program:
        program.do('pause', queue_name)
        assert list(program.status()['paused']) == [queue_name]
        program.do('resume', queue_name)
        program.wait_line('is consumed')
        assert program.stop() == 0


# clihelper.Pause


@pytest.mark.parametrize(('kind', 'daemon'), ALL)
def test_a_handler_can_have_its_queue_paused(start, queue, tmp_path, kind, daemon):
    with start(kind=kind, daemon=daemon, amqp='retry: {attempts: 1}') as program:
        queue.send('pause')
        program.wait_line('as its handler has asked')
        queue.send(*range(10))
        paused = program.status()['paused'][queue.name]
        assert paused['by'] == 'handler'
        program.wait_notes(2, 'run')
        first, second = [when for when, _, _ in program.notes('run')][:2]
        assert 0.4 < second - first < 1.5
        (tmp_path / 'mended').touch()
        program.wait_notes(11)
        assert program.status()['paused'] == {}
    queue.wait_left(0)
    assert queue.dead() == []


@pytest.mark.parametrize('options', ['auto_delete: true, arguments: {x-queue-type: classic}',
                                     'arguments: {x-queue-type: stream}, durable: true'])
def test_a_queue_that_needs_its_consumer_keeps_it_while_it_is_paused(start, queue, options):
    with start(options=options) as program:
        queue.send(1)
        program.wait_notes(1)
        program.do('pause')
        queue.send(2)
        program.do('resume')
        program.wait_notes(2)
        assert program.bodies() == ['1', '2']
        assert program.stop() == 0
