"""The life of a daemon: reloading, deadlines, loops of the user's own, service managers."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clihelper.testing import NotifySocket, WaitError
from tests.life import LOGGING, Life, open_to_all, settled

F_SETPIPE_SZ = 1031

CONSOLE = """\
Logging:
  handlers: {console: {class: logging.StreamHandler}}
  root: {level: INFO, handlers: [console]}
"""

#: The loops of tests/programs/own_loops.py that a graceful stop ends.
STOPPABLE = [
    'Sleeping', 'Waiting', 'WaitingInThread', 'Tornado', 'Told', 'Pausing', 'Logging', 'Asyncio',
    'StoppableWithSuper', 'OwnHandler', 'Ioloop',
]


def own_loop(folder: Path, controller: str, stop_timeout: float = 10, **arguments: object) -> Life:
    arguments.setdefault('config', f'Daemon: {{stop_timeout: {stop_timeout}}}\n')
    return Life(folder, 'own_loops.py', controller, **arguments)


# Loops of the user's own.

@pytest.mark.parametrize('controller', [*STOPPABLE, 'Running', 'FailingHook'])
def test_term_stops_every_loop(tmp_path: Path, controller: str) -> None:
    with own_loop(tmp_path, controller) as life:
        life.wait_report('loop')
        life.signal('TERM')
        assert life.wait() == 0
        assert life.take_reports()[-1] == 'cleanup'
        assert life.program.stderr == []


@pytest.mark.parametrize('controller', STOPPABLE)
def test_hup_runs_every_loop_again(tmp_path: Path, controller: str) -> None:
    with own_loop(tmp_path, controller) as life:
        life.wait_report('loop')
        life.signal('HUP')
        life.wait_report('cleanup')
        life.wait_report('loop')
        life.signal('TERM')
        assert life.wait() == 0


@pytest.mark.parametrize('controller', STOPPABLE)
def test_quit_ends_every_loop_at_once(tmp_path: Path, controller: str) -> None:
    with own_loop(tmp_path, controller) as life:
        life.wait_report('loop')
        life.signal('QUIT')
        status = life.wait()
        # The timer of Pausing goes on while the interpreter ends.
        assert status == 131 or (controller, status) == ('Pausing', -signal.SIGALRM)
        assert 'cleanup' in life.take_reports()
        assert life.program.stderr == ['own_loops: stopped at once by SIGQUIT']


@pytest.mark.parametrize('signum', ['TERM', 'HUP'])
def test_a_signal_between_readiness_and_the_start_of_a_loop_is_not_lost(
    tmp_path: Path, signum: str
) -> None:
    with own_loop(tmp_path, 'Tornado', held_at='before') as life:
        life.wait_report('before')
        life.signal(signum)
        life.let_go()
        if signum == 'HUP':
            life.wait_report('setup')
            life.wait_report('loop')
            life.signal('TERM')
        assert life.wait() == 0
        assert life.logged('_shutdown failed and is tried again') == 1
        assert life.logged('Error') == 1


def test_a_wait_in_a_thread_ends_with_the_stop(tmp_path: Path) -> None:
    with own_loop(tmp_path, 'WaitingInThread') as life:
        life.wait_report('loop')
        life.signal('TERM')
        assert life.wait() == 0
        assert 'waited False' in life.take_reports()


def test_a_blocking_read_is_interrupted_at_the_stop_timeout(tmp_path: Path) -> None:
    with own_loop(tmp_path, 'Blocking', stop_timeout=0.3) as life:
        life.wait_report('loop')
        begin = time.monotonic()
        life.signal('TERM')
        assert life.wait() == 143
        assert time.monotonic() - begin >= 0.3
        assert life.take_reports()[-1] == 'cleanup'
        assert life.program.stderr == ['own_loops: stopped at once by SIGTERM']


def test_a_blocking_read_that_hup_found_is_still_stopped_by_term(tmp_path: Path) -> None:
    with own_loop(tmp_path, 'Blocking', stop_timeout=0.1) as life:
        life.wait_report('loop')
        life.signal('HUP')
        life.wait_logged('SIGHUP')
        life.signal('TERM')
        assert life.wait() == 143
        assert life.take_reports()[-1] == 'cleanup'


def test_a_process_hook_that_hangs_is_interrupted_at_the_stop_timeout(tmp_path: Path) -> None:
    with Life(tmp_path, 'phases.py', 'Periodic', config='Daemon: {stop_timeout: 0.1}\n',
              held_at='process') as life:
        life.wait_report('process')
        life.signal('TERM')
        assert life.wait() == 143
        assert 'processed' not in life.take_reports()
        assert 'cleanup' in life.reported


def test_a_cleanup_that_hangs_is_interrupted_at_the_stop_timeout(tmp_path: Path) -> None:
    with Life(tmp_path, 'phases.py', 'Periodic', config='Daemon: {stop_timeout: 0.1}\n',
              held_at='cleanup') as life:
        life.wait_report('SLEEPING')
        life.signal('TERM')
        assert life.wait() == 143


def test_what_cannot_be_interrupted_is_left_behind(tmp_path: Path) -> None:
    """Side by side, since each takes the five seconds of grace."""
    folders = [tmp_path / name for name in ('term', 'quit', 'blocked')]
    for folder in folders:
        folder.mkdir()
    reader, writer = os.pipe()
    os.write(writer, b'.' * fcntl.fcntl(writer, F_SETPIPE_SZ, 4096))  # it is full
    with (
        own_loop(folders[0], 'Swallowing', stop_timeout=0.1) as by_term,
        own_loop(folders[1], 'Swallowing') as by_quit,
        own_loop(folders[2], 'Logging', 0.1, log=CONSOLE, stderr_to=writer) as blocked,
    ):
        for life, signum in ((by_term, 'TERM'), (by_quit, 'QUIT'), (blocked, 'TERM')):
            life.wait_report('loop')
            settled(life.pid)
            life.signal(signum)
        assert by_term.wait(15) == 143
        assert by_quit.wait(15) == 131
        assert blocked.wait(15) == 143  # nobody reads what it writes
        for life, name in ((by_term, 'SIGTERM'), (by_quit, 'SIGQUIT')):
            assert 'swallowed StopNow' in life.take_reports()
            assert life.program.stderr == [f'own_loops: stopped at once by {name}']
            assert life.logged('still not stopped: ending at once') == 1
    os.close(reader)
    os.close(writer)


def test_a_program_that_replaces_what_term_does_is_not_stopped_by_it(tmp_path: Path) -> None:
    with own_loop(tmp_path, 'Unstoppable', stop_timeout=0.05) as life:
        life.wait_report('loop')
        life.signal('TERM')
        life.wait_report('on_sigterm')
        with pytest.raises(WaitError):
            life.wait(0.3)  # the deadline would have passed
        life.signal('INT')
        life.wait_report('on_sigterm')
        life.signal('QUIT')
        assert life.wait() == 131


def test_alarms_are_the_programs_own(tmp_path: Path) -> None:
    with own_loop(tmp_path, 'Pausing') as life:
        life.wait_report('loop')  # at the third alarm
        life.signal('USR1')
        life.wait_report('reloaded')
        life.signal('TERM')
        assert life.wait() == 0


def test_a_signal_to_a_child_is_the_childs_alone(tmp_path: Path) -> None:
    with own_loop(tmp_path, 'Forking') as life:
        _, forked, started = life.wait_report('children').split()
        os.kill(int(forked), signal.SIGTERM)
        os.kill(int(started), signal.SIGTERM)
        life.wait_report('statuses -15 -15')
        life.wait_report('loop')
        assert life.logged('SIGTERM') == 0
        life.signal('TERM')
        assert life.wait() == 0


def test_a_signal_to_a_child_that_has_only_just_been_forked_is_the_childs_too(
    tmp_path: Path,
) -> None:
    with own_loop(tmp_path, 'Killed') as life:
        life.wait_report('status -15')
        life.wait_report('loop')
        assert life.logged('SIGTERM') == 0
        life.signal('TERM')
        assert life.wait() == 0


# Reloading.

def test_hup_reads_the_configuration_anew(tmp_path: Path) -> None:
    with Life(tmp_path, 'phases.py', 'Periodic') as life:
        life.wait_report('SLEEPING')
        life.configure('Application: {wake_interval: 0.01}\n' + LOGGING)
        life.signal('HUP')
        for _ in range(3):
            life.wait_report('processed')
        life.signal('TERM')
        assert life.wait() == 0


def test_usr1_puts_the_new_interval_in_place_from_the_next_sleep_on(tmp_path: Path) -> None:
    config = 'Application: {wake_interval: 0.2}\n' + LOGGING
    with Life(tmp_path, 'phases.py', 'Periodic', config='Application: {wake_interval: 60}\n',
              held_at='process') as life:
        life.wait_report('process')
        life.configure(config)
        life.signal('USR1')
        life.let_go()
        life.wait_report('reloaded 0.2')
        before = len(life.take_reports())
        life.signal('USR2')
        life.wait_report('stacks')
        assert 'setup' not in life.reported[before:]
        assert 'processed' not in life.reported[before:]  # it sleeps for the 60 s of before
        life.signal('HUP')
        life.wait_report('processed')
        life.wait_report('processed')
        life.signal('TERM')
        assert life.wait() == 0


def vanish(path: Path) -> None:
    path.unlink()


def break_off(path: Path) -> None:
    path.write_text('Daemon: {stop_timeout: 1')


def make_empty_of_sense(path: Path) -> None:
    path.write_text('Application:\n  wake_interval: soon\n')


def forbid(path: Path) -> None:
    path.chmod(0)


@pytest.mark.root
@pytest.mark.parametrize(('spoil', 'where', 'user'), [
    (vanish, 'app.yml: ', 'root'),
    (break_off, 'app.yml:2:1: ', 'root'),
    (make_empty_of_sense, 'app.yml:2:18: Application.wake_interval: ', 'root'),
    (forbid, 'app.yml: ', 'nobody'),
], ids=['vanished', 'truncated', 'wrong', 'forbidden'])
def test_with_a_wrong_configuration_a_reload_goes_on_with_the_old_one(
    tmp_path: Path, spoil: Callable[[Path], None], where: str, user: str
) -> None:
    open_to_all(tmp_path)
    log = tmp_path / 'log'
    log.touch()
    shutil.chown(log, user)
    config = f'Daemon: {{user: {user}, pidfile: FOLDER/pid}}\n'
    with Life(tmp_path, 'phases.py', 'Periodic', config=config, options=()) as life:
        life.wait_report('SLEEPING')
        before = len(life.take_reports())
        spoil(tmp_path / 'app.yml')
        for count, signum in enumerate(('HUP', 'USR1'), 1):
            life.signal(signum)
            life.wait_logged('going on with the old one', count)
            assert life.logged(where) == count
        life.signal('TERM')
        assert life.wait_daemon() == 0
        assert life.take_reports()[before:] == ['STOP_REQUESTED', 'STOPPING', 'cleanup',
                                                'STOPPED', 'after run']


def test_what_only_a_start_reads_is_named_when_it_changes(tmp_path: Path) -> None:
    with Life(tmp_path, 'phases.py', 'Periodic', config='Daemon: {umask: 027}\n') as life:
        life.wait_report('SLEEPING')
        life.configure('Daemon: {umask: 022}\n' + LOGGING)
        life.signal('USR1')
        life.wait_report('reloaded')
        assert life.logged('Daemon.umask changed: the next start will read it') == 1
        life.signal('TERM')
        assert life.wait() == 0


def test_a_changed_key_is_in_effect_or_named(tmp_path: Path) -> None:
    config = 'Daemon: {redirect_output: false, pidfile: FOLDER/pid}\n'
    with Life(tmp_path, 'phases.py', 'Printing', config=config, options=()) as life:
        life.wait_report('SLEEPING')
        life.configure(
            'Daemon: {redirect_output: true, pidfile: FOLDER/pid, workers: 2,'
            ' state_directory: FOLDER}\nAMQP: {handler_timeout: 5, prefetch: 7}\n' + LOGGING
        )
        life.signal('HUP')
        life.wait_logged('INFO stdout printed by _setup')
        life.signal('TERM')
        assert life.wait_daemon() == 0
        assert [line for line in life.log if 'changed' in line] == [
            'WARNING clihelper.config Daemon.state_directory changed: the next start will read it',
            'WARNING clihelper.config Daemon.workers changed: the next start will read it',
            'WARNING clihelper.config AMQP.handler_timeout changed: the next start will read it',
        ]


def test_what_usr1_leaves_to_hup_is_named(tmp_path: Path) -> None:
    with Life(tmp_path, 'phases.py', 'Periodic', config='AMQP: {prefetch: 3}\n') as life:
        life.wait_report('SLEEPING')
        life.configure('AMQP: {prefetch: 4}\n' + LOGGING)
        life.signal('USR1')
        life.wait_report('reloaded')
        assert life.logged('AMQP.prefetch changed: a HUP will put it into effect') == 1
        life.signal('TERM')
        assert life.wait() == 0


@pytest.mark.root
def test_a_relative_configuration_is_found_again_by_a_daemon(tmp_path: Path) -> None:
    life = Life(tmp_path, 'phases.py', 'Periodic', options=())
    argv = life.program._argv
    argv[argv.index('-c') + 1] = 'app.yml'
    with life:
        assert life.wait_command() == 0
        life.wait_report('SLEEPING')
        assert os.readlink(f'/proc/{life.pid}/cwd') == '/'
        life.signal('HUP')
        life.wait_report('setup')
        life.wait_report('SLEEPING')
        (tmp_path / 'app.yml').write_text('Deamon: {}')
        life.signal('USR1')
        life.wait_logged('ERROR clihelper.config app.yml:1:1: ')
        life.signal('TERM')
        assert life.wait_daemon() == 0


# A new configuration that does not work.

def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port: int = probe.getsockname()[1]
        return port


class Reloading(Life):
    """The program of that name, with a port of its own."""

    def __init__(self, folder: Path, controller: str = 'Plain', **arguments: object) -> None:
        self.port = free_port()
        super().__init__(folder, 'reloading.py', controller, config=self.sections('old'),
                         notify=True, **arguments)

    def sections(self, word: str, more: str = '') -> str:
        return f'Application: {{word: {word}, port: {self.port}{more}}}\n'

    def reload(self, word: str, more: str = '', signum: str = 'HUP') -> None:
        self.configure(self.sections(word, more) + LOGGING)
        self.signal(signum)


@pytest.mark.parametrize(('controller', 'fail'), [
    ('Plain', 'true'), ('Plain', 'exit'), ('Ioloop', 'true'), ('Ioloop', 'cancel'), ('Web', 'true')
])
def test_a_setup_that_fails_after_hup_is_undone(
    tmp_path: Path, controller: str, fail: str
) -> None:
    with Reloading(tmp_path, controller) as life:
        life.program.wait_ready()
        life.wait_report('setup old')
        life.reload('new', f', fail: {fail}')
        life.program.wait_notified('RELOADING')
        life.wait_report('setup new')
        life.wait_report('cleanup')
        life.wait_report('setup old')
        words = 'the reload failed, going back to the old configuration: '
        told = life.program.wait_notified('STATUS')['STATUS']
        assert told.startswith(words)
        assert told.endswith(': no hands')
        ready = life.program.wait_notified('READY')
        assert ready['STATUS'].startswith('running with the old configuration; the reload failed')
        assert life.logged('the reload failed, the old configuration is set up again: ') == 1
        life.reload('good')
        life.wait_report('setup good')
        assert life.program.wait_notified('READY')['STATUS'] == 'running'
        life.signal('TERM')
        assert life.wait() == 0
        assert life.take_reports()[-1] == 'cleanup'


def test_if_the_old_configuration_fails_too_its_status_is_that_of_the_program(
    tmp_path: Path
) -> None:
    with Reloading(tmp_path) as life:
        life.program.wait_ready()
        life.wait_report('setup old')
        old, life.port = life.port, free_port()
        life.reload('new', f', take: {old}, fail: true')
        assert life.wait() == 1
        assert life.logged('the reload failed') == 1
        assert life.logged('CRITICAL') == 1
        told = [each['STATUS'] for each in life.program.notifications if 'STATUS' in each]
        assert told[-2].endswith('ValueError: no hands')
        assert told[-1].startswith('the old configuration fails, too: OSError: ')
        assert 'Address already in use' in life.program.stderr[-1]


def test_a_second_hup_while_a_setup_fails_is_served(tmp_path: Path) -> None:
    with Reloading(tmp_path) as life:
        life.program.wait_ready()
        life.wait_report('setup old')
        for word in ('one', 'two'):
            life.reload(word, ', fail: true')
            life.wait_report(f'setup {word}')
            life.wait_report('setup old')
            life.program.wait_ready()
        life.signal('TERM')
        assert life.wait() == 0


def test_a_cleanup_that_fails_does_not_end_a_reload(tmp_path: Path) -> None:
    with Reloading(tmp_path) as life:
        life.program.wait_ready()
        life.wait_report('setup old')
        life.reload('broken', ', break: true')
        life.wait_report('setup broken')
        life.program.wait_ready()
        life.reload('mended')
        life.wait_logged('_cleanup failed; the reload goes on')
        life.wait_report('setup mended')
        life.program.wait_ready()
        life.signal('TERM')
        assert life.wait() == 0


def test_a_hook_that_fails_after_usr1_leaves_the_service_manager_with_a_ready_service(
    tmp_path: Path
) -> None:
    with Reloading(tmp_path) as life:
        life.program.wait_ready()
        life.wait_report('setup old')
        life.reload('new', ', fail: true', 'USR1')
        life.program.wait_notified('RELOADING')
        life.program.wait_ready()
        life.wait_logged('the hook of SIGUSR1 failed')
        life.signal('TERM')
        assert life.wait() == 0


# Storms.

@pytest.mark.parametrize('controller', ['LoggingEachTick', 'Logging'])
def test_a_thousand_hups_while_stderr_is_read_slowly(tmp_path: Path, controller: str) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, F_SETPIPE_SZ, 4096)
    pace = threading.Event()
    read: list[bytes] = []

    def read_slowly() -> None:
        while chunk := os.read(reader, 2048):
            read.append(chunk)
            pace.wait(0.002)  # until the storm is over

    slow = threading.Thread(target=read_slowly)
    with own_loop(tmp_path, controller, log=CONSOLE, stderr_to=writer) as life:
        os.close(writer)
        slow.start()
        life.wait_report('loop')
        begin = resources(life.pid)
        sent = 0
        while sent < 1000 or (len(life.take_reports()) < 3 and sent < 20_000):
            life.signal('HUP')
            sent += 1
            time.sleep(0.001)
        seen = len(life.reported)
        assert resources(life.pid)[0] <= begin[0] + 3, 'descriptors'
        assert resources(life.pid)[1] <= begin[1] + 4096, 'KiB'
        life.signal('TERM')
        assert life.wait() == 0
        assert life.take_reports()[-1] == 'cleanup'
        assert seen >= 3, 'no restart in the whole storm'
    slow.join()
    os.close(reader)
    text = b''.join(read).decode()
    assert 'Traceback' not in text
    assert 'rror' not in text, text[-2000:]


def test_a_signal_is_not_served_while_a_record_is_being_logged(tmp_path: Path) -> None:
    log = LOGGING.replace('class: logging.FileHandler, filename: FOLDER/log',
                          'class: fragile_handler.Handler')
    with own_loop(tmp_path, 'Logging', log=log) as life:
        life.wait_report('loop')
        for _ in range(20):
            life.signal('USR1')
            life.wait_report('reloaded')
            life.signal('HUP')
            life.wait_report('loop')
        life.signal('TERM')
        assert life.wait() == 0
        assert 'entered again' not in life.take_reports()


def resources(pid: int) -> tuple[int, int]:
    """Descriptors, and KiB of resident memory."""
    status = Path(f'/proc/{pid}/status').read_text()
    resident = next(line for line in status.splitlines() if line.startswith('VmRSS:'))
    return len(os.listdir(f'/proc/{pid}/fd')), int(resident.split()[1])


# What stands around a program.

class OnTerminal:
    """A program whose session has a terminal, from entering the ``with`` to leaving it.

    :param before: Python code that runs before the program.
    """

    def __init__(
        self, folder: Path, controller: str, program: str = 'phases.py', before: str = '',
        config: str = '',
    ) -> None:
        self.master, self._slave = pty.openpty()
        self.life = Life(folder, program, controller, stdin=self._slave, config=config)
        command = (
            'import fcntl, os, signal, sys, termios\n'
            'fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n'
            f'{before}\n'
            'os.execv(sys.argv[1], sys.argv[1:])\n'
        )
        self.life.program._argv[:0] = [sys.executable, '-c', command]

    def __enter__(self) -> Life:
        try:
            return self.life.__enter__()
        finally:
            os.close(self._slave)

    def __exit__(self, *exception: object) -> None:
        self.life.__exit__(*exception)
        if self.master >= 0:
            self.close()

    def close(self) -> None:
        """Close the terminal; the kernel then sends HUP to the session's leader."""
        os.close(self.master)
        self.master = -1


