"""The interface of all transports; for type checking only."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Protocol

    from clihelper.amqp.acknowledgement import Acknowledger, ConcurrentAcknowledger

    class WaitFor(Protocol):
        """See :attr:`clihelper.amqp.rabbitmq.RabbitMQTransport.wait_for`."""

        def __call__(
            self, descriptor: int | None, deadline: float, *, write: bool = False
        ) -> None: ...

    class OnReturn(Protocol):
        """Called with an unroutable message that the broker has returned, including its body."""

        def __call__(
            self, error: Exception, exchange: str, routing_key: str, message: Any
        ) -> None: ...

    class Transport(Protocol):
        """The methods that :class:`~clihelper.amqp.connection.Connection` and its users call.

        :class:`~clihelper.amqp.rabbitmq.RabbitMQTransport` is the transport for AMQP,
        :class:`~clihelper.amqp.kombu_transport.KombuTransport` that for everything else.
        """

        errors: tuple[type[BaseException], ...]
        refusals: tuple[type[BaseException], ...]
        expires: bool
        wait_for: WaitFor
        on_blocked: Callable[[str], None]
        on_unwritten: Callable[[], None] | None

        def connect(self) -> None: ...
        def channel(self) -> Any: ...
        def open_channel(self) -> Any: ...
        def fileno(self) -> int | None: ...
        def take(self) -> bool: ...
        def consume(
            self,
            channel: Any,
            queue: str,
            tag: str,
            on_delivery: Callable[[Any], None],
            arguments: Mapping[str, Any] | None = None,
            *,
            waits: bool = True,
        ) -> None: ...
        def cancel(self, channel: Any, tag: str) -> None: ...
        def limit(self, channel: Any, prefetch: int) -> None: ...
        def acknowledger(
            self, channel: Any, prefetch: int, *, concurrent: bool = False
        ) -> Acknowledger | ConcurrentAcknowledger | None: ...
        def consume_replies(
            self, channel: Any, name: str, on_delivery: Callable[[Any], None], *,
            waits: bool = True,
        ) -> str: ...  # fmt: skip
        def ask_depth(
            self, channel: Any, queue: str, on_answer: Callable[[int], None]
        ) -> None: ...
        def ask_depths(
            self,
            queues: Sequence[str],
            on_answer: Callable[[str, int, int | None], None],
            on_refused: Callable[[str], None],
        ) -> None: ...
        def ask_message(
            self, channel: Any, queue: str, on_answer: Callable[[Any], None]
        ) -> None: ...
        def recover(self, channel: Any) -> None: ...
        def get(self, channel: Any, queue: str) -> Any: ...
        def get_several(self, channel: Any, queue: str, number: int) -> list[Any]: ...
        def has(self, channel: Any) -> bool: ...
        def confirm(
            self,
            channel: Any,
            on_ack: Callable[[int, bool], None],
            on_nack: Callable[[int, bool], None],
            on_return: OnReturn,
            *,
            waits: bool = True,
        ) -> bool: ...
        def encode_or_publish(
            self,
            channel: Any,
            body: bytes,
            exchange: str,
            routing_key: str,
            properties: dict[str, Any] | bytes,
            mandatory: bool = True,
        ) -> bytes: ...
        def write(self, data: bytes) -> None: ...
        def write_more(self) -> bool: ...
        def end(self, timeout: float) -> None: ...
        def collect(self) -> None: ...
