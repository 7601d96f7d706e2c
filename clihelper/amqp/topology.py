"""Declares the exchanges, queues and bindings of the section and the program, or verifies them.

A queue is identified by its label, which is its key in ``AMQP.queues``. Usually that is its name;
but a queue that the broker names has a different name on each connection.
"""

from __future__ import annotations

import itertools
import logging

from clihelper.amqp.declare_errors import PRECONDITION_FAILED, DeclarationRefused
from clihelper.amqp.declarer import TYPE, Declarer, type_of
from clihelper.amqp.entities import Entities, bindings_of
from clihelper.amqp.partitions import MODULUS_EXCHANGE, name_of
from clihelper.amqp.settlement import renewal_threshold
from clihelper.config.schema import DEAD_LETTERS
from clihelper.errors import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from clihelper.amqp.declarer import Refusals
    from clihelper.amqp.entities import Options

LOGGER = logging.getLogger('clihelper.amqp')

QUORUM, STREAM = 'quorum', 'stream'

UNUSED = 14 * 24 * 3600 * 1000
"""Milliseconds after which a retry queue that has not been declared again is deleted.

What is in it then is lost, perhaps a message for which its queue had no room all that time.
Together with the longest delay it is below 2**32, which is the maximum for RabbitMQ.
"""

UNUSED_EXCLUSIVE = 3600 * 1000
"""the same for a retry queue that is deleted with the connection in any case"""

AT_LEAST_ONCE = {
    TYPE: QUORUM,
    'x-dead-letter-strategy': 'at-least-once',
    'x-overflow': 'reject-publish',
}
"""With these arguments a message is kept until its destination queue has confirmed it.

Only quorum queues support this, and only if they reject what is published beyond their own limit
(https://www.rabbitmq.com/docs/quorum-queues#dead-lettering).
"""

INESSENTIAL = (*AT_LEAST_ONCE, 'x-expires')
"""arguments in which an existing retry queue may differ: it still returns the messages in it"""

NOT_KEPT = (
    'a message that comes back for its next run is lost if there is no room for it in its queue'
)
"""what may happen without :data:`AT_LEAST_ONCE`"""

STREAM_OFFSET = 'x-stream-offset'

CONSUMER_TIMEOUT = 'x-consumer-timeout'

KNOWS_CONSUMER_TIMEOUT = (4, 3)
"""RabbitMQ's version from which this is an argument of ``basic.consume``, for quorum queues only.

Earlier versions ignore it; this one refuses it for queues of other types.
"""

LEAST_CONSUMER_TIMEOUT = 30 * 60
"""seconds; RabbitMQ's default"""

MOST_CONSUMER_TIMEOUT = 2**32 - 1
"""milliseconds"""


