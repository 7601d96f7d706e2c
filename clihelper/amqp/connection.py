"""One connection to a broker, which is lost and made again.

A connection that has failed is dropped, never closed politely: py-amqp would wait for ever for a
dead peer's answer.
"""

from __future__ import annotations

import logging
import math
import random
import time

import kombu
from kombu.exceptions import OperationalError

from clihelper.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

LOGGER = logging.getLogger('clihelper')

CONNECT_TIMEOUT = 5.0
"""seconds for one attempt at one address"""

CLOSE_TIMEOUT = 1.0
"""seconds that the broker has to confirm the end of a healthy connection"""

POLL = 0.05
"""seconds between two looks into a transport that has no socket, such as kombu's memory"""

HEALTHY = 30.0
"""seconds since the broker last answered, within which it is expected back soon"""


class Unreachable(Exception):
    """No address answers as a broker does; the text has a line of why, without passwords."""


class Lost(Exception):
    """The connection, or a channel of it, is of no use any more."""


class Guard:
    """A context that turns what kombu raises for a lost connection into :class:`Lost`.

    Only calls of kombu stand in it: what a handler raises, an OSError perhaps, is not the
    connection's fault.
    """

    def __init__(self, errors: tuple[type[BaseException], ...]) -> None:
        self._errors = errors

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, self._errors):
            raise Lost(f'{error or type(error).__name__}') from error


class Backoff:
    """How long to wait before connecting again: full jitter under a growing cap.

    The cap doubles from 0.1 s to 2 s while the broker was healthy a moment ago, to 30 s later.

    :param uniform: the source of the jitter.
    """

    FIRST, SOON, LATER = 0.1, 2.0, 30.0

    def __init__(self, uniform: Any = random.uniform) -> None:
        self._uniform = uniform
        self._attempts = 0

    def reset(self) -> None:
        """The broker has answered."""
        self._attempts = 0

    def next(self, since_healthy: float) -> float:
        """The seconds to wait.

        :param since_healthy: seconds since the broker was last known to be well.
        """
        cap = self.SOON if since_healthy < HEALTHY else self.LATER
        delay = min(self.FIRST * 2**self._attempts, cap)
        self._attempts = min(self._attempts + 1, 30)
        return float(self._uniform(0, delay))


class Connection:
    """A connection to the first of several brokers that answers.

    :param urls: tried in turn.
    :param heartbeat: seconds; 0 for none.
    """

    def __init__(self, urls: Sequence[str], heartbeat: float) -> None:
        self._urls = urls
        self._heartbeat = heartbeat
        self._next = 0
        self._kombu: Any = None
        self._errors: tuple[type[BaseException], ...] = (OSError,)
        self._healthy = float('-inf')

    def open(self) -> None:
        """Connect to the next address.

        :raises Unreachable: it does not answer.
        :raises clihelper.errors.UnavailableError: it refuses the credentials, or the vhost.
        """
        url = self._urls[self._next % len(self._urls)]
        self._next += 1
        connection = kombu.Connection(
            url if url.partition('://')[2] else f'{url}localhost',
            heartbeat=math.ceil(self._heartbeat),  # whole seconds on the wire
            connect_timeout=CONNECT_TIMEOUT,
            transport_options=_transport_options(url),
        )
        try:
            connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
        except (
            OSError,
            OperationalError,
            *connection.connection_errors,
            *connection.channel_errors,  # py-amqp counts a refused login among them
        ) as error:
            raise _explained(error, masked(url)) from error
        finally:
            if not connection.connected:
                connection.collect()
        self._kombu = connection
        self._errors = (*connection.connection_errors, *connection.channel_errors)
        self._next -= 1  # the one that answers is the first to be asked again
        self._healthy = time.monotonic()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._kombu is not None

    def guard(self) -> Guard:
        """A context in which kombu's errors of connections and channels become :class:`Lost`."""
        return Guard(self._errors)

    @property
    def since_healthy(self) -> float:
        """Seconds since the broker was last heard of."""
        return time.monotonic() - self._healthy

    def shown(self) -> str:
        """The address that is or was last tried, without its password."""
        index = self._next if self._kombu is not None else self._next - 1
        return masked(self._urls[max(index, 0) % len(self._urls)])

    def channel(self) -> Any:
        """A new channel, that gives bodies as they came; raises :class:`Lost`."""
        with self.guard():
            channel = self._open_kombu.channel()
        channel.auto_decode = False  # py-amqp would decode by the character set, and guess
        return channel

    def fileno(self) -> int | None:
        """The socket's descriptor; None where the transport has none to wait on."""
        sock = getattr(self._open_kombu.connection, 'sock', None)
        return None if sock is None else sock.fileno()

    def drain(self) -> bool:
        """Take in what has arrived, without waiting; False if there is nothing more."""
        with self.guard():
            try:
                self._open_kombu.drain_events(timeout=0)
            except TimeoutError:
                return False
        self._healthy = time.monotonic()
        return True

    @property
    def heartbeat(self) -> float | None:
        """Seconds, as agreed with the broker; None for none."""
        connection = self._open_kombu
        if not connection.transport.implements.heartbeats:
            return None
        return connection.connection.heartbeat or None

    def check_heartbeat(self) -> None:
        """Send one if it is due; raises :class:`Lost` if the broker's are missing."""
        with self.guard():
            self._open_kombu.heartbeat_check(rate=2)

    @property
    def _open_kombu(self) -> Any:
        if self._kombu is None:
            raise Lost('not connected')
        return self._kombu

    def drop(self) -> None:
        """Leave the connection behind, without a word to the peer."""
        connection, self._kombu = self._kombu, None
        if connection is not None:
            connection.collect()

    def close(self) -> None:
        """End a healthy connection, so that what was sent before is taken in; or drop it.

        With data unread, closing the socket alone would reset the connection, and the broker
        might lose the last acknowledgements with it.
        """
        connection = self._kombu
        if connection is None:
            return
        try:
            sock = getattr(connection.connection, 'sock', None)
            if sock is not None:
                sock.settimeout(CLOSE_TIMEOUT)
            connection.transport.close_connection(connection.connection)
        except Exception as error:
            LOGGER.debug('the connection did not close: %s', error)
        finally:
            self.drop()


def masked(url: str) -> str:
    """*url* without its password, for people to read.

    >>> masked('amqp://orders:secret@broker//')
    'amqp://orders:**@broker//'
    """
    scheme, separator, rest = url.partition('://')
    credentials, at, place = rest.rpartition('@')
    user, colon, _ = credentials.partition(':')
    return f'{scheme}{separator}{user}{colon and ":**"}{at}{place}'


def _transport_options(url: str) -> dict[str, Any]:
    if url.partition('://')[0] in ('amqp', 'amqps', 'pyamqp'):
        return {'confirm_publish': True}
    return {}


def _explained(error: BaseException, where: str) -> Exception:
    """What to raise for *error*: whether it is of use to try again, with where and why."""
    code = getattr(error, 'reply_code', None) or getattr(error, 'code', None)
    if code == 403:
        return UnavailableError(f'AMQP.url: {where} refuses the credentials')
    if code == 530:
        return UnavailableError(f'AMQP.url: {where}: no such vhost, or no permission for it')
    return Unreachable(f'{where}: {error or type(error).__name__}')
