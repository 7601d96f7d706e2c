"""One connection to a broker, which is lost and made again.

A connection that has failed is dropped, never closed politely: py-amqp would wait for ever for a
dead peer's answer.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
import time

from clihelper.amqp import forks
from clihelper.amqp.escaping import escaped
from clihelper.amqp.url import masked
from clihelper.backoff import Backoff
from clihelper.config.schema import TLS
from clihelper.errors import Error, UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from clihelper.amqp.acknowledgement import Acknowledger
    from clihelper.amqp.transport import OnReturn, Transport, WaitFor

LOGGER = logging.getLogger('clihelper.amqp')

CONNECT_TIMEOUT = 5.0
"""seconds for one attempt at one address"""

CLOSE_TIMEOUT = 0.15
"""seconds that the broker has to confirm the end of a healthy connection, in which it is quick"""

HEALTHY = 30.0
"""seconds since the broker was last well, within which it is expected back soon"""

STABLE = 5.0
"""seconds of serving after which a broker is well, and no flapping one: the delays begin anew"""


class Unreachable(Exception):
    """No address answers as a broker does; the text has a line of why, without passwords."""


BASIC_CANCEL = (60, 30)
"""what the broker sends when it ends a consumer, with no reason"""

CANCELLED = (
    'it has cancelled a consumer: the queue was deleted, or a message was held for longer than'
    ' consumer_timeout')


class Lost(Exception):
    """The connection, or a channel of it, is of no use any more."""

    @property
    def stopped(self) -> bool:
        """Whether it was given up because of a stop."""
        return getattr(self.__cause__, 'stopped', False)


class Guard:
    """A context that turns what a lost connection raises into :class:`Lost`.

    Only calls of the transport stand in it: what a handler raises, an OSError perhaps, is not the
    connection's fault.
    """

    __slots__ = ('_errors',)

    def __init__(self, errors: tuple[type[BaseException], ...]) -> None:
        self._errors = errors

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, self._errors):
            raise Lost(error_text(error)) from error


class BrokerBackoff:
    """How long to wait before connecting again.

    For a broker that cannot be reached the cap doubles from 0.1 s to 1 s while it was well a
    moment ago, to 30 s later, with full jitter. One that can be reached and refuses all the same
    is not asked so often: the cap doubles to 3 s, and half of it is waited in any case.

    :param uniform: the source of the jitter.
    """

    SOON, REFUSED, LATER = 1.0, 3.0, 30.0

    def __init__(self, uniform: Callable[[float, float], float] | None = None) -> None:
        self._unreachable = Backoff(cap=self.LATER, least=0.0, uniform=uniform)
        self._refused = Backoff(cap=self.LATER, uniform=uniform)

    def reset(self) -> None:
        """The broker is well."""
        self._unreachable.reset()
        self._refused.reset()

    def next(self, since_healthy: float, *, refused: bool = False) -> float:
        """The seconds to wait.

        :param since_healthy: seconds since the broker was last known to be well.
        :param refused: whether it was there, and refused.
        """
        soon = self.REFUSED if refused else self.SOON
        cap = soon if since_healthy < HEALTHY else self.LATER
        return (self._refused if refused else self._unreachable).next(cap)


class Connection:
    """A connection to the first of several brokers that answers.

    :param urls: tried in turn.
    :param heartbeat: seconds, where a URL does not say otherwise (``?heartbeat=5``); 0: none.
        None: none in any case.
    :param name: of the program, for the broker's operator.
    :param tls: the section ``AMQP.tls``; by default its defaults.
    :param options: ``AMQP.transport_options``.
    :param max_body: ``AMQP.max_body``; see :class:`clihelper.amqp.rabbitmq.RabbitMQTransport`.
    :ivar wait_for: how the main thread waits for the broker; see
        :attr:`clihelper.amqp.rabbitmq.RabbitMQTransport.wait_for`. None: without ado.
    :ivar on_blocked: called with why the broker takes no messages, in its words, and with an
        empty text when it takes them again.
    """

    @classmethod
    def of(cls, section: Mapping[str, Any], name: str, *, heartbeat: bool = True) -> Connection:
        """The connection that the ``AMQP`` section describes.

        :param heartbeat: whether there are any; else nobody need look after it while it is idle.
        """
        url = section['url']
        urls = [url] if isinstance(url, str) else url
        return cls(
            urls,
            section['heartbeat'] if heartbeat else None,
            name,
            section['tls'],
            section['transport_options'],
            section['max_body'],
        )

    def __init__(
        self,
        urls: Sequence[str],
        heartbeat: float | None,
        name: str,
        tls: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        max_body: int = 0,
    ) -> None:
        self.wait_for: WaitFor | None = None
        self.on_blocked: Callable[[str], None] = lambda reason: None
        self._blocked = ''
        self._urls = urls
        self._transports = [_transport(url) for url in urls]  # imported while all else is
        self._heartbeat = heartbeat
        self._name = f'{name} {os.uname().nodename}:{os.getpid()}'
        self._tls = tls or TLS.defaults()
        self._options = options
        self._max_body = max_body
        self._next = self._failed = 0
        # Of consumers, unique on a broker.
        self._names = (f'{os.uname().nodename}.{os.getpid()}.{n}' for n in itertools.count(1))
        self._link: Transport | None = None
        self._changed = time.monotonic()
        # Of a broker that has not been met nothing is known: it may be starting, as we are.
        self._healthy = time.monotonic()
        self._backoff = BrokerBackoff()
        self._refused = False  # whether it was there, and has not served
        self._served = float('inf')  # since when it does
        self._pid = os.getpid()
        self._is_foreign = False
        forks.watch(self)

    @property
    def is_foreign(self) -> bool:
        """Whether this process is a child of the one that made it, and cannot use it.

        Each use of it raises :exc:`RuntimeError` then, and so does settling a message that came
        over it; :meth:`drop` has no effect.
        """
        return self._is_foreign

    def disown(self) -> None:
        """See :class:`clihelper.amqp.forks.Owned`."""
        self._is_foreign, self._link = True, None

    def check_owner(self) -> None:
        """See that it may be used.

        :raises RuntimeError: it belongs to the parent process.
        """
        if self._is_foreign:
            raise RuntimeError(forks.fault(self._pid))

    def open(self) -> None:
        """Connect to the next address.

        :raises Unreachable: it does not answer.
        :raises clihelper.errors.UnavailableError: it refuses the credentials or the vhost, or a
            certificate is not accepted.
        :raises clihelper.errors.Error: a file of ``AMQP.tls`` cannot be used.
        """
        self.check_owner()
        self._refused = False
        index = self._next
        url = self._urls[index]
        # When this one is lost it is not asked again before the others: it may be silent.
        self._next = (index + 1) % len(self._urls)
        self._failed += 1
        link = self._transports[index](
            url,
            self._heartbeat_of(url),
            CONNECT_TIMEOUT,
            self._name,
            self._tls,
            self._options,
            self._max_body,
        )
        link.on_blocked = self._on_blocked
        if self.wait_for is not None:
            link.wait_for = self.wait_for
        try:
            link.connect()
        except BaseException as error:
            link.collect()
            if isinstance(error, (OSError, *link.errors)):
                raise _explained(error, masked(url), self._tls) from error
            raise
        if url.startswith('amqps:') and not self._tls['verify']:
            LOGGER.warning(
                'anybody may pose as the broker %s: AMQP.tls.verify is false', masked(url)
            )
        self._link = link
        self._changed = time.monotonic()
        self._failed = 0
        self._refused = True  # until it is known to serve

    def _heartbeat_of(self, url: str) -> int:
        """The whole seconds that AMQP has; the URL has been validated."""
        if self._heartbeat is None:
            return 0
        found = re.search(r'[?&]heartbeat=([0-9.]+)', url)
        return math.ceil(float(found[1]) if found else self._heartbeat)

    def open_any(self) -> None:
        """Connect to the first address that answers; raises as :meth:`open` does of the last."""
        for left in reversed(range(len(self._urls))):
            try:
                self.open()
                return
            except (Unreachable, Error):
                if not left:
                    raise

    @property
    def has_untried(self) -> bool:
        """Whether an address is left that has not been tried since the last one failed to answer.

        So the time until the next round of attempts is waited for once, not for each address.
        """
        return self._failed % len(self._urls) != 0

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._link is not None

    def guard(self) -> Guard:
        """A context in which errors of connections and channels become :class:`Lost`."""
        return Guard((OSError,) if self._link is None else self._link.errors)

    @property
    def refusals(self) -> tuple[type[BaseException], ...]:
        """What a channel raises when the broker refuses something."""
        return self._open_link.refusals

    @property
    def expires(self) -> bool:
        """Whether messages leave a queue when their time is over."""
        return self._open_link.expires

    def serves(self) -> None:
        """The broker has done all that was asked of it at first: consuming has begun."""
        self._refused = False
        self._healthy = self._served = time.monotonic()

    def delay(self) -> float:
        """The seconds to wait, when it has been lost or not been made, before it is opened again.

        They grow with each attempt, connected or not, and begin anew when the broker has served
        for :data:`STABLE` seconds; see :class:`Backoff`. While there is an address that has not
        been tried in this round, it is tried at once.
        """
        if self.has_untried:
            return 0.0
        now = time.monotonic()
        if now - self._served > STABLE:
            self._healthy = now
            self._backoff.reset()
        self._served = float('inf')
        return self._backoff.next(self.since_healthy, refused=self._refused)

    @property
    def since_healthy(self) -> float:
        """Seconds since the broker was last known to be well, and not only to be there."""
        return time.monotonic() - self._healthy

    def description(self) -> str:
        """The address, whether there is a connection to it, and since when."""
        state = 'connected' if self.is_open else 'not connected'
        return f'{self.shown()}, {state} for {time.monotonic() - self._changed:.1f} s'

    def shown(self) -> str:
        """The address that is or was last tried, without its password."""
        return masked(self._urls[self._next - 1])

    def channel(self) -> Any:
        """A new channel; raises :class:`Lost`."""
        with self.guard():
            return self._open_link.channel()

    def consume(
        self,
        channel: Any,
        queue: str,
        on_delivery: Callable[[Any], None],
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Consume *queue*; each delivery is handed to *on_delivery* by :meth:`drain`.

        :param arguments: the broker's own, as ``x-priority``.
        """
        self._open_link.consume(channel, queue, next(self._names), on_delivery, arguments)

    def consume_replies(self, channel: Any, on_delivery: Callable[[Any], None]) -> str:
        """Consume, without acknowledging, a queue for replies to what *channel* publishes.

        :returns: what to say as ``reply_to``.
        """
        with self.guard():
            return self._open_link.consume_replies(channel, next(self._names), on_delivery)

    def recover(self, channel: Any) -> None:
        """Have all that is not settled on *channel* delivered again.

        What is pending with its acknowledger is acknowledged before, and what was kept there is
        kept no longer. Deliveries before the broker's answer are void: those that it has, the
        caller forgets before it calls this; those that come meanwhile are discarded. What is
        delivered anew may be handed over before this returns.

        :raises Lost: the connection is lost, or the broker does not answer.
        """
        with self.guard():
            self._open_link.recover(channel)

    def get(self, channel: Any, queue: str) -> Any:
        """One message of *queue*; None: it is empty."""
        return self._open_link.get(channel, queue)

    def acknowledger(self, channel: Any, prefetch: int) -> Acknowledger | None:
        """What acknowledges the messages of *channel*; None: each message does by itself."""
        return self._open_link.acknowledger(channel, prefetch)

    def has(self, channel: Any) -> bool:
        """Whether *channel* is one of the open connection, and open itself."""
        return self._link is not None and self._link.has(channel)

    def confirm(
        self,
        channel: Any,
        on_ack: Callable[[int, bool], None],
        on_nack: Callable[[int, bool], None],
        on_return: OnReturn,
    ) -> bool:
        """Have what is published on *channel* confirmed, by calls in :meth:`drain`.

        :param on_ack, on_nack: called with a delivery tag, and whether all before it are meant.
        :param on_return: called with an error, exchange, routing key and message; the body of
            that is always bytes.
        :returns: False where the transport has no confirmations.
        """
        with self.guard():
            return self._open_link.confirm(channel, on_ack, on_nack, on_return)

    def encode_or_publish(
        self,
        channel: Any,
        body: bytes,
        exchange: str,
        routing_key: str,
        properties: dict[str, Any] | bytes,
        mandatory: bool = True,
    ) -> bytes:
        """A message as it is to be written; empty where it has been published by it.

        :param properties: by name, or packed (see :mod:`clihelper.amqp.properties`).
        :param mandatory: whether it comes back (see :meth:`confirm`) if no queue gets it. A direct
            reply never does.
        :raises clihelper.amqp.frames.HeadersTooLarge: they do not fit in a frame.
        :raises TypeError, ValueError: it cannot be encoded.
        """
        return self._open_link.encode_or_publish(
            channel, body, exchange, routing_key, properties, mandatory
        )

    def write(self, data: bytes) -> None:
        """Write frames; a broker that does not read is waited for."""
        self._open_link.write(data)

    def fileno(self) -> int | None:
        """The socket's descriptor; None where the transport has none to wait on."""
        return self._open_link.fileno()

    def drain(self) -> bool:
        """Take in what has arrived, without waiting; False if there is nothing more."""
        with self.guard():
            taken = self._open_link.take()
        if taken:
            self._healthy = time.monotonic()
        return taken

    def _on_blocked(self, reason: str) -> None:
        if reason != self._blocked:
            self._blocked = reason
            self.on_blocked(reason)

    @property
    def _open_link(self) -> Transport:
        if self._link is None:
            self.check_owner()
            raise Lost('not connected')
        return self._link

    def wait(self, deadline: float) -> None:
        """Wait until something has arrived; raises :class:`Lost` at the *deadline*."""
        with self.guard():
            self._open_link.wait_for(self._open_link.fileno(), deadline)

    def is_refusal(self, lost: Lost) -> bool:
        """Whether the broker has only closed a channel, because of something it refuses."""
        return self._link is not None and isinstance(lost.__cause__, self._link.refusals)

    def drop_unless_refused(self, lost: Lost) -> None:
        """Leave it behind, unless the broker has only closed a channel of it."""
        if not self.is_refusal(lost):
            self.drop()

    def drop(self) -> None:
        """Leave the connection behind, without a word to the peer."""
        link, self._link = self._link, None
        if link is not None:
            self._changed = time.monotonic()
            link.collect()
            self._on_blocked('')

    def close(self) -> bool:
        """End a healthy connection, so that what was sent before is taken in; or drop it.

        With data unread, closing the socket alone would reset the connection, and the broker
        might lose the last acknowledgements with it.

        :returns: False if there was a connection, and the broker did not answer.
        """
        self.check_owner()
        if self._link is None:
            return True
        try:
            self._link.end(CLOSE_TIMEOUT)
            return True
        except Exception as error:
            LOGGER.debug('the connection did not close: %s', error)
            return False
        finally:
            self.drop()


