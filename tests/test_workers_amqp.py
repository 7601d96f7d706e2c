"""Consumers under a supervisor: what kills one, what hangs, what is reloaded meanwhile."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import kombu
import pytest

from clihelper.testing import Program
from tests.proxy import Proxy
from tests.test_workers import children, wait_gone

PROGRAM = str(Path(__file__).parent / 'programs' / 'gang.py')
TYPES = ['classic', 'quorum']


class Work:
    """A queue, and the program that consumes it."""

    def __init__(self, folder, broker, queue):
        self.folder = folder
        self.queue = queue
        self._url = broker.url()
        self._connection = kombu.Connection(broker.url())
        self.channel = self._connection.channel()
        self.file = folder / 'gang.yml'
        self.configure()

    def close(self):
        self._connection.close()

    def configure(self, daemon='workers: 2', amqp='', kind='classic', more=''):
        self.file.write_text(
            f'Application: {{notes: {self.folder}/notes, {more}}}\n'
            f'Daemon: {{{daemon}}}\n'
            f'AMQP:\n  url: {self._url}\n  {amqp}\n  queues:\n    {self.queue}:\n'
            f'      arguments: {{x-queue-type: {kind}}}\n'
        )

    def start(self, **options):
        return Program([sys.executable, PROGRAM, '-c', str(self.file), '-f'], **options)

    @contextlib.contextmanager
    def run(self, **options):
        with self.start(**options) as program:
            program.wait_ready(30)
            yield program

    def wait_killed(self):
        """Run it until a message that waits has killed it, perhaps before it is ready."""
        with self.start() as program:
            assert program.wait() == -signal.SIGSEGV

    def send(self, *bodies):
        producer = kombu.Producer(self.channel)
        for body in bodies:
            producer.publish(body, routing_key=self.queue, content_type='text/plain')

    def notes(self):
        try:
            text = (self.folder / 'notes').read_text()
        except FileNotFoundError:
            return []
        return [line.split() for line in text.splitlines()]

    def runs(self, what='run'):
        return collections.Counter(note[1] for note in self.notes() if note[0] == what)

    def wait_done(self, names, timeout=30):
        end = time.monotonic() + timeout
        while not set(names) <= set(self.runs('done')):
            assert time.monotonic() < end, (set(names) - set(self.runs('done')))
            time.sleep(0.02)

    def wait_dead(self, count=1, timeout=30):
        """The dead letters, once there are so many."""
        found = []
        end = time.monotonic() + timeout
        while len(found) < count:
            assert time.monotonic() < end, found
            message = self.channel.basic_get(f'{self.queue}.dead', no_ack=True)
            if message is None:
                time.sleep(0.02)
            else:
                found.append(self.channel.message_to_python(message))
        return found

    def wait_runs(self, count, timeout=10, what='run'):
        end = time.monotonic() + timeout
        while self.runs(what).total() < count:
            assert time.monotonic() < end, self.notes()
            time.sleep(0.01)

    def wait_left(self, count, timeout=10):
        """The broker takes a moment to give back what was prefetched."""
        end = time.monotonic() + timeout
        while self.left() != count:
            assert time.monotonic() < end, self.left()
            time.sleep(0.02)

    def left(self):
        return self.channel.queue_declare(self.queue, passive=True).message_count


@pytest.fixture
def work(tmp_path, broker, queue_name):
    work = Work(tmp_path, broker, queue_name)
    yield work
    work.close()


def names(count):
    return [f'm{number}' for number in range(count)]


RETRY = 'retry: {attempts: 3, delay: 0}'


@pytest.mark.parametrize('kind', TYPES)
@pytest.mark.parametrize('fatal', ['segfault', 'exit', 'kill'])
def test_what_kills_workers_is_run_as_often_as_it_may_be_and_its_neighbours_once(
    work, fatal, kind
):
    work.configure(amqp=RETRY, kind=kind)
    with work.run() as program:
        work.send(*names(50), f'{fatal} first', *names(100)[50:], f'{fatal} second', 'last')
        dead = work.wait_dead(2)
        work.wait_done([*names(100), 'last'])
        assert program.stop() == 0
    runs = work.runs()
    assert (runs['first'], runs['second']) == (3, 3)
    for letter in dead:
        assert letter.headers['x-clihelper-reason'] == 'crashed'
        assert letter.headers['x-clihelper-attempts'] == 3
    assert work.left() == 0


def test_out_of_memory_is_an_end_like_others(work):
    """Of the kernel's own killing, where a group of processes can be made to suffer from it."""
    group = Path(f'/sys/fs/cgroup/memory/{work.queue}')
    try:
        group.mkdir()
        (group / 'memory.limit_in_bytes').write_text(str(200 * 2**20))
        fatal = 'devour'
    except OSError:  # control groups of version 2, or none for us
        group, fatal = None, 'kill'
    work.configure(amqp='retry: {attempts: 2}')
    with work.run() as program:
        if group is not None:
            for pid in (program.pid, *children(program.pid)):
                (group / 'cgroup.procs').write_text(str(pid))
        work.send(f'{fatal} greedy', *names(20))
        program.wait_line(r'ended after .*: SIGKILL \(out of memory\?\)')
        (dead,) = work.wait_dead()
        work.wait_done(names(20))
        assert program.stop() == 0
    assert dead.headers['x-clihelper-reason'] == 'crashed'
    assert work.runs()['greedy'] == 2
    if group is not None:
        group.rmdir()