@pytest.mark.parametrize(('program', 'controller', 'ready'), [
    ('phases.py', 'Periodic', 'SLEEPING'),
    ('phases.py', 'Ioloop', 'SLEEPING'),
    ('own_loops.py', 'Waiting', 'loop'),
    ('own_loops.py', 'Asyncio', 'loop'),
])
def test_a_program_stops_when_its_terminal_is_closed(
    tmp_path: Path, program: str, controller: str, ready: str
) -> None:
    terminal = OnTerminal(tmp_path, controller, program)
    with terminal as life:
        life.wait_report(ready)
        terminal.close()
        assert life.wait() == 0
        assert life.take_reports().count('cleanup') == 1
        assert life.logged('INFO clihelper SIGHUP, because the terminal is gone') == 1


def test_a_hook_that_works_when_the_terminal_is_closed_has_the_deadline_of_a_stop(
    tmp_path: Path
) -> None:
    terminal = OnTerminal(tmp_path, 'Running', 'own_loops.py')
    with terminal as life:
        life.wait_report('loop')
        terminal.close()
        assert life.wait(8) == 0


def test_workers_stop_when_their_terminal_is_closed(tmp_path: Path) -> None:
    terminal = OnTerminal(tmp_path, 'Periodic', config='Daemon: {workers: 2}\n')
    with terminal as life:
        for _ in range(2):
            life.wait_report('SLEEPING')
        life.wait_logged('DEBUG clihelper.supervisor ready')
        terminal.close()
        assert life.wait() == 0
        assert life.take_reports().count('cleanup') == 2


