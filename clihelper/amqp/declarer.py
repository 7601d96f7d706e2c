"""Declares exchanges and queues on a broker, one by one, and explains what it refuses."""

from __future__ import annotations

from clihelper.amqp.connection import Lost
from clihelper.amqp.declare_errors import RESOURCE_LOCKED, DeclarationRefused, is_for_good

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from typing import Any

    Options = Mapping[str, Any]

EXCHANGE, QUEUE = 40, 50
"""The numbers of these classes in AMQP 0-9-1."""

TYPE = 'x-queue-type'
TYPES = ('quorum', 'classic', 'stream')

PROPERTIES = ('durable', 'exclusive', 'auto_delete')

LEADER = 'x-queue-leader-locator'
"""the argument of a quorum queue that RabbitMQ compares last"""

INVALID = 'none'
"""neither a queue type nor a strategy for choosing a leader"""

MOST_DIFFERENCES = 20
"""the most differences between a declaration and a queue that are tried"""

Refusals = tuple[type[BaseException], ...]


class Declarer:
    """Declares exchanges and queues, or verifies that they exist.

    RabbitMQ closes the channel on which it refuses something. The next request uses a new one.

    :param channel: an open channel.
    :param refusals: the exceptions that a channel raises when the broker refuses.
    :param again: whether all this was done on an earlier connection, which the broker may still
        consider alive, and the owner of exclusive queues.
    """

    def __init__(self, channel: Any, refusals: Refusals, *, again: bool = False) -> None:
        self._open = channel
        self._is_closed = False
        self._connection: Any = getattr(channel, 'connection', None)
        self._refusals = refusals
        self._again = again

    @property
    def channel(self) -> Any:
        """An open channel: the original one until something is refused on it."""
        if self._is_closed:
            self._open = self._connection.channel()
            self._is_closed = False
        return self._open

    @property
    def version(self) -> tuple[int, ...]:
        """RabbitMQ's version, such as ``(4, 0)``; empty for another broker."""
        properties = getattr(self._connection, 'server_properties', None) or {}
        if properties.get('product') != 'RabbitMQ':
            return ()
        parts = str(properties.get('version', '')).split('.')[:2]
        return tuple(map(int, parts)) if all(map(str.isdecimal, parts)) else ()

    def exchange(self, position: str, name: str, options: Options, declare: bool) -> None:
        """Declare an exchange, or verify that it exists.

        :param position: where it is configured, for errors.
        :param options: as in ``AMQP.exchanges``.
        :raises DeclarationRefused: it does not exist, or not as declared.
        """
        self._ask(
            position,
            'exchange_declare',
            exchange=name,
            type=options['type'],
            passive=not declare,
            durable=options['durable'],
            auto_delete=options['auto_delete'],
            arguments=options['arguments'] or None,
        )

    def queue(self, position: str, name: str, options: Options, declare: bool = True) -> Any:
        """Declare a queue, or verify that it exists.

        :param options: as in ``AMQP.queues``.
        :returns: its name, the number of messages in it, and the number of its consumers.
        :raises DeclarationRefused: it does not exist, or not as declared.
        """
        return self._ask(
            position,
            'queue_declare',
            queue=name,
            passive=not declare,
            durable=options['durable'],
            exclusive=options['exclusive'],
            auto_delete=options['auto_delete'],
            arguments=options['arguments'] or None,
        )

    def adopt(
        self, position: str, name: str, options: Options, differing: Collection[str]
    ) -> tuple[Any, Options]:
        """Declare a queue; an existing one may differ in some arguments.

        :param differing: the names of these arguments.
        :returns: the result of :meth:`queue`, and the options with the existing arguments.
        :raises DeclarationRefused: it differs in something else.
        """
        for _ in range(MOST_DIFFERENCES):
            try:
                return self.queue(position, name, options), options
            except DeclarationRefused as refused:
                difference = refused.difference
                if difference is None or difference.argument not in differing:
                    raise
                if not difference.known and difference.argument == TYPE:
                    return self._of_some_type(position, name, options, refused)
                options = _adapted(options, refused)
        return self.queue(position, name, options), options

    def _of_some_type(
        self, position: str, name: str, options: Options, refused: DeclarationRefused
    ) -> tuple[Any, Options]:
        """Declare a queue that has another type; the reply is too short to contain which one."""
        for kind in TYPES:
            typed = _with_argument(options, TYPE, kind)
            try:
                return self.queue(position, name, typed), typed
            except DeclarationRefused as again:
                refused = again
                if again.difference is None or again.difference.argument != TYPE:
                    raise
        raise refused

    def bind(self, position: str, queue: str, binding: Options) -> None:
        """Bind a queue; raises :class:`DeclarationRefused`."""
        self._bind(position, 'queue_bind', binding, queue=queue, exchange=binding['exchange'])

    def bind_exchange(self, position: str, exchange: str, binding: Options) -> None:
        """Bind an exchange to another; raises :class:`DeclarationRefused`."""
        self._bind(
            position, 'exchange_bind', binding, destination=exchange, source=binding['exchange'])

    def _bind(self, position: str, method: str, binding: Options, **ends: str) -> None:
        self._ask(position, method, routing_key=binding['routing_key'],
                  arguments=binding['arguments'] or None, **ends)

    def depth(self, position: str, name: str) -> int:
        """The number of messages ready in a queue; 0 if there is none of that name.

        :raises DeclarationRefused: it cannot be asked.
        """
        try:
            return int(self._ask(position, 'queue_declare', queue=name, passive=True)[1])
        except DeclarationRefused as refused:
            if not refused.missing:
                raise
            return 0

    def has_queue(self, position: str, name: str) -> bool:
        """Whether a queue of that name exists; raises :class:`DeclarationRefused`."""
        return self._has(position, 'queue_declare', queue=name, passive=True)

    def has_exchange(self, position: str, name: str) -> bool:
        """Whether an exchange of that name exists; raises :class:`DeclarationRefused`."""
        return self._has(
            position, 'exchange_declare', exchange=name, type='direct', passive=True
        )  # fmt: skip

    def _has(self, position: str, method: str, **arguments: Any) -> bool:
        try:
            self._ask(position, method, **arguments)
        except DeclarationRefused as refused:
            if not refused.missing:
                raise
            return False
        return True

    def type_of(self, position: str, name: str, options: Options) -> str | None:
        """The type of an existing queue, or None if it cannot be found out.

        :param options: the queue's options, as far as they are known.
        """
        found = self._learn(position, name, options, TYPE)
        return None if found is None else type_of(found)

    def arguments_of(self, position: str, name: str, options: Options) -> Options | None:
        """The arguments of an existing queue, or None if they cannot be found out.

        :param options: the queue's options, as far as they are known.
        """
        found = self._learn(position, name, options, TYPE)
        if found is not None and type_of(found) == 'quorum':
            # Some of a quorum queue's arguments are compared after the type.
            found = self._learn(position, name, found, LEADER)
        return None if found is None else found['arguments']

    def _learn(self, position: str, name: str, options: Options, until: str) -> Options | None:
        """The options of an existing queue, up to the argument *until*.

        RabbitMQ has no method for that. But it reports how a declaration differs from a queue, one
        argument at a time. The declarations used here can never create a queue: one argument has
        an invalid value.
        """
        options = _with_argument(options, until, INVALID)
        try:
            for _ in range(MOST_DIFFERENCES):
                try:
                    self.queue(position, name, options)
                    return None  # the broker does not compare arguments
                except DeclarationRefused as refused:
                    options = _adapted(options, refused)
                    if refused.difference is not None and refused.difference.argument == until:
                        return options
        except DeclarationRefused:
            pass
        return None

    def _ask(self, position: str, method: str, **arguments: Any) -> Any:
        call: Callable[..., Any] = getattr(self.channel, method)
        try:
            return call(**arguments)
        except Exception as error:
            if not isinstance(error, self._refusals) and not is_for_good(error):
                raise
            if not _is_of_declaring(error):
                raise  # another channel was closed while waiting for the answer
            self._is_closed = True
            refused = DeclarationRefused(position, error)
            if refused.transient or (self._again and refused.code == RESOURCE_LOCKED):
                raise Lost(str(refused)) from error
            raise refused from error