def test_with_one_attempt_a_neighbour_is_run_all_the_same(work):
    work.configure(amqp='retry: {attempts: 1}')
    with work.run() as program:
        work.send('kill killer', *names(20))
        (dead,) = work.wait_dead()
        assert dead.body == 'kill killer'
        work.wait_done(names(20))
        assert program.stop() == 0
    assert work.runs()['killer'] == 1
    assert work.channel.basic_get(f'{work.queue}.dead') is None


def test_crashes_and_failures_are_counted_together(work):
    """A message that fails, kills, and fails again is run three times."""
    work.configure(amqp=RETRY)
    with work.run() as program:
        work.send('vary both')
        (dead,) = work.wait_dead()
        assert program.stop() == 0
    assert dead.headers['x-clihelper-reason'] == 'exception'
    assert dead.headers['x-clihelper-attempts'] == 3
    assert work.runs()['both'] == 3


@pytest.mark.parametrize('kind', TYPES)
def test_a_process_alone_has_it_from_its_predecessor(work, kind):
    """As a service manager does, the test starts it again and again."""
    state = work.folder / 'state'
    state.mkdir()
    work.configure(daemon=f'state_directory: {state}', amqp=RETRY, kind=kind)
    work_names = names(20)
    with work.run() as program:
        work.send('segfault poison', *work_names)
        assert program.wait() == -signal.SIGSEGV
    work.wait_killed()
    work.wait_killed()
    with work.run() as program:
        work.wait_done(work_names)
        (dead,) = work.wait_dead()
        assert program.stop() == 0
    assert dead.headers['x-clihelper-reason'] == 'crashed'
    assert work.runs()['poison'] == 3
    assert all(work.runs()[name] == 1 for name in work_names)


def test_a_file_that_is_truncated_under_workers_is_written_anew(work):
    state = work.folder / 'state'
    state.mkdir()
    file = state / 'gang.scoreboard'
    work.configure(daemon=f'workers: 2, state_directory: {state}', amqp='retry: {attempts: 2}')
    with work.run() as program:
        work.send(*names(20))
        work.wait_done(names(20))
        size = file.stat().st_size
        os.truncate(file, 0)
        work.send(*(f'n{number}' for number in range(20)), 'kill poison')
        (dead,) = work.wait_dead()
        work.wait_done(f'n{number}' for number in range(20))
        program.wait_line(r'WARNING .*gang.scoreboard has been truncated and is written anew')
        assert program.stop() == 0
        assert 'SIGBUS' not in str(program)
    assert dead.headers['x-clihelper-reason'] == 'crashed'
    assert work.runs()['poison'] == 2
    assert file.stat().st_size == size
    with work.run() as program:
        assert program.stop() == 0
        assert 'been truncated' not in str(program)


