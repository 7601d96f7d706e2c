"""Clients of an HTTP server that ask without end, and what becomes of their connections."""

from __future__ import annotations

import asyncio
import threading

REQUEST = b'GET / HTTP/1.1\r\nHost: x\r\n\r\n'
PATIENCE = 30.0
"""seconds that an answer may take"""


class Clients:
    """Clients in a thread, each with one connection at a time.

    :param kept: how many send a request when they have the answer to the last one.
    :param pipelining: how many keep several requests unanswered.
    :param brief: how many make a new connection for each request.
    :ivar int answers: complete answers.
    :ivar int refused: connections that were refused.
    :ivar int resets: connections that were reset, or closed in the middle of an answer.
    :ivar int unannounced: kept connections that were closed without ``Connection: close``.
    :ivar list closed: for each client, how many connections were closed with it.
    """

    DEPTH = 4
    """unanswered requests of a pipelining client"""

    def __init__(self, port: int, kept: int = 0, pipelining: int = 0, brief: int = 0) -> None:
        self._port = port
        self._depths = [1] * kept + [self.DEPTH] * pipelining + [0] * brief
        self.answers = self.refused = self.resets = self.unannounced = 0
        self.closed = [0] * len(self._depths)
        self._ends = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Clients:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()

    def end(self) -> None:
        """Have each client end after the answers it waits for."""
        self._ends = True
        self._thread.join()

    async def _run(self) -> None:
        await asyncio.gather(
            *(self._live(number, depth) for number, depth in enumerate(self._depths)))

    async def _live(self, number: int, depth: int) -> None:
        while not self._ends:
            try:
                reader, writer = await asyncio.open_connection('127.0.0.1', self._port)
            except ConnectionError:
                self.refused += 1
                await asyncio.sleep(0.02)
                continue
            try:
                await self._ask(number, depth, reader, writer)
            except ConnectionError:
                self.resets += 1
            finally:
                writer.close()

    async def _ask(
        self, number: int, depth: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Ask on one connection, until it or this client ends."""
        writer.write(REQUEST * max(depth, 1))
        while True:
            try:
                closes = await asyncio.wait_for(self._answer(reader), PATIENCE)
            except asyncio.IncompleteReadError as error:
                self.resets += bool(error.partial)
                self.unannounced += not error.partial
                return
            self.answers += 1
            if closes:
                self.closed[number] += 1
                await reader.read()  # nothing, or the reset that loses what was sent
                return
            if self._ends or not depth:
                return
            writer.write(REQUEST)

    async def _answer(self, reader: asyncio.StreamReader) -> bool:
        headers = (await reader.readuntil(b'\r\n\r\n')).lower()
        length = headers.partition(b'content-length: ')[2].partition(b'\r\n')[0]
        await reader.readexactly(int(length))
        return b'connection: close' in headers
