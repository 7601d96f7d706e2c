"""The control socket: requests and answers as lines of JSON, served without ever waiting.

A request is an object with ``command``; each answer is an object, and the last one has ``status``,
an exit status. ``id``, if the request has one, is in each answer to it. The protocol is in
``docs/commands.rst``.

The same server runs in a supervisor's loop (:meth:`ControlServer.fileno`) and in a thread of any
other process (:meth:`ControlServer.run`). A supervisor asks its workers in the same way, each by a
:class:`Peer`; :func:`gather` asks all of them.

All is bounded: how many clients there are, how long a request is, how much is kept for a client
that does not read, and for how long.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import struct
import time
import weakref
from collections import deque
from contextlib import suppress

from clihelper.errors import Error, in_one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from typing import Any

LOGGER = logging.getLogger('clihelper.control')

LONGEST = 65536
"""the most bytes of a request"""

MOST_CLIENTS = 32
"""clients that are served at the same time"""

BACKLOG = 128
"""clients that wait to be accepted"""

MOST_OUTPUT = 4 * 2**20
"""the most bytes that are kept for one client that does not read"""

MOST_OUTPUT_IN_ALL = 16 * 2**20
"""the same for all of them"""

PATIENCE = 10.0
"""seconds in which a client has to send its request, and to read some of its answer"""

OUT_OF_DESCRIPTORS = 1.0
"""seconds until clients are accepted again after that has failed"""

MOST_ACCEPTED = 64
"""clients that are accepted, or refused, at a time"""

NEVER = float('inf')

_CREDENTIALS = struct.Struct('3i')


class Request:
    """A request, until it has its last answer.

    :ivar words: what the client has sent, an object with ``command``.
    """

    def __init__(self, client: Client, words: dict[str, Any]) -> None:
        self.words = words
        self._client = client
        self._id = {'id': words['id']} if 'id' in words else {}
        self._is_finished = False

    @property
    def is_open(self) -> bool:
        """Whether anybody waits for an answer."""
        return not self._is_finished and not self._client.is_closed

    def answer(self, **fields: Any) -> None:
        """Send an answer that is not the last one."""
        if self.is_open:
            self._client.send({**self._id, **fields})

    def finish(self, status: int = 0, **fields: Any) -> None:
        """Send the last answer; without effect where that was done, or the client has gone.

        :param status: the exit status of the command that has asked.
        """
        if self.is_open:
            self._client.send({**self._id, 'status': status, **fields})
        self._is_finished = True
        self._client.finished(self)


class ControlServer:
    """Serves the clients of a listening socket, and of sockets that are connected already.

    All methods are for one thread, except :meth:`call`.

    :param listener: the listening socket; None: there is none.
    :param users: the user IDs whose processes may ask.
    """

    def __init__(
        self, listener: socket.socket | None = None, users: Collection[int] = ()
    ) -> None:
        self._listener = listener
        self._users = users
        self._poll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._bell, select.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        self._commands: dict[str, Callable[[Request], object]] = {}
        self._timers: dict[object, tuple[float, Callable[[], object]]] = {}
        self._calls: deque[Callable[[], object]] = deque()
        self._waking: dict[Client, None] = {}
        self._listens_at = 0.0  # when clients are accepted again; 0: they are
        self.is_closed = False
        if listener is not None:
            listener.listen(BACKLOG)  # again: a client sees this process as its peer
            self._poll.register(listener, select.EPOLLIN)
        _servers.add(self)

    # What it answers.

    def add(self, command: str, function: Callable[[Request], object]) -> None:
        """Add a command.

        :param function: called with each request; it must not wait. Whoever has what is asked
            calls :meth:`Request.finish`, at once or later. A
            :class:`~clihelper.errors.Error` that it raises is the answer.
        """
        self._commands[command] = function

    def dispatch(self, request: Request) -> None:
        """Call the function of a command."""
        name = request.words.get('command')
        function = self._commands.get(name) if isinstance(name, str) else None
        if function is None:
            request.finish(2, errors=[f'unknown command {name!r}'])
            return
        try:
            function(request)
        except Error as error:
            request.finish(error.status, errors=str(error).splitlines())
        except Exception as error:
            LOGGER.exception('%s failed', name)
            request.finish(1, errors=[in_one_line(error)])

    # How it is driven.

    def fileno(self) -> int:
        """The descriptor that is readable while there is something to do."""
        return self._poll.fileno()

    @property
    def due(self) -> float:
        """When to call :meth:`serve` next, in seconds of ``time.monotonic``."""
        dues = [each.due for each in self._connections.values()]
        dues += [due for due, _ in self._timers.values()]
        dues += [self._listens_at] if self._listens_at else []
        return 0.0 if self._waking or self._calls else min(dues, default=NEVER)

    def run(self) -> None:
        """Serve until it is closed, in a thread of its own."""
        while not self.is_closed:
            left = self.due - time.monotonic()
            self.serve(-1 if left == NEVER else max(left, 0.0))

    def serve(self, timeout: float = 0.0) -> None:
        """Do what there is to do, without waiting for any client.

        :param timeout: seconds to wait until there is something; -1: no limit.
        """
        try:
            events = self._poll.poll(timeout)
        except (OSError, ValueError):  # it was closed
            return
        for descriptor, what in events:
            if descriptor in self._connections:
                self._connections[descriptor].serve(what)
            elif descriptor == self._bell:
                os.eventfd_read(self._bell)
            elif self._listener is not None:
                self._accept()
        while self._calls:
            self._calls.popleft()()
        self._serve_timers()
        for client in list(self._waking):
            del self._waking[client]
            client.advance()

    def _serve_timers(self) -> None:
        now = time.monotonic()
        for key, (due, function) in list(self._timers.items()):
            if due <= now:
                self._timers.pop(key, None)
                function()
        for connection in list(self._connections.values()):
            if connection.due <= now:
                connection.close()
        if self._listener is not None and 0 < self._listens_at <= now:
            self._listens_at = 0.0
            self._poll.register(self._listener, select.EPOLLIN)

    def call(self, function: Callable[[], object]) -> None:
        """Have *function* called by :meth:`serve`. Any thread may call this."""
        self._calls.append(function)
        with suppress(OSError):  # it was closed
            os.eventfd_write(self._bell, 1)

    def call_at(self, key: object, due: float, function: Callable[[], object]) -> None:
        """Have *function* called at a time of ``time.monotonic``.

        :param key: what it is for: it takes the place of another one for the same.
        """
        self._timers[key] = due, function

    def cancel(self, key: object) -> None:
        """Have that not called any more, if it was to be called."""
        self._timers.pop(key, None)

    def close(self) -> None:
        """Close all connections, and the listening socket."""
        self.is_closed = True
        for connection in list(self._connections.values()):
            connection.close()
        if self._listener is not None:
            self._listener.close()
        self._poll.close()

    def forget(self) -> None:
        """Close this process's copies of everything, just after it was forked."""
        self.is_closed = True
        self._poll.close()
        with suppress(OSError):
            os.close(self._bell)
        for connection in self._connections.values():
            connection.forget()
        if self._listener is not None:
            self._listener.close()

    # Its connections.

    def adopt(self, connected: socket.socket, requests: int = 1) -> None:
        """Serve a client that is connected already.

        :param requests: how many requests are served at the same time.
        """
        self._register(Client(self, connected, requests, patience=NEVER))

    def peer(self, connected: socket.socket) -> Peer:
        """Return what asks the server at the other end of a socket."""
        peer = Peer(self, connected)
        self._register(peer)
        return peer

    def _register(self, connection: Connection) -> None:
        self._connections[connection.fileno()] = connection
        self._poll.register(connection.fileno(), select.EPOLLIN)

    def modify(self, connection: Connection, events: int) -> None:
        """Wait for these events of a connection."""
        self._poll.modify(connection.fileno(), events)

    def remove(self, connection: Connection) -> None:
        """Forget a connection that is about to be closed."""
        if self._connections.pop(connection.fileno(), None) is not None:
            self._poll.unregister(connection.fileno())

    def wake(self, client: Client) -> None:
        """Have a client's next request looked at by :meth:`serve`."""
        self._waking[client] = None

    @property
    def output(self) -> int:
        """The bytes that are kept for all clients."""
        return sum(each.output for each in self._connections.values())

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(MOST_ACCEPTED):
            try:
                connected, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:  # no descriptor is free
                if not self.is_closed and self._listener.fileno() >= 0:
                    self._poll.unregister(self._listener)
                    self._listens_at = time.monotonic() + OUT_OF_DESCRIPTORS
                return
            connected.setblocking(False)
            self._welcome(connected)

    def _welcome(self, connected: socket.socket) -> None:
        """Serve a client that may ask, if need be in the place of one that asks nothing."""
        refusal = ''
        if user_of(connected) not in self._users:
            refusal = 'not permitted'
        else:
            clients = [each for each in self._connections.values() if isinstance(each, Client)]
            if len(clients) >= MOST_CLIENTS:
                idle = next((each for each in clients if each.is_idle), None)
                if idle is None:
                    refusal = 'too many clients'
                else:
                    idle.close()
        client = Client(self, connected)
        self._register(client)
        if refusal:
            status = os.EX_NOPERM if refusal == 'not permitted' else os.EX_TEMPFAIL
            client.send({'status': status, 'errors': [refusal]})
            client.close()