def test_a_program_stops_when_the_shell_that_started_it_is_killed(tmp_path: Path) -> None:
    shell = 'if os.fork(): signal.pause()\n'
    terminal = OnTerminal(tmp_path, 'Periodic', before=shell)
    with terminal as life:
        life.wait_report('SLEEPING')
        program = os.pidfd_open(life.pid)
        os.kill(life.program.pid, signal.SIGKILL)
        try:
            assert select.select([program], [], [], 10)[0]
        finally:
            os.close(program)
        assert life.take_reports()[-3:] == ['cleanup', 'STOPPED', 'after run']


def test_a_hup_that_is_sent_begins_a_program_on_a_terminal_again(tmp_path: Path) -> None:
    with OnTerminal(tmp_path, 'Periodic') as life:
        life.wait_report('SLEEPING')
        life.signal('HUP')
        life.wait_report('RELOADING')
        life.wait_report('SLEEPING')
        life.signal('TERM')
        assert life.wait() == 0


def test_with_nohup_a_program_lives_on_when_its_terminal_is_closed(tmp_path: Path) -> None:
    terminal = OnTerminal(
        tmp_path, 'Periodic', before='signal.signal(signal.SIGHUP, signal.SIG_IGN)')
    with terminal as life:
        life.wait_report('SLEEPING')
        terminal.close()
        life.wait_report('RELOADING')
        life.wait_report('SLEEPING')
        life.signal('TERM')
        assert life.wait() == 0


