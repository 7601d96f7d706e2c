"""The handlers of a consumer: which there are, and which one a message is for."""

from __future__ import annotations

from functools import lru_cache

from clihelper.amqp.annotations import body_type, body_type_of_messages
from clihelper.amqp.properties import type_field
from clihelper.amqp.routes import routed_methods
from clihelper.amqp.settlement import Unrouted
from clihelper.errors import Error, did_you_mean
from clihelper.program import code_of, mentioned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    from clihelper.amqp.bodies import BodyType
    from clihelper.amqp.message import Message
    from clihelper.amqp.routes import Route

ONE, SEVERAL = 'on_message', 'on_messages'

MOST_CHOICES = 1024
"""how many combinations of queue, type and routing key are remembered"""

VARIABLE, KEYWORDS = 0x04, 0x08
"""flags of a code object: it has ``*args``, ``**keywords``"""


class Handler:
    """A method that handles messages.

    :ivar str name: its name.
    :ivar routes: which messages it handles, any of them; empty: those that no other handles.
    :ivar body: what their bodies are converted to; None: they are decoded only.
    """

    __slots__ = ('body', 'name', 'routes')

    def __init__(
        self, name: str, routes: Sequence[Route] = (), body: BodyType | None = None
    ) -> None:
        self.name = name
        self.routes = tuple(routes)
        self.body = body

    @property
    def description(self) -> str:
        """Which messages it handles, in words."""
        return ' or '.join(map(str, self.routes)) or 'any other message'

    def __str__(self) -> str:
        """For people to read, as in ``on_created: type order.created -> Order``."""
        body = f' -> {self.body}' if self.body is not None else ''
        return f'{self.name}: {self.description}{body}'

    def __repr__(self) -> str:
        return f'<Handler {self}>'


class Handlers:
    """All handlers of a consumer. Which one a message is for is remembered by what decides it.

    :param routed: those for certain messages, in the order in which they are tried.
    :param rest: the one for all others, ``on_message`` or ``on_messages``, if there is one.
    :param partitions: the queue of each partition, by the partition's label.
    """

    def __init__(
        self,
        routed: Sequence[Handler],
        rest: Handler | None,
        partitions: Mapping[str, str] | None = None,
    ) -> None:
        self.routed = routed
        self.rest = rest
        self._partitions = partitions or {}
        self._choices: dict[Any, Handler] = {}
        routes = [route for each in routed for route in each.routes]
        self._by_type = any(route.type is not None for route in routes)
        self._by_key = any(route.routing_key is not None for route in routes)
        self._by_more = self._by_key or any(route.queue is not None for route in routes)

    def within(self, partitions: Mapping[str, str]) -> Handlers:
        """Return the same handlers for a topology with these partitions."""
        return Handlers(self.routed, self.rest, partitions)

    @property
    def all(self) -> list[Handler]:
        """All of them, in the order in which they are tried."""
        return [*self.routed, *([self.rest] if self.rest is not None else [])]

    @property
    def is_plain(self) -> bool:
        """Whether each message is for ``on_message``, as it is decoded."""
        return not self.routed and (self.rest is None or self.rest.body is None)

    def find(self, message: Message) -> Handler:
        """Return the handler that a message is for. Any thread may call this.

        :raises Unrouted: there is none.
        :raises InvalidProperties: its type or routing key cannot be decoded.
        """
        key: Any = None
        if self._by_type:
            try:
                key = type_field(message.delivery.packed)
            except AttributeError:  # it is not as RabbitMQ's transport delivers it
                key = message.type
        if self._by_more:
            key = key, message.queue, message.routing_key if self._by_key else ''
        try:
            return self._choices[key]
        except KeyError:
            pass
        handler = self._choose(message)
        if len(self._choices) >= MOST_CHOICES:
            self._choices.clear()  # publishers make up ever new ones
        self._choices[key] = handler
        return handler

    def _choose(self, message: Message) -> Handler:
        queue = self._partitions.get(message.queue, message.queue)
        type = message.type if self._by_type else None
        routing_key = message.routing_key if self._by_key else ''
        for handler in self.routed:
            if any(route.fits(queue, type, routing_key) for route in handler.routes):
                return handler
        if self.rest is not None:
            return self.rest
        parts = [f'queue {queue}']
        if self._by_type:
            parts.append('no type' if type is None else f'type {type!r}')
        if self._by_key:
            parts.append(f'routing key {routing_key!r}')
        raise Unrouted(f'no handler is for {", ".join(parts)}')


