"""One daemon at a time: a pidfile, locked with flock(2) for as long as the daemon lives.

The lock is authoritative and the number is information; :func:`probe` interprets them as follows:

========  ========  ===========================================================
lock      content   the daemon
========  ========  ===========================================================
held      any       runs
free      a number  died
free      empty     stopped, in a folder where its user may not unlink the file
no file             stopped
========  ========  ===========================================================

The lock belongs to the open file description: it passes to the daemon through fork(2), and the
kernel drops it when the last process that holds the description has ended, whatever killed it.
So no file is ever stale, and a number in it is never trusted or sent a signal. What the daemon
forks gives the lock up at once, except its workers, which are part of it.
"""

from __future__ import annotations

import os
import stat
import sys
import time

from clihelper.errors import PidfileError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

LONGEST = 32
"""bytes; a longer file is not a pidfile, and is left alone"""

MODE = 0o644
"""the mode of a new pidfile, before the umask of whoever starts the daemon is applied"""

_KINDS = {
    stat.S_IFLNK: 'a symbolic link',
    stat.S_IFDIR: 'a directory',
    stat.S_IFIFO: 'a FIFO',
    stat.S_IFSOCK: 'a socket',
    stat.S_IFCHR: 'a device',
    stat.S_IFBLK: 'a device',
}

# O_NONBLOCK and O_NOCTTY matter only if the file is replaced between lstat and open.
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

_REPLACED = 20  # times that the file may be replaced concurrently before we give up
_PROBED = 1000  # attempts to lock the file while a probe holds the lock
_PROBE = 0.005  # seconds; a probe takes some microseconds, or longer on a busy system


class Pidfile:
    """The pidfile of a daemon: :meth:`acquire`, fork, :meth:`write`, :meth:`release`.

    :param path: where it is; a relative path is resolved against the current folder, and remains
        valid when the daemon changes its folder.
    :ivar bool is_shared: whether the processes that are forked from now on keep the lock: the
        workers of a daemon.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._descriptor = -1
        self._created = False
        self._writer = 0
        self.is_shared = False

    def acquire(self) -> None:
        """Open or create the file and lock it; :meth:`write` changes its content.

        Call this before detaching, so that its errors are shown on the terminal.

        :raises PidfileError: the daemon is already running; the file cannot be created, opened or
            locked; or it is not a pidfile: a symbolic link, FIFO, directory, socket or device, or
            a file with several names (hard links), with several lines or with more than
            :data:`LONGEST` bytes. Such a file is left untouched.
        """
        earlier = vars(sys).pop(_UNTIL_EXIT, None)
        if earlier is not None:  # the program has run another daemon before
            earlier.pidfile.release()
        try:
            for _ in range(_REPLACED):
                if self._attempt():
                    return
        except (OSError, ValueError) as error:
            raise self._error(_reason(error, self.path)) from error
        raise self._error('keeps being replaced')

    def write(self) -> None:
        """Write the pid of this process, which from then on is the one that releases the file.

        The daemon itself calls this, after the last fork that detaches it. Since the descriptor
        is open, it works even after privileges were dropped.

        :raises PidfileError: the file cannot be written, for instance because the disk is full.
        """
        descriptor = self.fileno()
        self._writer = os.getpid()
        _written.append(self)
        try:
            # Truncate it first, so that a reader never sees a mixture of two numbers.
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b'%d\n' % self._writer, 0)
        except OSError as error:
            raise self._error(f'cannot be written: {error.strerror}') from error

    def release(self) -> None:
        """Remove the file, or empty it if the folder does not permit that; then unlock it.

        This applies to the process that wrote it; any other, such as a forked worker, only closes
        its own descriptor. A file that :meth:`acquire` created and that was never written is
        removed as well. It may be called twice, and raises nothing.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        if self in _written:
            _written.remove(self)
        try:
            if self._writer == os.getpid() or self._is_unused(descriptor):
                _remove(self.path, descriptor)
        finally:
            os.close(descriptor)

    def release_last(self) -> None:
        """Release it when the interpreter ends, after all threads and exit handlers.

        Until then the daemon may be at work, and no other may be started. A process other than
        the daemon releases it now.
        """
        if self._writer == os.getpid():
            setattr(sys, _UNTIL_EXIT, _ReleasedLast(self))
        else:
            self.release()

    def leave_to_parent(self) -> None:
        """Give the lock up, in a process that the daemon has just forked."""
        if self._descriptor >= 0 and not self.is_shared:
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        """The descriptor that holds the lock.

        :raises ValueError: the pidfile is not acquired.
        """
        if self._descriptor < 0:
            raise ValueError(f'pidfile {self.path}: not acquired')
        return self._descriptor

    def _attempt(self) -> bool:
        """Acquire it; return False if the file was replaced or removed in the meantime."""
        try:
            descriptor, created = self._open()
        except FileExistsError:
            return False
        acquired = False
        try:
            self._refuse(_fault(os.fstat(descriptor), _read(descriptor)))
            self._lock(descriptor)
            acquired = _names(self.path, descriptor)
        finally:
            if not acquired:
                os.close(descriptor)
        if acquired:
            self._descriptor, self._created, self._writer = descriptor, created, 0
        return acquired

    def _open(self) -> tuple[int, bool]:
        """Open the file, or create it if it does not exist.

        These are two calls because open(2) with O_CREAT fails, even for root, on a file of another
        user in a sticky folder (``fs.protected_regular``), and because the result must say which
        of the two was done.

        :returns: the descriptor, and whether the file was created.
        :raises FileExistsError: another process created it just now.
        """
        try:
            # Checked before it is opened: opening a FIFO or a device already has an effect on it.
            self._refuse(_fault(os.lstat(self.path)))
            return os.open(self.path, os.O_RDWR | _FLAGS), False
        except FileNotFoundError:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS
            return os.open(self.path, flags, MODE), True

    def _lock(self, descriptor: int) -> None:
        for _ in range(_PROBED):
            if _flock(descriptor, shared=False):
                return
            if not _is_shared(descriptor):
                break
            time.sleep(_PROBE)
        pid = _number(_read(descriptor))
        others = [] if pid is None or holds(pid, descriptor) else holders(descriptor)
        if others:
            raise self._error(f'process {pid} has ended, but the lock is held by {named(others)}')
        raise self._error('already running' + (f', pid {pid}' if pid else ''))

    def _is_unused(self, descriptor: int) -> bool:
        return self._created and not self._writer and os.fstat(descriptor).st_size == 0

    def _refuse(self, fault: str) -> None:
        if fault:
            raise self._error(fault)

    def _error(self, fault: str) -> PidfileError:
        return PidfileError(f'pidfile {self.path}: {fault}')