@pytest.mark.parametrize('stream', ['stdout_to', 'stderr_to'])
def test_it_lives_on_when_nobody_reads_what_it_writes(tmp_path: Path, stream: str) -> None:
    reader, writer = os.pipe()
    config = 'Application: {wake_interval: 0.01}\nDaemon: {pidfile: FOLDER/pid}\n'
    with own_loop(tmp_path, 'Printing', config=config, log=CONSOLE, options=('--',), notify=True,
                  **{stream: writer}) as life:
        os.close(writer)
        life.wait_report('loop')
        os.close(reader)
        for _ in range(3):
            life.wait_report('loop')
        life.signal('PIPE')
        life.wait_report('loop')
        life.wait_report('loop')
        life.signal('TERM')
        assert life.wait() == 0


@pytest.mark.root
def test_as_process_1_of_a_container_it_does_not_detach_and_is_stopped_by_term(
    tmp_path: Path
) -> None:
    life = Life(tmp_path, 'phases.py', 'Periodic', options=('--',))
    life.program._argv[:0] = ['unshare', '-pf', '--mount-proc', '--kill-child']
    with life:
        life.wait_report('SLEEPING')
        assert life.pid != 1  # which waits for orphans
        inside = Path(f'/proc/{life.program.pid}/task/{life.program.pid}/children').read_text()
        os.kill(int(inside), signal.SIGTERM)
        assert life.wait() == 0
        assert life.program.stderr == []


