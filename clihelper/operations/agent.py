"""What each process answers by the control socket, from a thread of its own."""

from __future__ import annotations

import logging
import os
import signal
import time
from functools import partial

from clihelper.errors import UsageError
from clihelper.logs import levels
from clihelper.operations import stacks
from clihelper.process.deadline import start_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from clihelper.operations.control import ControlServer, Request

    class Life(Protocol):
        """What the agent needs of the life cycle."""

        def call_soon(self, function: Callable[[], object]) -> None: ...
        def report_reload(
            self, signum: int, report: Callable[[int, Sequence[str]], object]
        ) -> None: ...


LOGGER = logging.getLogger('clihelper.control')

LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')
"""the levels that a logger can be set to"""

YEAR = 365 * 86400.0

NO_SUPERVISOR = ('there is no supervisor: it takes Daemon.workers: 2, or more, in the'
                 ' configuration, and a restart')
"""what is answered to whoever wants another number of workers where there is one process"""


class Agent:
    """Answers requests about this process, whatever its main thread does.

    What only the main thread may do is handed to it, and answered when it is done.

    :param server: where they come from.
    :param life: the life cycle of the process.
    :param worker: its number among the workers.
    :param supervised: whether a supervisor passes the requests on, and logs them.
    """

    def __init__(
        self, server: ControlServer, life: Life, worker: int, *, supervised: bool
    ) -> None:
        self.server = server
        self._life = life
        self._worker = worker
        server.add('stacks', self._stacks)
        self._level = logging.DEBUG if supervised else logging.INFO
        server.add('log-level', partial(set_level, server, log_level=self._level))
        server.add('reload', self._reload)
        server.add('workers', self._workers)

    def start(self) -> None:
        """Start the thread; nothing must be forked from here on."""
        stacks.register()
        restore_levels(self.server)
        start_thread(self.server.run)

    def _stacks(self, request: Request) -> None:
        stacks.clear()
        request.answer(worker=self._worker, pid=os.getpid(), stacks=stacks.describe())
        request.finish()

    def _reload(self, request: Request) -> None:
        in_place = bool(request.words.get('in_place'))
        signum = signal.SIGUSR1 if in_place else signal.SIGHUP
        LOGGER.log(self._level, 'a reload%s, by the control socket', ' in place' * in_place)

        def report(status: int, lines: Sequence[str]) -> None:
            self.server.call(partial(request.finish, status, errors=list(lines)))

        self._life.call_soon(partial(self._life.report_reload, signum, report))

    def _workers(self, request: Request) -> None:
        if 'number' in request.words:
            raise UsageError(NO_SUPERVISOR)
        request.finish(workers=1, ready=1)


def set_level(server: ControlServer, request: Request, log_level: int = logging.INFO) -> None:
    """Answer ``log-level``: change the level of a logger of this process.

    :param log_level: the level at which that is logged.
    :raises UsageError: the request is wrong.
    """
    name, level, seconds = level_asked(request)
    is_known = name == 'root' or name in logging.root.manager.loggerDict
    levels.change(name, level, time.monotonic() + seconds)
    restore_levels(server)
    LOGGER.log(log_level, 'the level of the logger %r is %s%s, by the control socket', name, level,
               '' if seconds == levels.NEVER else f' for {seconds:g} s')
    request.finish(known=is_known)


def level_asked(request: Request) -> tuple[str, str, float]:
    """Return the logger, the level and the seconds of a request.

    :raises UsageError: they are wrong.
    """
    name, level = request.words.get('logger'), request.words.get('level')
    seconds = request.words.get('seconds')
    if not isinstance(name, str) or not name:
        raise UsageError('logger: expected the name of a logger')
    if level not in LEVELS:
        raise UsageError(f'level: expected one of {", ".join(LEVELS)}')
    if seconds is None:
        return name, level, levels.NEVER
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds <= YEAR:
        raise UsageError('seconds: expected a number above 0, at most a year')
    return name, level, float(seconds)


def restore_levels(server: ControlServer) -> None:
    """Restore the levels that were changed for a while, when the time is over."""
    due = levels.due()
    if due == levels.NEVER:
        return

    def restore() -> None:
        levels.restore(time.monotonic())
        restore_levels(server)

    server.call_at('levels', due, restore)
