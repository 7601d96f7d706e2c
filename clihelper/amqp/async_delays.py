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
        self._making: dict[tuple[str, bool], asyncio.Task[None]] = {}

    def reset(self) -> None:
        """Forget which queues are declared: the connection is lost."""
        self._queues.reset()

    async def prepare(self, queue: str, milliseconds: int, mandatory: bool) -> str:
        """As :meth:`DelayQueues.prepare`."""
        name = name_of(queue, milliseconds)
        making = self._making.get((name, mandatory))
        if making is None and not self._queues.is_declared(name):
            making = self._make(name, queue, milliseconds, mandatory)
        if making is not None:
            await asyncio.shield(making)  # all that wait go on in the order in which they came
        return name

    def _make(
        self, name: str, queue: str, milliseconds: int, mandatory: bool
    ) -> asyncio.Task[None]:
        key = name, mandatory
        work = self._declare(name, queue, milliseconds, mandatory)
        task = self._making[key] = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(lambda _: self._making.pop(key, None))
        return task

    async def _declare(self, name: str, queue: str, milliseconds: int, mandatory: bool) -> None:
        alone = partial(self._declare_alone, queue, milliseconds, mandatory)
        await in_thread(asyncio.get_running_loop(), alone)
        if pause := self._queues.pause(name):
            await asyncio.sleep(pause)

    def _declare_alone(self, queue: str, milliseconds: int, mandatory: bool) -> None:
        connection = self._connect()
        try:
            connection.open_any()
            self._queues.declare(connection, queue, milliseconds, mandatory)
        except (Lost, Unreachable, Error) as error:
            raise PublishError(str(error), failed=[(0, str(error))]) from error
        finally:
            connection.close()