class Topology:
    """What must exist on the broker before anything is consumed.

    :param section: the ``AMQP`` section.
    :param queues: the program's own :class:`kombu.Queue` objects.
    :param exchanges: the program's own :class:`kombu.Exchange` objects.
    :param owner: the name of the class that declares them, for errors.
    :raises clihelper.errors.ConfigurationError: section and program contradict each other.
    """

    def __init__(
        self,
        section: Options,
        queues: Iterable[Any] = (),
        exchanges: Iterable[Any] = (),
        owner: str = '',
    ) -> None:
        self._declare: bool = section['declare']
        self._entities = Entities(section, queues, exchanges, owner)
        self._queues = self._entities.queues
        self._names: dict[str, str] = {
            label: options['name'] for label, options in self._queues.items()
        }
        self._dead = self._dead_letter_queues(section['dead_letter'])
        self._thresholds = {
            label: renewal_threshold(options['arguments'].get('x-delivery-limit'))
            for label, options in self._queues.items()
        }
        self._types = {label: type_of(options) for label, options in self._queues.items()}
        self._consumer_timeout = _consumer_timeout(section)
        self._version: tuple[int, ...] = ()
        self._offsets: dict[str, int] = {}

    @property
    def entities(self) -> Entities:
        """The exchanges and queues, and where each is configured."""
        return self._entities

    @property
    def partitions(self) -> dict[str, str]:
        """The label of the whole queue, by that of each partition."""
        return self._entities.partitions

    @property
    def queues(self) -> list[str]:
        """The labels of the queues to consume."""
        return [label for label in self._queues if self.is_consumed(label)]

    def is_consumed(self, queue: str) -> bool:
        """Whether the queue with that label is consumed, and not only declared."""
        consumed: bool = self._queues[queue].get('consume', True)
        return consumed

    @property
    def consumers(self) -> list[tuple[str, str, Options]]:
        """What is consumed: label and name of each queue, and the arguments of ``basic.consume``.

        Messages of a stream that are run again are in its retry queue, which has the same label.
        """
        found: list[tuple[str, str, Options]] = []
        for label in self.queues:
            options = self._queues[label]
            timeout = self._timeout_of(self._types[label])
            position = {STREAM_OFFSET: self._offsets[label]} if label in self._offsets else {}
            arguments = {**timeout, **options['consumer_arguments'], **position}
            found.append((label, self._names[label], arguments))
            if self.is_stream(label):
                found.append((label, self.return_queue(label), self._timeout_of(QUORUM)))
        return found

    def options_of(self, queue: str) -> Options:
        """The options of the queue with that label."""
        return self._queues[queue]

    def name_of(self, queue: str) -> str:
        """The name of the queue with that label, on this connection."""
        return self._names[queue]

    def is_stream(self, queue: str) -> bool:
        """Whether the queue with that label is a stream: nothing can be returned to it."""
        return self._types[queue] == STREAM

    def read_on(self, queue: str, offset: int) -> None:
        """Consume the stream with that label from *offset*, beginning with the next connection."""
        self._offsets[queue] = offset

    def return_queue(self, queue: str) -> str:
        """The name of the queue to which a message with that label is published to be run again.

        For a stream that is its retry queue: in the stream itself, all readers would see the
        message again.
        """
        name = self._names[queue]
        return f'{name}.retry' if self.is_stream(queue) else name

    def dead_letters_of(self, queue: str) -> str | None:
        """The name of the queue for dead letters of that label, if there is one."""
        return self._dead.get(queue)

    def renewal_threshold(self, queue: str) -> int:
        """The number of returns from which a message with that label is republished."""
        return self._thresholds[queue]

    def has_dead_letter_exchange(self, queue: str) -> bool:
        """Whether the queue with that label has one, which gets rejected messages."""
        return 'x-dead-letter-exchange' in self._queues[queue]['arguments']

    @property
    def declares(self) -> bool:
        """Whether missing exchanges and queues are declared."""
        return self._declare

    def declares_queue(self, queue: str) -> bool:
        """Whether the queue with that label is declared if it is missing."""
        options = self._queues[queue]
        return self.is_own(queue) or (self._declare and options.get('declare', True))

    def is_own(self, queue: str) -> bool:
        """Whether the queue with that label belongs to the connection, and is deleted with it."""
        options = self._queues[queue]
        return options['exclusive'] or not options['name']

    def lasting_name(self, queue: str) -> str:
        """The name of the queue with that label, or the label if the broker names the queue."""
        return self._queues[queue]['name'] or queue

    def name_of_retries(self, queue: str, milliseconds: int) -> str:
        """The name of the queue that delays messages with that label by *milliseconds*."""
        name = self._names[queue]
        # The names that the broker generates begin with "amq.", which is reserved.
        form = 'retry.{1:g}s.{0}' if self.is_own(queue) else '{0}.retry.{1:g}s'
        return form.format(name, milliseconds / 1000)

    def declare_retries(self, declarer: Declarer, queue: str, milliseconds: int) -> bool:
        """Declare or verify the queue that delays messages by *milliseconds*.

        :returns: whether it is new, or may be.
        :raises clihelper.errors.UnavailableError: it exists, but not as declared.
        """
        name = self.name_of_retries(queue, milliseconds)
        options = self.retry_options(queue, milliseconds)
        if self.is_own(queue):
            declarer.queue('AMQP.retry', name, options)
            return False
        if not self._declare:
            declarer.queue('AMQP.retry, with declare: false', name, options, False)
            return False
        # RabbitMQ 4 fails (541) instead of reporting a missing queue if its name is long and not
        # ASCII.
        is_new = not name.isascii() or not declarer.has_queue('AMQP.retry', name)
        declare_lasting(declarer, 'AMQP.retry', name, options)
        return is_new

    def retry_options(self, queue: str, milliseconds: int) -> Options:
        """The options of the queue that delays messages with that label by *milliseconds*."""
        own = self.is_own(queue)
        unused = UNUSED_EXCLUSIVE if own else UNUSED
        options = waiting_options(self.return_queue(queue), milliseconds, unused)
        return {**options, 'exclusive': own}

    def establish(
        self, channel: Any, refusals: Refusals, delays: Iterable[int] = (), again: bool = False
    ) -> Any:
        """Declare everything, or with ``declare: false`` verify that it exists.

        Exclusive queues and those that the broker names belong to the connection. They cannot
        have existed before, and are declared in either case.

        :param delays: the delays in milliseconds for which retry queues must exist with
            ``declare: false``; otherwise these are declared when they are needed.
        :param refusals: the exceptions that *channel* raises when the broker refuses.
        :param again: whether this was done on an earlier connection, which the broker may still
            consider alive, and the owner of exclusive queues.
        :returns: an open channel: *channel*, or another if the broker has closed that.
        :raises clihelper.errors.UnavailableError: something is not as declared.
        :raises Lost: it may succeed later.
        """
        declarer = Declarer(channel, refusals, again=again)
        self._version = declarer.version
        for name, options in self._entities.exchanges.items():
            self.declare_exchange(declarer, name, options)
        self._bind_exchanges(declarer)
        for label, options in self._queues.items():
            self._declare_queue(declarer, label, options)
        if not again:
            self._look_beyond(declarer)
        for position, name, options in self.further_queues():
            if self._declare:
                declarer.adopt(position, name, options, (TYPE,))
            else:
                declarer.queue(position, name, options, False)
        if not self._declare:
            shared = [queue for queue in self.queues if not self.is_own(queue)]
            for queue, delay in itertools.product(shared, delays):
                self.declare_retries(declarer, queue, delay)
        return declarer.channel

    def declare_exchange(self, declarer: Declarer, name: str, options: Options) -> None:
        """Declare or verify an exchange.

        :raises clihelper.errors.UnavailableError: it is not as declared, or of an unknown type.
        """
        position = self._entities.position_of(name)
        try:
            declarer.exchange(position, name, options, self._declare)
        except DeclarationRefused as refused:
            if name not in self._entities.spreading or refused.code != PRECONDITION_FAILED:
                raise
            try:
                declarer.exchange(position, name, {**options, 'type': MODULUS_EXCHANGE}, True)
            except DeclarationRefused:
                raise refused from None

    def _bind_exchanges(self, declarer: Declarer) -> None:
        """Bind the exchanges that spread messages over partitions."""
        for each in self._entities.partitioned if self._declare else ():
            for binding in each.bindings:
                position = f'AMQP.queues.{each.label}'
                declarer.bind_exchange(position, each.exchange, binding)

    def _look_beyond(self, declarer: Declarer) -> None:
        """Warn of messages in partitions that there were when there were more of them."""
        for each in self._entities.partitioned:
            position = f'AMQP.queues.{each.label}'
            count = declarer.depth(position, beyond := name_of(each.name, each.count))
            if count:
                LOGGER.warning(
                    '%s.partitions is %d: %s in %s, and perhaps some in others beyond it, which'
                    ' are not consumed', position, each.count, counted(count, 'message'), beyond,
                )  # fmt: skip

    def further_queues(self) -> Iterator[tuple[str, str, Options]]:
        """Yield the queues that ``AMQP.queues`` does not list: position, name, and options."""
        for dead, queue in {dead: queue for queue, dead in self._dead.items()}.items():
            if dead not in self._names.values():
                yield 'AMQP.dead_letter', dead, self._as_safe_as(queue)
        for queue in self.queues:
            if self.is_stream(queue):
                yield 'AMQP.retry', self.return_queue(queue), self._as_safe_as(queue)

    def _declare_queue(self, declarer: Declarer, label: str, options: Options) -> None:
        position = self._entities.positions[label]
        declare = self.declares_queue(label)
        bindings = bindings_of(options) if declare else ()
        on_declared = options.get('on_declared')
        if declare and type_of(options) is None:
            # The default type depends on the virtual host, and may have been changed.
            found, options = declarer.adopt(position, options['name'], options, (TYPE,))
        else:
            found = declarer.queue(position, options['name'], options, declare)
        name = self._names[label] = found[0]
        self.find_type(declarer, label, options)
        if on_declared:
            on_declared(*found)
        for binding in bindings:
            declarer.bind(position, name, binding)

    def find_type(self, declarer: Declarer, label: str, options: Options) -> None:
        """Find out the type of an existing queue if that makes a difference.

        :param options: the queue's options; they contain the type if it is already known.
        """
        known = type_of(options)
        if known is None and self._needs_type(label):
            known = self._types[label]
            if known is None:
                position = self._entities.positions[label]
                known = declarer.type_of(position, self._names[label], options)
        self._types[label] = known

    def _needs_type(self, label: str) -> bool:
        if self.is_own(label) or not self._version:
            return False
        # A queue that is as declared is a stream only if it is declared as one.
        return not self.declares_queue(label) or (
            self._consumer_timeout is not None and self._version >= KNOWS_CONSUMER_TIMEOUT
        )

    def _timeout_of(self, kind: str | None) -> Options:
        """The argument of ``basic.consume`` for a queue of that type that limits handling time."""
        if (
            kind != QUORUM
            or self._consumer_timeout is None
            or self._version < KNOWS_CONSUMER_TIMEOUT
        ):
            return {}
        return {CONSUMER_TIMEOUT: self._consumer_timeout}

    def _dead_letter_queues(self, setting: bool | str) -> dict[str, str]:
        """The name of the queue for dead letters, by label."""
        if setting is False:
            return {}
        return {
            label: (
                setting
                if isinstance(setting, str)
                else options.get('partition_of', self.lasting_name(label)) + DEAD_LETTERS
            )
            for label, options in self._queues.items()
            if self.is_consumed(label)
        }

    def _as_safe_as(self, queue: str) -> Options:
        """The options of a queue that keeps dead letters as safe as *queue* keeps messages."""
        kind = QUORUM if self.is_stream(queue) else self._types[queue]
        return _durable({TYPE: kind} if kind else {})