# Found in a class, and checked.


def handlers_of(cls: type) -> Handlers:
    """Return the handlers that a class has.

    :raises clihelper.errors.Error: one of them could not be called, or has an annotation that no
        body would fit.
    """
    return _found_in(cls)


@lru_cache(maxsize=16)  # making what validates takes some time
def _found_in(cls: type) -> Handlers:
    routed = [
        Handler(name, routes, _body_of(cls, name)) for name, routes in routed_methods(cls)
    ]
    name = SEVERAL if is_defined(cls, SEVERAL) else ONE if is_defined(cls, ONE) else None
    if name is None:
        return Handlers(routed, None)
    body = _body_of_batch(cls) if name == SEVERAL else _body_of(cls, name)
    return Handlers(routed, Handler(name, (), body))


def is_defined(cls: type, name: str) -> bool:
    """Whether the program has a method of that name in the class, or gives it to its objects."""
    owner = next((each for each in cls.__mro__ if name in vars(each)), None)
    if owner is not None and not _is_own(owner):
        return True
    return name in mentioned(each for each in cls.__mro__ if not _is_own(each))


def _is_own(cls: type) -> bool:
    return cls.__module__.partition('.')[0] == 'clihelper' or cls is object


def _body_of(cls: type, name: str) -> BodyType | None:
    found = _parameter(cls, name, 2)
    return found and body_type(*found)


def _body_of_batch(cls: type) -> BodyType | None:
    """What ``Message[Order]`` in the annotation of ``on_messages`` says."""
    found = _parameter(cls, SEVERAL, 1)
    return found and body_type_of_messages(*found)


def _parameter(cls: type, name: str, count: int) -> tuple[Any, str, str] | None:
    """The function of a method, the name of its first parameter but ``self``, and both for errors;
    None if it is not known.

    :param count: how many arguments it gets, but ``self``.
    :raises clihelper.errors.Error: it does not take so many.
    """
    import functools

    shown = f'{cls.__name__}.{name}'
    method = next((vars(each)[name] for each in cls.__mro__ if name in vars(each)), None)
    code = code_of(method)
    if code is None or isinstance(method, (property, functools.partialmethod)):
        return None
    first = 0 if isinstance(method, staticmethod) else 1
    _check_signature(getattr(method, '__func__', method), code, first + count, shown)
    function: Any = getattr(method, '__func__', method)
    while hasattr(function, '__wrapped__'):
        function = function.__wrapped__
    names = getattr(function, '__code__', code).co_varnames
    if len(names) <= first:
        return None
    return function, names[first], f'{shown}: {names[first]}'


def _check_signature(function: Any, code: Any, count: int, shown: str) -> None:
    """Check that a function can be called with so many positional arguments."""
    least = code.co_argcount - len(function.__defaults__ or ())
    names = code.co_varnames[code.co_argcount:][:code.co_kwonlyargcount]
    needed = [name for name in names if name not in (function.__kwdefaults__ or {})]
    fits = least <= count and (count <= code.co_argcount or code.co_flags & VARIABLE)
    if not fits or needed:
        arguments = 'self, messages' if shown.endswith(f'.{SEVERAL}') else 'self, body, message'
        raise Error(f'{shown} could not be called: it is called as {shown.rpartition(".")[2]}'
                    f'({arguments})')


def check_queues(
    handlers: Handlers, consumed: Collection[str], owner: str, position: str
) -> list[str]:
    """Return a fault for each queue that a handler names and that is not consumed.

    :param consumed: the labels of the queues that are.
    :param owner: the name of the class.
    :param position: where the queues are configured.
    """
    return [
        f'{position}: AMQP.queues: {owner}.{handler.name} handles {route}, but no queue'
        f' {route.queue!r} is consumed{did_you_mean(route.queue, consumed)}'
        for handler in handlers.routed
        for route in handler.routes
        if route.queue is not None and route.queue not in consumed
    ]