_UNTIL_EXIT = '_clihelper_pidfile'
"""the attribute of :mod:`sys` for an object that is deleted when the interpreter ends"""


class _ReleasedLast:
    """Removes a pidfile when it is deleted; the lock ends with the process.

    :mod:`atexit` would be too early: handlers registered before are called later. When it is
    deleted, other modules have been cleared: whatever it calls, it has to hold itself.
    """

    def __init__(self, pidfile: Pidfile) -> None:
        self.pidfile = pidfile
        self._getpid, self._remove = os.getpid, _remove

    def __del__(self) -> None:
        descriptor = self.pidfile._descriptor
        if descriptor >= 0 and self.pidfile._writer == self._getpid():
            self._remove(self.pidfile.path, descriptor)


_written: list[Pidfile] = []


def _leave_to_parent() -> None:
    for pidfile in _written:
        pidfile.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)


def probe(path: str) -> tuple[Literal['running', 'died', 'stopped', 'unknown'], int | None]:
    """Return the state of the daemon whose pidfile is at *path*. The file is never created.

    :returns: the state, and the pid in the file if there is one: of the daemon that runs, or of
        the one that died. ``unknown``: the file may not be read, or is not a pidfile.
    """
    try:
        if _fault(os.lstat(path)):
            return 'unknown', None
        descriptor = os.open(path, os.O_RDONLY | _FLAGS)
    except FileNotFoundError:
        return 'stopped', None
    except (OSError, ValueError):
        return 'unknown', None
    try:
        content = _read(descriptor)
        if _fault(os.fstat(descriptor), content):
            return 'unknown', None
        pid = _number(content)
        if not _flock(descriptor, shared=True):
            return 'running', pid
    except OSError:
        return 'unknown', None
    finally:
        os.close(descriptor)
    if pid:
        return 'died', pid
    return ('unknown' if content else 'stopped'), None


def explain(path: str) -> str:
    """Return why the file at *path* cannot be a pidfile; empty if it may be one, or is not there.

    The file is not opened unless it is a regular one.

    :raises PermissionError: it may not be looked at.
    """
    try:
        fault = _fault(os.lstat(path))
        if fault:
            return fault
        descriptor = os.open(path, os.O_RDONLY | _FLAGS)
    except FileNotFoundError:
        return ''
    except PermissionError:
        raise
    except (OSError, ValueError) as error:
        return f'cannot be read: {getattr(error, "strerror", None) or error}'
    try:
        content = _read(descriptor)
        if fault := _fault(os.fstat(descriptor), content):
            return fault
        return '' if _number(content) or not content else 'is not a pidfile: it has no number'
    finally:
        os.close(descriptor)


