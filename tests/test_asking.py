"""clihelper reload, stacks, log-level and workers, of daemons that really run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clihelper.operations import stacks
from tests.asked import Asked, stop
from tests.test_control import ROOT, clihelper
from tests.test_status import KINDS as CONSUMERS
from tests.test_status import start as start_consumer
from tests.test_workers_amqp import Work

KINDS = {'interval': 1, '2 workers': 2, 'ioloop': 1, '2 on the IOLoop': 2, 'own': 1}
SINGLE = pytest.mark.parametrize('kind', ['interval', 'ioloop', 'own'])
EACH = pytest.mark.parametrize('kind', KINDS)


def asked(folder, kind, *, daemon='', **options):
    """Start the daemon of a kind of :data:`KINDS`."""
    name = {'2 workers': 'interval', '2 on the IOLoop': 'ioloop'}.get(kind, kind)
    return Asked(folder, kind=name, daemon=f'workers: {KINDS[kind]}, {daemon}', **options)


def configure(daemon, kind, more='', keys=''):
    daemon.configure(f'workers: {KINDS[kind]}, {keys}', more)


# reload


@EACH
def test_reload_returns_when_the_new_configuration_is_in_force_everywhere(tmp_path, kind):
    with asked(tmp_path, kind, more='word: old') as daemon:
        configure(daemon, kind, 'word: new')
        done = daemon.ask('reload')
        assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
        for worker in range(1, KINDS[kind] + 1):
            assert f'setup {worker} new' in daemon.log()
        configure(daemon, kind, 'word: newer')
        assert daemon.ask('reload', '--in-place').returncode == 0
        for worker in range(1, KINDS[kind] + 1):
            assert f'adopted {worker} newer' in daemon.log()
        daemon.stop()


@EACH
@pytest.mark.parametrize('options', [(), ('--in-place',)])
def test_reload_prints_the_faults_and_the_old_configuration_stays(tmp_path, kind, options):
    with asked(tmp_path, kind) as daemon:
        daemon.file.write_text('Deamon: {}\nDaemon: {x: 1}\n')
        done = daemon.ask('reload', *options)
        assert done.returncode == 78
        lines = done.stderr.splitlines()
        assert len(lines) == 2
        assert f'{daemon.file}:1:1: Deamon: unknown section; did you mean Daemon?' in lines[0]
        assert f'{daemon.file}:2:10: Daemon.x: unknown key' in lines[1]
        assert daemon.is_running
        configure(daemon, kind)
        assert daemon.ask('reload', *options).returncode == 0
        daemon.stop()


@EACH
def test_a_reload_that_is_undone_is_status_1_with_the_reason(tmp_path, kind):
    with asked(tmp_path, kind) as daemon:
        configure(daemon, kind, f'fail: {"all" if KINDS[kind] == 1 else 2}')
        done = daemon.ask('reload')
        assert done.returncode == 1
        assert done.stderr.count('\n') == 1
        assert 'ValueError: no hands' in done.stderr
        assert daemon.is_running
        configure(daemon, kind)
        assert daemon.ask('reload').returncode == 0
        daemon.stop()


@EACH
def test_what_fails_in_place_is_said(tmp_path, kind):
    with asked(tmp_path, kind) as daemon:
        configure(daemon, kind, 'fail_in_place: true')
        done = daemon.ask('reload', '--in-place')
        assert done.returncode == 1
        assert done.stderr.count('ValueError: not in place') == KINDS[kind]
        daemon.stop()


@pytest.mark.parametrize('options', [(), ('--in-place',)])
def test_reload_waits_for_the_work_in_hand_and_gives_up_in_time(tmp_path, options):
    gate = tmp_path / 'gate'
    with Asked(tmp_path, more=f'do: gate, gate: {gate}') as daemon:
        daemon.wait_logged('at the gate')
        done = daemon.ask('reload', *options, '--timeout', '0.3')
        assert done.returncode == 75
        assert done.stderr == (f'clihelper: {daemon.pidfile}: the daemon does not answer in time;'
                               ' the reload may go on\n')
        waiting = subprocess.Popen(
            [sys.executable, ROOT / 'bin/clihelper', 'reload', *options, '--pidfile',
             daemon.pidfile], env={**os.environ, 'PYTHONPATH': str(ROOT)})
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)
        gate.touch()
        assert waiting.wait(20) == 0
        daemon.stop()


@pytest.mark.parametrize('kind', ['interval', '2 workers'])
def test_a_stop_ends_the_wait_for_a_reload(tmp_path, kind):
    gate = tmp_path / 'gate'
    with asked(tmp_path, kind) as daemon:
        configure(daemon, kind, f'slow: {gate}', 'stop_timeout: 20')
        waiting = subprocess.Popen(
            [sys.executable, ROOT / 'bin/clihelper', 'reload', '--pidfile', daemon.pidfile],
            env={**os.environ, 'PYTHONPATH': str(ROOT)}, stderr=subprocess.PIPE, text=True)
        daemon.wait_logged('in _setup')
        daemon.signal('TERM')
        if KINDS[kind] == 2:  # before the workers have stopped
            assert waiting.communicate(timeout=20)[1].endswith(': it is being stopped\n')
        gate.touch()
        _, text = waiting.communicate(timeout=20)
        assert waiting.returncode == 75, text
        daemon.wait()


def test_a_reload_in_place_does_not_wait_for_a_worker_that_is_being_stopped(tmp_path):
    gate = tmp_path / 'gate'
    more = f'do: gate, only: 2, gate: {gate}'
    with Asked(tmp_path, daemon='workers: 2', more=more) as daemon:
        daemon.wait_logged('at the gate')
        assert daemon.ask('workers', '1').returncode == 0
        assert len(daemon.workers()) == 2
        daemon.configure('workers: 1', more)
        assert daemon.ask('reload', '--in-place').returncode == 0
        gate.touch()
        daemon.stop()


def test_a_program_that_handles_hup_itself_is_said_to(tmp_path):
    with Asked(tmp_path, kind='stubborn') as daemon:
        done = daemon.ask('reload')
        assert done.returncode == 1
        assert 'the program handles that signal itself, and has begun no reload' in done.stderr
        daemon.stop()


def test_several_who_wait_are_all_told(tmp_path):
    with Asked(tmp_path, daemon='workers: 2') as daemon:
        waiting = [
            subprocess.Popen([sys.executable, ROOT / 'bin/clihelper', 'reload', '--pidfile',
                              daemon.pidfile], env={**os.environ, 'PYTHONPATH': str(ROOT)})
            for _ in range(5)
        ]
        daemon.signal('HUP')
        assert [each.wait(30) for each in waiting] == [0] * 5
        daemon.stop()


def test_reload_without_waiting_and_without_a_socket_sends_the_signal(tmp_path):
    with Asked(tmp_path) as daemon:
        assert daemon.ask('reload', '--no-wait').returncode == 0
        daemon.wait_logged('SIGHUP')
        daemon.stop()
    with Asked(tmp_path, daemon='control: false') as daemon:
        done = daemon.ask('reload')
        assert done.returncode == 0
        assert done.stderr.endswith(': signalled; its log says what has become of it\n')
        assert done.stderr.count('\n') == 1
        daemon.wait_logged('SIGHUP', 2)
        daemon.stop()


# stacks


@EACH
def test_stacks_of_every_thread_and_task_of_every_worker(tmp_path, kind):
    with asked(tmp_path, kind) as daemon:
        done = daemon.ask('stacks')
        assert done.returncode == 0, done
        heads = re.findall(r'^worker (\d), pid (\d+)$', done.stdout, re.M)
        assert [int(worker) for worker, _ in heads] == list(range(1, KINDS[kind] + 1))
        pids = daemon.workers() if KINDS[kind] > 1 else [daemon.pid]
        assert {int(pid) for _, pid in heads} == set(pids)
        assert done.stdout.count('thread MainThread:') == KINDS[kind]
        if 'ioloop' in kind.lower():
            (first, *_) = done.stdout.split('task the waiting one:')[1].split('task ')
            assert re.findall(r' in (\w+)', first)[:2] == ['wait_outside', 'wait_inside']
            assert 'await asyncio.sleep(3600)' in first
        objects = json.loads(daemon.ask('stacks', '--json').stdout)
        assert [each['worker'] for each in objects] == list(range(1, KINDS[kind] + 1))
        assert {each['answered'] for each in objects} == {True}
        daemon.stop()


@pytest.mark.parametrize('kind', ['interval', '2 workers', 'ioloop', 'own'])
def test_stacks_while_a_hook_runs(tmp_path, kind):
    with asked(tmp_path, kind, more=f'do: gate, gate: {tmp_path}/gate') as daemon:
        daemon.wait_logged('at the gate', KINDS[kind])
        text = daemon.ask('stacks').stdout
        assert text.count('in do_gate') == KINDS[kind]
        (tmp_path / 'gate').touch()
        daemon.stop()


@pytest.mark.parametrize('kind', ['interval', '2 workers', 'ioloop'])
def test_stacks_of_what_is_stuck_in_c_are_there_within_a_second(tmp_path, kind, figure):
    with asked(tmp_path, kind, more='do: seize') as daemon:
        daemon.wait_logged('seizing', KINDS[kind])
        took = []
        for _ in range(3):  # other work on the machine may take its time from one of them
            began = time.monotonic()
            done = daemon.ask('stacks')
            took.append(time.monotonic() - began)
            assert done.returncode == 0, done
            assert done.stdout.count(' in do_seize') == KINDS[kind]
            assert done.stdout.count('does not answer; from C') == KINDS[kind]
        figure(f'stacks of what is stuck in C, {kind}', f'{min(took):.2f} s')
        assert min(took) < 1


def test_one_that_is_stuck_does_not_hide_the_others(tmp_path):
    with Asked(tmp_path, daemon='workers: 2') as daemon:
        first, second = daemon.workers()
        stop(first)
        done = daemon.ask('stacks')
        assert done.returncode == 75
        assert f'pid {second}\n' in done.stdout
        assert re.search(rf'worker \d, pid {first}: is stopped, or in the kernel', done.stderr)
        os.kill(first, signal.SIGCONT)
        assert daemon.ask('stacks').returncode == 0
        daemon.stop()


def test_a_process_that_does_not_write_its_stacks_is_not_signalled():
    with subprocess.Popen(['sleep', '60']) as process:
        try:
            with pytest.raises(LookupError, match='does not write its stacks'):
                stacks.dump(process.pid, 1)
            assert process.poll() is None
        finally:
            process.kill()


def test_memory_of_the_name_is_not_enough_to_be_signalled():
    code = (f'import os, time; os.memfd_create({stacks.NAME!r}); print(flush=True)\n'
            'time.sleep(60)')
    with subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(LookupError, match='does not write its stacks'):
                stacks.dump(process.pid, 1)
            assert process.poll() is None
        finally:
            process.kill()


@pytest.fixture
def work(tmp_path, broker, queue_name):
    work = Work(tmp_path, broker, queue_name)
    yield work
    work.close()


@pytest.mark.parametrize('workers', [1, 2])
@pytest.mark.parametrize('kind', CONSUMERS)
def test_a_consumer_is_asked_while_a_message_is_handled(work, kind, workers):
    name, section = CONSUMERS[kind]
    with start_consumer(work, f'workers: {workers}', section, KIND=name) as daemon:
        pidfile = work.folder / 'gang.pid'
        work.send('gate it')
        work.wait_runs(1)
        end = time.monotonic() + 20
        while (text := clihelper('stacks', '--pidfile', pidfile).stdout).count('in do_gate') != 1:
            assert time.monotonic() < end, text
        assert clihelper('log-level', 'gang', 'DEBUG', '--pidfile', pidfile).returncode == 0
        with contextlib.ExitStack() as held:
            waiting = held.enter_context(subprocess.Popen(
                [sys.executable, ROOT / 'bin/clihelper', 'reload', '--pidfile', pidfile],
                env={**os.environ, 'PYTHONPATH': str(ROOT)}))
            if workers == 1:
                with pytest.raises(subprocess.TimeoutExpired):
                    waiting.wait(0.5)
            (work.folder / 'notes.open').touch()
            assert waiting.wait(30) == 0
        work.wait_done(['it'])
        daemon.stop()


# log-level


@EACH
def test_a_level_holds_in_every_worker_until_a_reload(tmp_path, kind):
    with asked(tmp_path, kind) as daemon:
        done = daemon.ask('log-level', 'asked', 'debug')
        assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
        for worker in range(1, KINDS[kind] + 1):
            daemon.wait_logged(f'debug of {worker}')
        assert "level of the logger 'asked' is DEBUG, by the control socket" in daemon.log()
        assert daemon.ask('reload').returncode == 0
        before = daemon.log().count('debug of')
        daemon.wait_worked()
        # What was in hand when the workers were replaced may still have been logged.
        assert daemon.log().count('debug of') <= before + KINDS[kind]
        daemon.stop()


@pytest.mark.parametrize('kind', ['interval', '2 workers', 'ioloop'])
def test_a_level_holds_for_a_time(tmp_path, kind):
    with asked(tmp_path, kind) as daemon:
        began = time.monotonic()
        assert daemon.ask('log-level', 'root', 'DEBUG', '--for', '2s').returncode == 0
        if KINDS[kind] == 2:  # one that takes another's place has it, and ends it
            os.kill(daemon.workers()[0], signal.SIGKILL)
            daemon.wait_logged('setup', 3)
        for worker in range(1, KINDS[kind] + 1):
            daemon.wait_logged(f'debug of {worker}')
        time.sleep(max(began + 3.5 - time.monotonic(), 0))
        before = daemon.log()
        daemon.wait_worked()
        assert daemon.log() == before
        assert daemon.ask('log-level', 'asked', 'DEBUG', '--for', '1h').returncode == 0
        daemon.wait_logged('debug of 1', before.count('debug of 1') + 1)
        assert daemon.ask('reload', '--in-place').returncode == 0
        before = daemon.log()
        daemon.wait_worked()
        assert daemon.log() == before
        daemon.stop()


def test_a_logger_that_nothing_has_used_is_noted(tmp_path):
    with Asked(tmp_path, daemon='workers: 2') as daemon:
        done = daemon.ask('log-level', 'askde', 'DEBUG')
        assert done.returncode == 0
        assert done.stderr == (f"clihelper: {daemon.pidfile}: nothing has used the logger 'askde'"
                               ' yet\n')
        daemon.stop()


def test_a_worker_that_is_stopped_has_log_level_say_so(tmp_path):
    with Asked(tmp_path, daemon='workers: 2') as daemon:
        first, _ = daemon.workers()
        stop(first)
        done = daemon.ask('log-level', 'asked', 'DEBUG')
        assert done.returncode == 75
        assert re.search(r': worker \d: does not answer\n$', done.stderr)
        os.kill(first, signal.SIGCONT)
        daemon.stop()


@pytest.mark.parametrize('words', [
    ('log-level',), ('log-level', 'a'), ('log-level', 'a', 'LOUD'),
    ('log-level', 'a', 'DEBUG', '--for', 'ever'), ('log-level', 'a', 'DEBUG', '--for', '-1'),
    ('log-level', 'a', 'DEBUG', '--for', '9999999d'), ('workers', '0'), ('workers', '1025'),
    ('workers', '9' * 5000), ('stacks', '--for', '1'), ('reload', '--timeout', 'x'),
    ('reload', '--timeout', '1', '--no-wait'), ('workers', '1', '2', '3'),
])
def test_a_wrong_question_is_one_line_and_status_2(words):
    done = clihelper(*words, '--pidfile', '/nowhere.pid')
    assert (done.returncode, done.stdout, done.stderr.count('\n')) == (2, '', 1), done


@pytest.mark.parametrize('words', [
    ('reload',), ('stacks',), ('workers',), ('workers', '2'), ('log-level', 'a', 'DEBUG'),
])
def test_what_does_not_run_is_status_7(tmp_path, words):
    done = clihelper(*words, '--pidfile', tmp_path / 'none.pid')
    assert (done.returncode, done.stdout) == (7, '')
    assert done.stderr == f'clihelper: {tmp_path}/none.pid: does not run\n'


@pytest.mark.parametrize('command', ['reload', 'stacks', 'workers', 'log-level'])
def test_each_has_help_with_an_example_and_statuses(command):
    done = clihelper(command, '--help')
    assert done.returncode == 0
    assert f'\nExample: clihelper {command} ' in done.stdout
    assert 'The exit status is 0 if' in done.stdout


# workers


def test_workers_are_counted_and_changed_until_a_reload(tmp_path):
    with Asked(tmp_path, daemon='workers: 2') as daemon:
        assert daemon.ask('workers').stdout == f'{daemon.pidfile}: 2 workers, 2 ready\n'
        assert daemon.ask('workers', '4').returncode == 0
        wait_workers(daemon, 4)
        assert json.loads(daemon.ask('workers', '--json').stdout) == {'workers': 4, 'ready': 4}
        assert json.loads(daemon.ask('status', '--json').stdout)['workers'] == 4
        assert daemon.ask('workers', '1').returncode == 0
        wait_workers(daemon, 1)
        daemon.configure('workers: 3')
        assert daemon.ask('reload').returncode == 0
        wait_workers(daemon, 3)
        assert daemon.ask('workers').stdout == f'{daemon.pidfile}: 3 workers, 3 ready\n'
        daemon.stop()


def test_workers_that_were_added_are_in_the_status(tmp_path):
    with Asked(tmp_path, daemon='workers: 2') as daemon:
        assert daemon.ask('workers', '9').returncode == 0
        wait_workers(daemon, 9)
        assert workers_of_status(daemon) == {*range(1, 10)}
        daemon.configure('workers: 10')
        assert daemon.ask('reload').returncode == 0
        wait_workers(daemon, 10)
        assert workers_of_status(daemon) == {*range(1, 11)}
        daemon.stop()


def test_where_address_space_is_limited_the_workers_of_the_configuration_are_in_the_status(
    tmp_path
):
    limit = 512 * 2**20
    with Asked(tmp_path, daemon='workers: 2', preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_AS, (limit, limit))) as daemon:
        assert workers_of_status(daemon) == {1, 2}
        daemon.stop()


def workers_of_status(daemon):
    processes = json.loads(daemon.ask('status', '--json').stdout)['processes']
    return {each['worker'] for each in processes}


def wait_workers(daemon, count):
    end = time.monotonic() + 10
    while len(daemon.workers()) != count or f'{count} ready' not in daemon.ask('workers').stdout:
        assert time.monotonic() < end, daemon.log()
        time.sleep(0.05)


@SINGLE
def test_without_a_supervisor_it_is_said_how_to_have_one(tmp_path, kind):
    with asked(tmp_path, kind) as daemon:
        assert daemon.ask('workers').stdout == f'{daemon.pidfile}: 1 worker, 1 ready\n'
        done = daemon.ask('workers', '2')
        assert done.returncode == 2
        assert done.stderr == (
            f'clihelper: {daemon.pidfile}: there is no supervisor: it takes Daemon.workers: 2, or'
            ' more, in the configuration, and a restart\n')
        daemon.stop()


def test_a_daemon_that_is_asked_nothing_has_one_thread_more_and_does_not_wake(tmp_path):
    with Asked(tmp_path, interval=3600) as daemon:
        daemon.ask('workers')
        status = Path(f'/proc/{daemon.pid}/status').read_text()
        assert re.search(r'^Threads:\s*2$', status, re.M)
        before = switches(daemon.pid)
        time.sleep(1)
        assert switches(daemon.pid) == before
        daemon.stop()


def switches(pid):
    """How often the threads of a process have gone to sleep."""
    return sum(
        int(re.search(r'^voluntary_ctxt_switches:\s*(\d+)', path.read_text(), re.M)[1])
        for path in Path(f'/proc/{pid}/task').glob('*/status'))