# Service managers.

def test_a_service_manager_is_told_of_the_whole_life(tmp_path: Path) -> None:
    with Life(tmp_path, 'phases.py', 'Periodic', options=('--',), notify=True,
              config='Daemon: {pidfile: FOLDER/pid, stop_timeout: 7}\n') as life:
        life.program.wait_ready()
        life.wait_report('SLEEPING')
        begin = time.monotonic_ns() // 1000
        life.signal('HUP')
        reloading = life.program.wait_notified('RELOADING')
        assert begin <= int(reloading['MONOTONIC_USEC']) <= time.monotonic_ns() // 1000
        assert reloading['STATUS']
        life.program.wait_ready()
        life.wait_report('SLEEPING')
        life.signal('USR1')
        life.program.wait_notified('RELOADING')
        life.program.wait_ready()
        life.signal('TERM')
        assert life.program.wait_notified('STOPPING')['STATUS']
        extension = life.program.wait_notified('EXTEND_TIMEOUT_USEC')
        assert int(extension['EXTEND_TIMEOUT_USEC']) > 7_000_000
        assert life.program.wait() == 0
        names = [next(iter(each)) for each in life.program.notifications]
        assert names == ['READY', 'RELOADING', 'READY', 'RELOADING', 'READY', 'STOPPING',
                         'EXTEND_TIMEOUT_USEC']


