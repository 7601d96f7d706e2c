"""Detaching, by real daemons: tests/programs/daemon_start.py is started as from a shell."""

import contextlib
import json
import os
import pty
import re
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clihelper.errors import ConfigurationError
from clihelper.process import daemonize

ROOT = Path(__file__).parent.parent
PROGRAM = str(ROOT / 'tests' / 'programs' / 'daemon_start.py')
PLAIN_USER = 54321  # that nobody else uses, so that the number of his processes is known


class Daemon:
    """Starts daemon_start.py and looks at the daemon; kills what is left of it at the end."""

    def __init__(self, folder):
        self.folder = folder
        self.facts_path = folder / 'facts'
        self.leftovers = []

    def argv(self, scenario, *options):
        return [sys.executable, PROGRAM, scenario, str(self.facts_path), *map(str, options)]

    def popen(self, scenario, *options, **how):
        environment = {**os.environ, 'PYTHONPATH': str(ROOT), **how.pop('env', {})}
        how.setdefault('stdin', subprocess.DEVNULL)
        how.setdefault('stdout', subprocess.DEVNULL)
        how.setdefault('stderr', subprocess.PIPE)
        argv = how.pop('argv', None) or self.argv(scenario, *options)
        return subprocess.Popen(argv, env=environment, text=True, **how)

    def start(self, scenario, *options, **how):
        """Start it and wait for the command; its status, and what it said on stderr."""
        command = self.popen(scenario, *options, **how)
        return self.finish(command)

    def finish(self, command):
        said = command.communicate(timeout=30)[1] or ''
        return command.returncode, [line for line in said.splitlines() if line != 'noise']

    @property
    def facts(self):
        return json.loads(self.facts_path.read_text())

    @property
    def pid(self):
        return self.facts['pid']

    def proc(self, name):
        return Path(f'/proc/{self.pid}/{name}').read_text()

    def status(self, key):
        return re.search(rf'^{key}:\s*(.*)$', self.proc('status'), re.MULTILINE)[1]

    def descriptors(self):
        folder = f'/proc/{self.pid}/fd'
        return {int(name): os.readlink(f'{folder}/{name}') for name in os.listdir(folder)}

    def wait_for_end(self, pid=None, signum=None):
        """Wait until the daemon is gone, after sending it *signum*."""
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid or self.pid)
            try:
                if signum:
                    signal.pidfd_send_signal(pidfd, signum)
                assert select.select([pidfd], [], [], 20)[0]
            finally:
                os.close(pidfd)

    def clean(self):
        if self.facts_path.exists():
            self.leftovers.append(self.pid)
        for pid in self.leftovers:
            self.wait_for_end(pid, signal.SIGKILL)


@pytest.fixture
def daemon(tmp_path):
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.clean()


def read_until(command, wanted):
    """Read the command's stderr up to the line *wanted*."""
    for line in command.stderr:
        if line.rstrip('\n') == wanted:
            return
    raise AssertionError(f'{wanted!r} was not said')


# What the command returns and says.


def test_the_command_returns_0_once_the_daemon_is_ready_and_the_daemon_goes_on(daemon):
    assert daemon.start('ready') == (0, [])
    assert daemon.proc('comm')
    assert daemon.status('State') != 'Z (zombie)'


def test_the_command_returns_the_status_and_the_lines_of_a_daemon_that_failed(daemon):
    assert daemon.start('fails') == (78, ['the first line', 'the second', 'the third'])


def test_a_warning_is_shown_and_the_command_goes_on_waiting(daemon):
    expected = ['this looks odd', 'and so does this: \N{SNOWMAN} \\udcff']
    environment = {'PYTHONIOENCODING': 'utf-8'}
    assert daemon.start('warns', env=environment) == (0, expected)


def test_no_line_of_many_is_lost(daemon):
    status, lines = daemon.start('warns_a_lot')
    assert status == 0
    assert lines == [f'{number} this looks odd' for number in range(10_000)]


def test_a_daemon_that_dies_without_a_word_is_status_1(daemon):
    status, lines = daemon.start('dies')
    assert (status, lines) == (1, [f'died before it was ready (pid {daemon.pid})'])


def test_a_child_that_holds_the_pipe_does_not_make_the_command_wait_for_a_dead_daemon(daemon):
    status, lines = daemon.start('dies_leaving_a_child')
    daemon.leftovers.append(int(lines[0].split()[1]))
    assert (status, lines[1:]) == (1, [f'died before it was ready (pid {daemon.pid})'])


def test_a_child_that_holds_the_pipe_does_not_make_the_command_wait_after_the_report(daemon):
    assert daemon.start('ready_with_child') == (0, [])
    children = daemon.proc(f'task/{daemon.pid}/children').split()
    daemon.leftovers.extend(map(int, children))
    assert len(children) == 1


