"""A connection to RabbitMQ: py-amqp's, with a fast path for deliveries.

py-amqp is used without kombu, since importing kombu alone takes longer than connecting.

py-amqp reads each frame with three ``recv`` calls, and processes a delivery in three steps. Here
one ``recv`` fetches whatever has arrived, and a delivery whose frames (method, header, body) are
all in it is processed in one step. Other messages are also assembled here, frame by frame: py-amqp
would decode what a publisher has written, and end the connection if it cannot. See
:mod:`clihelper.amqp.frames`.

Methods without content are handled by py-amqp, whose synchronous calls read through this module,
too. So they see the frames in the right order, whatever arrives in between.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from collections import deque
from functools import partial
from ssl import SSLEOFError, SSLWantReadError, SSLWantWriteError

import amqp
from amqp import spec
from amqp.exceptions import UnexpectedFrame, error_for_code
from amqp.transport import SSLTransport, TCPTransport

from clihelper.amqp import forks, frames, resolver
from clihelper.amqp.acknowledgement import Acknowledger, ConcurrentAcknowledger
from clihelper.amqp.escaping import escaped
from clihelper.amqp.frames import (
    ACK,
    BLOCKED,
    CHANNEL_CLOSE,
    CONFIRMED,
    CONNECTION_CLOSE,
    DELIVER,
    GET_OK,
    HEARTBEAT,
    HEARTBEAT_FRAME,
    LARGEST_FRAME,
    METHOD,
    OVERHEAD,
    REFUSED,
    RETURN,
    Content,
    Contents,
    Deliveries,
    Delivery,
    block_reason,
    close_reason,
    confirmation,
    frame_at,
    get_request,
    settlement,
)
from clihelper.amqp.heartbeat import HeartbeatThread
from clihelper.amqp.properties import InvalidProperties
from clihelper.amqp.tls import hear_last_words, wrap
from clihelper.amqp.url import parameters
from clihelper.config.schema import TLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from clihelper.amqp.transport import OnReturn, WaitFor

LOGGER = logging.getLogger('clihelper.amqp')

CHUNK = 256 * 1024
"""the most bytes that are fetched at a time"""

REPLIES = 'amq.rabbitmq.reply-to'
"""a pseudo-queue that every channel has (https://www.rabbitmq.com/docs/direct-reply-to)"""
WRITE_TIMEOUT = 30.0
"""seconds for which a peer that reads nothing can hold up a writer"""

FRAME_TIMEOUT = 10.0
"""seconds within which a frame has to be complete, or two heartbeats if that is longer"""

KEPT_BODIES = 4
"""the multiple of ``AMQP.max_body`` up to which a body is kept, for a dead letter"""

LEAST_KEPT = 128 * 1024 * 1024
"""Bytes up to which a body is kept in any case: the default ``max_message_size`` of RabbitMQ
before 4.0. So with RabbitMQ's defaults no dead letter lacks its body."""

PROPOSED_FRAME, SMALLEST_FRAME = 131_072, 4096
"""bytes: what RabbitMQ proposes, and what each peer has to accept (AMQP 0-9-1, 4.2.3)"""

LEAST_AGREED = 8192
"""The smallest frame_max, in bytes, that RabbitMQ accepts from 4.1 on. If it is configured with
less, it proposes that, refuses every answer, and says why only in its own log."""


class Channel(amqp.Channel):  # type: ignore[misc]
    """A channel that stays closed if the broker closes it, and whose answers have a deadline.

    :ivar int ready: the number of messages left in the queue after the last one was got.
    """

    ready = 0

    def _do_revive(self) -> None:
        # py-amqp would open it again, and wait for the answer in the middle of reading.
        self.collect()

    def wait(self, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """Wait for an answer; heartbeats and deliveries do not extend the deadline."""
        if self.connection is not None:
            self.connection.begin_wait(timeout)
        return super().wait(*args, timeout=timeout, **kwargs)

    def settle(self, method: int, delivery_tag: int, flag: bool) -> None:
        """Acknowledge or reject a message, in any thread.

        py-amqp builds each frame in a buffer of the connection, before 5.4 without a lock.
        """
        connection, number = self.connection, self.channel_id
        if connection is None or number is None:
            raise amqp.RecoverableConnectionError('the channel is closed')
        connection.write(settlement(number, method, delivery_tag, flag))

    def collect(self) -> None:
        """Forget the channel: it is closed."""
        if self.connection is not None:
            self.connection.forget(self.channel_id)
        super().collect()


class AskingChannel(Channel):
    """A channel on which the broker may refuse to answer without an effect on anything else.

    :ivar on_refused: called when the broker closes it.
    """

    def __init__(self, connection: RabbitMQTransport, on_refused: Callable[[], None]) -> None:
        super().__init__(connection)
        self.on_refused = on_refused

    def _on_close(self, *reason: object) -> None:
        self.send_method(spec.Channel.CloseOk)
        self.collect()
        self.on_refused()


class RabbitMQTransport(amqp.Connection):  # type: ignore[misc]
    """A connection with a fast path for complete deliveries.

    The socket never blocks. Whatever has to wait for it does so in one place, with a deadline, and
    py-amqp's synchronous calls read through :meth:`take` as the loop does. So a peer that stops in
    the middle of a frame does not hold up the program.

    :param url: ``amqp://user:password@host:port/vhost``, or ``amqps://`` for TLS.
    :param heartbeat: whole seconds; 0 disables heartbeats.
    :param timeout: seconds for connecting, and for the answer to each synchronous call.
    :param name: the connection's name, shown to the broker's operator.
    :param tls: the section ``AMQP.tls``; defaults to the defaults of its keys.
    :param options: options for other transports; ignored.
    :param max_body: ``AMQP.max_body``. Bodies of up to four times that, and of up to 128 MiB in
        any case, are kept for dead letters; of a larger body only the size is kept
        (:class:`~clihelper.amqp.frames.Oversized`).
    :ivar wait_for: waits in the main thread until a descriptor is readable, or writable
        (``write``), or raises at the ``deadline``, a time of the monotonic clock.
    :ivar on_blocked: called with the broker's reason when it accepts no more messages, and with
        an empty string when it accepts them again.
    :ivar on_unwritten: called when data is left that the socket does not take at once, and that
        :meth:`write_more` writes; None: writing waits.
    """

    errors: tuple[type[BaseException], ...] = (
        *amqp.Connection.connection_errors,
        *amqp.Connection.channel_errors,
    )

    refusals: tuple[type[BaseException], ...] = amqp.Connection.channel_errors

    expires = True
    """Whether messages leave a queue when their TTL expires."""

    Channel = Channel

    def __init__(
        self,
        url: str,
        heartbeat: int,
        timeout: float,
        name: str,
        tls: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        max_body: int = 0,
    ) -> None:
        self._tls = tls or TLS.defaults()
        self.wait_for: WaitFor = wait_for
        self.on_blocked: Callable[[str], None] = lambda reason: None
        super().__init__(
            **parameters(url),
            login_method='PLAIN',
            heartbeat=heartbeat,
            connect_timeout=timeout,
            client_properties={'connection_name': name},
            on_unblocked=lambda: self.on_blocked(''),
            # py-amqp's default of a second is shorter than many network interruptions.
            socket_settings={socket.TCP_USER_TIMEOUT: 2000 * heartbeat},
        )
        self._deliveries = Deliveries()
        self._contents = Contents(max(KEPT_BODIES * max_body, LEAST_KEPT))
        self._data, self._position = b'', 0  # what was fetched, and where in it a frame begins
        self._returns: dict[int, OnReturn] = {}  # by the number of the channel
        self._confirmations: dict[tuple[int, bytes], Callable[[int, bool], None]] = {}
        self._proposed = 0  # the broker's frame_max
        self._write_lock = threading.Lock()
        self._write_timeout = WRITE_TIMEOUT
        self._unwritten = bytearray()
        self.on_unwritten: Callable[[], None] | None = None
        self._deadline = 0.0
        self._acknowledger: Acknowledger | None = None
        self._beats: HeartbeatThread | None = None
        self._fault = ''
        self._begun = 0.0  # when the incomplete frame or message began; 0: there is none
        self._left = False  # whether frames that were fetched are unprocessed after an error
        self._pid, self._is_foreign = os.getpid(), False
        forks.watch(self)

    def Transport(  # noqa: N802
        self, host: str, connect_timeout: float, ssl: Any = False, *_: Any, **settings: Any
    ) -> Any:
        """Create py-amqp's transport, with a non-blocking socket."""
        if ssl:
            transport = _Secure(host, connect_timeout=connect_timeout, **settings)
            transport.wrap = partial(wrap, options=self._tls, host=transport.host)
        else:
            transport = _Plain(host, connect_timeout=connect_timeout, **settings)
        transport.write = self._write
        if transport.host.isascii():
            # A str would be looked up with the codec "idna", whose import takes 2 ms.
            transport.host = transport.host.encode()
        return transport

    def connect(self, callback: Callable[[], object] | None = None) -> None:
        """Connect, and begin to send and expect heartbeats."""
        self.begin_wait(None)
        try:
            super().connect(callback)
        except OSError as error:
            if 0 < self._proposed < LEAST_AGREED:
                raise ConnectionResetError(
                    f'the broker has ended the connection after proposing a frame_max of'
                    f' {self._proposed}; RabbitMQ 4.1 and later take none below {LEAST_AGREED}'
                ) from error
            raise
        if self.heartbeat:
            self._beats = HeartbeatThread(self.sock, self.heartbeat, self._beat, self._on_silence)

    def _on_tune(
        self, channel_max: int, frame_max: int, server_heartbeat: int, argsig: str = 'BlB'
    ) -> None:
        """Answer the limits that the broker proposes; a *frame_max* of 0 means no limit.

        What is agreed here bounds the memory that a frame takes.
        """
        self._proposed = frame_max
        frame_max = max(min(frame_max or PROPOSED_FRAME, LARGEST_FRAME), SMALLEST_FRAME)
        super()._on_tune(channel_max, frame_max, server_heartbeat, argsig)

    def begin_wait(self, timeout: float | None) -> None:
        """Set the deadline for an answer: *timeout* seconds, by default that for connecting."""
        self._deadline = time.monotonic() + (timeout or self.connect_timeout)

    def drain_events(self, timeout: float | None = None) -> None:
        """Wait for and process what arrives next; py-amqp calls this while awaiting an answer."""
        deadline = self._deadline
        if timeout is not None:
            deadline = min(deadline, time.monotonic() + timeout)
        while not self.take():
            self.wait_for(self.fileno(), deadline)

    @property
    def transport(self) -> Any:
        """py-amqp's transport; raises if there is none, as py-amqp would then connect unasked."""
        if self._transport is None:
            if self._is_foreign:
                raise RuntimeError(forks.fault(self._pid))
            raise ConnectionResetError(self._fault or 'not connected')
        return self._transport

    @transport.setter
    def transport(self, transport: Any) -> None:
        self._transport = transport

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.sock.fileno()  # type: ignore[no-any-return]

    def consume(
        self,
        channel: Any,
        queue: str,
        tag: str,
        on_delivery: Callable[[Delivery], None],
        arguments: Mapping[str, Any] | None = None,
        *,
        waits: bool = True,
    ) -> None:
        """Consume *queue*; :meth:`take` hands over each delivery.

        :param waits: whether to wait for the answer.
        """
        self._expect(channel, tag, on_delivery)
        channel.basic_consume(
            queue, consumer_tag=tag, arguments=arguments or None, nowait=not waits)

    def cancel(self, channel: Any, tag: str) -> None:
        """End a consumer, without waiting: what was on its way is returned as it arrives."""
        self._deliveries.stop(channel.channel_id, tag.encode())
        channel.basic_cancel(tag, nowait=True)

    def limit(self, channel: Any, prefetch: int) -> None:
        """Have so many messages sent ahead to each consumer from now on, without waiting."""
        channel.send_method(spec.Basic.Qos, 'lBb', (0, prefetch, False))

    def consume_replies(
        self, channel: Any, name: str, on_delivery: Callable[[Delivery], None], *,
        waits: bool = True,
    ) -> str:  # fmt: skip
        """Consume replies to what *channel* publishes; returns the value for ``reply_to``.

        :param waits: whether to wait for the answer.
        """

        def on_reply(delivery: Delivery) -> None:
            try:
                on_delivery(delivery)
            except InvalidProperties as fault:
                LOGGER.debug('discarded a reply that cannot be read: %s', fault)

        self._expect(channel, name, on_reply)
        channel.basic_consume(REPLIES, consumer_tag=name, no_ack=True, nowait=not waits)
        return REPLIES

    def _expect(self, channel: Any, tag: str, on_delivery: Callable[[Delivery], None]) -> None:
        # Deliveries may follow right after the answer to a request, in the same bytes.
        self._deliveries.direct({(channel.channel_id, tag.encode()): (channel, on_delivery)})

    def get(self, channel: Any, queue: str) -> Delivery | None:
        """One message from *queue*, or None if it is empty."""
        channel.send_method(spec.Basic.Get, 'Bsb', (0, queue, False))
        (got,) = channel.wait([spec.Basic.GetOk, spec.Basic.GetEmpty], returns_tuple=True)
        return got if isinstance(got, Delivery) else None

    def get_several(self, channel: Any, queue: str, number: int) -> list[Delivery]:
        """Up to *number* messages from *queue*, fewer if there are no more.

        They are requested at once, which saves the time between an answer and the next request.
        """
        found: list[Delivery | None] = []
        methods = (spec.Basic.GetOk, spec.Basic.GetEmpty)

        def answer(method: tuple[int, int], got: Any = None) -> None:
            found.append(got if isinstance(got, Delivery) else None)
            await_next()

        def await_next() -> None:
            channel._pending.update(dict.fromkeys(methods, answer))

        await_next()
        try:
            self.write(get_request(channel.channel_id, queue) * number)
            while len(found) < number:
                self.begin_wait(None)
                self.drain_events()
        finally:
            for method in methods:
                channel._pending.pop(method, None)
        return [each for each in found if each is not None]

    def ask_depth(self, channel: Any, queue: str, on_answer: Callable[[int], None]) -> None:
        """Have *on_answer* called with the number of messages that are ready in *queue*."""
        asked = (0, queue, True, False, False, False, False, None)
        channel.send_method(spec.Queue.Declare, 'BsbbbbbF', asked)
        channel._pending[spec.Queue.DeclareOk] = lambda _, name, ready, consumers: on_answer(ready)

    def ask_depths(
        self,
        queues: Sequence[str],
        on_answer: Callable[[str, int, int | None], None],
        on_refused: Callable[[str], None],
    ) -> None:
        """Ask what queues hold, without waiting, on a channel that is closed afterwards.

        :param on_answer: called with each queue, how many messages are ready in it, and how many
            consumers it has.
        :param on_refused: called with the first queue that cannot be asked about: then nothing is
            said of those after it.
        """
        left = deque(queues)
        channel = AskingChannel(self, lambda: on_refused(left[0]) if left else None)
        channel.send_method(spec.Channel.Open, 's', ('',))
        channel.is_open = True

        def answer(method: object, name: object, ready: int, consumers: int) -> None:
            if left:
                on_answer(left.popleft(), ready, consumers)
            if left:
                channel._pending[spec.Queue.DeclareOk] = answer
            else:
                channel.send_method(spec.Channel.Close, 'BsBB', (0, '', 0, 0))

        channel._pending[spec.Queue.DeclareOk] = answer
        for queue in queues:
            channel.send_method(
                spec.Queue.Declare, 'BsbbbbbF', (0, queue, True, False, False, False, False, None))

    def ask_message(
        self, channel: Any, queue: str, on_answer: Callable[[Delivery | None], None]
    ) -> None:
        """Have *on_answer* called with one message from *queue*, or None if it is empty."""
        channel.send_method(spec.Basic.Get, 'Bsb', (0, queue, False))

        def answer(method: tuple[int, int], got: Any = None) -> None:
            for each in (spec.Basic.GetOk, spec.Basic.GetEmpty):
                channel._pending.pop(each, None)
            on_answer(got if isinstance(got, Delivery) else None)

        for each in (spec.Basic.GetOk, spec.Basic.GetEmpty):
            channel._pending[each] = answer

    def recover(self, channel: Any) -> None:
        """Have all unsettled messages of *channel* redelivered, and wait for the answer.

        Pending acknowledgements are sent first. Messages that are kept, and those that arrive
        before the answer, are requeued with the rest; the latter are discarded here.
        """
        deliveries, number = self._deliveries, channel.channel_id
        consumers = deliveries.of(number)
        if self._acknowledger is not None:
            self._acknowledger.flush()
            self._acknowledger.forget()
        deliveries.direct(dict.fromkeys(consumers, (channel, lambda delivery: None)))
        channel.send_method(spec.Basic.Recover, 'b', (True,))
        # What follows the answer has been redelivered, perhaps in the same bytes.
        channel.wait(spec.Basic.RecoverOk, callback=lambda *_: deliveries.direct(consumers))

    def acknowledger(
        self, channel: Any, prefetch: int, *, concurrent: bool = False
    ) -> Acknowledger | ConcurrentAcknowledger:
        """Create an acknowledger for *channel*, which also works while a handler runs.

        :param concurrent: whether messages are settled in any order, in one thread.
        """

        acknowledgement = partial(settlement, channel.channel_id, ACK)

        def send(up_to: int, alone: Sequence[int]) -> None:
            frames = [acknowledgement(tag, False) for tag in alone]
            if up_to:
                frames.append(acknowledgement(up_to, True))
            self.write(b''.join(frames))

        if concurrent:
            return ConcurrentAcknowledger(send, prefetch)
        self._acknowledger = Acknowledger(send, prefetch)
        return self._acknowledger

    def has(self, channel: Any) -> bool:
        """Whether *channel* belongs to this connection, and is open."""
        return channel.connection is self and bool(channel.is_open)

    def open_channel(self) -> Any:
        """Open a new channel without waiting for the answer.

        What is sent on it right away is processed after it is open.
        """
        channel = self.Channel(self)
        channel.send_method(spec.Channel.Open, 's', ('',))
        channel.is_open = True
        return channel

    def confirm(
        self,
        channel: Any,
        on_ack: Callable[[int, bool], None],
        on_nack: Callable[[int, bool], None],
        on_return: OnReturn,
        *,
        waits: bool = True,
    ) -> bool:
        """Have what is published on *channel* confirmed, through calls from :meth:`take`.

        :param waits: whether to wait for the answer.
        """
        channel.send_method(
            spec.Confirm.Select, 'b', (False,), wait=spec.Confirm.SelectOk if waits else None)
        number = channel.channel_id
        self._confirmations[number, CONFIRMED] = on_ack
        self._confirmations[number, REFUSED] = on_nack
        self._returns[number] = on_return
        return True

    def encode_or_publish(
        self,
        channel: Any,
        body: bytes,
        exchange: str,
        routing_key: str,
        properties: dict[str, Any] | bytes,
        mandatory: bool = True,
    ) -> bytes:
        """The frames of a message; see :func:`clihelper.amqp.frames.encode`."""
        return frames.encode(
            channel.channel_id,
            body,
            exchange,
            routing_key,
            properties,
            self.frame_max,
            mandatory=mandatory,
        )

    def end(self, timeout: float) -> None:
        """Close politely, waiting at most *timeout* seconds for the broker."""
        self._write_timeout = timeout
        self.begin_wait(timeout)
        self.close()

    def forget(self, number: int) -> None:
        """Forget the channel with that number: it is closed."""
        self._deliveries.forget(number)
        self._contents.forget(number)
        self._returns.pop(number, None)
        for method in (CONFIRMED, REFUSED):
            self._confirmations.pop((number, method), None)

    def collect(self) -> None:
        """Abandon the connection without telling the broker."""
        if self._beats is not None:
            self._beats.end()
        super().collect()
        self._data, self._position = b'', 0

    def disown(self) -> None:
        """See :class:`clihelper.amqp.forks.Owned`.

        Only the child's copy of the descriptor is closed; nothing is written or shut down.
        """
        self._write_lock = threading.Lock()
        if self._acknowledger is not None:
            self._acknowledger.disown()
        transport, self._transport = self._transport, None
        if transport is not None and transport.sock is not None:
            transport.sock.close()
        self._is_foreign, self._beats, self._fault = True, None, ''

    # Writing: two threads write, each one or more whole frames at a time.

    def write(self, data: bytes) -> None:
        """Write frames; wait if the broker does not read."""
        self.transport.write(data)

    def _write(self, data: Any) -> None:
        """Write all of *data*.

        :raises OSError: the connection is lost, or accepts no more data.
        """
        with self._write_lock:
            if self._fault:
                raise ConnectionAbortedError(self._fault)
            if self._unwritten:
                data, self._unwritten = self._unwritten + data, bytearray()
            sent = self._write_some(data)
            if sent == len(data):
                return
            if self.on_unwritten is None:
                self._write_rest(memoryview(data)[sent:])
            else:
                self._unwritten += data[sent:]
                self.on_unwritten()

    def write_more(self) -> bool:
        """Write what is left, without waiting; returns whether that was all."""
        with self._write_lock:
            sent = self._write_some(self._unwritten)
            del self._unwritten[:sent]
            return not self._unwritten

    def _write_rest(self, rest: memoryview) -> None:
        deadline = time.monotonic() + self._write_timeout
        is_main = threading.current_thread() is threading.main_thread()
        wait = self.wait_for if is_main else wait_for
        # If the writing stops in the middle of a frame, nothing can be written after it.
        self._fault = 'a frame was not written to its end'
        while rest:
            wait(self.fileno(), deadline, write=True)
            rest = rest[self._write_some(rest) :]
        self._fault = ''

    def _write_some(self, data: Any) -> int:
        """Write what can be written without waiting; returns the number of bytes."""
        try:
            return self.sock.send(data)  # type: ignore[no-any-return]
        except (BlockingIOError, SSLWantReadError, SSLWantWriteError):
            return 0

    def _beat(self) -> None:
        """Send acknowledgements and a heartbeat, in the heartbeat thread, without waiting."""
        if self._write_lock.locked() or not writable(self.fileno()):
            return  # other data is being sent, which serves as a heartbeat
        if self._acknowledger is not None:
            self._acknowledger.flush()
        self._write(HEARTBEAT_FRAME)

    def _on_silence(self, seconds: float) -> None:
        """Wake whatever waits for the peer; called in the heartbeat thread."""
        self._fault = f'the broker has been silent for {seconds:.1f} s'
        # With TLS, too, shut down only the socket: the rest belongs to the main thread.
        socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    # Reading.

    def take(self) -> bool:
        """Process what has arrived, without waiting; False if nothing has.

        :raises OSError: the connection is lost.
        :raises amqp.exceptions.UnexpectedFrame: the frames make no sense.
        """
        data = self._fetch(self.transport.sock)
        if data is None:
            if not self._left:
                return False
            data = b''
        elif not data:
            raise ConnectionResetError(self._fault or 'the broker has closed the connection')
        self._left = True
        try:
            self._take_frames(data)
        except self.errors:
            raise
        except Exception as error:
            # The peer, or something in between, has sent invalid data.
            raise UnexpectedFrame(f'frames make no sense: {type(error).__name__}') from error
        self._left = False
        return True

    def _take_frames(self, data: bytes) -> None:
        """Act on each complete frame in the remaining bytes and *data*."""
        # What this calls may raise: the next call must find the rest.
        self._data, self._position = self._data[self._position :] + data, 0
        while True:
            data, position = self._data, self._position
            if not self._contents:
                self._position = self._deliveries.take(data, position)
                if self._position != position:
                    self._begun, position = 0.0, self._position
            frame = frame_at(data, position, self.frame_max)
            if frame is None:
                break
            self._position = position + len(frame[2]) + OVERHEAD
            self._on_frame(*frame)
        self._data, self._position = data[position:], 0
        self._check_progress()

    def _check_progress(self) -> None:
        """Check that a frame or message that has begun is completed in time.

        :raises UnexpectedFrame: it takes too long; perhaps its size is wrong.
        """
        if not self._data and not self._contents:
            self._begun = 0.0
            return
        now = time.monotonic()
        self._begun = self._begun or now
        if now - self._begun > max(FRAME_TIMEOUT, 2 * (self.heartbeat or 0)):
            what = 'frame' if self._data else 'message'
            raise UnexpectedFrame(f'a {what} has begun, and does not end')

    def _on_frame(self, kind: int, number: int, payload: bytes) -> None:
        """Act on a frame of the channel with that *number*."""
        if kind == HEARTBEAT:
            return
        self._begun = 0.0
        if kind == METHOD and number not in self._contents:
            self._on_method(number, payload)
            return
        content = self._contents.add(kind, number, payload)
        if content is not None:
            self._on_content(number, content)

    def _on_method(self, number: int, payload: bytes) -> None:
        method = payload[:4]
        if self.channels is None or number not in self.channels:
            raise UnexpectedFrame(f'a method on channel {number}, which is not open')
        confirm = self._confirmations.get((number, method))
        if confirm is not None:
            confirm(*confirmation(payload))
            return
        if method in (DELIVER, GET_OK, RETURN):
            self._contents.begin(number, payload)
            return
        # py-amqp would decode the peer's free text, which may be invalid.
        if method == (CHANNEL_CLOSE if number else CONNECTION_CLOSE):
            self.channels[number]._on_close(*close_reason(payload))
            return
        if method == BLOCKED and not number:
            self.on_blocked(block_reason(payload) or 'no reason given')
            return
        signature = int.from_bytes(method[:2], 'big'), int.from_bytes(method[2:], 'big')
        self.on_inbound_method(number, signature, payload, None)

    def _on_content(self, number: int, content: Content) -> None:
        """Hand over a message that was assembled frame by frame."""
        channel, method = self.channels[number], content.method[:4]
        delivery = content.delivery(channel)
        if channel.is_closing:
            return
        if method == RETURN:
            self._on_return(number, content, delivery)
        elif method == DELIVER:
            # A message without a consumer here is requeued, like one that was got too late.
            key = (number, content.consumer_tag)
            _, on_delivery = self._deliveries.consumers.get(key, (channel, Delivery.requeue))
            on_delivery(delivery)
        elif (answer := channel._pending.pop(spec.Basic.GetOk, None)) is not None:
            channel.ready = int.from_bytes(content.method[-4:], 'big')
            answer(spec.Basic.GetOk, delivery)
        else:
            delivery.requeue()

    def _on_return(self, number: int, content: Content, delivery: Delivery) -> None:
        code, text = content.reply
        error = error_for_code(code, escaped(text), spec.Basic.Return, amqp.ChannelError)
        on_return = self._returns.get(number)
        if on_return is not None:
            exchange = delivery.exchange.decode(errors='backslashreplace')
            routing_key = delivery.routing_key.decode(errors='backslashreplace')
            on_return(error, exchange, routing_key, delivery)

    def _fetch(self, sock: Any) -> bytes | None:
        """Read what has arrived: None if nothing has, b'' at the end of the connection."""
        try:
            if type(sock) is socket.socket:
                return sock.recv(CHUNK)
            with self._write_lock:  # an SSLSocket does not allow two threads at a time
                return sock.recv(CHUNK)  # type: ignore[no-any-return]
        except (BlockingIOError, SSLWantReadError, SSLWantWriteError):
            return None


class _Unblocking:
    """Makes the sockets of both of py-amqp's transports non-blocking once they are connected."""

    sock: Any

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self.sock.setblocking(False)

    def _connect(self, host: bytes | str, port: int, timeout: float) -> None:
        """Connect to the address that answers first, within *timeout* seconds in all."""
        self.sock = resolver.connect(host, port, timeout)

    def _shutdown_transport(self) -> None:
        """Do nothing: TLS would send a closing message and wait for an answer."""


class _Plain(_Unblocking, TCPTransport):  # type: ignore[misc]
    pass


class _Secure(_Unblocking, SSLTransport):  # type: ignore[misc]
    wrap: Callable[[socket.socket], Any]

    def _wrap_socket(self, sock: socket.socket) -> Any:
        sock.settimeout(self.connect_timeout)  # for the handshake; py-amqp before 5.2 sets none
        return self.wrap(sock)

    def _write(self, data: bytes) -> None:
        """Write what py-amqp itself writes: the first bytes after the handshake."""
        try:
            super()._write(data)
        except (SSLEOFError, ConnectionError):
            hear_last_words(self.sock)
            raise


def wait_for(descriptor: int | None, deadline: float, *, write: bool = False) -> None:
    """Wait until a descriptor is readable, or writable.

    :param deadline: by the monotonic clock.
    :raises TimeoutError: it is not, by then.
    """
    assert descriptor is not None
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT if write else select.POLLIN)
    if not poll.poll(max(deadline - time.monotonic(), 0.0) * 1000):
        raise TimeoutError('no answer')


def writable(descriptor: int) -> bool:
    """Whether a descriptor can be written to at once."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(0))
