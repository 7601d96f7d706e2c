"""What is asked of a daemon by HTTP: its metrics, whether it is live and ready, and its status.

It is all read from shared memory, and nothing can be changed. Clients are not trusted: a request
is small, its connection serves no other one and lasts :data:`LIFETIME` seconds at most, and there
are at most :data:`MOST` of them: then the oldest one is closed in favour of a new one. Those for
the events of the page last longer, and there are fewer of them.
"""

from __future__ import annotations

import asyncio
import json
import re
import time

from tornado.httpserver import HTTPServer
from tornado.ioloop import PeriodicCallback
from tornado.web import Application

from clihelper.operations import exposition, history, page, report
from clihelper.operations.answers import Handler, NamedHandler, NothingThere

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Sequence
    from typing import Any

    from tornado.iostream import IOStream

    from clihelper.process.statistics import Statistics

LIFETIME = 10.0
"""seconds that a connection lasts at most"""

SWEEP = 1.0
"""seconds between two looks for connections that have lasted too long"""

MOST = 64
"""connections at a time"""

STREAM_LIFETIME = 600.0
"""seconds that a connection for events lasts at most; a browser connects again"""

MOST_STREAMS = 16
"""connections for events at a time"""

LONGEST_HEADER = 8192
LONGEST_BODY = 1024
"""bytes of a request that are read"""

def run(
    statistics: Statistics,
    sockets: Sequence[socket.socket],
    names: Collection[str],
    facts: dict[str, Any],
    endings: Sequence[int],
) -> None:
    """Serve until one of the descriptors *endings* is readable.

    :param sockets: listening sockets.
    :param names: the names under which ``/status`` and ``/`` may be asked for.
    :param facts: what the status says besides the report.
    """
    known = {'names': {'localhost', *map(str.lower, names)}}
    asyncio.run(_serve(statistics, sockets, known, facts, endings))


def _application(
    statistics: Statistics, known: dict[str, Any], facts: dict[str, Any], live: page.Live,
    keep: Callable[[IOStream], bool],
) -> Application:
    files = page.read_files()
    paths = '|'.join(map(re.escape, files))
    return Application([
        (f'/({paths})', page.Page, {**known, 'files': files}),
        (r'/events', page.Events, {**known, 'live': live, 'keep': keep}),
        (r'/status', _Status, {**known, 'statistics': statistics, 'facts': facts}),
        (r'/metrics', _Metrics, {'statistics': statistics, 'exposition': exposition.Exposition()}),
        (r'/ready', _Probe, {'check': lambda: _is_ready(statistics), 'no': 'not ready'}),
        (r'/live', _Probe, {'check': lambda: _is_live(statistics), 'no': 'not live: it hangs'}),
    ], default_handler_class=NothingThere)


async def _serve(
    statistics: Statistics, sockets: Sequence[socket.socket], known: dict[str, Any],
    facts: dict[str, Any], endings: Sequence[int],
) -> None:
    live = page.Live(statistics, facts)
    application = _application(
        statistics, known, facts, live, lambda stream: server.keep(stream))
    server = _Server(
        application, no_keep_alive=True, idle_connection_timeout=LIFETIME,
        body_timeout=LIFETIME, max_header_size=LONGEST_HEADER, max_body_size=LONGEST_BODY,
    )
    server.add_sockets(sockets)
    live.sample()
    for action, seconds in ((server.sweep, SWEEP), (live.tick, page.TICK),
                            (live.sample, history.INTERVAL)):
        PeriodicCallback(action, 1000 * seconds).start()
    ended = asyncio.Event()
    for descriptor in endings:
        asyncio.get_running_loop().add_reader(descriptor, ended.set)
    await ended.wait()


def _is_ready(statistics: Statistics) -> bool:
    return report.can_work(statistics.read()[1])


def _is_live(statistics: Statistics) -> bool:
    return report.is_live(report.make(*statistics.read()))


class _Server(HTTPServer):
    """A server with a bound on the number of connections, and on how long they last."""

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        super().initialize(*args, **kwargs)
        self._open: dict[IOStream, float] = {}
        self._streams: set[IOStream] = set()  # those of them that are for events

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        if len(self._open) >= MOST:
            self.sweep()
        if len(self._open) >= MOST:
            self._close(next(each for each in self._open if each not in self._streams))
        self._open[stream] = time.monotonic()
        super().handle_stream(stream, address)

    def keep(self, stream: IOStream) -> bool:
        """Let a connection last longer, unless there are too many such."""
        if len(self._streams) >= MOST_STREAMS:
            self.sweep()
        if len(self._streams) >= MOST_STREAMS or stream not in self._open:
            return False
        self._streams.add(stream)
        return True

    def sweep(self) -> None:
        """Forget the connections that are closed, and close those that have lasted too long."""
        now = time.monotonic()
        for stream, began in list(self._open.items()):
            lifetime = STREAM_LIFETIME if stream in self._streams else LIFETIME
            if stream.closed() or began + lifetime < now:
                self._close(stream)

    def _close(self, stream: IOStream) -> None:
        del self._open[stream]
        self._streams.discard(stream)
        stream.close()


class _Status(NamedHandler):
    def initialize(  # type: ignore[override]
        self, names: Collection[str], statistics: Statistics, facts: dict[str, Any]
    ) -> None:
        super().initialize(names)
        self._statistics = statistics
        self._facts = facts

    def get(self) -> None:
        found = report.make(*self._statistics.read())
        self.answer(json.dumps({**self._facts, **found}) + '\n', 'application/json')


class _Metrics(Handler):
    def initialize(self, statistics: Statistics, exposition: exposition.Exposition) -> None:
        self._statistics = statistics
        self._exposition = exposition

    def get(self) -> None:
        self.answer(self._exposition.render(*self._statistics.read()), exposition.CONTENT_TYPE)


class _Probe(Handler):
    """Answers 200 or 503."""

    def initialize(self, check: Callable[[], bool], no: str) -> None:
        self._check = check
        self._no = no

    def get(self) -> None:
        passed = self._check()
        self.set_status(200 if passed else 503)
        self.answer(f'{"ok" if passed else self._no}\n')