class Connection:
    """One end of a stream of lines.

    :ivar due: when it is closed unless something happens, in seconds of ``time.monotonic``.
    """

    def __init__(self, server: ControlServer, connected: socket.socket) -> None:
        self._server = server
        self._socket = connected
        self._input = b''
        self._output = bytearray()
        self._waits_for: int = select.EPOLLIN
        self._has_ended = False  # the other end sends no more
        self.is_closed = False
        self.due = NEVER

    def fileno(self) -> int:
        """The descriptor of the socket; -1: it is closed."""
        return self._socket.fileno()

    @property
    def output(self) -> int:
        """The bytes that the other end has still to take."""
        return len(self._output)

    def send(self, words: Mapping[str, Any]) -> None:
        """Send an object, or keep it until the other end takes it; close if that is too much."""
        if self.is_closed:
            return
        self._output += json.dumps(words).encode() + b'\n'
        self._flush()
        if len(self._output) > MOST_OUTPUT or (
                self._output and self._server.output > MOST_OUTPUT_IN_ALL):
            self.close()

    def serve(self, events: int) -> None:
        """Read and write what is possible."""
        if events & select.EPOLLOUT:
            self._flush()
        if not self.is_closed and events & select.EPOLLIN:
            self._read()
        elif events & (select.EPOLLHUP | select.EPOLLERR):
            self.close()

    def close(self) -> None:
        """Close it, whatever is still to be sent."""
        if not self.is_closed:
            self.is_closed = True
            self._server.remove(self)
            self._socket.close()

    def forget(self) -> None:
        """Close this process's copy of the socket."""
        self.is_closed = True
        self._socket.close()

    def _read(self) -> None:
        try:
            data = self._socket.recv(LONGEST)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._has_ended = not data
        self._input += data
        self._take()
        self._wait()

    def _take(self) -> None:
        """Take what is complete out of :attr:`_input`."""
        raise NotImplementedError

    def _flush(self) -> None:
        try:
            sent = self._socket.send(self._output) if self._output else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        del self._output[:sent]
        if sent:
            self._progressed()
        self._wait()

    def _progressed(self) -> None:
        """Note that the other end has taken something."""

    def _wants_input(self) -> bool:
        return True

    def _wait(self) -> None:
        """Wait for what can be done next."""
        if self.is_closed:
            return
        events = select.EPOLLIN if self._wants_input() and not self._has_ended else 0
        events |= select.EPOLLOUT if self._output else 0
        if events != self._waits_for:
            self._waits_for = events
            self._server.modify(self, events)


