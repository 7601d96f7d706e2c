"""Dead letters: read, published again, or dropped; and looking at them costs them nothing.

Reading is by ``basic.get`` and without acknowledging: a letter that is neither published again nor
dropped stays in its queue, whatever becomes of whoever reads.

What has been read is given back. A classic queue puts it where it was. A quorum queue does not:

- Without a delivery limit it puts what comes back behind all others; with one it puts it before
  them, but behind what came back earlier. Either way the order stays if all letters are read and
  come back in their order. So the rest is read, too, before anything is given back.
- It counts, and drops what has come back more often than the limit: 20 by default from RabbitMQ
  4.0 on. Up to 4.2 each return counts, from 4.3 on only the end of a channel that held a letter.
  The header ``x-delivery-count`` says how far a letter is. Near the limit the letters are renewed:
  each is published anew to its own queue, and acknowledged once the broker has confirmed that.
"""

from __future__ import annotations

import time

from clihelper.amqp.connection import Connection, Lost, Unreachable
from clihelper.amqp.declare_errors import DeclarationRefused
from clihelper.amqp.message import CARBON_COPIES, NOT_RENEWED, OWN
from clihelper.amqp.properties import (
    HEADERS,
    InvalidProperties,
    copied,
    header,
    is_broker_header,
    readable,
)
from clihelper.amqp.publisher import Publisher, PublishError
from clihelper.amqp.settlement import (
    APPLICATION,
    ATTEMPTS,
    EXCEPTION,
    HOST,
    MESSAGE,
    QUEUE,
    REASON,
    TIME,
)
from clihelper.amqp.topology import Topology
from clihelper.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from typing import Any

DELIVERIES = 'x-delivery-count'
"""The header in which a quorum queue says how many deliveries of a message count."""

RENEWED_AT = 3
"""Deliveries from which on letters are renewed.

The limit may come from a policy, and then it cannot be read; some set it to 3.
"""

LONGEST_REST = 10_000
"""letters that are read for the sake of the order, at most"""

QUEUE_TIMEOUT, QUEUE_INTERVAL = 2.0, 0.01
"""seconds to wait for a queue to make progress, and from one question for it to the next"""

UNKNOWN_AFTER = 0.2
"""Seconds after which an answer about a queue may be made up.

RabbitMQ says 0 and 0 when a quorum queue has not said anything within 0.25 s.
"""

MOST_BODY = 2**31
"""bytes; RabbitMQ takes 512 MiB, if told so"""

ID_DIGITS = 12

NOT_IMPLEMENTED = 540

NOT_REPLAYED = (*NOT_RENEWED, 'expiration')
"""The properties that are left out by a replay: the letter would be refused, or expire."""


