"""Exchanges and queues that a program declares with kombu's own classes.

They are converted to the options that the ``AMQP`` section uses. kombu is imported here only for
programs that have already imported it.
"""

from __future__ import annotations

from itertools import chain

from clihelper.amqp.partitions import Expansion
from clihelper.config.schema import (
    LONGEST_NAME,
    NAMING_ARGUMENTS,
    is_short_string,
    name_fault,
)
from clihelper.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    Options = Mapping[str, Any]


class Entities:
    """The exchanges and queues of the section and of the program together.

    :param section: the ``AMQP`` section.
    :param queues: :class:`kombu.Queue` objects.
    :param exchanges: :class:`kombu.Exchange` objects.
    :param owner: the name of the class that declares them, for errors.
    :ivar exchanges: options by name, as in the section.
    :ivar queues: options by label, as in the section. The label of a kombu queue that the broker
        names is its ``alias``.
    :ivar positions: where each queue is configured, by label, for errors.
    :ivar partitioned: the queues that are declared in partitions.
    :ivar spreading: the exchanges that spread messages over them, and are not in the section.
    :raises clihelper.errors.ConfigurationError: they contradict each other.
    """

    def __init__(
        self,
        section: Options,
        queues: Iterable[Any] = (),
        exchanges: Iterable[Any] = (),
        owner: str = '',
    ) -> None:
        self.exchanges: dict[str, Options] = dict(section['exchanges'])
        self.queues: dict[str, Options] = dict(section['queues'])
        self.positions = {label: f'AMQP.queues.{label}' for label in self.queues}
        self._exchange_positions = {name: f'AMQP.exchanges.{name}' for name in self.exchanges}
        self._owner = owner
        self._section = section
        self.partitioned: list[Expansion] = []
        self.spreading: set[str] = set()
        for label in [each for each, options in self.queues.items() if 'partitions' in options]:
            self._expand(label)
        for exchange in exchanges:
            self._add_exchange(exchange)
        for queue in queues:
            self._add_queue(queue)

    @property
    def partitions(self) -> dict[str, str]:
        """The label of the whole queue, by that of each partition."""
        return {part: each.label for each in self.partitioned for part, _ in each.queues()}

    def position_of(self, exchange: str) -> str:
        """Where an exchange is configured, for errors."""
        return self._exchange_positions[exchange]

    def _expand(self, label: str) -> None:
        """Have a queue's partitions take its place."""
        options = self.queues.pop(label)
        expansion = Expansion(label, options, bindings_of(options))
        position = self.positions.pop(label)
        self.partitioned.append(expansion)
        for each, its_options in expansion.queues():
            self.queues[each] = its_options
            self.positions[each] = position
        if expansion.exchange and expansion.exchange not in self.exchanges:
            self.spreading.add(expansion.exchange)
            self.exchanges[expansion.exchange] = expansion.exchange_options
            self._exchange_positions[expansion.exchange] = f'{position}: {expansion.exchange}'

    def keys_of(self, kind: str, name: str) -> tuple[str, ...]:
        """The keys of a queue or an exchange in the configuration; empty if the program declares
        it.

        :param kind: ``queues`` or ``exchanges``.
        :param name: the queue's label, or the exchange's name.
        """
        for each in self.partitioned:
            position = f'AMQP.queues.{each.label}'
            if kind == 'queues' and self.positions[name] == position:
                name = each.label
            elif kind == 'exchanges' and name in self.spreading and name == each.exchange:
                kind, name = 'queues', each.label
        return ('AMQP', kind, name) if name in self._section[kind] else ()

    def _add_exchange(self, exchange: Any) -> None:
        position = f'{self._owner}.exchanges: {exchange.name}'
        if exchange.name in self.exchanges:
            other = self.position_of(exchange.name)
            raise ConfigurationError(f'{position}: is already declared: {other}')
        self.exchanges[exchange.name] = options = _exchange_options(exchange)
        self._exchange_positions[exchange.name] = position
        _check_names(position, [exchange.name], options)

    def _add_queue(self, queue: Any) -> None:
        label = queue.name or queue.alias
        position = f'{self._owner}.queues: {label}'
        if not label:
            raise ConfigurationError(
                f'{self._owner}.queues: a queue that the broker names needs an alias'
            )
        if queue.no_ack:
            raise ConfigurationError(f'{position}: no_ack: each message is settled by its outcome')
        names = {options['name']: each for each, options in self.queues.items()}
        if label in self.queues or (queue.name and queue.name in names):
            there = self.positions[label if label in self.queues else names[queue.name]]
            raise ConfigurationError(f'{position}: is already declared: {there}')
        for exchange in _exchanges_of(queue):
            self._add_exchange_of(exchange, position)
        self.queues[label] = options = _queue_options(queue)
        self.positions[label] = position
        self._check_queue_names(position, label, options)

    def _check_queue_names(self, position: str, label: str, options: Options) -> None:
        bound = [(each['exchange'], each['routing_key']) for each in options['bindings']]
        _check_names(position, [label, *chain.from_iterable(bound)], options)
        fault = name_fault(label, options, self._section)
        if fault:
            raise ConfigurationError(f'{position}: {fault}')

    def _add_exchange_of(self, exchange: Any, position: str) -> None:
        """Declare an exchange together with a queue bound to it, unless it is the broker's own."""
        name = exchange.name
        if not name or name.startswith('amq.') or exchange.no_declare or exchange.passive:
            return
        options = _exchange_options(exchange)
        if name not in self.exchanges:
            self.exchanges[name] = options
            self._exchange_positions[name] = f'{position}: exchange {name}'
            return
        for key, value in self.exchanges[name].items():
            if value != options[key]:
                raise ConfigurationError(
                    f'{position}: exchange {name}: {key} is {options[key]} here, but {value} in'
                    f' {self.position_of(name)} (no_declare=True refers to that one)'
                )