def _transport(url: str) -> Callable[..., Transport]:
    if url.partition('://')[0] in ('amqp', 'amqps', 'pyamqp'):
        from clihelper.amqp.rabbitmq import RabbitMQTransport

        return RabbitMQTransport
    from clihelper.amqp.kombu_transport import KombuTransport

    return KombuTransport


def _explained(error: BaseException, where: str, options: Mapping[str, Any]) -> Exception:
    """What to raise for *error*: whether it is of use to try again, with where and why."""
    from clihelper.amqp import tls

    distrust = tls.refusal(error, options)
    if distrust:
        return UnavailableError(f'AMQP.url: {where}: {distrust}')
    code = getattr(error, 'reply_code', None) or getattr(error, 'code', None)
    if code == 403:
        return UnavailableError(f'AMQP.url: {where} refuses the credentials')
    if code == 530:
        return UnavailableError(f'AMQP.url: {where}: no such vhost, or no permission for it')
    return Unreachable(f'{where}: {error_text(error)}')


def error_text(error: BaseException) -> str:
    """What *error* says, for a line of the log: the broker's own words where it has some."""
    if getattr(error, 'method_sig', None) == BASIC_CANCEL:
        return CANCELLED
    code, text = getattr(error, 'reply_code', None), getattr(error, 'reply_text', None)
    return escaped(f'{code} {text}' if code and text else str(error) or type(error).__name__)
