"""Asking a daemon by its control socket."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import time
from contextlib import suppress

from clihelper.errors import Error, NotPermitted, UnavailableForNow
from clihelper.operations.control import credentials
from clihelper.process.sockets import addressable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

CHUNK = 65536

_TIMEVAL = struct.pack('ll', 1, 0)  # a second

LONGEST_ANSWER = 8 * 2**20
"""the most bytes of one answer"""


class NoControl(Error):
    """The daemon has no control socket, or not where it is looked for."""


class Conversation:
    """A connection to a daemon's control socket.

    :param path: the socket.
    :param pid: the process that must be at the other end.
    :raises NoControl: there is no socket, or nobody listens.
    :raises NotPermitted: this user may not ask.
    """

    def __init__(self, path: str, pid: int) -> None:
        self._input = b''
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            with addressable(path) as address:
                # How long to wait where the queue of the others is full.
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL)
                self._socket.connect(address)
            self._socket.setblocking(False)
        except OSError as error:
            self._socket.close()
            if isinstance(error, PermissionError):
                raise NotPermitted(f'{path}: not permitted') from None
            if isinstance(error, (BlockingIOError, TimeoutError)):
                raise UnavailableForNow(f'{path}: too many clients') from None
            raise NoControl(f'{path}: {error.strerror}') from None
        if credentials(self._socket)[0] != pid:
            self._socket.close()
            raise NoControl(f'{path}: another process than the daemon listens there')

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    def ask(self, words: Mapping[str, Any], timeout: float) -> Iterator[dict[str, Any]]:
        """Send a request, and yield its answers; the last one has ``status``.

        :param timeout: the seconds in which all of them have to be there.
        :raises UnavailableForNow: they are not, or the daemon has ended.
        """
        end = time.monotonic() + timeout
        try:
            with suppress(BrokenPipeError):  # it is refused: why, can be read
                self._socket.send(json.dumps(words).encode() + b'\n')
            while True:
                answer = self._read(end)
                yield answer
                if 'status' in answer:
                    return
        except OSError as error:
            raise UnavailableForNow(f'the daemon does not answer: {error.strerror}') from None

    def _read(self, end: float) -> dict[str, Any]:
        while b'\n' not in self._input:
            if not self._wait(end):
                raise UnavailableForNow('the daemon does not answer in time')
            data = self._socket.recv(CHUNK)
            if not data:
                raise UnavailableForNow('the daemon has ended before it has answered')
            self._input += data
            if len(self._input) > LONGEST_ANSWER:
                raise UnavailableForNow('the daemon answers too much')
        line, _, self._input = self._input.partition(b'\n')
        try:
            answer = json.loads(line)
            return {**answer, 'status': int(answer['status'])} if 'status' in answer else answer
        except (TypeError, ValueError, RecursionError):
            raise UnavailableForNow('the daemon answers what nobody understands') from None

    def _wait(self, end: float) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(max(end - time.monotonic(), 0.0) * 1000))


def fault_of(answer: Mapping[str, Any]) -> list[str]:
    """Return the lines of an answer that say what is wrong, with the worker that says so."""
    lines = answer.get('errors')
    worker = f'worker {answer["worker"]}: ' if 'worker' in answer else ''
    return [f'{worker}{line}' for line in lines] if isinstance(lines, list) else []


class Refused(Error):
    """The daemon has not done what was asked; each line says why.

    :param status: the exit status.
    """

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status if 0 < status < 128 else os.EX_TEMPFAIL