class DeadLetter:
    """One letter.

    :param delivery: what the broker has delivered.
    :param held_in: the queue of dead letters.
    :param position: its place in there, from 1.
    :param source: the only queue whose letters go there; empty if there are several.
    :ivar bytes packed: its properties, as they came.
    :ivar dict headers: its headers as far as they can be read; see
        :func:`clihelper.amqp.properties.readable`.
    :ivar dict properties: its other properties, likewise.
    :ivar str fault: why its properties cannot be read; else empty.
    """

    def __init__(self, delivery: Any, held_in: str, position: int, source: str) -> None:
        self.held_in = held_in
        self.position = position
        self.body: bytes = delivery.body
        self.packed: bytes = delivery.packed
        self.delivery_tag: int = delivery.delivery_tag
        self.fault = ''
        try:
            found = readable(self.packed)
        except InvalidProperties as error:
            found, self.fault = {}, str(error)
        self.headers: dict[str, Any] = found.pop(HEADERS, {})
        self.properties = found
        self._origin = self.headers.get(QUEUE) or self._death('queue') or source
        self._id = ''

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits, made of all that it contains.

        It stays the same as long as the letter exists, and letters that are equal in everything
        have the same. Nothing counts that looking at the letter changes.
        """
        self._id = self._id or self._digest()
        return self._id

    def _digest(self) -> str:
        import hashlib

        parts: tuple[object, ...] = (self.packed,)
        if not self.fault:
            headers = {
                name: value
                for name, value in self.headers.items()
                if not _is_left_out(name.encode())
            }
            properties = {
                name: value
                for name, value in self.properties.items()
                if name not in NOT_RENEWED
            }
            # The broker sorts headers when it adds one.
            parts = sorted(properties.items()), sorted(headers.items()), self.queue, self.reason
        digest = hashlib.sha256(repr(parts).encode())
        digest.update(self.body)
        return digest.hexdigest()[:ID_DIGITS]

    @property
    def queue(self) -> str:
        """The queue that it came from, as far as is known; else empty."""
        return as_text(self._origin)

    @property
    def target(self) -> str:
        """The queue to publish it to: :attr:`queue`, where that can be the name of one."""
        return self._origin if isinstance(self._origin, str) else ''

    @property
    def reason(self) -> str:
        """Why it is here, in a word: clihelper's, or the broker's (``expired``, ``maxlen``)."""
        return as_text(self.headers.get(REASON) or self._death('reason'))

    @property
    def attempts(self) -> int | None:
        """How often it was run, if that is known."""
        value = self.headers.get(ATTEMPTS)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @property
    def exception(self) -> str:
        """The name of the class of the exception that its handler raised, or an empty text."""
        return self.header(EXCEPTION)

    def header(self, name: str) -> str:
        """The value of a header as text; empty where it is not there."""
        return as_text(self.headers.get(name, ''))

    def row(self) -> dict[str, Any]:
        """What there is to say about it, without its body, by name."""
        return {
            'position': self.position,
            'id': self.id,
            'dead_letter_queue': self.held_in,
            'queue': self.queue,
            'reason': self.reason,
            'exception': self.exception,
            'message': self.header(MESSAGE),
            'attempts': self.attempts,
            'time': self.header(TIME),
            'host': self.header(HOST),
            'application': self.header(APPLICATION),
            'size': len(self.body),
        }

    def _death(self, name: str) -> str:
        """What the broker itself noted, where it was the one that dead-lettered it."""
        deaths = self.headers.get('x-death')
        first = deaths[-1] if isinstance(deaths, list) and deaths else {}
        value = first.get(name) if isinstance(first, dict) else None
        return value if isinstance(value, str) else ''


def as_text(value: object) -> str:
    """A value of a header, for people to read; bytes that are not UTF-8 are escaped."""
    return value.decode(errors='backslashreplace') if isinstance(value, bytes) else str(value)


def _is_left_out(name: bytes) -> bool:
    """Whether a header may be another, or missing, from one look to the next."""
    return name in CARBON_COPIES or is_broker_header(name)


def _is_of_its_past(name: bytes) -> bool:
    """Whether a header tells what became of the letter, which ends with its replay."""
    return name.startswith(OWN) or _is_left_out(name)


def _is_counted_anew(name: bytes) -> bool:
    """Whether a header is left out by a renewal; how the letter came here stays in it."""
    return _is_left_out(name) and not name.startswith((b'x-death', b'x-first-', b'x-last-'))


def _deliveries(delivery: Any) -> int:
    """How many deliveries of it count, where its queue counts."""
    try:
        value = header(delivery.packed, DELIVERIES)
    except InvalidProperties:
        return 0
    return value if isinstance(value, int) else 0


class _Reader:
    """Reads one queue, holds what is not settled, and gives it back in order.

    Its methods raise :class:`~clihelper.amqp.connection.Lost`.

    :param warn: called with a line for the operator.
    """

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        queue: str,
        warn: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        self._queue = queue
        self._warn = warn
        self._channel = connection.channel()
        self._held: dict[int, None] = {}
        self._consumers = self._depth()[1] or 0
        self._is_near_limit = False
        self._is_renewed = False

    def first(self) -> Any:
        """The first letter; None: there is none. If it is near the limit, all are renewed."""
        delivery = self.get()
        if not self._is_near_limit:
            return delivery
        # Now, and not only when all are given back: this process may be killed before.
        self._renew(delivery)
        self._return_held()
        return self.get()

    def get(self) -> Any:
        """The next letter; None: there is no other."""
        with self._connection.guard():
            delivery = self._connection.transport.get(self._channel, self._queue)
        if delivery is not None:
            self._held[delivery.delivery_tag] = None
            self._is_near_limit = self._is_near_limit or _deliveries(delivery) >= RENEWED_AT
        return delivery

    @property
    def ready(self) -> int:
        """How many there were behind the letter that was read last."""
        return int(self._channel.ready)

    def acknowledge(self, delivery_tag: int) -> None:
        """A letter is done with."""
        with self._connection.guard():
            self._channel.basic_ack(delivery_tag)
        self._held.pop(delivery_tag)

    def flush(self) -> None:
        """Return when the queue has taken in what was acknowledged."""
        if not self._wait(0):
            self._warn(f'{self._queue} is slow: some letters that left it may come back')

    def give_back(self) -> None:
        """Give back what is held, in the order of the queue, and renew what is near the limit."""
        if self._held and self._loses_places():
            while len(self._held) < LONGEST_REST and self.get() is not None:
                pass
        self._return_held()
        if self._is_near_limit and not self._is_renewed:
            self._renew(self.get())
            self._return_held()

    def _return_held(self) -> None:
        """Give back what is held, and wait until it is there for whoever looks next."""
        if not self._held:
            return
        there = self.ready + len(self._held)
        with self._connection.guard():
            self._connection.transport.recover(self._channel)
        self._held.clear()
        self._wait(there)

    def _wait(self, number: int) -> bool:
        """Wait until the queue has done what it was told, and so many letters are there.

        The broker's answers say no more than that it was told. A quorum queue takes 32 commands at
        a time on a channel, and when the channel is closed, the rest is forgotten: acknowledged
        letters come back.

        :returns: False: there was no progress for so long that it is not waited for.
        """
        progress, last = time.monotonic(), None
        while time.monotonic() - progress < QUEUE_TIMEOUT:
            ready, consumers = depth = self._depth()
            if consumers is not None:
                if ready >= number and consumers <= self._consumers + len(self._held):
                    return True
                if depth != last:
                    progress, last = time.monotonic(), depth
            time.sleep(QUEUE_INTERVAL)
        return False

    def _loses_places(self) -> bool:
        """Whether a letter that is given back may not get its place again: not in a classic queue.

        A quorum queue counts each letter that was got and is not settled as a consumer.
        """
        consumers = self._depth()[1]
        return consumers is None or consumers > self._consumers

    def _depth(self) -> tuple[int, int | None]:
        """The letters that nobody holds, and the consumers; None: it is not known."""
        began = time.monotonic()
        with self._connection.guard():
            answer = self._channel.queue_declare(self._queue, passive=True)
        is_known = time.monotonic() - began < UNKNOWN_AFTER
        return answer.message_count, answer.consumer_count if is_known else None

    def _renew(self, delivery: Any) -> None:
        """Publish every letter anew, so that all are counted from 0, in the order that they have.

        Letters that arrive meanwhile are put behind them in the same way.

        :param delivery: the first one, which is held; None: there is none.
        """
        self._is_renewed = True
        renewed, most = 0, 2 * (self.ready + 1)
        while delivery is not None:
            left = min(self.ready, most) - renewed
            renewed += self._renew_one(delivery)
            delivery = self.get() if left > 0 else None

    def _renew_one(self, delivery: Any) -> bool:
        """Publish one letter anew; False: the broker does not take it, and it is held."""
        try:
            _publish(self._publisher, delivery, self._queue, NOT_RENEWED, _is_counted_anew)
        except PublishError as error:
            if error.unknown:
                raise Lost(str(error)) from error
            letter = DeadLetter(delivery, self._queue, 0, '')
            self._warn(
                f'{letter.id} cannot be published anew: {error}. It has been delivered'
                f' {_deliveries(delivery)} times, and a quorum queue drops it at its limit: set'
                ' its delivery-limit to -1 by a policy, or replay or drop the letter'
            )
            return False
        self.acknowledge(delivery.delivery_tag)
        return True


def _publish(
    publisher: Publisher,
    letter: Any,
    queue: str,
    without: Collection[str],
    without_headers: Callable[[bytes], bool],
) -> None:
    """Publish a letter to a queue, but for some of its properties and headers.

    :param letter: a delivery or a :class:`DeadLetter`.
    :raises PublishError: the broker has not taken it.
    """
    try:
        packed = copied(letter.packed, without=without, without_headers=without_headers)
        publisher.forward(letter.body, '', queue, packed)
        publisher.wait_for_confirms()
    except ValueError as error:
        raise PublishError(str(error)) from error


class DeadLetterReader:
    """The dead letters on one broker; a context manager that gives back what is not settled.

    :param section: the ``AMQP`` section.
    :param warn: called with a line for the operator, of what may lose a letter.
    :raises clihelper.errors.UnavailableError: of each method: the broker is lost, or refuses.
    """

    def __init__(self, section: Mapping[str, Any], warn: Callable[[str], None]) -> None:
        # What is published again is whole, however large.
        section = {**section, 'max_body': MOST_BODY}
        self._connection = Connection.of(section, 'clihelper dead-letters')
        self._publisher = Publisher(self._connection)
        self._warn = warn
        topology = Topology(section)
        self._streams = {
            topology.name_of(queue): topology.return_queue(queue)
            for queue in topology.queues
            if topology.is_stream(queue)
        }
        self._readers: dict[str, _Reader] = {}

    def __enter__(self) -> DeadLetterReader:
        try:
            self._connection.open_any()
        except Unreachable as error:
            raise UnavailableError(f'AMQP.url: {error}') from error
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        try:
            # After Ctrl-C, too: a queue may count what a connection that ends has not given back.
            if not isinstance(error, UnavailableError):
                self._give_back()
        except Exception:
            if error is None:
                raise
        finally:
            self._connection.close()

    def _give_back(self) -> None:
        for reader in self._readers.values():
            try:
                reader.give_back()
            except Lost as lost:
                raise self._lost(lost) from lost

    def count(self, queue: str) -> int | None:
        """The letters in a queue that nobody holds; None: there is no such queue."""
        try:
            with self._connection.guard():
                channel = self._connection.channel()
                count = channel.queue_declare(queue, passive=True).message_count
                channel.close()
                return int(count)
        except Lost as lost:
            if lost.__cause__ is not None and DeclarationRefused(queue, lost.__cause__).missing:
                return None
            raise self._lost(lost) from lost

    def read(self, queue: str, source: str) -> Iterator[DeadLetter]:
        """The letters that are in a queue now, first to last; those that come later are not.

        :param source: the queue whose letters go there, if it is the only one.
        """
        if self.count(queue) is None:
            return
        try:
            reader = self._readers[queue] = _Reader(
                self._connection, self._publisher, queue, self._warn
            )
            delivery = reader.first()
            count = reader.ready + 1
            for position in range(1, count + 1):
                if delivery is None:
                    return
                yield DeadLetter(delivery, queue, position, source)
                delivery = reader.get() if position < count else None
        except Lost as lost:
            if _reply_code(lost) == NOT_IMPLEMENTED:
                raise UnavailableError(
                    f'{queue} is a stream: only classic and quorum queues can be read letter by'
                    ' letter'
                ) from lost
            raise self._lost(lost) from lost

    def replay(self, letter: DeadLetter) -> None:
        """Publish a letter to the queue that it came from, and then take it from the dead ones.

        One that came from a stream goes to the queue beside it.

        :raises PublishError: it was not taken; it stays.
        """
        target = self._streams.get(letter.target, letter.target)
        _publish(self._publisher, letter, target, NOT_REPLAYED, _is_of_its_past)
        self.drop(letter.held_in, letter.delivery_tag)

    def drop(self, held_in: str, delivery_tag: int) -> None:
        """Take a letter from its queue, for good.

        :param held_in: the queue of dead letters in which it is.
        """
        try:
            self._readers[held_in].acknowledge(delivery_tag)
        except Lost as lost:
            raise self._lost(lost) from lost

    def flush(self) -> None:
        """Return when the broker has taken in all that was dropped."""
        try:
            for reader in self._readers.values():
                reader.flush()
        except Lost as lost:
            raise self._lost(lost) from lost

    def _lost(self, lost: Lost) -> UnavailableError:
        return UnavailableError(f'AMQP.url: {self._connection.shown()}: {lost}')


def _reply_code(lost: Lost) -> int | None:
    return getattr(lost.__cause__, 'reply_code', None)
