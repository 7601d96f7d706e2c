"""Exchanges, queues and bindings: declared as the section and the program say, or verified.

A queue is known by its label, the key that it stands under in ``AMQP.queues``: its name as a rule;
but one that the broker names has another name on each connection.
"""

from __future__ import annotations

import itertools

from clihelper.amqp.connection import Lost
from clihelper.amqp.entities import Entities
from clihelper.amqp.refusal import FOR_GOOD, RESOURCE_LOCKED, Refused
from clihelper.amqp.settlement import renewal_threshold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from clihelper.amqp.entities import Options

UNUSED = 3600 * 1000
"""milliseconds after which a queue for retries goes when nobody has declared it again"""

Refusals = tuple[type[BaseException], ...]


class Topology:
    """What the broker must have before anything is consumed.

    :param section: the ``AMQP`` section.
    :param queues: the program's own, :class:`kombu.Queue` objects.
    :param exchanges: the program's own, :class:`kombu.Exchange` objects.
    :param owner: the class that has them, for errors.
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

    @property
    def queues(self) -> list[str]:
        """The labels of the queues to consume."""
        return list(self._queues)

    def name_of(self, queue: str) -> str:
        """The name by which the broker knows the queue of that label, on this connection."""
        return self._names[queue]

    def consumer_arguments(self, queue: str) -> Options:
        """The arguments with which to consume the queue of that label."""
        arguments: Options = self._queues[queue]['consumer_arguments']
        return arguments

    def dead_letters_of(self, queue: str) -> str | None:
        """The name of the queue that takes the dead letters of that label's, if there is one."""
        return self._dead.get(queue)

    def renewal_threshold(self, queue: str) -> int:
        """From how many returns on a message of that label's is published anew."""
        return self._thresholds[queue]

    def has_dead_letter_exchange(self, queue: str) -> bool:
        """Whether the queue of that label is declared with one, which gets what is rejected."""
        return 'x-dead-letter-exchange' in self._queues[queue]['arguments']

    @property
    def declares(self) -> bool:
        """Whether what is missing is declared."""
        return self._declare

    def lasting_name(self, queue: str) -> str:
        """The name of the queue of that label; of one that the broker names, the label."""
        return self._queues[queue]['name'] or queue

    def name_of_retries(self, queue: str, milliseconds: int) -> str:
        """The name of the queue that keeps messages of that label's for so long."""
        name = self._names[queue]
        # A name that the broker has given ("amq.") is not for others to begin with.
        form = 'retry.{1:g}s.{0}' if self._is_own(queue) else '{0}.retry.{1:g}s'
        return form.format(name, milliseconds / 1000)

    def declare_retries(
        self, channel: Any, refusals: Refusals, queue: str, milliseconds: int
    ) -> None:
        """Declare, or verify, the queue that keeps messages for so long and gives them back.

        :raises clihelper.errors.UnavailableError: it is not as declared.
        """
        options = self._as_safe_as(queue)
        arguments = {
            'x-message-ttl': milliseconds,
            'x-dead-letter-exchange': '',
            'x-dead-letter-routing-key': self._names[queue],
            'x-expires': milliseconds + UNUSED,
        }
        if options['arguments'].get('x-queue-type') == 'quorum':
            # Only then is a message kept until the other queue has it.
            arguments['x-dead-letter-strategy'] = 'at-least-once'
            arguments['x-overflow'] = 'reject-publish'
        own = self._is_own(queue)
        options = {
            **options,
            'exclusive': own,
            'arguments': {**options['arguments'], **arguments},
        }
        declare = own or self._declare
        place = 'AMQP.retry' if declare else 'AMQP.retry, with declare: false'
        name = self.name_of_retries(queue, milliseconds)
        _Asking(channel, refusals, False).queue(place, name, options, declare)

    def _is_own(self, queue: str) -> bool:
        """Whether the queue of that label belongs to the connection, and goes with it."""
        options = self._queues[queue]
        return options['exclusive'] or not options['name']

    def establish(
        self, channel: Any, refusals: Refusals, delays: Iterable[int] = (), again: bool = False
    ) -> None:
        """Declare everything, or with ``declare: false`` verify that it is there.

        What belongs to the connection alone, exclusive queues and those that the broker names,
        cannot have been there before, and is declared in either case.

        :param delays: the milliseconds for which there must be queues for retries; they are
            declared when they are needed.
        :param refusals: what *channel* raises when the broker refuses.
        :param again: whether it was done on an earlier connection, which the broker may still
            take for alive, and for the owner of exclusive queues.
        :raises clihelper.errors.UnavailableError: something is not as declared.
        :raises Lost: it may succeed later.
        """
        asking = _Asking(channel, refusals, again)
        for name, options in self._entities.exchanges.items():
            self._declare_exchange(asking, name, options)
        for label, options in self._queues.items():
            self._declare_queue(asking, label, options)
        for dead, queue in {dead: queue for queue, dead in self._dead.items()}.items():
            if dead not in self._names.values():
                asking.queue('AMQP.dead_letter', dead, self._as_safe_as(queue), self._declare)
        if not self._declare:
            shared = [queue for queue in self._queues if not self._is_own(queue)]
            for queue, delay in itertools.product(shared, delays):
                self.declare_retries(channel, refusals, queue, delay)

    def _declare_exchange(self, asking: _Asking, name: str, options: Options) -> None:
        asking(
            self._entities.place_of(name),
            'exchange_declare',
            exchange=name,
            type=options['type'],
            passive=not self._declare,
            durable=options['durable'],
            auto_delete=options['auto_delete'],
            arguments=options['arguments'] or None,
        )

    def _declare_queue(self, asking: _Asking, label: str, options: Options) -> None:
        place = self._entities.places[label]
        declare = self._is_own(label) or (self._declare and options.get('declare', True))
        found = asking.queue(place, options['name'], options, declare)
        name = self._names[label] = found[0]
        if options.get('on_declared'):
            options['on_declared'](*found)
        for binding in _bindings(options) if declare else ():
            asking(
                place,
                'queue_bind',
                queue=name,
                exchange=binding['exchange'],
                routing_key=binding['routing_key'],
                arguments=binding['arguments'] or None,
            )

    def _dead_letter_queues(self, setting: bool | str) -> dict[str, str]:
        """For each label the name of the queue of its dead letters."""
        if setting is False:
            return {}
        return {
            label: setting if isinstance(setting, str) else f'{self.lasting_name(label)}.dead'
            for label in self._queues
        }

    def _as_safe_as(self, queue: str) -> Options:
        """The options of a queue that keeps dead letters as well as *queue* keeps messages."""
        kind = self._queues[queue]['arguments'].get('x-queue-type')
        return {
            'durable': True,
            'exclusive': False,
            'auto_delete': False,
            'arguments': {'x-queue-type': kind} if kind else {},
        }


