"""Each signal in each phase of a program's life, in the foreground and as a daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clihelper.errors import StoppedEarly
from clihelper.process.deadline import Deadline, signal_later
from clihelper.process.pidfile import probe
from clihelper.process.signals import Interrupted, Signals
from tests.forking import fork, status_of
from tests.life import LOGGING, Life, settled

CONFIG = """\
Daemon: {pidfile: FOLDER/pid}
AMQP: {url: 'memory://', queues: {greetings: {}}}
"""

#: The phases before the program is ready, and the class that comes by each.
BEFORE_READY = {
    'options': 'Periodic',
    'configuration': 'Periodic',
    'import': 'SlowToImport',
    'setup': 'Periodic',
}

#: The phases in which something is in hand, and the report of its end.
AT_WORK = {
    'process': ('Periodic', 'processed'),
    'message': ('Consumer', 'handled hello'),
}

FOREGROUND, DAEMON = ('-f',), ()

STOPPED_EARLY = 'phases: stopped before it was ready'


def phases(folder: Path, controller: str, held_at: str, options: tuple[str, ...] = FOREGROUND,
           **arguments: object) -> Life:
    log = LOGGING
    if held_at == 'configuration':  # reading it imports slow_handler.py
        log = LOGGING.replace('handlers: {', 'handlers: {slow: {class: slow_handler.Handler}, ')
    return Life(folder, 'phases.py', controller, options=options, config=CONFIG, log=log,
                held_at=held_at, **arguments)


def signal_held(life: Life, signum: str) -> None:
    """Send a signal to a program that is held up, and return once its handler has run.

    Signals do not queue: the same one sent again before that would be lost.
    """
    with handled_by(life.pid):
        life.signal(signum)


@contextmanager
def handled_by(pid: int) -> Iterator[None]:
    """A context after which a process that is held up has handled the signal sent in it."""
    asleep = settled(pid)
    yield
    while settled(pid) == asleep:
        pass


# Before the program is ready.

@pytest.mark.parametrize('phase', BEFORE_READY)
@pytest.mark.parametrize('signum', ['TERM', 'INT'])
def test_a_stop_before_it_is_ready_is_status_75(
    tmp_path: Path, phase: str, signum: str
) -> None:
    with phases(tmp_path, BEFORE_READY[phase], phase) as life:
        life.wait_report(phase)
        life.signal(signum)
        life.let_go()
        assert life.wait() == 75
        assert life.program.stderr == [STOPPED_EARLY]
        assert 'process' not in life.take_reports()
        assert ('cleanup' in life.reported) == ('setup' in life.reported)


@pytest.mark.parametrize('phase', ['import', 'setup'])
def test_a_second_int_before_it_is_ready_ends_it_at_once(tmp_path: Path, phase: str) -> None:
    with phases(tmp_path, BEFORE_READY[phase], phase) as life:
        life.wait_report(phase)
        signal_held(life, 'TERM')
        life.signal('INT')
        assert life.wait() == 130
        assert life.program.stderr == ['phases: stopped at once by SIGINT']


@pytest.mark.parametrize('phase', ['options', 'configuration'])
@pytest.mark.parametrize('signums', ['INT TERM', 'INT QUIT', 'TERM QUIT'])
def test_two_stops_at_once_before_it_is_ready_are_one(
    tmp_path: Path, phase: str, signums: str
) -> None:
    with phases(tmp_path, BEFORE_READY[phase], phase) as life:
        life.wait_report(phase)
        life.signal(*signums.split())
        assert life.wait() in (75, 131)
        assert len(life.program.stderr) == 1


@pytest.mark.parametrize('phase', BEFORE_READY)
def test_quit_before_it_is_ready_is_status_131(tmp_path: Path, phase: str) -> None:
    with phases(tmp_path, BEFORE_READY[phase], phase) as life:
        life.wait_report(phase)
        life.signal('QUIT')
        assert life.wait() == 131
        assert life.program.stderr == ['phases: stopped at once by SIGQUIT']


@pytest.mark.parametrize('phase', BEFORE_READY)
@pytest.mark.parametrize(('signum', 'effect'), [
    ('HUP', 'RELOADING'), ('USR1', 'reloaded'), ('USR2', 'stacks'),
])
def test_other_signals_before_it_is_ready_are_served_after_setup(
    tmp_path: Path, phase: str, signum: str, effect: str
) -> None:
    with phases(tmp_path, BEFORE_READY[phase], phase) as life:
        life.wait_report(phase)
        life.signal(signum)
        life.let_go()
        if phase != 'setup':
            life.wait_report('setup')
        life.wait_report(effect)
        life.wait_report('SLEEPING')
        life.signal('TERM')
        assert life.wait() == 0


def test_before_run_is_called_signals_do_what_they_do_to_every_program(tmp_path: Path) -> None:
    with phases(tmp_path, 'Periodic', 'start') as life:
        life.wait_report('start')
        life.signal('TERM')
        assert life.wait() == -signal.SIGTERM
        assert life.program.stderr == []


@pytest.mark.parametrize('signum', ['TERM', 'INT', 'QUIT'])
def test_a_stop_while_it_detaches_leaves_no_daemon(tmp_path: Path, signum: str) -> None:
    with phases(tmp_path, 'Periodic', 'fork', DAEMON) as life:
        life.wait_report('fork')
        send_to_command(life, signum)
        life.let_go(2)
        assert life.wait_command() in ((75, 131) if signum == 'QUIT' else (75,))
        life.program.wait()  # all that it has written is there then
        assert_stopped(life)
        assert probe(str(tmp_path / 'pid'))[0] != 'running'


@pytest.mark.parametrize('signum', ['TERM', 'INT', 'QUIT'])
def test_a_stop_that_was_ignored_when_the_command_started_stops_it_while_it_detaches(
    tmp_path: Path, signum: str
) -> None:
    # A shell without job control starts "command &" with INT and QUIT ignored.
    with phases(tmp_path, 'Periodic', 'fork', DAEMON, preexec_fn=ignore_stops) as life:
        life.wait_report('fork')
        life.signal(signum)  # to the child that will be the daemon's parent
        send_to_command(life, signum)
        life.let_go()
        assert life.wait_command() in (75, 131)
        life.program.wait()
        assert_stopped(life)


def assert_stopped(life: Life) -> None:
    """Its one line says how; only if the stop came late the daemon has begun its work."""
    (line,) = life.program.stderr
    assert line.startswith('phases: stopped ')
    if 'process' in life.take_reports():
        assert 'as soon as it was ready' in line


def ignore_stops() -> None:
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_IGN)


@pytest.mark.parametrize(('signum', 'status'), [('TERM', 0), ('INT', 0), ('QUIT', 131)])
def test_a_stop_that_reaches_a_daemon_that_is_ready_already_is_said_by_the_command(
    tmp_path: Path, signum: str, status: int
) -> None:
    with phases(tmp_path, 'Periodic', 'fork', DAEMON) as life:
        life.wait_report('fork')
        send_to_command(life, 'STOP')
        life.let_go()
        life.wait_report('processed')
        send_to_command(life, signum, 'CONT')
        assert life.wait_command() == 75
        assert life.wait_daemon() == status
        assert life.program.stderr == [
            f'phases: stopped as soon as it was ready (pid {life.pid})']


@pytest.mark.parametrize('phase', ['import', 'setup'])
@pytest.mark.parametrize('signum', ['TERM', 'INT'])
def test_a_stop_of_the_command_stops_the_daemon_that_starts(
    tmp_path: Path, phase: str, signum: str
) -> None:
    with phases(tmp_path, BEFORE_READY[phase], phase, DAEMON) as life:
        life.wait_report(phase)
        with handled_by(life.pid):
            send_to_command(life, signum)
        life.let_go()
        assert life.wait_command() == 75
        assert life.program.stderr == [STOPPED_EARLY]
        assert life.wait_daemon() == 75
        assert 'process' not in life.take_reports()
        assert not (tmp_path / 'pid').exists()


@pytest.mark.parametrize('phase', ['import', 'setup'])
def test_quit_to_the_command_ends_the_daemon_at_once(tmp_path: Path, phase: str) -> None:
    with phases(tmp_path, BEFORE_READY[phase], phase, DAEMON) as life:
        life.wait_report(phase)
        send_to_command(life, 'QUIT')
        assert life.wait_command() == 131
        assert life.program.stderr == ['phases: stopped at once by SIGQUIT']
        assert life.wait_daemon() == 131


def send_to_command(life: Life, *signums: str) -> None:
    for signum in signums:
        os.kill(life.command, signal.Signals[f'SIG{signum}'])


@pytest.mark.parametrize('phase', ['import', 'setup'])
@pytest.mark.parametrize(('signum', 'status', 'line'), [
    ('TERM', 75, STOPPED_EARLY),
    ('QUIT', 131, 'phases: stopped at once by SIGQUIT'),
])
def test_the_command_returns_the_status_of_a_daemon_stopped_before_it_was_ready(
    tmp_path: Path, phase: str, signum: str, status: int, line: str
) -> None:
    with phases(tmp_path, BEFORE_READY[phase], phase, DAEMON) as life:
        life.wait_report(phase)
        life.signal(signum)
        life.let_go()
        assert life.wait_command() == status
        assert life.program.stderr == [line]
        assert life.wait_daemon() == status
        assert not (tmp_path / 'pid').exists()


# While it sleeps.

@pytest.mark.parametrize('controller', ['Periodic', 'Consumer', 'Ioloop'])
@pytest.mark.parametrize(('signum', 'status'), [('TERM', 0), ('INT', 0), ('QUIT', 131)])
def test_a_stop_while_it_sleeps_cleans_up(
    tmp_path: Path, controller: str, signum: str, status: int
) -> None:
    with phases(tmp_path, controller, '') as life:
        life.wait_report('SLEEPING')
        life.signal(signum)
        assert life.wait() == status
        assert life.take_reports().count('cleanup') == 1
        assert ('after run' in life.reported) == (status == 0)


@pytest.mark.parametrize('controller', ['Periodic', 'Consumer', 'Ioloop'])
def test_hup_begins_again_in_the_same_process(tmp_path: Path, controller: str) -> None:
    with phases(tmp_path, controller, '') as life:
        life.wait_report('SLEEPING')
        pid, before = life.pid, len(life.take_reports())
        life.signal('HUP')
        life.wait_report('SLEEPING')
        life.signal('TERM')
        assert life.wait() == 0
        assert life.pid == pid
        hooks = [each for each in life.take_reports()[before:] if each in ('cleanup', 'setup')]
        assert hooks == ['cleanup', 'setup', 'cleanup']
        assert life.reported[before:].index('cleanup') < life.reported[before:].index('setup')


@pytest.mark.parametrize('controller', ['Periodic', 'Consumer', 'Ioloop'])
def test_usr1_and_usr2_do_not_wake_it(tmp_path: Path, controller: str) -> None:
    with phases(tmp_path, controller, '') as life:
        life.wait_report('SLEEPING')
        before = len(life.take_reports())
        life.signal('USR1')
        life.wait_report('reloaded 60.0')
        life.signal('USR2')
        life.wait_report('stacks')
        life.signal('TERM')
        assert life.wait() == 0
        assert 'ACTIVE' not in life.take_reports()[before:]
        assert life.logged('state SLEEPING') == 1
        assert life.logged('phases.py", line') > 0


def test_usr2_is_answered_while_a_hook_works(tmp_path: Path) -> None:
    with phases(tmp_path, 'Busy', 'process') as life:
        life.wait_report('process')
        life.signal('USR2')
        life.wait_logged('state ACTIVE')
        life.wait_logged('in _process')
        life.let_go()
        life.signal('TERM')
        assert life.wait() == 0
        assert life.logged('state ') == 1


def test_usr2_says_what_a_consumer_has(tmp_path: Path) -> None:
    with phases(tmp_path, 'BusyConsumer', 'message') as life:
        life.wait_report('message')
        life.signal('USR2')
        life.wait_logged('state ACTIVE')
        life.wait_logged('broker memory://, connected for ')
        life.wait_logged(
            'handling a message from queue greetings (message_id id-0, delivery_tag ')
        life.wait_logged('; prefetched 0, held 0, unacknowledged 1')
        life.let_go()
        life.signal('TERM')
        assert life.wait() == 0


# While other code handles signals, too.

@pytest.mark.parametrize(('controller', 'library', 'work'), [
    ('Sharing', 'asyncio', 'processed'),
    ('Sharing', 'other', 'processed'),
    ('SharingConsumer', 'asyncio', 'handled hello'),
    ('SharingConsumer', 'other', 'handled hello'),
    ('SharingIoloop', 'other', 'processed'),
])
def test_signals_arrive_though_other_code_has_taken_the_wakeup_descriptor(
    tmp_path: Path, controller: str, library: str, work: str
) -> None:
    with phases(tmp_path, controller, '', env={'LIBRARY': library}) as life:
        life.wait_report(work)
        life.wait_report('SLEEPING')
        for signum, effect in 2 * [('USR1', 'reloaded'), ('USR2', 'stacks')]:
            settled(life.pid)  # nothing but the handler wakes it where a descriptor is taken
            life.signal(signum)
            life.wait_report(effect)
        settled(life.pid)
        life.signal('HUP')
        life.wait_report('setup')
        life.wait_report('SLEEPING')
        settled(life.pid)
        begin = time.monotonic()
        life.signal('TERM')
        assert life.wait() == 0
        assert time.monotonic() - begin < 3
        assert life.logged('INFO clihelper SIGHUP') == life.logged('INFO clihelper SIGTERM') == 1


def test_a_descriptor_that_other_code_has_taken_still_gets_its_signals(pipe: Signals) -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    try:
        signal.set_wakeup_fd(writer)
        for _ in range(2):
            signal.raise_signal(signal.SIGUSR1)
            assert pipe.read() == [signal.SIGUSR1]
        assert os.read(reader, 10) == bytes([signal.SIGUSR1] * 2)
    finally:
        signal.set_wakeup_fd(-1)
        os.close(reader)
        os.close(writer)
    signal.raise_signal(signal.SIGUSR1)
    assert pipe.read() == [signal.SIGUSR1]


def test_a_handler_of_the_programs_own_is_not_taken_back(pipe: Signals) -> None:
    came: list[int] = []
    signal.signal(signal.SIGUSR1, lambda signum, _: came.append(signum))
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    pipe.retake()
    signal.raise_signal(signal.SIGUSR1)
    signal.raise_signal(signal.SIGUSR2)
    assert came == [signal.SIGUSR1]
    assert pipe.read() == [signal.SIGUSR2]


# While something is in hand.

@pytest.mark.parametrize('phase', AT_WORK)
@pytest.mark.parametrize('options', [FOREGROUND, DAEMON], ids=['foreground', 'daemon'])
@pytest.mark.parametrize('signums', ['TERM', 'INT', 'TERM TERM'])
def test_a_stop_finishes_the_work_in_hand(
    tmp_path: Path, phase: str, options: tuple[str, ...], signums: str
) -> None:
    controller, end = AT_WORK[phase]
    with phases(tmp_path, controller, phase, options) as life:
        life.wait_report(phase)
        before = len(life.take_reports())
        life.signal(*signums.split())
        life.let_go()
        assert (life.wait_daemon() if options is DAEMON else life.wait()) == 0
        after = [each for each in life.take_reports()[before:] if each not in ('IDLE', 'SLEEPING')]
        assert after == [end, 'STOP_REQUESTED', 'STOPPING', 'cleanup', 'STOPPED', 'after run']
        assert not (tmp_path / 'pid').exists()


@pytest.mark.parametrize('phase', AT_WORK)
@pytest.mark.parametrize('options', [FOREGROUND, DAEMON], ids=['foreground', 'daemon'])
def test_quit_abandons_the_work_in_hand(
    tmp_path: Path, phase: str, options: tuple[str, ...]
) -> None:
    controller, end = AT_WORK[phase]
    with phases(tmp_path, controller, phase, options) as life:
        life.wait_report(phase)
        life.signal('QUIT')
        assert (life.wait_daemon() if options is DAEMON else life.wait()) == 131
        assert end not in life.take_reports()
        assert life.reported.count('cleanup') == 1
        assert not (tmp_path / 'pid').exists()


@pytest.mark.parametrize('phase', AT_WORK)
@pytest.mark.parametrize('first', ['INT', 'TERM'])
def test_int_while_it_stops_abandons_the_work_in_hand(
    tmp_path: Path, phase: str, first: str
) -> None:
    controller, end = AT_WORK[phase]
    with phases(tmp_path, controller, phase) as life:
        life.wait_report(phase)
        signal_held(life, first)
        life.signal('INT')
        assert life.wait() == 130
        assert life.program.stderr == ['phases: stopped at once by SIGINT']
        assert end not in life.take_reports()
        assert 'cleanup' in life.reported


@pytest.mark.parametrize('phase', AT_WORK)
@pytest.mark.parametrize(('signum', 'effect'), [
    ('HUP', 'RELOADING'), ('USR1', 'reloaded'), ('USR2', 'stacks'),
])
def test_other_signals_wait_for_the_end_of_the_work_in_hand(
    tmp_path: Path, phase: str, signum: str, effect: str
) -> None:
    controller, end = AT_WORK[phase]
    with phases(tmp_path, controller, phase) as life:
        life.wait_report(phase)
        life.signal(signum)
        life.let_go()
        life.wait_report(end)
        life.wait_report(effect)
        if signum == 'HUP':
            life.wait_report('setup')
        life.wait_report('SLEEPING')
        life.signal('TERM')
        assert life.wait() == 0


# While it cleans up.

@pytest.mark.parametrize('signum', ['TERM', 'HUP', 'USR1', 'USR2'])
def test_while_it_cleans_up_a_signal_is_noted_and_no_more(tmp_path: Path, signum: str) -> None:
    with phases(tmp_path, 'Periodic', 'cleanup') as life:
        life.wait_report('SLEEPING')
        life.signal('TERM')
        life.wait_report('cleanup')
        life.signal(signum)
        life.let_go()
        assert life.wait() == 0
        assert life.take_reports()[-3:] == ['cleanup', 'STOPPED', 'after run']
        assert life.logged(f'SIG{signum} while stopping: noted') == 1


@pytest.mark.parametrize(('signum', 'status'), [('INT', 130), ('QUIT', 131)])
def test_while_it_cleans_up_int_and_quit_end_it_at_once(
    tmp_path: Path, signum: str, status: int
) -> None:
    with phases(tmp_path, 'Periodic', 'cleanup') as life:
        life.wait_report('SLEEPING')
        life.signal('TERM')
        life.wait_report('cleanup')
        life.signal(signum)
        assert life.wait() == status
        assert life.program.stderr == [f'phases: stopped at once by SIG{signum}']


# The pipe itself.

@pytest.fixture
def pipe() -> Iterator[Signals]:
    signals = Signals()
    signals.install()
    yield signals
    signals.uninstall()


def test_the_pipe_has_each_signal_once_in_the_order_of_coming(pipe: Signals) -> None:
    for signum in (signal.SIGHUP, signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM):
        os.kill(os.getpid(), signum)
    assert pipe.wait(0)
    assert pipe.read() == [signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM]
    assert pipe.read() == []
    assert not pipe.wait(0)


def test_a_signal_of_the_programs_own_is_not_the_pipes(pipe: Signals) -> None:
    seen = []
    before = signal.signal(signal.SIGALRM, lambda signum, frame: seen.append(signum))
    signal.signal(signal.SIGUSR2, lambda signum, frame: seen.append(signum))
    try:
        os.kill(os.getpid(), signal.SIGALRM)
        os.kill(os.getpid(), signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert seen == [signal.SIGALRM, signal.SIGUSR2]
    assert pipe.read() == []


def test_what_came_while_somebody_read_is_delivered_when_nobody_reads(pipe: Signals) -> None:
    delivered: list[int] = []
    pipe.deliver = lambda signum, frame: delivered.append(signum)
    with pipe.held():
        os.kill(os.getpid(), signal.SIGHUP)
        assert delivered == []
    assert delivered == [signal.SIGHUP]
    os.kill(os.getpid(), signal.SIGUSR1)
    assert delivered == [signal.SIGHUP, signal.SIGUSR1]
    assert pipe.read() == []


def test_a_signal_interrupts_a_blocking_call_and_is_not_lost(pipe: Signals) -> None:
    reader, writer = os.pipe()
    timer = threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        with pytest.raises(Interrupted), pipe.interrupting():
            os.read(reader, 1)
        assert pipe.wait(0)
        with pytest.raises(Interrupted), pipe.interrupting():
            os.read(reader, 1)
        assert pipe.read() == [signal.SIGTERM]
    finally:
        timer.join()
        os.close(reader)
        os.close(writer)


def test_a_forked_child_has_its_signals_for_itself(pipe: Signals) -> None:
    child = fork(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert status_of(child) == -signal.SIGTERM  # by its default action
    assert pipe.read() == []


def test_uninstalling_gives_the_signals_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    descriptors = os.listdir('/proc/self/fd')
    signals = Signals()
    signals.install()
    signals.install()
    assert signal.getsignal(signal.SIGTERM) != before
    signals.uninstall()
    assert signal.getsignal(signal.SIGTERM) == before
    assert os.listdir('/proc/self/fd') == descriptors
    assert signal.set_wakeup_fd(-1) == -1


def test_waiting_takes_descriptors_of_any_number() -> None:
    code = (
        'import os, resource\n'
        'from clihelper.process.signals import wait_readable\n'
        'hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n'
        'resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))\n'
        'reader, writer = os.pipe()\n'
        'high = os.dup2(reader, 2000)\n'
        'print(wait_readable((reader, high), 0))\n'
        'os.write(writer, b"x")\n'
        'print(sorted(wait_readable((reader, high), None)) == [reader, high])\n'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                            timeout=10)
    assert result.stdout.split() == ['[]', 'True'], result.stderr


def test_a_deadline_that_was_disarmed_is_silent(pipe: Signals) -> None:
    ended: list[int] = []
    deadline = Deadline(ended.append)
    deadline.arm(0.01)
    deadline.disarm()
    assert not pipe.wait(0.05)
    assert not deadline.expired
    assert ended == []


def test_a_deadline_that_passes_interrupts_the_main_thread(pipe: Signals) -> None:
    deadline = Deadline(lambda signum: None)
    deadline.arm(0.01)
    assert pipe.wait(10)
    assert deadline.expired
    deadline.disarm()
    assert pipe.read() == [signal.SIGTERM]


def test_what_stops_a_program_early_is_no_exception_that_an_import_may_swallow() -> None:
    assert not issubclass(StoppedEarly, Exception)
    assert StoppedEarly().code == StoppedEarly.status == 75


def test_a_signal_that_is_due_is_sent_until_it_has_come():
    came = []
    previous = signal.signal(signal.SIGUSR2, lambda *_: came.append(time.monotonic()))
    try:
        signal_later(signal.SIGUSR2, 0.005, lambda: len(came) < 3)
        while len(came) < 3:
            time.sleep(0.001)
        time.sleep(0.1)  # in which none is sent any more
    finally:
        signal.signal(signal.SIGUSR2, previous)
    assert len(came) == 3


def test_a_timer_that_is_left_running_does_not_kill_the_program_at_its_end(tmp_path: Path) -> None:
    program = tmp_path / 'timer.py'
    program.write_text('''\
import signal

import clihelper


class Timer(clihelper.Controller):
    def _setup(self):
        signal.signal(signal.SIGALRM, lambda *arguments: None)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)

    def _process(self):
        self.stop()


clihelper.setup('timer')
clihelper.run(Timer)
''')
    (tmp_path / 'timer.yml').write_text('Daemon: {}\n')
    done = subprocess.run(
        [sys.executable, str(program), '-c', str(tmp_path / 'timer.yml'), '-f'],
        env={**os.environ, 'PYTHONPATH': str(Path(__file__).parent.parent)},
        capture_output=True, timeout=60,
    )
    assert done.returncode == 0
