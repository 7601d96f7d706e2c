"""Exchanges, queues and bindings: declared from the ``AMQP`` section, or verified."""

from __future__ import annotations

import itertools

from clihelper.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

UNUSED = 3600 * 1000
"""milliseconds after which a queue for retries goes when nobody has declared it again"""

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

    @property
    def declares(self) -> bool:
        """Whether what is missing is declared."""
        return self._declare

    def name_of_retries(self, queue: str, milliseconds: int) -> str:
        """The name of the queue that keeps messages of *queue* for so long."""
        return f'{queue}.retry.{milliseconds / 1000:g}s'

    def declare_retries(self, channel: Any, queue: str, milliseconds: int) -> None:
        """Declare, or verify, the queue that keeps messages for so long and gives them back."""
        arguments = {
            'x-message-ttl': milliseconds,
            'x-dead-letter-exchange': '',
            'x-dead-letter-routing-key': queue,
            'x-expires': milliseconds + UNUSED,
        }
        options = self._as_safe_as(queue)
        if options['arguments'].get('x-queue-type') == 'quorum':
            # Only then is a message kept until the other queue has it.
            arguments['x-dead-letter-strategy'] = 'at-least-once'
            arguments['x-overflow'] = 'reject-publish'
        options['arguments'] |= arguments
        channel.queue_declare(
            queue=self.name_of_retries(queue, milliseconds),
            passive=not self._declare,
            **options,
        )

    def establish(self, channel: Any, refusals: Refusals, delays: Iterable[int] = ()) -> None:
        """Declare everything, or with ``declare: false`` verify that it is there.

        :param delays: the milliseconds for which there must be queues for retries; they are
            declared when they are needed.
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
        if not self._declare:
            for queue, delay in itertools.product(self._queues, delays):
                ask(
                    'retry',
                    self.declare_retries,
                    channel=channel,
                    queue=queue,
                    milliseconds=delay,
                )

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
