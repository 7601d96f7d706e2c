"""The pidfile, by real files, locks and processes."""

import fcntl
import os
import re
import select
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clihelper.errors import PidfileError
from clihelper.process.pidfile import Pidfile, probe
from tests.forking import fork, status_of

ROOT = Path(__file__).parent.parent
PROGRAM = str(ROOT / 'tests' / 'programs' / 'daemon_hold.py')
NOBODY = 65534


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'orders.pid'


@pytest.fixture
def hold():
    """Start daemon_hold.py; its processes are ended when the test is over."""
    processes = []

    def start(path, *options, go=True):
        process = subprocess.Popen(
            [sys.executable, PROGRAM, str(path), *map(str, options)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, 'PYTHONPATH': str(ROOT)},
        )
        processes.append(process)
        if go:
            assert process.stdout.readline() == 'waiting\n'
            process.stdin.write('\n')
            process.stdin.flush()
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def running(hold, path, *options):
    """A process that holds the pidfile."""
    process = hold(path, *options)
    assert process.stdout.readline() == 'held\n'
    return process


def cycle(path):
    """Start and stop over whatever is there."""
    pidfile = Pidfile(str(path))
    pidfile.acquire()
    pidfile.write()
    assert probe(str(path)) == ('running', os.getpid())
    pidfile.release()


def refusal(path):
    """Why the pidfile cannot be acquired: one line that names it."""
    with pytest.raises(PidfileError) as caught:
        Pidfile(str(path)).acquire()
    assert caught.value.status == 73
    text = str(caught.value)
    assert '\n' not in text
    prefix = f'pidfile {path}: '
    assert text.startswith(prefix)
    return text.removeprefix(prefix)


# A start and a stop.


def test_the_number_is_written_and_the_file_removed_at_the_end(path):
    pidfile = Pidfile(str(path))
    pidfile.acquire()
    pidfile.write()
    assert path.read_bytes() == b'%d\n' % os.getpid()
    pidfile.release()
    assert not path.exists()


def test_others_may_read_it_and_nobody_else_may_write_it(path):
    before = os.umask(0)
    try:
        Pidfile(str(path)).acquire()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_its_descriptor_is_not_inherited_by_programs_that_the_daemon_runs(path):
    pidfile = Pidfile(str(path))
    pidfile.acquire()
    assert not os.get_inheritable(pidfile.fileno())
    pidfile.release()