def test_a_file_that_is_truncated_under_a_process_alone_is_told_by_its_successor(work):
    state = work.folder / 'state'
    state.mkdir()
    work.configure(daemon=f'state_directory: {state}')
    with work.run() as program:
        os.truncate(state / 'gang.scoreboard', 0)
        work.send(*names(20))
        assert program.wait() == -signal.SIGBUS
    with work.run() as program:
        program.wait_line(r'WARNING .*gang.scoreboard had been truncated')
        work.wait_done(names(20))
        assert program.stop() == 0


def test_a_message_that_kills_all_processes_at_once_is_a_dead_letter_in_the_end(work):
    """Its first run is not noted where the supervisor does not survive it; the others are."""
    state = work.folder / 'state'
    state.mkdir()
    work.configure(daemon=f'workers: 2, state_directory: {state}', amqp=RETRY)
    with work.run() as program:
        work.send('massacre poison', *names(20))
        assert program.wait() == -signal.SIGKILL
    for _ in range(3):
        with Program([sys.executable, PROGRAM, '-c', str(work.file), '-f']) as program:
            assert program.wait(30) == -signal.SIGKILL
    with work.run() as program:
        (dead,) = work.wait_dead()
        work.wait_done(names(20))
        assert program.stop() == 0
    assert dead.headers['x-clihelper-reason'] == 'crashed'
    assert work.runs()['poison'] == 4
    assert work.channel.basic_get(f'{work.queue}.dead') is None


def test_what_is_killed_by_a_stop_is_not_blamed(work):
    state = work.folder / 'state'
    state.mkdir()
    work.configure(daemon=f'state_directory: {state}', amqp='retry: {attempts: 1}')
    with work.run() as program:
        work.send('hang slow')
        work.wait_runs(1)
        assert program.stop('QUIT') == 131
    with work.run() as program:
        work.wait_runs(2)
        assert program.stop('QUIT') == 131
    assert work.channel.basic_get(f'{work.queue}.dead') is None


@pytest.mark.parametrize('hang', ['hang', 'seize'])
def test_a_handler_that_hangs_is_killed_and_told_where(work, hang):
    work.configure(daemon='workers: 1', amqp='handler_timeout: 1\n  retry: {attempts: 2}')
    with work.run() as program:
        work.send(f'{hang} stuck', *names(10))
        program.wait_line('on_message has not returned for 1.0 s')
        program.wait_line('died here')
        program.wait_line(rf'gang.py", line \d+ in do_{hang}')
        program.wait_line('SIGABRT')
        (dead,) = work.wait_dead()
        work.wait_done(names(10))
        assert program.stop() == 0
    assert dead.headers['x-clihelper-reason'] == 'timeout'
    assert dead.headers['x-clihelper-attempts'] == 2
    assert work.runs()['stuck'] == 2


def test_a_slow_sequence_of_quick_handlers_is_no_hanging_one(work):
    work.configure(amqp='handler_timeout: 0.6', daemon='workers: 1')
    with work.run() as program:
        work.send(*(f'nap {name}' for name in names(5)))
        work.wait_done(names(5))
        assert program.stop() == 0
        assert not [line for line in program.lines if 'has not returned' in line]
    assert set(work.runs().values()) == {1}


def test_a_worker_is_replaced_after_so_many_messages(work):
    work.configure(daemon='workers: 2, max_messages: 50')
    with work.run() as program:
        work.send(*names(1000))
        work.wait_done(names(1000))
        assert program.stop() == 0
        assert not [line for line in program.lines if 'ERROR' in line or 'Traceback' in line]
    assert set(work.runs().values()) == {1}
    handled = collections.Counter(note[2] for note in work.notes() if note[0] == 'done')
    assert max(handled.values()) <= 50
    assert len(handled) >= 20
    full = sorted(handled.values())[2:]  # all but the last two
    assert min(full) >= 40
    assert len(set(full)) > 2  # not all at the same number


def test_consuming_goes_on_while_the_workers_are_replaced(work):
    with work.run() as program:
        for number in range(1, 6):
            work.send(*(f'm{number}-{index}' for index in range(100)))
            program.signal('HUP')
            program.wait_ready()
        expected = {f'm{number}-{index}' for number in range(1, 6) for index in range(100)}
        work.wait_done(expected)
        assert program.stop() == 0
    assert set(work.runs()) == expected


