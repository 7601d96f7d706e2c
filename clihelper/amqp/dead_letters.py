"""Dead letters: read, replayed, or dropped. Reading them does not change them.

They are read with ``basic.get`` and not acknowledged: a letter that is neither replayed nor
dropped stays in its queue, whatever happens to the reading process.

Letters that have been read are returned. A classic queue puts them where they were. A quorum queue
does not:

- Without a delivery limit it puts a returned letter behind all others; with one it puts it before
  them, but behind letters that were returned earlier. Either way the order is preserved if all
  letters are read and returned in their order. So the rest is read, too, before any is returned.
- It counts returns, and drops a letter that was returned more often than the limit: 20 by default
  from RabbitMQ 4.0 on. Up to 4.2 each return counts, from 4.3 on only the end of a channel that
  held a letter. The header ``x-delivery-count`` contains the count. Near the limit the letters are
  renewed: each is republished to its own queue, and acknowledged once the broker has confirmed it.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress

from clihelper.amqp.connection import Connection, Lost, Unreachable
from clihelper.amqp.declare_errors import DeclarationRefused
from clihelper.amqp.frames import Delivery
from clihelper.amqp.message import (
    ALL,
    CARBON_COPIES,
    NOT_RENEWED,
    OWN,
    Message,
    decode,
)
from clihelper.amqp.properties import (
    HEADERS,
    InvalidProperties,
    copied,
    encode,
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
    Unaccepted,
    Undecodable,
)
from clihelper.amqp.topology import Topology
from clihelper.errors import UnavailableError, counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from typing import Any

DELIVERIES = 'x-delivery-count'
"""The header with the number of deliveries of a message that a quorum queue has counted."""

RENEWED_AT = 3
"""The number of counted deliveries from which letters are renewed.

The limit may come from a policy, and then it cannot be read; some policies set it to 3.
"""

AHEAD, AHEAD_BYTES = 100, 1024 * 1024
"""how many letters are requested at a time, and about how many bytes their bodies have"""

LONGEST_REST = 10_000
"""the most letters that are read only to preserve the order"""

QUEUE_TIMEOUT, QUEUE_INTERVAL = 2.0, 0.01
"""seconds to wait for a queue to make progress, and between two checks for it"""

UNKNOWN_AFTER = 0.2
"""Seconds after which an answer about a queue may not be true.

