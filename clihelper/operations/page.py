"""The page that shows what a daemon does, and its events.

The events are server-sent (https://html.spec.whatwg.org/multipage/server-sent-events.html):

``hour``
    the samples of the last hour, see :class:`~.history.History`; a ``sample`` follows when there
    is a new one
``configuration``
    the configuration in force, without secrets, at the beginning and when it has changed
``state``
    what ``/status`` says, and the last errors, each second
"""

from __future__ import annotations

import asyncio
import json
import os

from tornado.iostream import StreamClosedError

from clihelper.operations import report
from clihelper.operations.answers import NamedHandler
from clihelper.operations.history import History

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from typing import Any

    from tornado.iostream import IOStream

    from clihelper.process.statistics import Statistics

TICK = 1.0
"""seconds between two states"""

PATIENCE = 10.0
"""seconds within which a client has to take an event"""

RETRY = 2000
"""milliseconds after which a browser connects again"""

LATER = 5
"""seconds after which one for whom there is no place may ask again"""

EVENT_STREAM = 'text/event-stream'

FOLDER = os.path.join(os.path.dirname(__file__), 'static')

FILES = {
    '': ('page.html', 'text/html; charset=utf-8'),
    'page.js': ('page.js', 'text/javascript; charset=utf-8'),
    'page.css': ('page.css', 'text/css; charset=utf-8'),
    'icon.svg': ('icon.svg', 'image/svg+xml'),
}
"""The files of the page, by their paths, and the type of each."""


def read_files() -> dict[str, tuple[bytes, str]]:
    """Return the content and the type of each file, by its path."""
    found = {}
    for path, (name, kind) in FILES.items():
        with open(os.path.join(FOLDER, name), 'rb') as file:
            found[path] = file.read(), kind
    return found


class Page(NamedHandler):
    """Answers with one of its files."""

    def initialize(  # type: ignore[override]
        self, names: Collection[str], files: dict[str, tuple[bytes, str]]
    ) -> None:
        super().initialize(names)
        self._files = files

    def get(self, path: str) -> None:
        self.answer(*self._files[path])


class Live:
    """What is shown of the daemon now, made once for all who look.

    :param statistics: its memory.
    :param facts: what the status says besides the report.
    """

    def __init__(self, statistics: Statistics, facts: dict[str, Any]) -> None:
        self._statistics = statistics
        self._facts = facts
        self._history = History()
        self._hour: tuple[int, bytes] = (-1, b'')
        self._state = b''
        self._configuration = b''
        self._ticked = asyncio.Event()
        self.watched = 0

    def sample(self) -> None:
        """Keep what was done since the last time."""
        _, processes, ended = self._statistics.read()
        self._history.sample(report.totals((*processes, ended)))
        self._history.note_errors(processes, ended)

    def tick(self) -> None:
        """Look at the daemon, and wake those who wait for that, if anybody looks."""
        if not self.watched:
            return
        self._look()
        self._ticked.set()
        self._ticked = asyncio.Event()

    async def next(self) -> None:
        """Wait for the next tick."""
        await self._ticked.wait()

    def _look(self) -> None:
        reading = self._statistics.read()
        self._history.note_errors(*reading[1:])
        self._state = _event('state', {
            **self._facts, **report.make(*reading), 'last_errors': self._history.errors})
        self._configuration = _event('configuration', self._statistics.read_configuration())

    def events(self, client: Client) -> Iterator[bytes]:
        """Yield what is new for a client."""
        if not client.has_begun:
            self._look()
        if client.number != self._history.number or not client.has_begun:
            is_next = client.has_begun and client.number == self._history.number - 1
            yield _event('sample', self._history.samples[-1]) if is_next else self._whole_hour()
        if client.configuration != self._configuration:
            yield self._configuration
        yield self._state
        client.number, client.configuration = self._history.number, self._configuration
        client.has_begun = True

    def _whole_hour(self) -> bytes:
        number = self._history.number
        if self._hour[0] != number:
            self._hour = number, _event('hour', [*self._history.samples])
        return self._hour[1]


class Client:
    """What a client has been told."""

    has_begun = False
    number = -1
    configuration = b''


class Events(NamedHandler):
    """Sends events until the client goes, does not take them, or has had enough of them."""

    def initialize(  # type: ignore[override]
        self, names: Collection[str], live: Live, keep: Callable[[IOStream], bool]
    ) -> None:
        super().initialize(names)
        self._live = live
        self._keep = keep

    async def get(self) -> None:
        if self.request.method == 'HEAD':
            self.answer('', EVENT_STREAM)
            return
        stream = self.request.connection.stream  # type: ignore[union-attr]
        if not self._keep(stream):
            self.set_status(503)
            self.set_header('Retry-After', str(LATER))
            self.answer('too many look at this page\n')
            return
        self.set_header('Content-Type', EVENT_STREAM)
        self._live.watched += 1
        try:
            await self._send_events()
        except (StreamClosedError, TimeoutError):
            stream.close()
        finally:
            self._live.watched -= 1

    async def _send_events(self) -> None:
        client = Client()
        self.write(f'retry: {RETRY}\n\n')
        while True:
            for event in self._live.events(client):
                self.write(event)
            await asyncio.wait_for(self.flush(), PATIENCE)
            await self._live.next()


def _event(name: str, data: object) -> bytes:
    text = json.dumps(data, separators=(',', ':'))
    return f'event: {name}\ndata: {text}\n\n'.encode()