def test_a_daemon_that_is_not_ready_in_time_goes_on_starting_and_the_command_says_so(daemon):
    status, lines = daemon.start('hangs', '--timeout', 0.3)
    said = f'not ready after 0.3 s; it goes on starting (pid {daemon.pid})'
    assert (status, lines) == (0, ['hanging', said])
    assert not daemon.status('State').startswith(('Z', 'X'))


def test_a_daemon_goes_on_where_the_command_is_gone(daemon):
    command = daemon.popen('hangs')
    read_until(command, 'hanging')
    command.kill()
    daemon.finish(command)
    assert not daemon.status('State').startswith(('Z', 'X'))


def test_a_daemon_does_not_wait_for_a_command_that_is_suspended(monkeypatch):
    reader, writer = os.pipe()
    readiness = daemonize.Readiness(writer)
    monkeypatch.setattr(daemonize, 'WRITING', 10)
    for _ in range(5):
        readiness.warn('x' * 60_000)
    readiness.ready()
    assert len(os.read(reader, 1_000_000)) <= 65536
    os.close(reader)


def test_a_command_that_is_gone_is_no_error():
    reader, writer = os.pipe()
    readiness = daemonize.Readiness(writer)
    os.close(reader)
    readiness.warn('nobody reads this')
    readiness.ready()
    readiness.warn('nor this')
    readiness.failed(1, ['nor this'])


def test_what_is_to_be_done_at_the_end_of_the_program_is_left_to_the_daemon(daemon, tmp_path):
    kept = tmp_path / 'kept'
    assert daemon.start('ready', '--at-exit', kept) == (0, [])
    assert kept.exists()


# Signals to the waiting command.


@pytest.mark.parametrize(
    ('sent', 'passed_on'),
    [
        (signal.SIGINT, 'SIGTERM'),
        (signal.SIGTERM, 'SIGTERM'),
        (signal.SIGQUIT, 'SIGQUIT'),
    ],
)
def test_a_signal_that_stops_is_passed_on_and_its_status_returned(daemon, sent, passed_on):
    command = daemon.popen('stops')
    read_until(command, 'hanging')
    command.send_signal(sent)
    assert daemon.finish(command) == (75, [f'stopped by {passed_on}'])


def test_a_daemon_that_dies_of_a_signal_that_was_passed_on_is_status_75(daemon):
    command = daemon.popen('hangs')
    read_until(command, 'hanging')
    command.terminate()
    assert daemon.finish(command) == (75, [f'stopped before it was ready (pid {daemon.pid})'])


def test_a_second_interrupt_stops_at_once(daemon):
    command = daemon.popen('stops_at_once')
    read_until(command, 'hanging')
    command.send_signal(signal.SIGINT)
    read_until(command, 'stopping')
    command.send_signal(signal.SIGINT)
    assert daemon.finish(command) == (130, [])


def test_a_daemon_that_does_not_stop_in_time_is_status_75(daemon):
    command = daemon.popen('ignores_term', '--timeout', 0.7)
    read_until(command, 'hanging')
    command.terminate()
    said = f'not stopped after 0.7 s; it goes on stopping (pid {daemon.pid})'
    assert daemon.finish(command) == (75, [said])


def test_a_signal_at_any_moment_of_starting_ends_both(daemon):
    """TERM after 0, 1, 2 ... ms: never is the command gone and the daemon running."""
    statuses = set()
    for milliseconds in range(0, 60, 4):
        daemon.facts_path.unlink(missing_ok=True)
        command = daemon.popen('hangs', start_new_session=True)
        read_until(command, 'noise')
        select.select([], [], [], milliseconds / 1000)
        os.killpg(command.pid, signal.SIGTERM)
        statuses.add(daemon.finish(command)[0])
        if daemon.facts_path.exists():
            daemon.wait_for_end()
    # -15: before detaching nobody reads the program's signals here.
    assert 75 in statuses


def test_a_signal_between_detaching_and_waiting_is_neither_lost_nor_ends_the_command_alone(daemon):
    command = daemon.popen('stops', '--late', stdin=subprocess.PIPE)
    read_until(command, 'detached')
    command.terminate()
    command.stdin.write('\n')
    command.stdin.flush()
    assert daemon.finish(command)[0] == 75
    if daemon.facts_path.exists():
        daemon.wait_for_end()


