"""Pauses the daemon's queues as the control socket asks, and keeps that over a restart."""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress

from clihelper.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clihelper.operations.control import ControlServer, Request
    from clihelper.process.flow import Flow

LOGGER = logging.getLogger('clihelper.control')

LARGEST = 2**20
"""the most bytes of the file that are read"""

NO_DIRECTORY = 'there is no Daemon.state_directory'


class Pausing:
    """Answers ``pause`` and ``resume``, in the process that serves the control socket.

    :param flow: what the daemon's processes share.
    :param path: the file in which it is kept; None: there is none.
    """

    def __init__(self, flow: Flow, path: str | None) -> None:
        self._flow = flow
        self._path = path

    def answer(self, server: ControlServer) -> None:
        """Answer the requests that *server* gets."""
        server.add('pause', self._pause)
        server.add('resume', self._resume)

    def _pause(self, request: Request) -> None:
        names = self._asked(request)
        self._flow.pause(names, everything=not names)
        self._finish(request, 'paused', names)

    def _resume(self, request: Request) -> None:
        names = self._asked(request)
        self._flow.resume(names, everything=not names)
        self._finish(request, 'resumed', names)

    def _asked(self, request: Request) -> list[str]:
        """Return the queues of a request; empty for all.

        :raises UsageError: there is no such queue.
        """
        names, known = request.words.get('queues', []), self._flow.names
        if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
            raise UsageError('queues: expected a list of names')
        if not known:
            raise UsageError('it consumes no queue')
        for name in names:
            if name not in known:
                raise UsageError(f'it consumes no queue {name!r}, but {", ".join(known)}')
        return names

    def _finish(self, request: Request, done: str, names: list[str]) -> None:
        LOGGER.info('%s by the control socket: %s', done, ', '.join(names) or 'all queues')
        fault = self._keep()
        kept = {'kept': True} if fault is None else {'kept': False, 'why': fault}
        request.finish(paused=self._flow.paused()[1], **kept)

    # Over a restart.

    def _keep(self) -> str | None:
        """Write what is paused into the file; return why that is not possible."""
        if self._path is None:
            return NO_DIRECTORY
        everything, names = self._flow.paused()
        try:
            if everything or names:
                _write(self._path, {'all': everything, 'queues': names})
            else:
                with suppress(FileNotFoundError):
                    os.unlink(self._path)
        except OSError as error:
            LOGGER.warning('%s: %s', self._path, error.strerror)
            return f'{self._path}: {error.strerror}'
        return None

    def restore(self) -> None:
        """Pause what was paused when the daemon ended."""
        if self._path is None:
            return
        try:
            with open(self._path, 'rb') as file:
                kept = json.loads(file.read(LARGEST))
            everything, names = bool(kept['all']), [str(each) for each in kept['queues']]
            self._flow.pause(names, everything=everything)
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, LookupError, RecursionError) as error:
            LOGGER.error('%s does not say what is paused, so nothing is: %s', self._path, error)
            return
        LOGGER.warning('paused, as before: %s', 'all queues' if everything else ', '.join(names))


def file_in(directory: str | None, appname: str) -> str | None:
    """Return the path of the file in the state directory."""
    return None if directory is None else os.path.join(directory, f'{appname}.paused')


def _write(path: str, kept: object) -> None:
    """Write a file in the place of another: it is never there in part."""
    beside = f'{path}.new'
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(beside, flags, 0o600), 'w') as file:
        json.dump(kept, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
