"""One connection to a broker, which may be lost and opened again.

A connection that has failed is dropped, never closed politely: py-amqp would wait forever for the
answer of a dead peer.
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
"""seconds that the broker has to confirm the end of a healthy connection, which it does quickly"""

HEALTHY = 30.0
"""seconds since the broker was last healthy, during which it is expected back soon"""

STABLE = 5.0
"""seconds of serving after which a broker is healthy, not flapping, and the delays start again"""


class Unreachable(Exception):
    """No address answers like a broker; the text says why in one line, without passwords."""


BASIC_CANCEL = (60, 30)
"""class and method that the broker sends when it cancels a consumer, without a reason"""

CANCELLED = (
    'it has cancelled a consumer: the queue was deleted, or a message was held for longer than'
    ' consumer_timeout')


class Lost(Exception):
    """The connection, or one of its channels, is no longer usable."""

    @property
    def stopped(self) -> bool:
        """Whether waiting for the broker ended because of a stop."""
        return getattr(self.__cause__, 'stopped', False)


class Guard:
    """A context that turns the errors of a lost connection into :class:`Lost`.

    It contains only calls to the transport: what a handler raises, perhaps an OSError, is not the
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

    For a broker that cannot be reached, the cap doubles from 0.1 s up to 1 s while it was healthy
    a moment ago, and later up to 30 s, with full jitter. A broker that can be reached but refuses
    is tried less often: the cap doubles up to 3 s, and at least half of it is waited.

    :param uniform: the source of the jitter.
    """

    SOON, REFUSED, LATER = 1.0, 3.0, 30.0

    def __init__(self, uniform: Callable[[float, float], float] | None = None) -> None:
        self._unreachable = Backoff(cap=self.LATER, least=0.0, uniform=uniform)
        self._refused = Backoff(cap=self.LATER, uniform=uniform)

    def reset(self) -> None:
        """Start again with the shortest delays: the broker is healthy."""
        self._unreachable.reset()
        self._refused.reset()

    def next(self, since_healthy: float, *, refused: bool = False) -> float:
        """The seconds to wait.

        :param since_healthy: seconds since the broker was last known to be healthy.
        :param refused: whether the broker was reached, and refused.
        """
        soon = self.REFUSED if refused else self.SOON
        cap = soon if since_healthy < HEALTHY else self.LATER
        return (self._refused if refused else self._unreachable).next(cap)


class Connection:
    """A connection to the first of several brokers that answers.

    :param urls: tried in turn.
    :param heartbeat: seconds, unless a URL says otherwise (``?heartbeat=5``). 0 disables
        heartbeats; None disables them whatever the URL says.
    :param name: the program's name, for the broker's operator.
    :param tls: the section ``AMQP.tls``; defaults to the defaults of its keys.
    :param options: ``AMQP.transport_options``.
    :param max_body: ``AMQP.max_body``; see :class:`clihelper.amqp.rabbitmq.RabbitMQTransport`.
    :ivar wait_for: how the main thread waits for the broker; see
        :attr:`clihelper.amqp.rabbitmq.RabbitMQTransport.wait_for`. None: the transport's default.
    :ivar on_blocked: called with the broker's reason when it accepts no messages, and with an
        empty string when it accepts them again.
    :ivar on_published: called with ``published`` or ``publish_failures``, and of how many of the
        program's messages the broker has said so.
    """

    @classmethod
    def of(cls, section: Mapping[str, Any], name: str, *, heartbeat: bool = True) -> Connection:
        """The connection that the ``AMQP`` section describes.

        :param heartbeat: whether it has heartbeats; without them it need not be read while idle.
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
        self.on_published: Callable[[str, int], None] = lambda name, amount: None
        self._blocked = ''
        self._urls = urls
        self._transports = [_transport_class(url) for url in urls]  # imported at start-up
        self._heartbeat = heartbeat
        self._name = f'{name} {os.uname().nodename}:{os.getpid()}'
        self._tls = tls or TLS.defaults()
        self._options = options
        self.max_body = max_body
        self._next = self._failed = 0
        # Consumer tags, unique on a broker.
        self._names = (f'{os.uname().nodename}.{os.getpid()}.{n}' for n in itertools.count(1))
        self._transport: Transport | None = None
        self._guard = Guard((OSError,))
        self._changed = time.monotonic()
        # A broker that has not been reached yet may just be starting, like this program.
        self._healthy = time.monotonic()
        self._backoff = BrokerBackoff()
        self._refused = False  # whether it was reached, and has not served
        self._served = float('inf')  # since when it has been serving
        self._pid = os.getpid()
        self._is_foreign = False
        forks.watch(self)

    @property
    def is_foreign(self) -> bool:
        """Whether this process is a child of the one that made the connection, and cannot use it.

        Then each use of it raises :exc:`RuntimeError`, and so does settling a message that was
        delivered over it; :meth:`drop` has no effect.
        """
        return self._is_foreign

    def disown(self) -> None:
        """See :class:`clihelper.amqp.forks.Owned`."""
        self._is_foreign, self._transport = True, None

    def check_owner(self) -> None:
        """Check that this process may use the connection.

        :raises RuntimeError: it belongs to the parent process.
        """
        if self._is_foreign:
            raise RuntimeError(forks.fault(self._pid))

    def open(self) -> None:
        """Connect to the next address.

        :raises Unreachable: the broker does not answer.
        :raises clihelper.errors.UnavailableError: it refuses the credentials or the vhost, or a
            certificate is not accepted.
        :raises clihelper.errors.Error: a file of ``AMQP.tls`` cannot be used.
        """
        self.check_owner()
        self._refused = False
        index = self._next
        url = self._urls[index]
        # If this one is lost, the others are tried before it: it may be silent.
        self._next = (index + 1) % len(self._urls)
        self._failed += 1
        transport = self._transports[index](
            url,
            self._heartbeat_of(url),
            CONNECT_TIMEOUT,
            self._name,
            self._tls,
            self._options,
            self.max_body,
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
        self._guard = Guard(transport.errors)
        self._changed = time.monotonic()
        self._failed = 0
        self._refused = True  # until it is known to serve

    def _heartbeat_of(self, url: str) -> int:
        """The heartbeat in whole seconds, as AMQP requires; the URL has been validated."""
        if self._heartbeat is None:
            return 0
        found = re.search(r'[?&]heartbeat=([0-9.]+)', url)
        return math.ceil(float(found[1]) if found else self._heartbeat)

    def open_any(self) -> None:
        """Connect to the first address that answers.

        Raises what :meth:`open` raises for the last one.
        """
        for left in reversed(range(len(self._urls))):
            try:
                self.open()
                return
            except (Unreachable, Error):
                if not left:
                    raise

    @property
    def has_untried(self) -> bool:
        """Whether an address has not been tried yet in this round of attempts.

        So there is one delay for each round, not one for each address.
        """
        return self._failed % len(self._urls) != 0

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as can be known."""
        return self._transport is not None

    def guard(self) -> Guard:
        """A context in which errors of connections and channels become :class:`Lost`."""
        return self._guard

    @property
    def refusals(self) -> tuple[type[BaseException], ...]:
        """The exceptions that a channel raises when the broker refuses something."""
        return self.transport.refusals

    @property
    def expires(self) -> bool:
        """Whether messages leave a queue when their TTL expires."""
        return self.transport.expires

    @property
    def product(self) -> str:
        """The broker's product and version, such as ``RabbitMQ 4.0.5``; empty if it is unknown."""
        found = getattr(self.transport, 'server_properties', None) or {}
        return escaped(' '.join(str(found[key]) for key in ('product', 'version') if key in found))

    def serves(self) -> None:
        """Note that the broker is serving: everything is declared, and consuming has begun."""
        self._refused = False
        self._healthy = self._served = time.monotonic()

    def delay(self) -> float:
        """The seconds to wait before opening it again, after it was lost or could not be opened.

        They grow with each attempt, connected or not, and start again when the broker has served
        for :data:`STABLE` seconds; see :class:`BrokerBackoff`. An address that has not been tried
        in this round is tried at once.
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
        """Seconds since the broker was last known to be healthy, not merely reachable."""
        return time.monotonic() - self._healthy

    def description(self) -> str:
        """The address, whether it is connected, and for how long."""
        state = 'connected' if self.is_open else 'not connected'
        return f'{self.shown()}, {state} for {time.monotonic() - self._changed:.1f} s'

    def shown(self) -> str:
        """The address that is in use or was last tried, without its password."""
        return masked(self._urls[self._next - 1])

    def channel(self) -> Any:
        """Open a new channel; raises :class:`Lost`."""
        with self.guard():
            return self.transport.channel()

    def consumer_tag(self) -> str:
        """A name for a consumer, unique on a broker."""
        return next(self._names)

    def has(self, channel: Any) -> bool:
        """Whether *channel* belongs to the open connection, and is open itself."""
        return self._transport is not None and self._transport.has(channel)

    def fileno(self) -> int | None:
        """The socket's descriptor; None if the transport has none to wait on."""
        return self.transport.fileno()

    def drain(self) -> bool:
        """Process what has arrived, without waiting; False if there is nothing more."""
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
        """The connected transport; in a :meth:`guard` its errors become :class:`Lost`.

        :raises Lost: there is no connection.
        """
        if self._transport is None:
            self.check_owner()
            raise Lost('not connected')
        return self._transport

    def wait(self, deadline: float) -> None:
        """Wait until something arrives; raises :class:`Lost` at the *deadline*."""
        with self.guard():
            self.transport.wait_for(self.transport.fileno(), deadline)

    def is_refusal(self, lost: Lost) -> bool:
        """Whether the broker has only closed a channel, because it refuses something."""
        return self._transport is not None and isinstance(lost.__cause__, self._transport.refusals)

    def drop_unless_refused(self, lost: Lost) -> None:
        """Drop the connection, unless the broker has only closed one of its channels."""
        if not self.is_refusal(lost):
            self.drop()

    def drop(self) -> None:
        """Abandon the connection without telling the peer."""
        transport, self._transport = self._transport, None
        if transport is not None:
            self._changed = time.monotonic()
            transport.collect()
            self._on_blocked('')

    def close(self) -> bool:
        """Close a healthy connection, so that the broker processes what was sent; or drop it.

        If there is unread data, closing only the socket would reset the connection, and the
        broker might lose the last acknowledgements.

        :returns: False if there was a connection and the broker did not answer.
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
    """The exception to raise for *error*, with where and why; its class says whether to retry."""
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
    """The text of *error* for a log line: the broker's own words if it sent any."""
    if getattr(error, 'method_sig', None) == BASIC_CANCEL:
        return CANCELLED
    code, text = getattr(error, 'reply_code', None), getattr(error, 'reply_text', None)
    return escaped(f'{code} {text}' if code and text else str(error) or type(error).__name__)