def test_a_relative_path_stays_where_it_was_when_the_daemon_changes_its_folder(
    path, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    pidfile = Pidfile('orders.pid')
    monkeypatch.chdir('/')
    pidfile.acquire()
    assert path.exists()
    pidfile.release()
    assert not path.exists()


def test_it_may_be_released_twice_and_acquired_again(path):
    pidfile = Pidfile(str(path))
    for _ in range(2):
        pidfile.acquire()
        pidfile.write()
        pidfile.release()
        pidfile.release()
    with pytest.raises(ValueError, match='not acquired'):
        pidfile.write()


def test_the_lock_passes_on_to_a_forked_daemon_which_releases_it(path):
    pidfile = Pidfile(str(path))
    pidfile.acquire()
    told, tell = os.pipe()
    end, go = os.pipe()

    def be_the_daemon():
        os.close(go)
        pidfile.write()
        os.write(tell, b'.')
        os.read(end, 1)
        pidfile.release()

    daemon = fork(be_the_daemon)
    os.read(told, 1)
    pidfile.release()  # the command that started the daemon: neither removes nor unlocks it
    assert path.read_text() == f'{daemon}\n'
    assert refusal(path) == f'already running, pid {daemon}'
    os.close(go)
    os.waitpid(daemon, 0)
    assert not path.exists()
    for descriptor in (told, tell, end):
        os.close(descriptor)


def test_a_forked_child_gives_up_the_lock_and_a_worker_keeps_it(path):
    pidfile = Pidfile(str(path))
    pidfile.acquire()
    pidfile.write()
    end, go = os.pipe()
    told, tell = os.pipe()
    for is_shared, state in ((True, 'running'), (False, 'died')):
        daemon = os.fork()
        if daemon == 0:
            again = Pidfile(str(path.with_suffix(f'.{is_shared}')))
            again.acquire()
            again.write()
            again.is_shared = is_shared
            if os.fork() == 0:
                os.close(go)
                os.write(tell, b'.')
                os.read(end, 1)
            os._exit(0)
        os.waitpid(daemon, 0)
        os.read(told, 1)
        assert probe(path.with_suffix(f'.{is_shared}'))[0] == state
    assert probe(path) == ('running', os.getpid())
    pidfile.release()
    for descriptor in (end, go, told, tell):
        os.close(descriptor)


def test_a_forked_worker_does_not_release_it(path):
    pidfile = Pidfile(str(path))
    pidfile.acquire()
    pidfile.write()
    assert status_of(fork(pidfile.release)) == 0
    assert probe(str(path)) == ('running', os.getpid())
    assert refusal(path) == f'already running, pid {os.getpid()}'
    pidfile.release()


# What it starts over.


def zombie():
    child = fork(lambda: None)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    return child


@pytest.mark.parametrize(
    'content',
    [b'', b'\n', b'4194304\n', b'garbage', b'-1\n', b'0', b'\0' * 8, b'\xff\xfe', b'9' * 32],
)
def test_it_starts_over_an_unlocked_file_of_one_short_line(path, content):
    path.write_bytes(content)
    cycle(path)


def test_it_starts_over_the_number_of_a_zombie(path):
    child = zombie()
    path.write_text(f'{child}\n')
    cycle(path)
    os.waitpid(child, 0)


def test_it_starts_over_a_number_that_another_process_has_by_now(path):
    path.write_text('1\n')
    cycle(path)


def test_it_starts_after_kill_9(path, hold):
    process = running(hold, path)
    process.kill()
    process.wait()
    assert probe(str(path)) == ('died', process.pid)
    cycle(path)


def test_a_longer_number_is_overwritten_wholly(path):
    path.write_text('1' * 30)
    pidfile = Pidfile(str(path))
    pidfile.acquire()
    pidfile.write()
    assert path.read_text() == f'{os.getpid()}\n'
    pidfile.release()


# What it refuses, and leaves as it was.


def test_it_refuses_while_another_runs_and_names_its_pid(path, hold):
    process = running(hold, path)
    assert refusal(path) == f'already running, pid {process.pid}'
    assert path.read_text() == f'{process.pid}\n'


def test_it_refuses_while_another_starts(path):
    first = Pidfile(str(path))
    first.acquire()
    assert refusal(path) == 'already running'
    first.release()


def test_it_refuses_a_symbolic_link_and_does_not_touch_its_target(path, tmp_path):
    target = tmp_path / 'target'
    target.write_text('1\n')
    path.symlink_to(target)
    assert refusal(path) == 'is not a pidfile: it is a symbolic link'
    assert path.is_symlink()
    assert target.read_text() == '1\n'


def test_it_refuses_a_dangling_symbolic_link_and_does_not_create_its_target(path, tmp_path):
    path.symlink_to(tmp_path / 'target')
    assert refusal(path) == 'is not a pidfile: it is a symbolic link'
    assert not (tmp_path / 'target').exists()


def test_it_refuses_a_fifo_without_a_trace_at_its_other_end(path):
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert refusal(path) == 'is not a pidfile: it is a FIFO'
    assert path.is_fifo()
    os.close(reader)


def test_it_refuses_a_directory(path):
    path.mkdir()
    assert refusal(path) == 'is not a pidfile: it is a directory'
    assert path.is_dir()


def test_it_refuses_a_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        assert refusal(path) == 'is not a pidfile: it is a socket'
    assert path.is_socket()


def test_it_refuses_a_device():
    assert refusal('/dev/null') == 'is not a pidfile: it is a device'


def test_it_refuses_a_file_of_several_names(path, tmp_path):
    path.write_text('1\n')
    os.link(path, tmp_path / 'shadow')
    assert refusal(path) == 'is not a pidfile: it has 2 names (hard links)'
    assert path.read_text() == '1\n'


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'root:x:0\nbin:x:1\n', 'is not a pidfile: it has several lines'),
        (b'1' * 33, 'is not a pidfile: it has more than 32 bytes'),
        (b'x' * 10_000_000, 'is not a pidfile: it has more than 32 bytes'),
    ],
)
def test_it_refuses_a_file_that_is_no_pidfile(path, content, reason):
    path.write_bytes(content)
    assert refusal(path) == reason
    assert path.read_bytes() == content


