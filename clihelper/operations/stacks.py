"""Where a process is: the stacks of its threads and tasks, or of its threads as C sees them.

A process whose interpreter is stuck cannot answer. For that case :func:`register` has
faulthandler write the stacks into memory without a name, at :data:`SIGNAL`, from C; :func:`dump`
sends the signal and reads them, in another process.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Any

SIGNAL = signal.SIGRTMIN + 7
"""the signal at which a process writes its stacks"""

NAME = 'clihelper-stacks'
"""the name of the memory that it writes them into, in ``/proc/PID/fd``"""

LONGEST = 256 * 1024
"""the most characters of one process's stacks"""

MOST_TASKS = 500
"""the most tasks that are shown"""

_NAP = 0.005  # seconds between two looks whether a process has handled the signal

_memory = -1


def describe() -> str:
    """Return the stacks of all threads but, unless it is the main one, the calling one; and tasks.

    Any thread may call this.
    """
    text = '\n'.join([threads(), *tasks()])
    return text if len(text) <= LONGEST else f'{text[:LONGEST]}\n(and more)'


def threads() -> str:
    """Return the stack of every thread except, unless it is the main one, the calling thread."""
    import traceback

    is_main = threading.current_thread() is threading.main_thread()
    asking = None if is_main else threading.get_ident()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        if ident == asking:
            continue
        parts.append(f'thread {names.get(ident, ident)}:\n')
        parts.extend(traceback.format_stack(frame))
    return ''.join(parts).rstrip()


def tasks() -> Iterator[str]:
    """Yield the stack of each task of the event loops that run in this process."""
    asyncio = sys.modules.get('asyncio')
    if asyncio is None:
        return
    for loop in _event_loops():
        try:
            found = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
        except RuntimeError:  # it changes all the time
            continue
        for task in found[:MOST_TASKS]:
            yield _described(task)
        if len(found) > MOST_TASKS:
            yield f'(and {len(found) - MOST_TASKS} more tasks)'


def _event_loops() -> list[Any]:
    """Return the event loops that run in any thread: whoever runs one has it as ``self``."""
    from asyncio import AbstractEventLoop

    found = []
    for top in sys._current_frames().values():
        frame: FrameType | None = top
        while frame is not None:
            if frame.f_code.co_name == 'run_forever':
                loop = frame.f_locals.get('self')
                if isinstance(loop, AbstractEventLoop):
                    found.append(loop)
            frame = frame.f_back
    return found


def _described(task: Any) -> str:
    import traceback

    lines = [f'task {task.get_name()}:\n']
    try:
        for frame in _awaiting(task.get_coro()):
            lines += traceback.format_stack(frame, 1)
    except Exception as error:  # it goes on meanwhile
        lines.append(f'  ({type(error).__name__}: {error})')
    return ''.join(lines).rstrip()


def _awaiting(awaited: Any) -> Iterator[FrameType]:
    """Yield the frames of a coroutine and of what it waits for, the outermost one first."""
    for _ in range(1000):
        kind = next((kind for kind in ('cr', 'gi', 'ag') if hasattr(awaited, f'{kind}_frame')), '')
        frame = getattr(awaited, f'{kind}_frame', None)
        if frame is None:
            return
        yield frame
        awaited = getattr(awaited, 'gi_yieldfrom' if kind == 'gi' else f'{kind}_await')


# Of a process that cannot answer.

def register() -> None:
    """Have this process write its stacks at :data:`SIGNAL`, from C."""
    import faulthandler

    global _memory
    signal.signal(SIGNAL, signal.SIG_IGN)  # who finds the memory may send it
    _memory = os.memfd_create(NAME, os.MFD_CLOEXEC)
    fcntl.fcntl(_memory, fcntl.F_SETFL, os.O_APPEND)
    faulthandler.register(SIGNAL, _memory)


def clear() -> None:
    """Forget what was written: this process answers again."""
    if _memory >= 0:
        os.ftruncate(_memory, 0)


def dump(pid: int, timeout: float) -> str:
    """Return the stacks of the threads of a process, from C, whatever it does.

    :param timeout: seconds.
    :raises PermissionError: the process belongs to another user.
    :raises LookupError: it has ended, or does not write its stacks.
    :raises TimeoutError: it has not written them in time: it is stopped, say.
    """
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        raise LookupError('has ended') from None
    try:
        memory = _open_memory(pid)
        try:
            return _written(pid, process, memory, time.monotonic() + timeout)
        finally:
            os.close(memory)
    finally:
        os.close(process)


def _open_memory(pid: int) -> int:
    folder = f'/proc/{pid}/fd'
    with suppress(FileNotFoundError, ProcessLookupError):
        for name in os.listdir(folder):
            with suppress(FileNotFoundError):  # it has been closed since
                if not os.readlink(f'{folder}/{name}').startswith(f'/memfd:{NAME}'):
                    continue
                return os.open(f'{folder}/{name}', os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    raise LookupError('does not write its stacks')


def _written(pid: int, process: int, memory: int, end: float) -> str:
    start = os.fstat(memory).st_size
    deaf = _blocking(pid)
    if not _signals(f'/proc/{pid}/status', b'SigCgt') & _BIT:  # it would kill the process
        raise LookupError('does not write its stacks')
    try:
        signal.pidfd_send_signal(process, SIGNAL)
    except ProcessLookupError:
        raise LookupError('has ended') from None
    while os.fstat(memory).st_size == start or _blocking(pid) - deaf:
        if time.monotonic() > end:
            raise TimeoutError('is stopped, or in the kernel')
        time.sleep(_NAP)
    return os.pread(memory, LONGEST, start).decode(errors='replace').rstrip()


_BIT = 1 << (SIGNAL - 1)


def _blocking(pid: int) -> set[str]:
    """Return the threads that block the signal, as one does while it handles it."""
    try:
        tasks = os.listdir(f'/proc/{pid}/task')
    except OSError:
        return set()
    return {each for each in tasks
            if _signals(f'/proc/{pid}/task/{each}/status', b'SigBlk') & _BIT}


def _signals(path: str, wanted: bytes) -> int:
    """Return the signals that are in one of a thread's sets: proc_pid_status(5)."""
    with suppress(OSError), open(path, 'rb') as file:
        for line in file:
            name, _, value = line.partition(b':')
            if name == wanted:
                return int(value, 16)
    return 0