def waiting_options(queue: str, milliseconds: int, unused: int = UNUSED) -> Options:
    """The options of a queue in which messages for *queue* wait.

    :param unused: the milliseconds after which it is deleted when it is not used.
    """
    return _durable({
        'x-message-ttl': milliseconds,
        'x-dead-letter-exchange': '',
        'x-dead-letter-routing-key': queue,
        'x-expires': milliseconds + unused,
    })


def declare_lasting(declarer: Declarer, position: str, name: str, options: Options) -> None:
    """Declare a queue that loses nothing of what waits in it, or otherwise one that may.

    :param position: what it is for, for errors.
    """
    wanted = {**options, 'arguments': {**options['arguments'], **AT_LEAST_ONCE}}
    try:
        _, there = declarer.adopt(position, name, wanted, INESSENTIAL)
    except DeclarationRefused as refused:
        if refused.code != PRECONDITION_FAILED or refused.difference is not None:
            raise
        LOGGER.warning('%s; %s is a classic queue: %s', refused, name, NOT_KEPT)
        declarer.queue(position, name, options)
        return
    for argument, value in AT_LEAST_ONCE.items():
        if (other := there['arguments'].get(argument)) != value:
            LOGGER.warning(
                '%s: %s is %s instead of %s in the queue %r that exists, which is used'
                ' as it is until you delete it: %s',
                position, argument, 'not set' if other is None else other, value, name, NOT_KEPT,
            )  # fmt: skip
            return


def _consumer_timeout(section: Options) -> int | None:
    """Milliseconds after which a prefetched message is acknowledged at the latest.

    It may be the last one, and each handler may take as long as it is allowed to.
    """
    if section['handler_timeout'] is None:
        return None
    seconds = section['prefetch'] * section['handler_timeout'] + 60
    milliseconds = int(1000 * max(seconds, LEAST_CONSUMER_TIMEOUT))
    return min(milliseconds, MOST_CONSUMER_TIMEOUT)


def _durable(arguments: Mapping[str, Any]) -> Options:
    """The options of a durable queue."""
    return {
        'durable': True,
        'exclusive': False,
        'auto_delete': False,
        'arguments': arguments,
    }
