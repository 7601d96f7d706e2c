"""Which messages a method handles: by queue, type and routing key."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    F = TypeVar('F')

ROUTES = 'clihelper_routes'
"""the attribute of a method that has its routes"""


class Route:
    """What the messages have that a method handles. None: that property does not matter.

    :ivar queue: the key in ``AMQP.queues`` of the queue that they come from.
    :ivar type: their property ``type``.
    :ivar routing_key: their routing key, in which ``*`` stands for one word and ``#`` for any
        number of words.
    """

    __slots__ = ('queue', 'routing_key', 'type')

    def __init__(self, queue: str | None, type: str | None, routing_key: str | None) -> None:
        self.queue = queue
        self.type = type
        self.routing_key = routing_key

    def fits(self, queue: str, type: str | None, routing_key: str) -> bool:
        """Return whether a message is one of those."""
        return (
            self.queue in (None, queue)
            and self.type in (None, type)
            and (self.routing_key is None or matches(self.routing_key, routing_key))
        )

    def __str__(self) -> str:
        parts = (('queue', self.queue), ('type', self.type), ('routing key', self.routing_key))
        return ', '.join(f'{name} {value}' for name, value in parts if value is not None)


def handles(
    *, queue: str | None = None, type: str | None = None, routing_key: str | None = None
) -> Callable[[F], F]:
    """Have a method of a consumer handle the messages that fit all that is given.

    The method is called in place of ``on_message``, with the same arguments, and with the same
    outcomes. A message is handled by the first method that fits, in the order in which they are
    written: those of the class, then those of its bases. ``on_message`` handles the others;
    without it they are dead-lettered as ``unrouted``. A method may have several decorators: it
    handles what fits one of them. One that a subclass overrides stays a handler, in its place
    and for the same messages, unless it is decorated again.

    :param queue: the key of the queue in ``AMQP.queues``, as ``message.queue`` has it; of one in
        partitions, the key without the number.
    :param type: the property ``type``.
    :param routing_key: the routing key, with AMQP's wildcards of topics: between dots, ``*``
        stands for one word and ``#`` for any number of them, or none.
    :raises TypeError: nothing is given, or something that is not ``str``.
    """
    given = {'queue': queue, 'type': type, 'routing_key': routing_key}
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            raise TypeError(f'handles: {name} is a str, not {value!r}')
    if all(value is None for value in given.values()):
        raise TypeError('handles: expected queue, type or routing_key; on_message has the rest')

    def decorate(method: F) -> F:
        routes = (Route(**given), *getattr(method, ROUTES, ()))
        setattr(method, ROUTES, routes)
        return method

    return decorate


def routed_methods(cls: type) -> Iterator[tuple[str, tuple[Route, ...]]]:
    """Yield the names of the methods that handle messages, with their routes, in their order."""
    seen = set()
    for owner in cls.__mro__:
        for name, value in vars(owner).items():
            function = getattr(value, '__func__', value)  # of a staticmethod, too
            routes: Any = getattr(function, '__dict__', {}).get(ROUTES)
            if routes and name not in seen:
                seen.add(name)
                if getattr(cls, name) is not None:
                    yield name, routes


def matches(pattern: str, routing_key: str) -> bool:
    """Return whether a routing key fits a pattern, as for a binding of a topic exchange.

    See AMQP 0-9-1, section 3.1.3.3.

    >>> matches('order.*.eu', 'order.new.eu'), matches('order.#', 'order'), matches('*', 'a.b')
    (True, True, False)
    """
    wanted = pattern.split('.') if pattern else []
    end = len(wanted)
    reached = _beyond_hashes(wanted, {0})
    for word in routing_key.split('.') if routing_key else ():
        following = set()
        for position in reached:
            if position < end and wanted[position] == '#':
                following.add(position)
            elif position < end and wanted[position] in ('*', word):
                following.add(position + 1)
        reached = _beyond_hashes(wanted, following)
    return end in reached


def _beyond_hashes(wanted: list[str], reached: set[int]) -> set[int]:
    """Add the positions behind each ``#``, which may stand for nothing."""
    for position, word in enumerate(wanted):
        if word == '#' and position in reached:
            reached.add(position + 1)
    return reached