class Client(Connection):
    """A client: it sends requests.

    :param requests: how many of them are served at the same time.
    :param patience: the seconds in which it has to send one, or to read something.
    """

    def __init__(
        self, server: ControlServer, connected: socket.socket, requests: int = 1,
        patience: float = PATIENCE,
    ) -> None:
        super().__init__(server, connected)
        self._most = requests
        self._patience = patience
        self._requests: set[Request] = set()
        self._progressed()

    @property
    def is_idle(self) -> bool:
        """Whether nothing that it has asked is being done."""
        return not self._requests

    def finished(self, request: Request) -> None:
        """Note that a request has its last answer."""
        self._requests.discard(request)
        if not self.is_closed:
            self._progressed()
            self._server.wake(self)

    def advance(self) -> None:
        """Begin the next request, if there is one, and if the last answer was taken."""
        if self.is_closed:
            return
        if len(self._requests) < self._most and self._may_answer():
            line, newline, rest = self._input.partition(b'\n')
            if newline and len(line) <= LONGEST:
                self._input = rest
                self._begin(line)
            elif len(self._input) > LONGEST:
                self._refuse(f'a request has at most {LONGEST} bytes')
            elif self._has_ended and not self._requests and not self._output:
                self.close()
        self._wait()

    def _may_answer(self) -> bool:
        """Whether so much of the last answer was taken that another may follow."""
        return not self._output if self._most == 1 else len(self._output) < LONGEST

    def _begin(self, line: bytes) -> None:
        try:
            words = json.loads(line)
        except (ValueError, RecursionError):
            words = None
        if not isinstance(words, dict):
            self._refuse('a request is an object in JSON, in one line')
            return
        request = Request(self, words)
        self._requests.add(request)
        self._progressed()
        self._server.dispatch(request)
        if b'\n' in self._input:
            self._server.wake(self)

    def _refuse(self, why: str) -> None:
        self.send({'status': 2, 'errors': [why]})
        self.close()

    def _take(self) -> None:
        self.advance()

    def _progressed(self) -> None:
        waits = self._output or not self._requests
        self.due = time.monotonic() + self._patience if waits else NEVER
        if not self._output:
            self._server.wake(self)

    def _wants_input(self) -> bool:
        return len(self._requests) < self._most and b'\n' not in self._input

    def send(self, words: Mapping[str, Any]) -> None:
        super().send(words)
        if self._output and self.due == NEVER:
            self.due = time.monotonic() + self._patience