@pytest.fixture
def terminal():
    """The two ends of a pseudoterminal."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    for end in (ours, theirs):
        with contextlib.suppress(OSError):
            os.close(end)


def in_terminal(theirs):
    """For Popen: the command has the terminal as its controlling one."""
    import fcntl
    import termios

    def become():
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    return {'preexec_fn': become, 'stdin': theirs, 'stdout': theirs}


def test_control_c_on_the_terminal_stops_the_daemon_that_starts(daemon, terminal):
    ours, theirs = terminal
    command = daemon.popen('stops', **in_terminal(theirs))
    read_until(command, 'hanging')
    os.write(ours, b'\x03')
    assert daemon.finish(command) == (75, ['stopped by SIGTERM'])


def test_the_daemon_lives_on_when_the_terminal_is_closed(daemon, terminal):
    ours, theirs = terminal
    assert daemon.start('ready', **in_terminal(theirs)) == (0, [])
    os.close(ours)
    os.close(theirs)
    terminal_number = daemon.proc('stat').rpartition(')')[2].split()[4]
    assert terminal_number == '0'
    assert not daemon.status('State').startswith(('Z', 'X'))


# What the daemon is like.


def test_the_daemon_has_its_own_session_folder_and_umask_and_blocks_no_signal(daemon):
    blocked = [signal.SIGTERM, signal.SIGUSR1]
    status, _ = daemon.start(
        'ready', '--directory', daemon.folder, '--umask', '0137',
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, blocked),
    )
    assert status == 0
    # Not the leader of its session either: else it could acquire a terminal again.
    assert os.getsid(daemon.pid) not in (os.getsid(0), daemon.pid)
    assert os.readlink(f'/proc/{daemon.pid}/cwd') == str(daemon.folder)
    assert daemon.status('Umask') == '0137'
    assert int(daemon.status('SigBlk'), 16) == 0


def test_the_standard_streams_of_the_daemon_are_dev_null(daemon):
    daemon.start('ready')
    descriptors = daemon.descriptors()
    assert [descriptors[number] for number in range(3)] == ['/dev/null'] * 3


def test_the_daemon_keeps_what_the_program_opened_and_closes_what_the_shell_left_open(daemon):
    paths = [daemon.folder / name for name in ('own', 'inherited', 'preserved')]
    for path in paths:
        path.touch()
    own, inherited, preserved = map(str, paths)
    with open(inherited) as first, open(preserved) as second:
        numbers = first.fileno(), second.fileno()
        daemon.start('ready', '--opens', own, '--preserve', numbers[1], pass_fds=numbers)
    descriptors = daemon.descriptors()
    assert descriptors[daemon.facts['opened']] == own
    assert descriptors[numbers[1]] == preserved
    assert inherited not in descriptors.values()


def test_the_daemon_keeps_the_sockets_that_a_service_manager_handed_over(daemon):
    script = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3</dev/zero 4</dev/full'
    argv = ['sh', '-c', script, 'sh', *daemon.argv('ready')]
    assert daemon.start('ready', argv=argv) == (0, [])
    assert daemon.descriptors()[3] == '/dev/zero'
    assert '/dev/full' not in daemon.descriptors().values()
    assert daemon.facts['LISTEN_PID'] == str(daemon.pid)


@pytest.mark.parametrize('variables', ['LISTEN_PID=1 LISTEN_FDS=1', 'LISTEN_PID=$$ LISTEN_FDS=x'])
def test_descriptors_that_are_not_meant_for_this_process_are_closed(daemon, variables):
    script = f'{variables} exec "$@" 3</dev/zero'
    argv = ['sh', '-c', script, 'sh', *daemon.argv('ready')]
    assert daemon.start('ready', argv=argv) == (0, [])
    assert '/dev/zero' not in daemon.descriptors().values()
    assert daemon.facts['LISTEN_PID'] != str(daemon.pid)


def test_a_huge_limit_of_descriptors_costs_the_daemon_no_memory(daemon):
    daemon.start('ready', '--huge-limit')
    assert int(daemon.status('VmHWM').split()[0]) < 40_000  # KiB; the set alone takes 70,000


@pytest.mark.parametrize('closed', range(8))
def test_closed_standard_streams_are_harmless(daemon, closed):
    kept = daemon.folder / 'kept'
    kept.touch()
    words = ['<&-', '>&-', '2>&-']
    redirections = ' '.join(word for bit, word in enumerate(words) if closed >> bit & 1)
    argv = ['sh', '-c', f'exec "$@" {redirections}', 'sh', *daemon.argv('ready', '--opens', kept)]
    assert daemon.start('ready', argv=argv) == (0, [])
    assert daemon.facts['opened'] > 2
    descriptors = daemon.descriptors()
    assert [descriptors[number] for number in range(3)] == ['/dev/null'] * 3
    assert kept.read_bytes() == b''


def test_what_the_program_opened_where_a_stream_was_closed_is_neither_closed_nor_written(daemon):
    kept = daemon.folder / 'kept'
    kept.touch()
    argv = ['sh', '-c', 'exec "$@" >&-', 'sh', *daemon.argv('ready', '--opens-early', kept)]
    assert daemon.start('ready', argv=argv) == (0, [])
    assert daemon.facts['early'] == 1
    assert daemon.descriptors()[1] == str(kept)
    assert kept.read_bytes() == b''


def test_a_stream_object_that_was_closed_is_opened_again():
    script = (
        'import sys; from clihelper.process import daemonize;'
        'sys.stdout.close(); sys.stdin.close();'
        'daemonize.mend_standard_streams(); print("lost");'
        'assert sys.stdin.read() == "" and sys.stderr.fileno() == 2'
    )
    done = subprocess.run([sys.executable, '-c', script], cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b'')


# What goes wrong while detaching.


def test_a_folder_that_is_gone_by_then_is_told_in_one_line(daemon):
    status, lines = daemon.start('ready', '--directory', '/no/such/folder')
    assert status == 1
    assert lines == [
        "cannot detach: [Errno 2] No such file or directory: '/no/such/folder'"
    ]


def test_no_descriptor_left_is_told_in_one_line(daemon):
    status, lines = daemon.start('ready', '--no-descriptors')
    assert (status, lines) == (1, ['cannot detach: Too many open files'])


@pytest.mark.root
@pytest.mark.parametrize('processes', [1, 2])
def test_no_process_left_is_told_in_one_line(daemon, processes):
    os.chmod(daemon.folder, 0o777)
    status, lines = daemon.start('ready', '--user', PLAIN_USER, '--processes', processes)
    assert (status, len(lines)) == (1, 1)
    assert lines[0].startswith('cannot detach: ')
    assert lines[0].endswith('Resource temporarily unavailable')


# Before detaching.


def test_no_core_is_left(daemon):
    limit = resource.getrlimit(resource.RLIMIT_CORE)[1]
    status, lines = daemon.start(
        'dumps_core', '--directory', daemon.folder,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (limit, limit)),
    )
    assert (status, lines) == (1, [f'died before it was ready (pid {daemon.pid})'])
    assert not list(daemon.folder.glob('*core*'))


def test_prevent_core_takes_the_right_to_dump_core():
    script = (
        'import resource; from clihelper.process import daemonize; daemonize.prevent_core();'
        'assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)'
    )
    subprocess.run([sys.executable, '-c', script], cwd=ROOT, check=True)


SHOULD_DETACH = 'from clihelper.process import daemonize; print(daemonize.should_detach({}))'


def should_detach(foreground=False, wrapper=(), **environment):
    environment = {**os.environ, 'NOTIFY_SOCKET': '', **environment}
    argv = [*wrapper, sys.executable, '-c', SHOULD_DETACH.format(foreground)]
    return subprocess.check_output(argv, cwd=ROOT, env=environment, text=True).strip()


@pytest.mark.root
def test_a_program_detaches_but_in_the_foreground_under_a_service_manager_or_as_process_1():
    assert should_detach() == 'True'
    assert should_detach(foreground=True) == 'False'
    assert should_detach(NOTIFY_SOCKET='/run/x') == 'False'
    assert should_detach(wrapper=['unshare', '-pf', '--mount-proc']) == 'False'


def test_a_working_directory_that_cannot_be_is_found_before_detaching(tmp_path):
    daemonize.check_working_directory(str(tmp_path))
    with pytest.raises(ConfigurationError, match=r'^Daemon.working_directory: /no/such: No such'):
        daemonize.check_working_directory('/no/such')
    with pytest.raises(ConfigurationError, match=r'/dev/null: Not a directory$'):
        daemonize.check_working_directory('/dev/null')


@pytest.mark.root
def test_a_working_directory_that_may_not_be_entered_is_found_before_detaching(tmp_path):
    script = (
        'import os; from clihelper.process import daemonize;'
        f'os.setresuid({PLAIN_USER}, {PLAIN_USER}, {PLAIN_USER});'
        f'daemonize.check_working_directory({str(tmp_path)!r})'
    )
    done = subprocess.run(
        [sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True
    )
    error = done.stderr.splitlines()[-1]
    assert error == (
        f'clihelper.errors.NotPermitted: Daemon.working_directory: {tmp_path}: Permission denied'
    )


def test_without_detaching_a_failure_is_told_at_once(capsys):
    attached = daemonize.Attached()
    attached.ready()
    attached.warn('odd')
    attached.failed(78, ['wrong\nand more'])
    assert capsys.readouterr().err == 'odd\nwrong\nand more\n'


def test_python_daemon_is_imported_with_the_limit_of_descriptors_restored():
    script = (
        'import resource; from clihelper.process import daemonize; before = resource.getrlimit;'
        'daemonize._import_detach_process(); assert resource.getrlimit is before'
    )
    subprocess.run([sys.executable, '-c', script], cwd=ROOT, check=True)
