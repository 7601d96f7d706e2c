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

    from clihelper.amqp.transport import Transport, WaitFor

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
        self._transports = [_transport_class(url) for url in urls]  # imported while all else is
        self._heartbeat = heartbeat
        self._name = f'{name} {os.uname().nodename}:{os.getpid()}'
        self._tls = tls or TLS.defaults()
        self._options = options
        self._max_body = max_body
        self._next = self._failed = 0
        # Of consumers, unique on a broker.
        self._names = (f'{os.uname().nodename}.{os.getpid()}.{n}' for n in itertools.count(1))
        self._transport: Transport | None = None
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
        self._is_foreign, self._transport = True, None

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
        transport = self._transports[index](
            url,
            self._heartbeat_of(url),
            CONNECT_TIMEOUT,
            self._name,
            self._tls,
            self._options,
            self._max_body,
        )
        transport.on_blocked = self._on_blocked
        if self.wait_for is not None:
            transport.wait_for = self.wait_for
        try:
            transport.connect()
        except BaseException as error:
            transport.collect()
            if isinstance(error, (OSError, *transport.errors)):
                raise _explained(error, masked(url), self._tls) from error
            raise
        if url.startswith('amqps:') and not self._tls['verify']:
            LOGGER.warning(
                'anybody may pose as the broker %s: AMQP.tls.verify is false', masked(url)
            )
        self._transport = transport
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
        return self._transport is not None

    def guard(self) -> Guard:
        """A context in which errors of connections and channels become :class:`Lost`."""
        return Guard((OSError,) if self._transport is None else self._transport.errors)

    @property
    def refusals(self) -> tuple[type[BaseException], ...]:
        """What a channel raises when the broker refuses something."""
        return self.transport.refusals

    @property
    def expires(self) -> bool:
        """Whether messages leave a queue when their time is over."""
        return self.transport.expires

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
            return self.transport.channel()

    def consumer_tag(self) -> str:
        """A name for a consumer, unique on a broker."""
        return next(self._names)

    def has(self, channel: Any) -> bool:
        """Whether *channel* is one of the open connection, and open itself."""
        return self._transport is not None and self._transport.has(channel)

    def fileno(self) -> int | None:
        """The socket's descriptor; None where the transport has none to wait on."""
        return self.transport.fileno()

    def drain(self) -> bool:
        """Take in what has arrived, without waiting; False if there is nothing more."""
        with self.guard():
            taken = self.transport.take()
        if taken:
            self._healthy = time.monotonic()
        return taken

    def _on_blocked(self, reason: str) -> None:
        if reason != self._blocked:
            self._blocked = reason
            self.on_blocked(reason)

    @property
    def transport(self) -> Transport:
        """What is connected now; errors of its calls become :class:`Lost` in a :meth:`guard`.

        :raises Lost: there is no connection.
        """
        if self._transport is None:
            self.check_owner()
            raise Lost('not connected')
        return self._transport

    def wait(self, deadline: float) -> None:
        """Wait until something has arrived; raises :class:`Lost` at the *deadline*."""
        with self.guard():
            self.transport.wait_for(self.transport.fileno(), deadline)

    def is_refusal(self, lost: Lost) -> bool:
        """Whether the broker has only closed a channel, because of something it refuses."""
        return self._transport is not None and isinstance(lost.__cause__, self._transport.refusals)

    def drop_unless_refused(self, lost: Lost) -> None:
        """Leave it behind, unless the broker has only closed a channel of it."""
        if not self.is_refusal(lost):
            self.drop()

    def drop(self) -> None:
        """Leave the connection behind, without a word to the peer."""
        transport, self._transport = self._transport, None
        if transport is not None:
            self._changed = time.monotonic()
            transport.collect()
            self._on_blocked('')

    def close(self) -> bool:
        """End a healthy connection, so that what was sent before is taken in; or drop it.

        With data unread, closing the socket alone would reset the connection, and the broker
        might lose the last acknowledgements with it.

        :returns: False if there was a connection, and the broker did not answer.
        """
        self.check_owner()
        if self._transport is None:
            return True
        try:
            self._transport.end(CLOSE_TIMEOUT)
            return True
        except Exception as error:
            LOGGER.debug('the connection did not close: %s', error)
            return False
        finally:
            self.drop()


def _transport_class(url: str) -> Callable[..., Transport]:
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