def test_a_missing_folder_is_told(tmp_path):
    folder = tmp_path / 'missing'
    assert refusal(folder / 'orders.pid') == f'cannot be created: there is no folder {folder}'


def test_a_file_in_the_place_of_the_folder_is_told(path):
    path.touch()
    assert refusal(path / 'orders.pid') == 'Not a directory'


def test_a_path_that_cannot_be_one_is_told(tmp_path):
    with pytest.raises(PidfileError, match='null'):
        Pidfile(f'{tmp_path}/\0').acquire()


@pytest.mark.root
def test_a_folder_that_the_user_may_not_write_is_told(path, hold, tmp_path):
    os.chmod(tmp_path, 0o755)
    process = hold(path, '--user', NOBODY)
    assert process.stdout.readline().endswith('Permission denied\n')
    assert process.wait() == 73
    assert not path.exists()


def in_tmpfs(options, script):
    """Run *script* where /mnt is a file system of its own."""
    mount = f'mount -t tmpfs -o {options} tmpfs /mnt && exec "$@"'
    argv = ['unshare', '-m', 'sh', '-c', mount, 'sh', sys.executable, '-c', script]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    return done.stderr.splitlines()[-1].removeprefix('clihelper.errors.PidfileError: ')


ACQUIRE = 'from clihelper.process.pidfile import Pidfile; p = Pidfile("/mnt/p"); p.acquire()'


@pytest.mark.root
def test_a_read_only_file_system_is_told():
    assert in_tmpfs('ro', ACQUIRE) == 'pidfile /mnt/p: Read-only file system'


@pytest.mark.root
def test_a_file_system_without_room_for_another_file_is_told():
    assert in_tmpfs('nr_inodes=1', ACQUIRE) == 'pidfile /mnt/p: No space left on device'


@pytest.mark.root
def test_a_full_file_system_is_told():
    script = (
        'full = open("/mnt/full", "wb", 0)\n'
        'try:\n    while full.write(b"x" * 4096): pass\nexcept OSError: pass\n'
        f'{ACQUIRE}; p.write()'
    )
    assert in_tmpfs('size=4k', script) == (
        'pidfile /mnt/p: cannot be written: No space left on device'
    )


# What a start that fails leaves behind.


def test_a_file_that_was_created_and_never_used_is_removed(path):
    pidfile = Pidfile(str(path))
    pidfile.acquire()
    pidfile.release()
    assert not path.exists()


def test_a_file_that_was_there_and_never_used_is_left_as_it_was(path):
    path.write_text('4194304\n')
    pidfile = Pidfile(str(path))
    pidfile.acquire()
    pidfile.release()
    assert path.read_text() == '4194304\n'


def test_a_file_that_took_the_place_of_ours_is_left_alone(path, tmp_path):
    pidfile = Pidfile(str(path))
    pidfile.acquire()
    pidfile.write()
    path.rename(tmp_path / 'old')
    path.write_text('1\n')
    pidfile.release()
    assert path.read_text() == '1\n'
    assert (tmp_path / 'old').read_text() == ''