class _Asking:
    """Asks a broker for one thing after the other, and explains what it refuses."""

    def __init__(self, channel: Any, refusals: Refusals, again: bool) -> None:
        self._channel = channel
        self._refusals = refusals
        self._again = again

    def __call__(self, place: str, method: str, **arguments: Any) -> Any:
        call: Callable[..., Any] = getattr(self._channel, method)
        try:
            return call(**arguments)
        except Exception as error:
            if not isinstance(error, self._refusals) and (
                getattr(error, 'reply_code', None) not in FOR_GOOD
            ):
                raise
            refused = Refused(place, error)
            if refused.transient or (self._again and refused.code == RESOURCE_LOCKED):
                raise Lost(str(refused)) from error
            raise refused from error

    def queue(self, place: str, name: str, options: Options, declare: bool) -> Any:
        """Declare a queue, or verify that it is there.

        :returns: its name, the messages in it, and its consumers.
        """
        return self(
            place,
            'queue_declare',
            queue=name,
            passive=not declare,
            durable=options['durable'],
            exclusive=options['exclusive'],
            auto_delete=options['auto_delete'],
            arguments=options['arguments'] or None,
        )


def _bindings(options: Options) -> list[Options]:
    """The simple form and the long one, in the long one."""
    exchange = options.get('exchange')
    simple = [
        {'exchange': exchange, 'routing_key': key, 'arguments': {}}
        for key in options['routing_keys'] or ['']
    ]
    return [*(simple if exchange else []), *options['bindings']]
