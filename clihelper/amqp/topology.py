"""Exchanges, queues and bindings: declared from the ``AMQP`` section, or verified."""

from __future__ import annotations

from clihelper.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

Refusals = tuple[type[BaseException], ...]


class Topology:
    """What the broker must have before anything is consumed.

    :param section: the ``AMQP`` section.
    """

    def __init__(self, section: Mapping[str, Any]) -> None:
        self._declare: bool = section['declare']
        self._exchanges: Mapping[str, Mapping[str, Any]] = section['exchanges']
        self._queues: Mapping[str, Mapping[str, Any]] = section['queues']
        self._dead = _dead_letter_queues(section)

    @property
    def queues(self) -> list[str]:
        """The names of the queues to consume."""
        return list(self._queues)

    def dead_letters_of(self, queue: str) -> str | None:
        """The name of the queue that takes *queue*'s dead letters, if there is one."""
        return self._dead.get(queue)

    def establish(self, channel: Any, refusals: Refusals) -> None:
        """Declare everything, or with ``declare: false`` verify that it is there.

        :param refusals: what *channel* raises when the broker refuses.
        :raises clihelper.errors.UnavailableError: something is not as declared.
        """

        def ask(where: str, method: Callable[..., Any], **arguments: Any) -> None:
            try:
                method(**arguments)
            except refusals as error:
                raise UnavailableError(f'AMQP.{where}: {error}') from error

        for name, options in self._exchanges.items():
            self._declare_exchange(ask, channel, name, options)
        for name, options in self._queues.items():
            self._declare_queue(ask, channel, f'queues.{name}', name, options)
            if self._declare:
                self._bind(ask, channel, name, options)
        for queue, dead in {dead: queue for queue, dead in self._dead.items()}.items():
            self._declare_queue(ask, channel, 'dead_letter', queue, self._as_safe_as(dead))

    def _declare_exchange(
        self, ask: Callable[..., None], channel: Any, name: str, options: Mapping[str, Any]
    ) -> None:
        ask(
            f'exchanges.{name}',
            channel.exchange_declare,
            exchange=name,
            type=options['type'],
            passive=not self._declare,
            durable=options['durable'],
            auto_delete=options['auto_delete'],
            arguments=options['arguments'] or None,
        )

    def _declare_queue(
        self,
        ask: Callable[..., None],
        channel: Any,
        where: str,
        name: str,
        options: Mapping[str, Any],
    ) -> None:
        ask(
            where,
            channel.queue_declare,
            queue=name,
            passive=not self._declare,
            durable=options['durable'],
            exclusive=options['exclusive'],
            auto_delete=options['auto_delete'],
            arguments=options['arguments'] or None,
        )

    def _bind(
        self, ask: Callable[..., None], channel: Any, name: str, options: Mapping[str, Any]
    ) -> None:
        exchange = options.get('exchange')
        if not exchange:
            return
        for key in options['routing_keys'] or ['']:
            ask(
                f'queues.{name}.exchange',
                channel.queue_bind,
                queue=name,
                exchange=exchange,
                routing_key=key,
            )

    def _as_safe_as(self, queue: str) -> dict[str, Any]:
        """The options of a queue that keeps dead letters as well as *queue* keeps messages."""
        kind = self._queues[queue]['arguments'].get('x-queue-type')
        return {
            'durable': True,
            'exclusive': False,
            'auto_delete': False,
            'arguments': {'x-queue-type': kind} if kind else {},
        }


def _dead_letter_queues(section: Mapping[str, Any]) -> dict[str, str]:
    setting = section['dead_letter']
    if setting is False:
        return {}
    return {
        name: setting if isinstance(setting, str) else f'{name}.dead' for name in section['queues']
    }