@pytest.mark.root
def test_it_is_emptied_where_the_user_may_not_unlink_it_and_started_over_again(
    path, hold, tmp_path
):
    os.chmod(tmp_path, 0o755)
    process = running(hold, path, '--becomes', NOBODY)
    assert probe(str(path)) == ('running', process.pid)
    process.communicate()
    assert process.returncode == 0
    assert path.read_text() == ''
    assert probe(str(path)) == ('stopped', None)
    cycle(path)


@pytest.mark.root
def test_root_starts_over_what_another_user_left_in_a_sticky_folder(path, tmp_path):
    os.chmod(tmp_path, 0o1777)
    path.write_text('4194304\n')
    os.chown(path, NOBODY, NOBODY)
    cycle(path)


# Many at once.


def test_of_50_simultaneous_starts_exactly_one_runs(path, hold):
    processes = [hold(path, go=False) for _ in range(50)]
    for process in processes:
        assert process.stdout.readline() == 'waiting\n'
    for process in processes:
        process.stdin.write('\n')
        process.stdin.flush()
    answers = [process.stdout.readline() for process in processes]
    [winner] = [process for process, said in zip(processes, answers, strict=True)
                if said == 'held\n']
    refused = rf'pidfile {re.escape(str(path))}: already running(, pid {winner.pid})?\n'
    assert sum(bool(re.fullmatch(refused, said)) for said in answers) == 49
    assert path.read_text() == f'{winner.pid}\n'
    assert sorted(process.wait() for process in processes if process is not winner) == [73] * 49


def compete(path, marker, rounds):
    """Start and stop many times; no other process may run in between."""
    for _ in range(rounds):
        pidfile = Pidfile(path)
        try:
            pidfile.acquire()
        except PidfileError:
            continue
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        pidfile.write()
        os.unlink(marker)
        pidfile.release()


def test_never_do_two_run_while_many_start_and_stop(path, tmp_path):
    children = [fork(lambda: compete(str(path), tmp_path / 'marker', 150)) for _ in range(6)]
    assert [status_of(child) for child in children] == [0] * 6
    assert not path.exists()


def test_looking_at_the_pidfile_does_not_make_a_start_fail(path):
    done, stop = os.pipe()

    def look_all_the_time():
        os.close(stop)
        while not select.select([done], [], [], 0)[0]:
            probe(str(path))

    prober = fork(look_all_the_time)
    path.touch()
    try:
        for _ in range(2000):
            pidfile = Pidfile(str(path))
            pidfile.acquire()
            pidfile.release()
    finally:
        os.close(stop)
        os.close(done)
        status = status_of(prober)
    assert status == 0


def test_a_probe_that_has_to_wait_for_its_turn_does_not_make_a_start_fail(path):
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    probing = threading.Timer(0.2, os.close, [descriptor])
    probing.start()
    pidfile = Pidfile(str(path))
    pidfile.acquire()
    pidfile.release()
    probing.join()


# Looking at it.


def test_a_probe_creates_nothing(path):
    assert probe(str(path)) == ('stopped', None)
    assert not path.exists()


@pytest.mark.parametrize(
    ('content', 'answer'),
    [
        (b'4194304\n', ('died', 4194304)),
        (b'', ('stopped', None)),
        (b'garbage', ('unknown', None)),
        (b'1\n2\n', ('unknown', None)),
    ],
)
def test_a_probe_of_an_unlocked_file_reads_its_content(path, content, answer):
    path.write_bytes(content)
    assert probe(str(path)) == answer


def test_a_probe_follows_no_link(path):
    path.symlink_to('/etc/passwd')
    assert probe(str(path)) == ('unknown', None)


@pytest.mark.root
def test_a_probe_of_a_file_that_may_not_be_read_knows_nothing(path):
    path.write_text('1\n')

    def look():
        os.setresuid(NOBODY, NOBODY, NOBODY)
        assert probe(str(path)) == ('unknown', None)

    assert status_of(fork(look)) == 0
