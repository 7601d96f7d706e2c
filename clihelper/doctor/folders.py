"""Files and folders: the working directory, the pidfile, the state directory and the umask."""

from __future__ import annotations

import os
import stat

from clihelper.doctor.findings import fault, ok, warning
from clihelper.process import scoreboard
from clihelper.process.pidfile import explain, holders, holds, named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from clihelper.doctor.accounts import Account
    from clihelper.doctor.findings import Finding

ENTER = os.X_OK
WRITE = os.W_OK | os.X_OK

LEAST_FREE = 16 * 1024 * 1024
"""bytes of a file system that should be free, for scoreboards and logs"""


def check_working_directory(path: str, account: Account) -> Iterator[Finding]:
    """Whether ``Daemon.working_directory`` exists, and its user may enter it."""
    where = f'Daemon.working_directory {path}'
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            yield fault('working_directory', where, 'is not a folder', 'name a folder')
        elif not account.may(path, ENTER):
            yield fault('working_directory', where, f'the {account} may not enter it',
                        'chmod or chown it, or name another')
        else:
            yield ok('working_directory', where, 'exists')
    except OSError as error:
        yield fault('working_directory', where, reason(error), f'mkdir {path}, or name another')


def check_umask(umask: int) -> Iterator[Finding]:
    """Whether ``Daemon.umask`` leaves files to their user alone to write."""
    where = f'Daemon.umask {umask:03o}'
    if umask & 0o700:
        yield warning('umask', where, 'takes permissions from the user of the daemon itself',
                      'write 027')
    elif not umask & 0o002:
        yield warning('umask', where, 'everybody may write what the daemon creates', 'write 027')
    else:
        yield ok('umask', where, 'others may not write what the daemon creates')


def check_pidfile(
    path: str | None, state: str, pid: int | None, starter: Account, made: Collection[str] = ()
) -> Iterator[Finding]:
    """Whether the daemon can have its pidfile.

    :param path: the pidfile; None if there is none.
    :param state: what :func:`clihelper.process.pidfile.probe` says.
    :param pid: the process ID in it.
    :param starter: who starts the daemon, and creates the file.
    :param made: folders that the service manager makes.
    """
    if path is None:
        yield warning('pidfile', 'Daemon.pidfile', 'there is none: a second daemon could be'
                      ' started, and clihelper cannot find it', 'set it')
        return
    where = f'pidfile {path}'
    if state == 'running':
        yield from _check_holder(where, path, pid)
    elif state == 'unknown':
        try:
            yield fault('pidfile', where, explain(path) or 'cannot be read',
                        'remove it, or set another Daemon.pidfile')
        except PermissionError:
            yield warning('pidfile', where, 'may not be read', 'run this command as root')
    else:
        if state == 'died':
            yield warning('pidfile', where, f'is stale: process {pid} did not end cleanly; see'
                          ' its log', 'the next start replaces it, clihelper stop removes it')
        yield from _check_folder_of_pidfile(where, path, starter, made)


def _check_holder(where: str, path: str, pid: int | None) -> Iterator[Finding]:
    """Whether it is the daemon that holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        yield warning('pidfile', where, f'is locked, but cannot be read: {reason(error)}')
        return
    try:
        if pid is not None and holds(pid, descriptor):
            yield ok('pidfile', where, f'the daemon runs, pid {pid}')
            return
        others = holders(descriptor)
    finally:
        os.close(descriptor)
    by = f' by {named(others)}' if others else ''
    said = f'process {pid}, whose ID it contains,' if pid else 'a daemon that has written its ID'
    yield fault('pidfile', where, f'is locked{by}, not by {said}'.rstrip(','),
                'end that process, or wait for its end')


def _check_folder_of_pidfile(
    where: str, path: str, starter: Account, made: Collection[str]
) -> Iterator[Finding]:
    folder = os.path.dirname(path)
    try:
        if starter.may(folder, WRITE) or (
                os.path.exists(path) and starter.may(path, os.R_OK | os.W_OK)):
            yield ok('pidfile', where, 'can be created')
        else:
            yield fault('pidfile', where, f'the {starter}, who starts the daemon, may not write'
                        f' in {folder}', 'chown the folder, or set another Daemon.pidfile')
    except OSError as error:
        if folder in made:
            yield ok('pidfile', where, 'systemd makes its folder')
        else:
            yield fault('pidfile', where, f'{folder}: {reason(error)}',
                        'mkdir it, RuntimeDirectory= in the unit, or another Daemon.pidfile')


def check_state_directory(
    path: str | None, name: str, account: Account, made: Collection[str] = ()
) -> Iterator[Finding]:
    """Whether the daemon can keep its scoreboard.

    :param path: ``Daemon.state_directory``; None if there is none.
    :param name: the name of the program.
    :param account: the user that the daemon runs as.
    """
    if path is None:
        yield ok('state_directory', 'Daemon.state_directory', 'not set: after a restart it is not'
                 ' known which messages ended a process')
        return
    where = f'Daemon.state_directory {path}'
    try:
        if not account.may(path, WRITE):
            yield warning('state_directory', where, f'the {account} may not write in it: after a'
                          ' restart it is not known which messages ended a process',
                          f'chown {account.uid} {path}')
            return
        found = [*check_space('state_directory', where, path),
                 *_check_scoreboard(os.path.join(path, f'{name}.scoreboard'), account)]
        yield from found or [ok('state_directory', where, f'the {account} can write in it')]
    except OSError as error:
        if path in made:
            yield ok('state_directory', where, 'systemd makes it')
        else:
            yield warning('state_directory', where, reason(error),
                          f'mkdir {path} and chown {account.uid} {path}, or StateDirectory= in the'
                          ' unit')


def _check_scoreboard(path: str, account: Account) -> Iterator[Finding]:
    """Whether the file can be used as a scoreboard, if there is one."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    fault_of_file = scoreboard.fault_of(status, account.uid)
    if fault_of_file:
        yield warning('state_directory', path, f'{fault_of_file}: after a restart it is not known'
                      ' which messages ended a process', 'remove it while the daemon is stopped')


def check_space(check: str, where: str, path: str) -> Iterator[Finding]:
    """Whether there is room left on a file system, if it is nearly full."""
    status = os.statvfs(path)
    free, inodes = status.f_bavail * status.f_frsize, status.f_favail
    remedy = 'free some space'
    if free < scoreboard.SIZE:
        yield fault(check, where, f'the file system is full: {free // 1024} KiB are free', remedy)
    elif free < LEAST_FREE:
        yield warning(check, where, f'only {free // 1024} KiB are free', remedy)
    elif status.f_files and inodes < 16:
        yield warning(check, where, f'only {inodes} inodes are free', remedy)


def reason(error: OSError) -> str:
    """Why a file cannot be used, in the words of the system."""
    if isinstance(error, FileNotFoundError):
        return 'does not exist'
    return error.strerror or str(error)
