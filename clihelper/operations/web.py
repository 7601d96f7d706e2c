"""What is asked of a daemon by HTTP: its metrics, whether it is live and ready, and its status.

It is all read from shared memory, and nothing can be changed. Clients are not trusted: a request
is small, its connection serves no other one and lasts :data:`LIFETIME` seconds at most, and there
are at most :data:`MOST` of them: then the oldest one is closed in favour of a new one.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import time

from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop, PeriodicCallback
from tornado.web import Application, HTTPError, RequestHandler

from clihelper.operations import exposition, report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Any

    from tornado.iostream import IOStream

    from clihelper.process.statistics import Statistics

LIFETIME = 10.0
"""seconds that a connection lasts at most"""

SWEEP = 1000
"""milliseconds between two looks for connections that have lasted too long"""

MOST = 64
"""connections at a time"""

LONGEST_HEADER = 8192
LONGEST_BODY = 1024
"""bytes of a request that are read"""

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>clihelper</title>
<ul>
<li><a href="metrics">metrics</a>
<li><a href="status">status</a>
<li><a href="ready">ready</a>
<li><a href="live">live</a>
</ul>
</html>
"""


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
    loop = IOLoop()
    known = {'names': {'localhost', *map(str.lower, names)}}
    application = Application([
        (r'/', _Page, known),
        (r'/status', _Status, {**known, 'statistics': statistics, 'facts': facts}),
        (r'/metrics', _Metrics, {'statistics': statistics, 'exposition': exposition.Exposition()}),
        (r'/ready', _Probe, {'check': lambda: _is_ready(statistics), 'no': 'not ready'}),
        (r'/live', _Probe, {'check': lambda: _is_live(statistics), 'no': 'not live: it hangs'}),
    ], default_handler_class=_Nothing)
    server = _Server(
        application, no_keep_alive=True, idle_connection_timeout=LIFETIME,
        body_timeout=LIFETIME, max_header_size=LONGEST_HEADER, max_body_size=LONGEST_BODY,
    )
    server.add_sockets(sockets)
    PeriodicCallback(server.sweep, SWEEP).start()
    for descriptor in endings:
        loop.add_handler(descriptor, lambda *_: loop.stop(), IOLoop.READ)
    loop.start()


def _is_ready(statistics: Statistics) -> bool:
    return report.can_work(statistics.read()[1])


def _is_live(statistics: Statistics) -> bool:
    return report.is_live(report.make(*statistics.read()))


class _Server(HTTPServer):
    """A server with a bound on the number of connections, and on how long they last."""

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        super().initialize(*args, **kwargs)
        self._open: dict[IOStream, float] = {}

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        if len(self._open) >= MOST:
            self.sweep()
        if len(self._open) >= MOST:
            self._close(next(iter(self._open)))
        self._open[stream] = time.monotonic()
        super().handle_stream(stream, address)

    def sweep(self) -> None:
        """Forget the connections that are closed, and close those that have lasted too long."""
        limit = time.monotonic() - LIFETIME
        for stream, began in list(self._open.items()):
            if stream.closed() or began < limit:
                self._close(stream)

    def _close(self, stream: IOStream) -> None:
        del self._open[stream]
        stream.close()


class _Handler(RequestHandler):
    """Answers a request that changes nothing."""

    SUPPORTED_METHODS = ('GET', 'HEAD')

    def set_default_headers(self) -> None:
        self.clear_header('Server')
        self.set_header('Allow', ', '.join(self.SUPPORTED_METHODS))
        self.set_header('Cache-Control', 'no-store')
        self.set_header('Content-Security-Policy', "default-src 'none'; frame-ancestors 'none'")
        self.set_header('X-Content-Type-Options', 'nosniff')

    def head(self, *arguments: str) -> None:
        self.get(*arguments)

    def compute_etag(self) -> None:
        """Say nothing of that: the answer is another each time."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.answer(f'{status_code} {self._reason}\n')

    def answer(self, text: str, kind: str = 'text/plain; charset=utf-8') -> None:
        """End with this text."""
        self.set_header('Content-Type', kind)
        self.finish(text)


class _Nothing(_Handler):
    def prepare(self) -> None:
        if self.request.method in self.SUPPORTED_METHODS:
            raise HTTPError(404)


class _Named(_Handler):
    """Answers only under a name of its own, so that no other site can read it.

    Such a site would have its own name resolved to the address of the daemon (DNS rebinding).
    """

    def initialize(self, names: Collection[str]) -> None:
        self._names = names

    def prepare(self) -> None:
        if self.request.connection.stream.socket.family == socket.AF_UNIX:  # type: ignore[union-attr]
            return
        host = self.request.host_name.strip('[]').lower()
        if host not in self._names and not _is_address(host):
            raise HTTPError(403)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class _Page(_Named):
    def get(self) -> None:
        self.answer(PAGE, 'text/html; charset=utf-8')


class _Status(_Named):
    def initialize(  # type: ignore[override]
        self, names: Collection[str], statistics: Statistics, facts: dict[str, Any]
    ) -> None:
        super().initialize(names)
        self._statistics = statistics
        self._facts = facts

    def get(self) -> None:
        found = report.make(*self._statistics.read())
        self.answer(json.dumps({**self._facts, **found}) + '\n', 'application/json')


class _Metrics(_Handler):
    def initialize(self, statistics: Statistics, exposition: exposition.Exposition) -> None:
        self._statistics = statistics
        self._exposition = exposition

    def get(self) -> None:
        self.answer(self._exposition.render(*self._statistics.read()), exposition.CONTENT_TYPE)


class _Probe(_Handler):
    """Answers 200 or 503."""

    def initialize(self, check: Callable[[], bool], no: str) -> None:
        self._check = check
        self._no = no

    def get(self) -> None:
        passed = self._check()
        self.set_status(200 if passed else 503)
        self.answer(f'{"ok" if passed else self._no}\n')