def _check_names(position: str, names: Iterable[str], options: Options) -> None:
    """Check that names and routing keys are short strings of AMQP.

    :raises ConfigurationError: one is not.
    """
    arguments = [options['arguments'].get(each) for each in NAMING_ARGUMENTS]
    for name in (*names, *(each for each in arguments if isinstance(each, str))):
        if not is_short_string(name):
            raise ConfigurationError(
                f'{position}: expected names and routing keys of at most {LONGEST_NAME} bytes of'
                f' UTF-8, got {name[:40]!r}...'
            )


def bindings_of(options: Options) -> list[Options]:
    """The bindings of a queue, all in the long form; the simple form is converted."""
    exchange = options.get('exchange')
    simple = [
        {'exchange': exchange, 'routing_key': key, 'arguments': {}}
        for key in options['routing_keys'] or ['']
    ]
    return [*(simple if exchange else []), *options['bindings']]


def _exchanges_of(queue: Any) -> list[Any]:
    exchanges = [queue.exchange, *(binding.exchange for binding in queue.bindings)]
    return [exchange for exchange in exchanges if exchange is not None]


def _exchange_options(exchange: Any) -> Options:
    return {
        'type': exchange.type,
        'durable': exchange.durable,
        'auto_delete': exchange.auto_delete,
        'arguments': exchange.arguments or {},
    }


def _queue_options(queue: Any) -> Options:
    from kombu.transport.base import to_rabbitmq_queue_arguments

    arguments = to_rabbitmq_queue_arguments(
        queue.queue_arguments or {},
        expires=queue.expires,
        message_ttl=queue.message_ttl,
        max_length=queue.max_length,
        max_length_bytes=queue.max_length_bytes,
        max_priority=queue.max_priority,
    )
    bindings = [_binding(each.exchange, each.routing_key, each.arguments)
                for each in queue.bindings]
    if queue.exchange is not None and queue.exchange.name:
        bindings.insert(0, _binding(queue.exchange, queue.routing_key, queue.binding_arguments))
    return {
        'name': queue.name,
        'routing_keys': [],
        'bindings': bindings,
        'durable': queue.durable,
        'exclusive': queue.exclusive,
        'auto_delete': queue.auto_delete,
        'arguments': arguments,
        'consumer_arguments': queue.consumer_arguments or {},
        'declare': not queue.no_declare,
        'on_declared': queue.on_declared,
    }


def _binding(exchange: Any, routing_key: str, arguments: Mapping[str, Any] | None) -> Options:
    return {
        'exchange': exchange.name,
        'routing_key': routing_key or '',
        'arguments': dict(arguments or {}),
    }
