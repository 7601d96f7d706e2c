"""The queues in which messages wait that are published with a delay, for an event loop."""

from __future__ import annotations

import asyncio
from functools import partial

from clihelper.amqp.connection import Connection, Lost, Unreachable
from clihelper.amqp.delays import DelayQueues, name_of
from clihelper.amqp.event_loop import in_thread
from clihelper.amqp.publisher import PublishError
from clihelper.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class AsyncDelayQueues:
    """A thread declares the queues, over a connection of its own.

    :param declares: ``AMQP.declare``.
    :param connect: makes a connection that is not open yet.
    """

    def __init__(self, declares: bool, connect: Callable[[], Connection]) -> None:
        self._queues = DelayQueues(declares)
        self._connect = connect
        self._declaring: dict[str, asyncio.Task[None]] = {}

    def reset(self) -> None:
        """Forget which queues are declared: the connection is lost."""
        self._queues.reset()

    async def prepare(self, queue: str, milliseconds: int, mandatory: bool) -> str:
        """As :meth:`DelayQueues.prepare`."""
        name = name_of(queue, milliseconds)
        if not self._queues.is_declared(name):
            await self._declare(name, queue, milliseconds, mandatory)
        if pause := self._queues.pause(name):
            await asyncio.sleep(pause)
        return name

    async def _declare(self, name: str, queue: str, milliseconds: int, mandatory: bool) -> None:
        task = self._declaring.get(name)
        if task is None:
            loop = asyncio.get_running_loop()
            alone = partial(self._declare_alone, queue, milliseconds, mandatory)
            task = self._declaring[name] = loop.create_task(in_thread(loop, alone))
            task.add_done_callback(lambda _: self._declaring.pop(name, None))
        await asyncio.shield(task)

    def _declare_alone(self, queue: str, milliseconds: int, mandatory: bool) -> None:
        connection = self._connect()
        try:
            connection.open_any()
            self._queues.declare(connection, queue, milliseconds, mandatory)
        except (Lost, Unreachable, Error) as error:
            raise PublishError(str(error), failed=[(0, str(error))]) from error
        finally:
            connection.close()