RabbitMQ reports 0 messages and 0 consumers if a quorum queue has not answered within 0.25 s.
"""

NO_ORIGIN = b'\x00'
"""the origin of a delivery that no broker has delivered"""

MOST_BODY = 2**31
"""bytes; RabbitMQ accepts up to 512 MiB if configured so"""

ID_DIGITS, GROUP_DIGITS = 12, 6

NOT_IMPLEMENTED = 540

NOT_REPLAYED = (*NOT_RENEWED, 'expiration')
"""The properties that a replay leaves out: with them the letter would be refused, or expire."""


class DeadLetter:
    """One letter.

    :param delivery: the broker's delivery.
    :param held_in: the queue of dead letters.
    :param position: its position in that queue, from 1.
    :param source: the only queue that dead-letters into that queue; empty if there are several.
    :ivar bytes packed: its properties, as delivered.
    :ivar dict headers: its headers as far as they can be read; see
        :func:`clihelper.amqp.properties.readable`.
    :ivar dict properties: its other properties, likewise.
    :ivar str fault: why its properties cannot be read; otherwise empty.
    """

    def __init__(self, delivery: Any, held_in: str, position: int, source: str) -> None:
        self.held_in = held_in
        self.position = position
        self._source = source
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
        """Twelve hexadecimal digits, derived from everything that the letter contains.

        The id stays the same as long as the letter exists; identical letters have the same id.
        What changes when the letter is read is not part of it.
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
                if not is_left_out(name.encode())
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

    def edited(self, body: bytes, packed: bytes) -> DeadLetter:
        """The letter with another body and other packed properties, in the same place."""
        delivery = Delivery(None, self.delivery_tag, NO_ORIGIN, packed, body)
        return DeadLetter(delivery, self.held_in, self.position, self._source)

    def body_fault(self) -> str:
        """Why the body is not what its content type says.

        Empty if it is, or if the type is none that is decoded.
        """
        named = {name: self.properties.get(name) for name in ('content_type', 'content_encoding')}
        try:
            delivery = Delivery(None, 0, NO_ORIGIN, encode(named), self.body)
            decode(Message(delivery, '', lambda *_: None), ALL, sys.maxsize)
        except (Undecodable, ValueError) as error:
            return str(error)
        except Unaccepted:
            pass
        return ''

    @property
    def kind(self) -> tuple[str, str, str]:
        """What letters are grouped by: queue, reason and exception."""
        return self.queue, self.reason, self.exception

    @property
    def group(self) -> str:
        """The name of its group: ``g`` and six hexadecimal digits, derived from :attr:`kind`."""
        import hashlib

        digest = hashlib.sha256(repr(self.kind).encode('utf-8', 'backslashreplace'))
        return f'g{digest.hexdigest()[:GROUP_DIGITS]}'

    @property
    def queue(self) -> str:
        """The queue that the letter came from; empty if it is not known."""
        return as_text(self._origin)

    @property
    def target(self) -> str:
        """The queue to replay it to: :attr:`queue`, or empty if that cannot be a queue's name."""
        return self._origin if isinstance(self._origin, str) else ''

    @property
    def reason(self) -> str:
        """Why it was dead-lettered: clihelper's word or the broker's (``expired``, ``maxlen``)."""
        return as_text(self.headers.get(REASON) or self._death('reason'))

    @property
    def attempts(self) -> int | None:
        """How often it was run, or None if that is not known."""
        value = self.headers.get(ATTEMPTS)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @property
    def exception(self) -> str:
        """The class name of the exception that its handler raised, or an empty string."""
        return self.header(EXCEPTION)

    @property
    def time(self) -> str:
        """When it was dead-lettered, in ISO 8601; empty if that is not known."""
        value = self.headers.get(TIME) or self._last_death().get('time', '')
        return f'{value.isoformat()}Z' if hasattr(value, 'isoformat') else as_text(value)

    def header(self, name: str) -> str:
        """The value of a header as text; empty if the header is absent."""
        return as_text(self.headers.get(name, ''))

    def row(self) -> dict[str, Any]:
        """The facts about the letter by name, without its body."""
        return {
            'position': self.position,
            'id': self.id,
            'dead_letter_queue': self.held_in,
            'queue': self.queue,
            'reason': self.reason,
            'exception': self.exception,
            'message': self.header(MESSAGE),
            'attempts': self.attempts,
            'time': self.time,
            'host': self.header(HOST),
            'application': self.header(APPLICATION),
            'size': len(self.body),
        }

    def _death(self, name: str) -> str:
        """A text from ``x-death``, which the broker writes if it dead-letters itself."""
        value = self._last_death().get(name)
        return value if isinstance(value, str) else ''

    def _last_death(self) -> dict[str, Any]:
        deaths = self.headers.get('x-death')
        last = deaths[-1] if isinstance(deaths, list) and deaths else None
        return last if isinstance(last, dict) else {}


def as_text(value: object) -> str:
    """The value of a header as readable text; bytes that are not UTF-8 are escaped."""
    return value.decode(errors='backslashreplace') if isinstance(value, bytes) else str(value)


def is_left_out(name: bytes) -> bool:
    """Whether a header may change or disappear between one read and the next."""
    return name in CARBON_COPIES or is_broker_header(name)


def _is_history(name: bytes) -> bool:
    """Whether a header describes the letter's history, which ends with its replay."""
    return name.startswith(OWN) or is_left_out(name)


def _is_counted_anew(name: bytes) -> bool:
    """Whether a renewal leaves out a header; it keeps those that say how the letter came here."""
    return is_left_out(name) and not name.startswith((b'x-death', b'x-first-', b'x-last-'))


def _deliveries(delivery: Any) -> int:
    """The number of its deliveries that were counted; 0 if its queue does not count."""
    try:
        value = header(delivery.packed, DELIVERIES)
    except InvalidProperties:
        return 0
    return value if isinstance(value, int) else 0