def is_held_by(path: str, pid: int) -> bool:
    """Return whether a process has the pidfile at *path* locked, as far as may be looked at."""
    try:
        descriptor = os.open(path, os.O_RDONLY | _FLAGS)
    except OSError:
        return False
    try:
        return holds(pid, descriptor)
    finally:
        os.close(descriptor)


def holds(pid: int, descriptor: int, *, unseen: bool = True) -> bool:
    """Return whether a process has the file of *descriptor* open and locked.

    See proc_pid_fdinfo(5).

    :param unseen: what is returned if that may not be looked at.
    """
    ours = os.fstat(descriptor)
    try:
        for number in os.listdir(f'/proc/{pid}/fd'):
            if _is_locked(pid, number, ours):
                return True
    except PermissionError:
        return unseen
    except OSError:  # it has ended
        pass
    return False


def _is_locked(pid: int, number: str, file: os.stat_result) -> bool:
    try:
        if not os.path.samestat(os.stat(f'/proc/{pid}/fd/{number}'), file):
            return False
        with open(f'/proc/{pid}/fdinfo/{number}') as info:
            return 'FLOCK' in info.read()
    except PermissionError:
        raise
    except OSError:  # it was closed in between
        return False


def holders(descriptor: int) -> list[int]:
    """Return the processes that have the file open and locked, of those that may be looked at."""
    pids = sorted(int(name) for name in os.listdir('/proc') if name.isdigit())
    return [pid for pid in pids if holds(pid, descriptor, unseen=False)]


def named(pids: list[int]) -> str:
    """Return processes by number and name: ``process 12 (python3)``."""
    return ', '.join(f'process {pid} ({_command(pid)})' for pid in pids)


def _command(pid: int) -> str:
    """Return the name of a process, as ps(1) shows it: proc_pid_comm(5)."""
    try:
        with open(f'/proc/{pid}/comm', 'rb') as file:
            return ascii(file.read().decode(errors='replace').rstrip('\n'))[1:-1]
    except OSError:
        return 'ended'


def _fault(status: os.stat_result, content: bytes = b'') -> str:
    """Return why this is not a pidfile; empty if it may be one."""
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), 'a special file')
        return f'is not a pidfile: it is {kind}'
    if status.st_nlink > 1:
        return f'is not a pidfile: it has {status.st_nlink} names (hard links)'
    if len(content) > LONGEST:
        return f'is not a pidfile: it has more than {LONGEST} bytes'
    if b'\n' in content.strip():
        return 'is not a pidfile: it has several lines'
    return ''


def _names(
    path: str,
    descriptor: int,
    lstat: Callable[[str], os.stat_result] = os.lstat,
    fstat: Callable[[int], os.stat_result] = os.fstat,
) -> bool:
    """Return whether *path* still names the open file."""
    try:
        there, ours = lstat(path), fstat(descriptor)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _remove(
    path: str,
    descriptor: int,
    names: Callable[[str, int], bool] = _names,
    unlink: Callable[[str], None] = os.unlink,
    truncate: Callable[[int, int], None] = os.ftruncate,
) -> None:
    """Unlink the file, or empty it if that is not permitted or *path* names another one."""
    try:
        if names(path, descriptor):
            unlink(path)
            return
    except OSError:
        pass
    try:
        truncate(descriptor, 0)
    except OSError:
        pass


def _read(descriptor: int) -> bytes:
    return os.pread(descriptor, LONGEST + 1, 0)


def _number(content: bytes) -> int | None:
    digits = content.strip()
    return int(digits) if digits.isdigit() and int(digits) else None


def _flock(descriptor: int, *, shared: bool) -> bool:
    """Lock the file without waiting; False if another process holds the lock."""
    import fcntl

    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_shared(descriptor: int) -> bool:
    """Return whether others hold a shared lock on the file, as probes do but daemons do not."""
    import fcntl

    if not _flock(descriptor, shared=True):
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return True


def _reason(error: OSError | ValueError, path: str) -> str:
    if isinstance(error, FileNotFoundError):
        return f'cannot be created: there is no folder {os.path.dirname(path)}'
    return getattr(error, 'strerror', None) or str(error)
