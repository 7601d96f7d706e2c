"""Takes tasks over HTTP, and tells their submitters how they get on by server-sent events."""

from __future__ import annotations

import asyncio
import collections
import json
import time
import uuid
from typing import Any

from tornado import httpserver, web
from tornado.iostream import StreamClosedError

import clihelper

MOST = 10_000  # tasks that are remembered; the oldest are forgotten
MAX_BODY = 1024 * 1024  # bytes
FINAL = ('done', 'failed')

Event = dict[str, Any]


class Task:
    """What is known of a task, and who follows it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.streams: set[Events] = set()
        self.is_forgotten = False

    @property
    def is_over(self) -> bool:
        return any(event['state'] in FINAL for event in self.events)

    def after(self, last: int) -> list[Event]:
        return [event for event in self.events if event['id'] > last]

    def wake_up(self) -> None:
        for stream in self.streams:
            stream.wake_up.set()


class Submit(web.RequestHandler):
    """POST /tasks"""

    def initialize(self, server: Server) -> None:
        self.server = server

    async def post(self) -> None:
        try:
            content = json.loads(self.request.body)
        except (ValueError, RecursionError):
            raise web.HTTPError(400, reason='not JSON') from None
        name = str(uuid.uuid4())
        event = {'id': time.time_ns() // 1000, 'task': name, 'state': 'queued'}
        try:
            async with asyncio.timeout(10):
                await self.server.publish(content, routing_key='tasks', message_id=name)
        except (clihelper.PublishError, TimeoutError) as error:
            self.server.logger.warning('task %s: %s', name, error or 'no answer')
            raise web.HTTPError(503) from None
        await self.server.tell(event)
        self.set_status(202)
        self.set_header('Location', f'/tasks/{name}/events')
        self.finish({'task': name, 'events': f'/tasks/{name}/events'})

    def write_error(self, status_code: int, **_: Any) -> None:
        if status_code == 503:
            self.set_header('Retry-After', 5)
        self.finish({'error': self._reason})


class Events(web.RequestHandler):
    """GET /tasks/ID/events"""

    def initialize(self, server: Server) -> None:
        self.server = server
        self.wake_up = asyncio.Event()
        self.is_closed = False

    async def get(self, name: str) -> None:
        try:
            last = int(self.request.headers.get('Last-Event-ID', 0))
        except ValueError:
            raise web.HTTPError(400) from None
        task = await self.server.find(name)
        if task.is_over and not task.after(last):
            self.set_status(204)  # which tells a browser's EventSource to connect no more
            return
        self.set_header('Content-Type', 'text/event-stream')
        self.set_header('Cache-Control', 'no-cache')
        self.write('retry: 1000\n\n')  # milliseconds, after which a client connects again
        task.streams.add(self)
        try:
            await self.follow(task, last)
        except StreamClosedError:
            pass  # the client has gone away
        finally:
            task.streams.discard(self)

    async def follow(self, task: Task, last: int) -> None:
        while True:
            self.wake_up.clear()
            for event in task.after(last):
                last = event['id']
                self.write(f'id: {last}\ndata: {json.dumps(event)}\n\n')
            await self.flush()  # waits for a client that is slower than its task
            # At a stop or a reload the stream ends. The client comes again with Last-Event-ID.
            if self.is_closed or not self.server.is_running or task.is_over or task.is_forgotten:
                return
            try:
                async with asyncio.timeout(self.server.application_config['keepalive']):
                    await self.wake_up.wait()
            except TimeoutError:
                self.write(': nothing new\n\n')  # or proxies would take the connection for dead

    def on_connection_close(self) -> None:
        self.is_closed = True
        self.wake_up.set()


class Server(clihelper.AsyncConsumerController):
    def __init__(self, options: clihelper.Options, arguments: list[str]) -> None:
        super().__init__(options, arguments)
        # By name; it outlives a reload.
        self.tasks: collections.OrderedDict[str, Task] = collections.OrderedDict()

    def _setup(self) -> None:
        known = {'server': self}
        application = web.Application([
            ('/tasks', Submit, known),
            (r'/tasks/([\w-]+)/events', Events, known),
        ])
        httpserver.HTTPServer(application, max_body_size=MAX_BODY).add_sockets(self.sockets)

    async def tell(self, event: Event) -> None:
        """Note an event, and tell the other processes that serve."""
        self.note(event)
        try:
            async with asyncio.timeout(1):
                await self.publish(event, exchange='progress', routing_key=event['task'])
        except (clihelper.PublishError, TimeoutError) as error:
            self.logger.warning('task %s: %s', event['task'], error or 'no answer')

    async def on_message(self, body: Any, message: clihelper.Message) -> None:
        self.note(body)

    def note(self, event: Event) -> None:
        """Keep an event, unless it is old or has come twice, and wake up whoever follows."""
        task = self.tasks.setdefault(event['task'], Task())
        if not task.events or event['id'] > task.events[-1]['id']:
            task.events.append(event)
            task.wake_up()
        if len(self.tasks) > MOST:
            _, oldest = self.tasks.popitem(last=False)
            oldest.is_forgotten = True
            oldest.wake_up()

    async def find(self, name: str) -> Task:
        """The task; where nothing is known of it, what another process knows may be on its way."""
        for _ in range(20):
            if name in self.tasks:
                return self.tasks[name]
            await asyncio.sleep(0.1)
        raise web.HTTPError(404)

    def _shutdown(self) -> None:
        """At a stop, and before a reload, wake up the streams so that they end."""
        super()._shutdown()
        for task in self.tasks.values():
            task.wake_up()


if __name__ == '__main__':
    clihelper.setup('tasks', 'Takes tasks, and tells how they get on.', '1.0.0')
    clihelper.run(Server)