class _Reader:
    """Reads one queue, holds the unsettled letters, and returns them in order.

    Its methods raise :class:`~clihelper.amqp.connection.Lost`.

    :param warn: called with each warning for the operator, one line.
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
        self._held = 0
        self._consumers = self._depth()[1] or 0
        self._is_near_limit = False
        self._is_renewed = False

    def first(self) -> Any:
        """The first letter, or None. If it is near the limit, all letters are renewed first."""
        delivery = self.get()
        if not self._is_near_limit:
            return delivery
        # Now, not only when all letters are returned: this process may be killed before that.
        self._renew(delivery)
        self._return_held()
        return self.get()

    def get(self) -> Any:
        """The next letter, or None if there is no other."""
        with self._connection.guard():
            delivery = self._connection.transport.get(self._channel, self._queue)
        if delivery is not None:
            self._note(delivery)
        return delivery

    def get_several(self, number: int) -> list[Any]:
        """The next letters, at most *number*."""
        with self._connection.guard():
            got = self._connection.transport.get_several(self._channel, self._queue, number)
        for delivery in got:
            self._note(delivery)
        return got

    def _note(self, delivery: Any) -> None:
        self._held += 1
        self._is_near_limit = self._is_near_limit or _deliveries(delivery) >= RENEWED_AT

    @property
    def ready(self) -> int:
        """The number of letters that were behind the one read last."""
        return int(self._channel.ready)

    def acknowledge(self, delivery_tag: int) -> None:
        """Acknowledge a letter: it leaves the queue."""
        with self._connection.guard():
            self._channel.basic_ack(delivery_tag)
        self._held -= 1

    def flush(self) -> None:
        """Wait until the queue has processed the acknowledgements."""
        if not self._wait(0):
            self._warn(f'{self._queue} is slow: some letters that left it may come back')

    def give_back(self) -> None:
        """Return the held letters in the order of the queue; renew all if near the limit."""
        if self._held and not self._loses_places():
            self._let_go()
            return
        while self._held and self._held < LONGEST_REST and self.get() is not None:
            pass
        self._return_held()
        if self._is_near_limit and not self._is_renewed:
            self._renew(self.get())
            self._return_held()

    def _let_go(self) -> None:
        """Return the held letters to a classic queue by closing their channel.

        It puts them back all at once. On basic.recover it would put back one after the other, and
        search the queue for the place of each, so that 20,000 letters would take a minute.
        A queue that puts back a million may not answer in time; they are safe nevertheless.
        """
        there = self.ready + self._held
        with suppress(Lost):
            with self._connection.guard():
                self._channel.close()
            self._channel, self._held = self._connection.channel(), 0
            self._wait(there)

    def _return_held(self) -> None:
        """Return the held letters, and wait until they are ready in the queue again."""
        if not self._held:
            return
        there = self.ready + self._held
        with self._connection.guard():
            self._connection.transport.recover(self._channel)
        self._held = 0
        self._wait(there)

    def _wait(self, number: int) -> bool:
        """Wait until the queue has processed all commands, and *number* letters are ready.

        The broker's answers mean only that the commands were passed on. A quorum queue processes
        32 commands at a time on a channel, and if the channel is closed, the others are
        discarded: acknowledged letters come back.

        :returns: False if there was no progress for :data:`QUEUE_TIMEOUT`.
        """
        progress, last = time.monotonic(), None
        while time.monotonic() - progress < QUEUE_TIMEOUT:
            ready, consumers = depth = self._depth()
            if consumers is not None:
                if ready >= number and consumers <= self._consumers + self._held:
                    return True
                if depth != last:
                    progress, last = time.monotonic(), depth
            time.sleep(QUEUE_INTERVAL)
        return False

    def _loses_places(self) -> bool:
        """Whether a returned letter may lose its place in the queue; a classic queue keeps it.

        A quorum queue counts each unsettled letter that was got as a consumer.
        """
        consumers = self._depth()[1]
        return consumers is None or consumers > self._consumers

    def _depth(self) -> tuple[int, int | None]:
        """The number of ready letters, and that of consumers, or None if it is not known."""
        began = time.monotonic()
        with self._connection.guard():
            answer = self._channel.queue_declare(self._queue, passive=True)
        is_known = time.monotonic() - began < UNKNOWN_AFTER
        return answer.message_count, answer.consumer_count if is_known else None

    def _renew(self, delivery: Any) -> None:
        """Republish every letter, in the same order, so that the counts of all start from 0.

        Letters that arrive while this runs are republished behind them.

        :param delivery: the first letter, which is held; None if there is none.
        """
        self._is_renewed = True
        renewed, most = 0, 2 * (self.ready + 1)
        while delivery is not None:
            left = min(self.ready, most) - renewed
            renewed += self._renew_one(delivery)
            delivery = self.get() if left > 0 else None

    def _renew_one(self, delivery: Any) -> bool:
        """Republish one letter; False if the broker refuses it: then it stays held."""
        try:
            _publish(self._publisher, delivery, self._queue, NOT_RENEWED, _is_counted_anew)
        except PublishError as error:
            if error.unknown:
                raise Lost(str(error)) from error
            letter = DeadLetter(delivery, self._queue, 0, '')
            self._warn(
                f'{letter.id} cannot be published anew: {error}. It has been delivered'
                f' {counted(_deliveries(delivery), "time")}, and a quorum queue drops it at its'
                ' limit: set its delivery-limit to -1 by a policy, or replay or drop the letter'
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
    """Publish a letter to a queue, without some of its properties and headers.

    :param letter: a delivery or a :class:`DeadLetter`.
    :raises PublishError: the broker has not confirmed it.
    """
    try:
        packed = copied(letter.packed, without=without, without_headers=without_headers)
        publisher.forward(letter.body, '', queue, packed)
        publisher.wait_for_confirms()
    except ValueError as error:
        raise PublishError(str(error)) from error


class DeadLetterReader:
    """The dead letters on one broker; a context manager that returns unsettled ones on exit.

    :param section: the ``AMQP`` section.
    :param warn: called with a line for the operator about anything that may lose a letter.
    :raises clihelper.errors.UnavailableError: by each method: the broker is lost, or refuses.
    """

    def __init__(self, section: Mapping[str, Any], warn: Callable[[str], None]) -> None:
        # Bodies of any size are read completely: they may be published again.
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
            # After Ctrl-C, too: a queue may count letters that a closed connection still held.
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
        """The number of ready letters in a queue, or None if there is no such queue."""
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

    def read(self, queue: str, source: str, *, ahead: bool = False) -> Iterator[DeadLetter]:
        """Yield the letters that are in a queue now, first to last, but none that come later.

        :param source: the queue that dead-letters into it, if it is the only one.
        :param ahead: whether letters are requested before they are needed, which is faster.
        """
        if self.count(queue) is None:
            return
        try:
            reader = self._readers[queue] = _Reader(
                self._connection, self._publisher, queue, self._warn
            )
            for position, delivery in enumerate(_deliveries_of(reader, ahead), 1):
                yield DeadLetter(delivery, queue, position, source)
        except Lost as lost:
            if _reply_code(lost) == NOT_IMPLEMENTED:
                raise UnavailableError(
                    f'{queue} is a stream: only classic and quorum queues can be read letter by'
                    ' letter'
                ) from lost
            raise self._lost(lost) from lost

    def replay(self, letter: DeadLetter) -> None:
        """Publish a letter to the queue that it came from, then remove it from the dead letters.

        A letter that came from a stream goes to the stream's retry queue.

        :raises PublishError: the broker has not confirmed it; the letter stays.
        """
        target = self._streams.get(letter.target, letter.target)
        _publish(self._publisher, letter, target, NOT_REPLAYED, _is_history)
        self.drop(letter.held_in, letter.delivery_tag)

    def replace(self, letter: DeadLetter) -> None:
        """Publish an edited letter behind the others of its queue, then remove the old one.

        :param letter: from :meth:`DeadLetter.edited`.
        :raises PublishError: the broker has not confirmed it; the old letter stays.
        """
        _publish(self._publisher, letter, letter.held_in, NOT_RENEWED, _is_counted_anew)
        self.drop(letter.held_in, letter.delivery_tag)

    def drop(self, held_in: str, delivery_tag: int) -> None:
        """Remove a letter from its queue permanently.

        :param held_in: the queue of dead letters that contains it.
        """
        try:
            self._readers[held_in].acknowledge(delivery_tag)
        except Lost as lost:
            raise self._lost(lost) from lost

    def flush(self) -> None:
        """Wait until the broker has processed everything that was dropped."""
        try:
            for reader in self._readers.values():
                reader.flush()
        except Lost as lost:
            raise self._lost(lost) from lost

    def _lost(self, lost: Lost) -> UnavailableError:
        return UnavailableError(f'AMQP.url: {self._connection.shown()}: {lost}')


def _deliveries_of(reader: _Reader, ahead: bool) -> Iterator[Any]:
    """Yield what is in a queue now.

    :param ahead: see :meth:`DeadLetterReader.read`.
    """
    delivery = reader.first()
    left = reader.ready
    got = [] if delivery is None else [delivery]
    while got:
        yield from got
        number = max(1, min(AHEAD, AHEAD_BYTES // (max(len(each.body) for each in got) + 1)))
        got = reader.get_several(min(number if ahead else 1, left)) if left > 0 else []
        left -= len(got)


def _reply_code(lost: Lost) -> int | None:
    return getattr(lost.__cause__, 'reply_code', None)