class Peer(Connection):
    """The server of another process, which is asked."""

    def __init__(self, server: ControlServer, connected: socket.socket) -> None:
        super().__init__(server, connected)
        self._number = 0
        self._asked: dict[int, Callable[[dict[str, Any]], object]] = {}

    def ask(self, words: Mapping[str, Any], heard: Callable[[dict[str, Any]], object]) -> int:
        """Send a request.

        :param heard: called with each answer; the last one has ``status``. It is 75 if the
            process ends, or has not taken earlier requests.
        :returns: the number for :meth:`forget_request`.
        """
        self._number += 1
        self._asked[self._number] = heard
        if self.is_closed or len(self._output) > LONGEST:
            self._hear({'id': self._number, **unanswered('does not answer')})
        else:
            self.send({**words, 'id': self._number})
        return self._number

    def forget_request(self, number: int) -> None:
        """Take no answer to a request any more."""
        self._asked.pop(number, None)

    def close(self) -> None:
        super().close()
        for number in list(self._asked):
            self._hear({'id': number, **unanswered('has ended')})

    def _hear(self, answer: dict[str, Any]) -> None:
        number = answer.pop('id', None)
        heard = self._asked.get(number) if isinstance(number, int) else None
        if heard is not None:
            if 'status' in answer:
                self._asked.pop(number, None)
            heard(answer)

    def _take(self) -> None:
        *lines, self._input = self._input.split(b'\n')
        for line in lines:
            with suppress(ValueError):
                self._hear(json.loads(line))
        if self._has_ended or len(self._input) > MOST_OUTPUT:
            self.close()


def unanswered(why: str) -> dict[str, Any]:
    """Return the answer in the place of a process that gives none."""
    return {'status': os.EX_TEMPFAIL, 'errors': [why]}


def gather(
    server: ControlServer,
    peers: Mapping[Any, Peer],
    words: Mapping[str, Any],
    due: float,
    heard: Callable[[Any, dict[str, Any]], object],
    done: Callable[[list[int]], object],
) -> None:
    """Ask several processes the same, at the same time.

    :param peers: them, by keys of the caller's choice.
    :param words: the request.
    :param due: until when their answers are waited for, in seconds of ``time.monotonic``.
    :param heard: called with the key and each answer; the last one of each has ``status``, which
        is 75 for one that does not answer in time.
    :param done: called at the end, with the status of each.
    """
    statuses: list[int] = []
    waiting: dict[Any, int] = dict.fromkeys(peers, 0)

    def hear(key: Any, answer: dict[str, Any]) -> None:
        heard(key, answer)
        if 'status' in answer:
            waiting.pop(key, None)
            statuses.append(answer['status'])
            if not waiting:
                server.cancel(id(waiting))
                done(statuses)

    def give_up() -> None:
        for key, number in list(waiting.items()):
            peers[key].forget_request(number)
            hear(key, unanswered('does not answer'))

    if not peers:
        done(statuses)
    for key, peer in peers.items():
        number = peer.ask(words, lambda answer, key=key: hear(key, answer))  # type: ignore[misc]
        if key in waiting:
            waiting[key] = number
    if waiting and due != NEVER:
        server.call_at(id(waiting), due, give_up)


def user_of(connected: socket.socket) -> int:
    """Return the user ID of the process at the other end: SO_PEERCRED of unix(7)."""
    return credentials(connected)[1]


def credentials(connected: socket.socket) -> tuple[int, int, int]:
    """Return the process ID, the user ID and the group ID at the other end of a socket."""
    data = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(data)
    return pid, uid, gid


_servers: weakref.WeakSet[ControlServer] = weakref.WeakSet()


def _forget_servers() -> None:
    for server in list(_servers):
        server.forget()
    _servers.clear()


os.register_at_fork(after_in_child=_forget_servers)
