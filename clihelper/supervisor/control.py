"""What a supervisor answers by the control socket, itself or by asking its workers."""

from __future__ import annotations

import logging
import os
import socket
import time
from functools import partial

from clihelper.errors import UsageError, counted
from clihelper.operations.agent import level_asked, set_level
from clihelper.operations.control import NEVER, gather, unanswered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Protocol

    from clihelper.operations.control import ControlServer, Peer, Request
    from clihelper.supervisor.worker import Worker

    class Supervised(Protocol):
        """What is asked of the supervisor."""

        @property
        def workers(self) -> Sequence[Worker]: ...
        @property
        def wanted(self) -> int: ...
        @property
        def is_stopping(self) -> bool: ...
        def want(self, number: int) -> None: ...
        def reload(self) -> Sequence[str] | None: ...
        def reload_in_place(self) -> Sequence[str] | None: ...


LOGGER = logging.getLogger('clihelper.control')

AT_A_TIME = 64
"""requests that a worker is asked at the same time"""

PROMPT = 0.3
"""seconds in which a worker shows its stacks: where it does not, that can be done from outside"""

CHANGING = 2.0
"""seconds in which a worker answers what does not wait for its main thread"""

MOST = 1024
"""the most workers that can be asked for"""


class Control:
    """Answers requests about the daemon.

    :param server: where they come from.
    :param supervisor: whom they are about.
    """

    def __init__(self, server: ControlServer, supervisor: Supervised) -> None:
        self.server = server
        self._supervisor = supervisor
        self._peers: dict[Worker, Peer] = {}
        self._reloads: list[Request] = []
        server.add('reload', self._reload)
        server.add('log-level', self._set_level)
        server.add('workers', self._count)
        self.forward('stacks', PROMPT)

    def forward(self, command: str, timeout: float = CHANGING) -> None:
        """Add a command that is for every worker: their answers are relayed with their numbers.

        :param timeout: the seconds in which they have to answer.
        """
        self.server.add(
            command, lambda request: self.ask(request, time.monotonic() + timeout))

    def ask(
        self, request: Request, due: float = NEVER,
        done: Callable[[list[int]], object] | None = None,
    ) -> None:
        """Ask every worker what was asked, and relay their answers.

        :param due: until when they have to answer, in seconds of ``time.monotonic``.
        :param done: called with the status of each; by default the request is finished with the
            highest.
        """
        def heard(worker: Worker, answer: dict[str, Any]) -> None:
            relayed = {**answer, 'worker': worker.number, 'pid': worker.pid}
            if relayed.pop('status', 0) == 0 and set(relayed) == {'worker', 'pid'}:
                return
            request.answer(**relayed)

        def finish(statuses: list[int]) -> None:
            request.finish(max(statuses, default=os.EX_TEMPFAIL))

        peers = {worker: peer for worker, peer in self._peers.items() if worker.is_staying}
        words = {name: value for name, value in request.words.items() if name != 'id'}
        gather(self.server, peers, words, due, heard, done or finish)

    # Its workers.

    def open(self, worker: Worker) -> socket.socket:
        """Make a connection to a worker that is about to be forked, and return the worker's end.

        :raises OSError: there are too many descriptors.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._peers[worker] = self.server.peer(ours)
        return theirs

    def forget(self, worker: Worker) -> None:
        """Close the connection to a worker that has ended."""
        peer = self._peers.pop(worker, None)
        if peer is not None:
            peer.close()

    # The outcome of a reload.

    def reloaded(self, status: int, lines: Iterable[str] = ()) -> None:
        """Tell whoever waits for a reload what has become of it."""
        waiting, self._reloads = self._reloads, []
        for request in waiting:
            request.finish(status, errors=list(lines))

    # The commands.

    def _reload(self, request: Request) -> None:
        if self._supervisor.is_stopping:
            request.finish(**unanswered('it is being stopped'))
            return
        LOGGER.info('a reload%s, by the control socket',
                    ' in place' if request.words.get('in_place') else '')
        if not request.words.get('in_place'):
            faults = self._supervisor.reload()
            if faults is None:
                self._reloads.append(request)
            else:
                request.finish(os.EX_CONFIG, errors=list(faults))
            return
        faults = self._supervisor.reload_in_place()
        if faults is None:
            self.ask(request)
        else:
            request.finish(os.EX_CONFIG, errors=list(faults))

    def _set_level(self, request: Request) -> None:
        level_asked(request)  # what is wrong is said once
        self.ask(request, time.monotonic() + CHANGING, partial(self._set_own_level, request))

    def _set_own_level(self, request: Request, statuses: list[int]) -> None:
        status = max(statuses, default=0)
        if status:
            request.finish(status)
        else:
            set_level(self.server, request)

    def _count(self, request: Request) -> None:
        if 'number' in request.words:
            number = request.words['number']
            if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MOST:
                raise UsageError(f'number: expected an integer from 1 to {MOST}')
            LOGGER.info('%s, by the control socket', counted(number, 'worker'))
            self._supervisor.want(number)
        ready = {worker.number for worker in self._supervisor.workers
                 if worker.is_ready and worker.is_staying}
        request.finish(workers=self._supervisor.wanted, ready=len(ready))
