"""Dead letters, for who looks at them in the morning: read, published again, or dropped.

Reading is by ``basic.get`` and without acknowledging: a letter that is not published again or
dropped stays in its queue, whatever becomes of who reads.
"""

from __future__ import annotations

from clihelper.amqp.connection import Connection, Lost, Unreachable
from clihelper.amqp.message import COPIED
from clihelper.amqp.publisher import Publisher
from clihelper.amqp.settlement import ATTEMPTS, REASON
from clihelper.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

PREFIX = 'x-clihelper-'

DELIVERIES = 'x-delivery-count'
"""what a quorum queue counts, and reading is a delivery"""

ANEW = (PREFIX, DELIVERIES, 'x-death', 'x-first-death-', 'x-last-death-')
"""what the headers begin with that are of a letter's past, which ends with its replay"""

ID_DIGITS = 12

NOT_FOUND = 404


class DeadLetter:
    """One letter.

    :param delivery: what the broker has delivered.
    :param held_in: the queue of dead letters.
    :param position: its place in there, from 1.
    :param source: the only queue whose letters go there; empty if there are several.
    :ivar id: of twelve hexadecimal digits, made of all that it holds: it stays the same as long
        as the letter does, and letters that are equal in everything have the same.
    """

    def __init__(self, delivery: Any, held_in: str, position: int, source: str) -> None:
        self.delivery = delivery
        self.held_in = held_in
        self.position = position
        self._source = source
        self.body: bytes = delivery.body
        self.headers: dict[str, Any] = dict(delivery.headers or {})
        self.properties: dict[str, Any] = {
            name: value
            for name, value in delivery.properties.items()
            if name != 'application_headers'
        }
        self.id = self._digest()

    def _digest(self) -> str:
        import hashlib

        kept = {name: value for name, value in self.headers.items() if name != DELIVERIES}
        parts = (sorted(self.properties.items()), sorted(kept.items()))
        digest = hashlib.sha256(repr(parts).encode('utf-8', 'surrogateescape'))
        digest.update(self.body)
        return digest.hexdigest()[:ID_DIGITS]

    @property
    def queue(self) -> str:
        """The queue that it came from, as far as is known; else empty."""
        return str(self.headers.get(f'{PREFIX}queue') or self._death('queue') or self._source)

    @property
    def reason(self) -> str:
        """Why it is here, in a word: clihelper's, or the broker's (``expired``, ``maxlen``)."""
        return str(self.headers.get(REASON) or self._death('reason'))

    @property
    def attempts(self) -> int | None:
        """How often it was run, if that is known."""
        value = self.headers.get(ATTEMPTS)
        return value if isinstance(value, int) else None

    @property
    def looks(self) -> int:
        """How often it was read before, where its queue counts that."""
        value = self.headers.get(DELIVERIES)
        return value if isinstance(value, int) else 0

    def said(self, name: str) -> str:
        """The value of clihelper's header of that name (``exception``), or an empty text."""
        return str(self.headers.get(PREFIX + name, ''))

    def row(self) -> dict[str, Any]:
        """What there is to say about it, without its body, by name."""
        return {
            'position': self.position,
            'id': self.id,
            'dead_letter_queue': self.held_in,
            'queue': self.queue,
            'reason': self.reason,
            'exception': self.said('exception'),
            'message': self.said('message'),
            'attempts': self.attempts,
            'time': self.said('time'),
            'host': self.said('host'),
            'application': self.said('application'),
            'size': len(self.body),
        }

    def replayed(self) -> dict[str, Any]:
        """The properties with which it is published again: its attempts begin anew."""
        kept = {
            name: value for name, value in self.headers.items() if not name.startswith(ANEW)
        }
        names = (*COPIED, 'content_type', 'content_encoding', 'delivery_mode')
        given = {name: self.properties.get(name) for name in names}
        return {**given, 'headers': kept or None}

    def _death(self, name: str) -> str:
        """What the broker itself noted, where it was the one that dead-lettered it."""
        deaths = self.headers.get('x-death')
        first = deaths[-1] if isinstance(deaths, list) and deaths else {}
        return str(first.get(name, '')) if isinstance(first, dict) else ''


class Letters:
    """The dead letters on one broker; a context manager that gives back what is not settled.

    :param section: the ``AMQP`` section.
    :raises clihelper.errors.UnavailableError: of each method: the broker is lost, or refuses.
    """

    def __init__(self, section: Mapping[str, Any]) -> None:
        self._connection = Connection.of(section, 'clihelper dead-letters')
        self._publisher = Publisher(self._connection)
        self._channel: Any = None

    def __enter__(self) -> Letters:
        try:
            self._connection.open_any()
        except Unreachable as error:
            raise UnavailableError(f'AMQP.url: {error}') from error
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        try:
            if self._channel is not None and error is None:
                # The answer comes when they are back: who looks next finds them.
                self._channel.basic_recover(requeue=True)
        except Exception:  # it is lost, and so they go back by themselves
            pass
        finally:
            self._connection.close()

    def count(self, queue: str) -> int | None:
        """The letters in a queue that nobody holds; None: there is no such queue."""
        try:
            with self._connection.guard():
                channel = self._connection.channel()
                count = channel.queue_declare(queue, passive=True).message_count
                channel.close()
                return int(count)
        except Lost as lost:
            if getattr(lost.__cause__, 'reply_code', None) == NOT_FOUND:
                return None
            raise self._lost(lost) from lost

    def read(self, queue: str, source: str) -> Iterator[DeadLetter]:
        """The letters that are in a queue now, first to last; those that come later are not.

        :param source: the queue whose letters go there, if it is the only one.
        """
        for position in range(1, (self.count(queue) or 0) + 1):
            try:
                if self._channel is None:
                    self._channel = self._connection.channel()
                with self._connection.guard():
                    delivery = self._connection.get(self._channel, queue)
            except Lost as lost:
                raise self._lost(lost) from lost
            if delivery is None:
                return
            yield DeadLetter(delivery, queue, position, source)

    def replay(self, letter: DeadLetter) -> None:
        """Publish a letter to the queue that it came from, and then take it from the dead ones.

        :raises PublishError: it was not taken; it stays.
        """
        self._publisher.send(letter.body, '', letter.queue, letter.replayed())
        self._publisher.settle()
        self.drop(letter)

    def drop(self, letter: DeadLetter) -> None:
        """Take a letter from its queue, for good."""
        try:
            with self._connection.guard():
                letter.delivery.ack()
        except Lost as lost:
            raise self._lost(lost) from lost

    def flush(self) -> None:
        """Return when the broker has taken in all that was dropped."""
        try:
            with self._connection.guard():
                if self._channel is not None:
                    self._channel.basic_recover(requeue=True)
        except Lost as lost:
            raise self._lost(lost) from lost

    def _lost(self, lost: Lost) -> UnavailableError:
        return UnavailableError(f'AMQP.url: {self._connection.shown()}: {lost}')
