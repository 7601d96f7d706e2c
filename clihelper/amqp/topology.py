"""Exchanges, queues and bindings: declared from the ``AMQP`` section, or verified."""

from __future__ import annotations

from kombu import Exchange, Queue

from clihelper.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Topology:
    """What the broker must have before anything is consumed.

    :param section: the ``AMQP`` section.
    """

    def __init__(self, section: Mapping[str, Any]) -> None:
        self._declare: bool = section['declare']
        self._exchanges = {
            name: Exchange(
                name,
                type=options['type'],
                durable=options['durable'],
                auto_delete=options['auto_delete'],
                arguments=options['arguments'] or None,
            )
            for name, options in section['exchanges'].items()
        }
        self._bindings = {name: _binding(options) for name, options in section['queues'].items()}
        self._queues = {name: _queue(name, options) for name, options in section['queues'].items()}
        self._dead = _dead_letter_queues(section)

    @property
    def queues(self) -> list[str]:
        """The names of the queues to consume."""
        return list(self._queues)

    def dead_letters_of(self, queue: str) -> str | None:
        """The name of the queue that takes *queue*'s dead letters, if there is one."""
        return self._dead.get(queue)

    def establish(self, channel: Any) -> None:
        """Declare everything, or with ``declare: false`` verify that it is there.

        :raises clihelper.errors.UnavailableError: something is not as declared.
        """
        for name, exchange in self._exchanges.items():
            self._one(f'AMQP.exchanges.{name}', exchange(channel), channel)
        for name, queue in self._queues.items():
            self._one(f'AMQP.queues.{name}', queue(channel), channel)
            if self._declare:
                self._bind(name, queue, channel)
        for name in dict.fromkeys(self._dead.values()):
            source = next(queue for queue, dead in self._dead.items() if dead == name)
            self._one(f'AMQP.dead_letter {name}', self._dead_queue(name, source)(channel), channel)

    def _one(self, where: str, entity: Any, channel: Any) -> None:
        try:
            if isinstance(entity, Queue):
                entity.queue_declare(passive=not self._declare)
            else:
                entity.declare(passive=not self._declare)
        except channel.connection.client.channel_errors as error:
            raise UnavailableError(f'{where}: {error}') from error

    def _bind(self, name: str, queue: Queue, channel: Any) -> None:
        exchange, keys = self._bindings[name]
        for key in keys if exchange else ():
            try:
                queue(channel).bind_to(exchange, routing_key=key)
            except channel.connection.client.channel_errors as error:
                raise UnavailableError(f'AMQP.queues.{name}.exchange: {error}') from error

    def _dead_queue(self, name: str, source: str) -> Queue:
        # As safe as the queue whose letters it keeps.
        kind = (self._queues[source].queue_arguments or {}).get('x-queue-type')
        return Queue(name, durable=True, queue_arguments={'x-queue-type': kind} if kind else None)


def _queue(name: str, options: Mapping[str, Any]) -> Queue:
    return Queue(
        name,
        durable=options['durable'],
        exclusive=options['exclusive'],
        auto_delete=options['auto_delete'],
        queue_arguments=options['arguments'] or None,
    )


def _binding(options: Mapping[str, Any]) -> tuple[str, list[str]]:
    return options.get('exchange') or '', options['routing_keys'] or ['']


def _dead_letter_queues(section: Mapping[str, Any]) -> dict[str, str]:
    setting = section['dead_letter']
    if setting is False:
        return {}
    return {
        name: setting if isinstance(setting, str) else f'{name}.dead' for name in section['queues']
    }