def _is_of_declaring(error: Any) -> bool:
    """Whether the broker names a method of the classes exchange or queue, or no method."""
    method = getattr(error, 'method_sig', None)
    return not method or method[0] in (0, EXCHANGE, QUEUE)


def type_of(options: Options) -> str | None:
    """The type named in a queue's arguments, or None."""
    kind: str | None = options['arguments'].get(TYPE)
    return kind


def _with_argument(options: Options, name: str, value: Any) -> Options:
    """The options with one argument replaced, or removed if the value is None."""
    arguments = {**options['arguments'], name: value}
    if value is None:
        del arguments[name]
    return {**options, 'arguments': arguments}


def _adapted(options: Options, refused: DeclarationRefused) -> Options:
    """The options, changed by what a refusal says about the existing queue.

    :raises DeclarationRefused: the refusal does not say it.
    """
    difference = refused.difference
    if difference is None or not difference.known:
        raise refused
    name = difference.argument
    try:
        if name in PROPERTIES:
            return {**options, name: difference.value(options[name])}
        value = difference.value(options['arguments'].get(name))
    except ValueError:
        raise refused from None
    if name == TYPE and value is None:
        value = 'classic'  # before RabbitMQ 4.0 classic queues do not have this argument
    return _with_argument(options, name, value)