def test_a_generation_that_fails_leaves_the_consumers_in_place(work):
    with work.run() as program:
        work.configure(more='fail: true')
        program.signal('HUP')
        program.wait_line('the reload is given up, the old workers go on: ValueError: no hands')
        work.send(*names(10))
        work.wait_done(names(10))
        assert program.stop() == 0


def test_a_stop_finishes_what_is_in_hand_and_gives_the_rest_back(work):
    work.configure(daemon='workers: 2, stop_timeout: 3')
    with work.run() as program:
        work.send('nap one', 'nap two', *(f'nap {name}' for name in names(30)))
        work.wait_runs(2)
        assert program.stop() == 0
    done, runs = work.runs('done'), work.runs()
    assert done == runs
    assert 2 <= len(done) < 10
    work.wait_left(32 - len(done))


def test_stragglers_leave_their_messages_in_the_queue(work):
    work.configure(daemon='workers: 2, stop_timeout: 0.5')
    with work.run() as program:
        work.send('seize one', 'hang two')
        work.wait_runs(2)
        started = time.monotonic()
        assert program.stop() == 143
        assert time.monotonic() - started < 2.5
    work.wait_left(2)


def test_orphans_end_and_their_messages_are_delivered_again(work):
    with work.run() as program:
        pids = children(program.pid)
        program.signal('KILL')
        wait_gone(pids, 2)
    work.send('after')
    with work.run() as program:
        work.wait_done(['after'])
        assert program.stop() == 0


def test_messages_are_counted_in_the_status_line(work):
    with work.run() as program:
        work.send(*names(10))
        end = time.monotonic() + 15
        while not any('10 messages' in n.get('STATUS', '') for n in program.notifications):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert program.stop() == 0


def test_a_refused_login_ends_the_service_with_its_own_status(work):
    work._url = work._url.replace('guest:guest', 'guest:wrong')
    work.configure()
    argv = [sys.executable, PROGRAM, '-c', str(work.file), '-f']
    with Program(argv) as program:
        assert program.wait(30) == 69
        assert 'refuses the credentials' in program.lines[-1]


def test_a_worker_that_waits_for_its_broker_is_no_start_that_hangs(work, broker):
    with Proxy(broker.port) as proxy:
        work._url = proxy.url
        work.configure(daemon='workers: 2, start_timeout: 0.5')
        with work.run() as program:
            proxy.swallow()
            os.kill(children(program.pid)[0], signal.SIGKILL)
            proxy.wait_connects(proxy.connects + 1)
            waits = program.wait_line(r'no broker: .*; next attempt', timeout=15)
            assert waits
            assert 'start_timeout' not in str(program)
            proxy.cut()
            proxy.resume()
            program.wait_line(r'worker \d \(pid \d+\) is ready', timeout=15)
            work.send(*names(20))
            work.wait_done(names(20))
            assert program.stop() == 0


def test_workers_that_reach_their_number_of_messages_go_on_while_none_can_be_started(work):
    daemon = 'workers: 2, max_messages: 50'
    work.configure(daemon=daemon)
    with work.run() as program:
        work.configure(daemon=daemon, more='fail: true')
        program.signal('USR1')
        os.kill(children(program.pid)[0], signal.SIGKILL)
        program.wait_line('1 of 2 workers ready; starting another')
        work.send(*names(500))
        work.wait_done(names(500))
        program.wait_line('Daemon.max_messages is reached, and no other process can be started')
        work.configure(daemon=daemon)
        program.signal('USR1')
        program.wait_line('all workers can be started again')
        work.send(*(f'n{number}' for number in range(500)))
        work.wait_done(f'n{number}' for number in range(500))
        program.wait_line('Daemon.max_messages is reached: another process takes over')
        assert program.stop() == 0
    assert set(work.runs().values()) == {1}


def test_a_worker_killed_again_and_again_loses_nothing(work):
    """A short one of what ``make bench`` does for a minute."""
    work.configure(daemon='workers: 4')
    bodies = names(5000)
    with work.run() as program:
        work.send(*bodies)
        for _ in range(20):
            pids = children(program.pid)
            if pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pids[0], signal.SIGKILL)
            time.sleep(0.05)
        work.wait_done(bodies)
        assert program.stop() == 0
