"""Takes messages over HTTP: an answer of 202 means that the broker has them in a queue."""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
import json
import uuid
from typing import Any

from tornado import httpserver, web

import clihelper

MOST = 1000  # items of a batch


@dataclasses.dataclass
class Settings:
    token: str
    queues: list[str]
    max_body: int = 1024 * 1024  # bytes
    patience: float = 10  # seconds that a client waits for the broker

    def __post_init__(self) -> None:
        if not self.token:
            raise ValueError('token: expected at least one character')


@web.stream_request_body  # who may not send a body, or not one so large, is told before it is read
class Publish(web.RequestHandler):
    """POST /QUEUE publishes the body as one message."""

    def initialize(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.settings_now: Settings = gateway.application_config
        self.body = bytearray()

    def prepare(self) -> None:
        given = self.request.headers.get('Authorization', '').removeprefix('Bearer ')
        # The time that this takes does not depend on how much of the token is right.
        if not hmac.compare_digest(given.encode('latin-1'), self.settings_now.token.encode()):
            self.set_header('WWW-Authenticate', 'Bearer')
            raise web.HTTPError(401)
        length = self.request.headers.get('Content-Length', '')
        self.refuse_beyond(int(length) if length.isdecimal() else 0)

    def data_received(self, chunk: bytes) -> None:
        if len(self.body) <= self.settings_now.max_body:  # one without a Content-Length
            self.body += chunk

    async def post(self, queue: str) -> None:
        content = self.content(queue)
        # A client that does not know what became of its message sends it with the same key again.
        name = self.request.headers.get('Idempotency-Key', str(uuid.uuid4()))
        if len(name) > 200:
            raise web.HTTPError(400, reason='Idempotency-Key is too long')
        try:
            async with asyncio.timeout(self.settings_now.patience):
                await self.publish(queue, name, content)
        except (clihelper.PublishError, TimeoutError) as error:
            self.gateway.logger.warning('%s: %s', name, error or 'no answer from the broker')
            self.set_header('Retry-After', 5)
            self.answer(503, id=name, error='not known to be in a queue')

    def content(self, queue: str) -> Any:
        self.refuse_beyond(len(self.body))
        if queue not in self.settings_now.queues:
            raise web.HTTPError(404)
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise web.HTTPError(400, reason='not JSON') from None

    def refuse_beyond(self, length: int) -> None:
        if length > self.settings_now.max_body:
            raise web.HTTPError(413)

    async def publish(self, queue: str, name: str, content: Any) -> None:
        await self.gateway.publish(content, routing_key=queue, message_id=name)
        self.answer(202, id=name)

    def answer(self, status: int, **content: Any) -> None:
        self.set_status(status)
        self.finish(content)

    def write_error(self, status_code: int, **_: Any) -> None:
        self.finish({'error': self._reason})


class PublishBatch(Publish):
    """POST /QUEUE/batch publishes each item of an array, and tells which were not accepted."""

    async def publish(self, queue: str, name: str, content: Any) -> None:
        names = [f'{name}.{number}' for number in range(len(content))]
        failed = []
        try:
            async with self.gateway.pipeline() as pipeline:
                for each, item in zip(names, content, strict=True):
                    await pipeline.publish(item, routing_key=queue, message_id=each)
        except clihelper.PublishError as error:
            failed = error.failed
            if len(failed) == len(content):
                raise
        # 207, Multi-Status: some are in the queue, and only the others are to be sent again.
        self.answer(207 if failed else 202, ids=names, failed=[
            {'item': number, 'id': names[number], 'error': 'not known to be in a queue'}
            for number, _ in failed])

    def content(self, queue: str) -> Any:
        content = super().content(queue)
        if not isinstance(content, list):
            raise web.HTTPError(400, reason='not an array')
        if len(content) > MOST:
            raise web.HTTPError(413)
        return content


class Gateway(clihelper.IOLoopController):
    def _setup(self) -> None:
        known = {'gateway': self}
        application = web.Application([
            (r'/([\w.-]+)', Publish, known),
            (r'/([\w.-]+)/batch', PublishBatch, known),
        ])
        httpserver.HTTPServer(application).add_sockets(self.sockets)


if __name__ == '__main__':
    clihelper.setup('gateway', 'Publishes what is posted to it.', '1.0.0')
    clihelper.add_config_key('Application', Settings)
    clihelper.run(Gateway)