@pytest.mark.parametrize('controller', ['Periodic', 'Ioloop'])
def test_a_wrong_configuration_is_no_reload_for_the_service_manager(
    tmp_path: Path, controller: str
) -> None:
    with Life(tmp_path, 'phases.py', controller, notify=True) as life:
        life.program.wait_ready()
        life.wait_report('SLEEPING')
        life.configure('Deamon: {}')
        for count, signum in enumerate(('HUP', 'USR1'), 1):
            life.signal(signum)
            life.wait_logged('going on with the old one', count)
        life.signal('TERM')
        assert life.program.wait() == 0
        assert not any('RELOADING' in each for each in life.program.notifications)


@pytest.mark.parametrize('controller', ['Periodic', 'Ioloop'])
def test_readiness_is_told_when_setup_is_done(tmp_path: Path, controller: str) -> None:
    with Life(tmp_path, 'phases.py', controller, notify=True, held_at='setup') as life:
        life.wait_report('setup')
        assert life.program.notifications == []
        life.let_go()
        life.program.wait_ready()


@pytest.mark.parametrize('controller', ['Periodic', 'Ioloop', 'Consumer'])
def test_the_watchdog_is_fed_while_the_loop_makes_progress_and_not_while_it_hangs(
    tmp_path: Path, controller: str
) -> None:
    held = 'message' if controller == 'Consumer' else 'process'
    with Life(tmp_path, 'phases.py', controller, notify=True, watchdog=0.1,
              config='AMQP: {url: "memory://", queues: {greetings: {}}}\n',
              held_at=held) as life:
        life.wait_report(held)
        life.program.wait_ready()
        with pytest.raises(WaitError):
            life.wait(0.1)  # until what it sent before is read
        before = len(life.program.notifications)
        with pytest.raises(WaitError):
            life.wait(0.3)
        assert len(life.program.notifications) == before
        life.let_go()
        for _ in range(5):
            life.program.wait_notified('WATCHDOG')
        life.signal('TERM')
        assert life.wait() == 0


def test_a_loop_on_wait_feeds_the_watchdog(tmp_path: Path) -> None:
    with own_loop(tmp_path, 'Waiting', notify=True, watchdog=0.05) as life:
        for _ in range(5):
            life.program.wait_notified('WATCHDOG')
        life.wait_report('loop')
        life.signal('TERM')
        assert life.wait() == 0


@pytest.mark.parametrize('controller', ['Periodic', 'Ioloop'])
def test_a_notify_socket_that_is_full_delays_nothing_and_is_told_later(
    tmp_path: Path, controller: str
) -> None:
    with NotifySocket() as manager:
        fill(manager)
        with Life(tmp_path, 'phases.py', controller, env=dict(manager.environ)) as life:
            life.wait_report('SLEEPING')
            while 'FILLED' in manager.receive():
                pass
            assert 'READY' in manager.received[-1]
            fill(manager)
            life.signal('TERM')
            assert life.wait(3) == 0


def fill(manager: NotifySocket) -> None:
    """Leave no room in its socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        try:
            while True:
                other.sendto(b'FILLED=1', '\0' + manager.address[1:])
        except BlockingIOError:
            pass
