"""Controllers: what a user subclasses."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from functools import cached_property

from clihelper.errors import ConfigurationError, Error, is_misspelt
from clihelper.program import classes_of_program, code_of, mentioned
from clihelper.states import RUNNING, State, check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
    from socket import socket
    from typing import Any, NoReturn, Protocol, Unpack

    from tornado.ioloop import IOLoop

    from clihelper.amqp.async_client import AsyncClient, AsyncPipeline
    from clihelper.amqp.async_iterators import AsyncMessages
    from clihelper.amqp.client import Pipeline
    from clihelper.amqp.handlers import Handler, Handlers
    from clihelper.amqp.iterators import Messages
    from clihelper.amqp.message import Message
    from clihelper.amqp.once import Ledger
    from clihelper.amqp.property_types import CallProperties, Properties
    from clihelper.config import Config
    from clihelper.loops import Host, Loop
    from clihelper.options.types import Options, OptionsAttribute
    from clihelper.process.series import Metrics

    class Runner(Host, Protocol):
        """What a controller needs from whatever runs it; see the methods of the life cycle."""

        loop: Loop
        sockets: list[socket]

        @property
        def worker(self) -> int: ...
        @property
        def socket_names(self) -> Sequence[str]: ...
        def run_own_loop(self) -> None: ...
        def stop(self) -> None: ...
        def restart(self) -> None: ...
        def reload(self) -> None: ...
        def log_stacks(self) -> None: ...
        def wait(self, seconds: float) -> bool: ...


AWAITED = ('_setup', '_process', '_cleanup')
"""The hooks of an IOLoopController that may be coroutine functions"""

HANDLERS = ('on_message', 'on_messages')
"""The hooks of a consumer, of which it has one"""

CONTEXTS = {'on_message': 'around_message', 'on_messages': 'around_messages'}
"""The hook of a consumer that is around each run of its handler, by the handler"""

HOOKS = (*AWAITED, *HANDLERS, *CONTEXTS.values(), '_loop', '_shutdown', 'order_key',
         'on_configuration_reloaded', 'on_sigterm', 'on_sighup', 'on_sigusr1', 'on_sigusr2')
"""The methods that a subclass may override for clihelper to call"""

OF_CONSUMERS = (*HANDLERS, *CONTEXTS.values(), 'order_key')
"""Those of them that only consumers have"""

CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR = 0x20, 0x80, 0x200
"""flags of a code object; :mod:`inspect`, which defines them, takes long to import"""


class Controller:
    """The frame of a daemon. A subclass implements the daemon's work in :meth:`_process`.

    Every hook except :meth:`_process` is optional. :meth:`_process` is called at once and then
    every ``Application.wake_interval`` seconds. A subclass that overrides :meth:`_loop` waits for
    work in its own way; one that overrides :attr:`wake_interval` decides each delay itself,
    counted from the end of :meth:`_process`.

    :param options: the command line's options: ``configuration``, ``foreground``, and those
        added by the application.
    :param arguments: the command line's remaining words.
    """

    loop_class: str | type[Loop] = 'clihelper.loops.interval.IntervalLoop'
    """How the controller waits for work: a loop, or the dotted name of one."""

    further_attributes: Mapping[str, Callable[[Controller, str], Any]] = {}
    """Additional attributes of every controller: names, and functions that return the value.
    A module that extends the class without the class knowing of it puts its mapping here."""

    _life: Runner | None = None
    _config: Config | None = None

    if TYPE_CHECKING:
        options = OptionsAttribute()

    def __init__(self, options: Options, arguments: list[str]) -> None:
        self.options = options
        self.arguments = arguments
        self._state = State.INITIALIZING

    # The hooks.

    def _setup(self) -> Any:
        """Open what the work needs. Called once before the loop, and again after each HUP."""

    def _process(self) -> Any:
        """Do the work; called every wake interval."""

    def _loop(self) -> None:
        """Wait for work and do it until :meth:`_shutdown`. Override it to use another loop."""
        self._life_cycle.run_own_loop()

    def _shutdown(self) -> None:
        """Make :meth:`_loop` return. Called in the main thread, for a stop and for a HUP."""
        self._life_cycle.loop.stop()

    def _cleanup(self) -> Any:
        """Close what ``_setup`` opened. Called once after the loop, however it ended."""

    def on_sigterm(self) -> None:
        """Handle TERM and the first INT: stop gracefully."""
        self.stop()

    def on_sighup(self) -> None:
        """Handle HUP: start over with the new configuration, if valid, in the same process."""
        self._life_cycle.restart()

    def on_sigusr1(self) -> None:
        """Handle USR1: reload the configuration and reopen the log files while the loop runs."""
        self._life_cycle.reload()

    def on_sigusr2(self) -> None:
        """Handle USR2: log the state and the stack of every thread.

        This happens at once, even while a hook runs. If a subclass overrides this method, it is
        called between two calls of its hooks instead.
        """
        self._life_cycle.log_stacks()

    def on_configuration_reloaded(self) -> None:
        """React to a new configuration; called after USR1 has put it in place."""

    # What a subclass uses.

    @property
    def config(self) -> Config:
        """The whole configuration: a dictionary of sections, with defaults filled in."""
        if self._config is None:
            from clihelper.config import Config

            self._config = Config.default()
        return self._config

    @config.setter
    def config(self, config: Config) -> None:
        self.take_over(config)

    @property
    def application_config(self) -> Any:
        """The ``Application`` section: a dictionary, or what the ``parse`` of it returned."""
        return self.config.application

    @property
    def wake_interval(self) -> float:
        """The seconds between two calls of :meth:`_process`: ``Application.wake_interval``."""
        return self.config.wake_interval

    @property
    def logger(self) -> logging.Logger:
        """The application's logger, which has its name."""
        return logging.getLogger(self._life.appname if self._life else 'clihelper')

    _logger = logger

    def stop(self) -> None:
        """Stop gracefully, as TERM does."""
        self._life_cycle.stop()

    def wait(self, seconds: float) -> bool:
        """Sleep until the time is over, or until a stop or a HUP is requested.

        In the main thread, signals are handled during the wait. Other threads may call it as
        well.

        :param seconds: the longest time to wait.
        :returns: :attr:`is_running`, so that the loop ``while self.wait(5):`` ends.
        """
        return self._life_cycle.wait(seconds)

    @property
    def worker(self) -> int:
        """The number of this process among ``Daemon.workers``, from 1; 1 if it is the only one."""
        return self._life.worker if self._life else 1

    @cached_property
    def metrics(self) -> Metrics:
        """What the program counts itself: see :doc:`/metrics`."""
        if self._life is not None:
            return self._life.statistics.metrics
        from clihelper.process.series import Metrics

        return Metrics.unshared()

    @property
    def sockets(self) -> list[socket]:
        """The listening sockets, the same in all workers.

        First those that a service manager passed (sd_listen_fds(3)), then those of
        ``Daemon.listen``, except where one that was passed already listens.

        These are duplicates made for each run of the loop: code that receives them in ``_setup``,
        such as Tornado's ``add_sockets``, may close them.
        """
        return self._life.sockets if self._life else []

    def sockets_named(self, name: str) -> list[socket]:
        """Return those of :attr:`sockets` that a service manager passed under a name.

        :param name: ``FileDescriptorName=`` of the ``.socket`` unit; by default, the unit's name.
        """
        if self._life is None:
            return []
        named = zip(self._life.sockets, self._life.socket_names, strict=False)
        return [each for each, its_name in named if its_name == name]

    # Messages, through the broker of the AMQP section. Any thread may call these.

    def publish(
        self,
        body: Any,
        exchange: str = '',
        routing_key: str = '',
        *,
        mandatory: bool = True,
        delay: float = 0,
        compress: bool = False,
        **properties: Unpack[Properties],
    ) -> None:
        """Publish a message, and return once the broker has put it in a queue.

        :param body: ``bytes`` as they are, ``str`` as UTF-8 text, anything else as JSON; see
            :ref:`bodies`.
        :param exchange: its name; '' is the default exchange, which routes to the queue whose name
            is the routing key.
        :param mandatory: whether it is an error if no queue gets it.
        :param delay: seconds that it waits in the broker, before it is in the queue that
            *routing_key* names; at most 30 days, 0 by default. See :ref:`delays`.
        :param compress: whether the body is compressed with gzip.
        :param properties: AMQP's properties (``correlation_id``, ``headers``, ``expiration``,
            ...), each listed in :ref:`properties`. For a queue that has ``partitions`` in
            ``AMQP.queues``, and is named by the routing key, ``partition_key`` chooses the
            partition; see :ref:`partitions`.
        :raises clihelper.PublishError: the broker does not have it, or is not known to have it;
            ``unroutable``: no queue gets it.
        :raises TypeError, ValueError: the body cannot be encoded, or a property is not as it
            should be.
        """
        self._life_cycle.loop.client.publish(
            body, exchange, routing_key, properties,
            mandatory=mandatory, delay=delay, compress=compress,
        )  # fmt: skip

    def pipeline(self) -> Pipeline:
        """Publish many messages and wait for all confirmations together::

            with self.pipeline() as pipeline:
                for order in orders:
                    pipeline.publish(order, routing_key='orders')

        :raises clihelper.PublishError: in the ``with`` or at its end: not all messages were
            confirmed; its ``failed`` says which, and why.
        """
        pipeline: Pipeline = self._life_cycle.loop.client.pipeline()
        return pipeline

    def call(
        self,
        body: Any,
        exchange: str = '',
        routing_key: str = '',
        *,
        timeout: float = 30.0,
        **properties: Unpack[CallProperties],
    ) -> Any:
        """Publish a request and return its reply, decoded as for ``on_message``.

        :param timeout: seconds to wait for the reply.
        :raises TimeoutError: no reply arrived.
        :raises clihelper.PublishError: the request was not accepted.
        """
        client = self._life_cycle.loop.client
        return client.call(body, exchange, routing_key, timeout, properties)

    def queue_depth(self, queue: str) -> int:
        """Return the number of messages ready in *queue*, without those delivered to a consumer.

        :raises LookupError: there is no such queue.
        :raises ConnectionError: the broker cannot be asked.
        """
        depth: int = self._life_cycle.loop.client.queue_depth(queue)
        return depth

    def get(self, queue: str) -> Message | None:
        """Take one message from *queue*, without a consumer; None if the queue is empty.

        Its ``body`` is decoded on first access. Settle it with its ``ack()``, ``reject()`` or
        ``requeue()``; otherwise it goes back to the queue.

        :raises LookupError: there is no such queue.
        :raises ConnectionError: the broker cannot be asked.
        """
        message: Message | None = self._life_cycle.loop.client.get(queue)
        return message

    def messages(
        self, queue: str, timeout: float | None = None, *, prefetch: int | None = None
    ) -> Messages:
        """Consume *queue* in a loop of the program's own::

            for message in self.messages('orders'):
                ship(message.body)

        Taking the next message acknowledges the last one. At a stop or a HUP the loop ends, when
        its message is handled.

        A loop that is left by an exception has its message run again, as a failed run, after
        ``AMQP.retry`` and until it is a dead letter. So has one that is left by ``break`` or
        ``return``, which look the same from here: call ``message.ack()`` before, or use
        ``with self.messages('orders') as messages:``, whose end acknowledges the last message
        unless an exception leaves it. What was prefetched returns to the queue.

        Any thread may call this; one thread uses the result.

        :param queue: one of ``AMQP.queues``, which is declared if it is missing; or the name of a
            queue that exists.
        :param timeout: seconds without a message after which the loop ends; by default, never.
        :param prefetch: how many messages the broker sends in advance, instead of
            ``AMQP.prefetch``.
        :raises ValueError: the timeout or the prefetch is out of range.
        :raises LookupError: there is no such queue; when the first message is taken, as for those
            below.
        :raises clihelper.errors.UnavailableError: the broker refuses the credentials or a
            declaration, or cannot be reached and ``AMQP.wait_for_broker`` is false.
        """
        messages: Messages = self._life_cycle.loop.iterations.messages(queue, timeout, prefetch)
        return messages

    def once(
        self,
        message: Message,
        connection: Any,
        *,
        key: object = ...,
        keep: float = 7 * 24 * 3600,
    ) -> bool:
        """Note in the program's own transaction that a message has its effect::

            with connection:
                if self.once(message, connection):
                    connection.execute('UPDATE accounts ...')

        The note is committed or rolled back together with the effect, so that the effect happens
        once, however often the message is delivered; see :ref:`once`. Notes are kept by
        application, queue and key in the table ``clihelper_once``, which is made if it is missing.

        :param connection: to SQLite or PostgreSQL: of :mod:`sqlite3`, psycopg, psycopg2, or a
            Connection or Session of SQLAlchemy.
        :param key: what identifies the effect, as ``str(key)``; by default the ``message_id``.
        :param keep: seconds for which the note is kept, rounded up; by default 7 days.
        :returns: True the first time; False if the message has had its effect.
        :raises clihelper.Reject: the message has no ``message_id``, and there is no key; or the
            key is None or ''.
        :raises RuntimeError: the connection commits each statement at once.
        :raises TypeError, ValueError: it is not such a connection; *keep* is out of range.
        """
        return self._ledger.claim(message, connection, key, keep)

    @cached_property
    def _ledger(self) -> Ledger:
        from clihelper.amqp.once import Ledger

        return Ledger(self._life_cycle.appname)

    # The state.

    @property
    def state(self) -> State:
        """The stage that the controller's life has reached."""
        return self._state

    def set_state(self, state: State) -> None:
        """Change to *state*.

        :raises clihelper.states.IllegalTransition: *state* may not follow the present one.
        """
        check(self._state, state)
        self._state = state

    @property
    def is_running(self) -> bool:
        """Whether it has not been asked to stop or to start over."""
        return self._state in RUNNING if self._life is None else self._life.is_running

    @property
    def is_initializing(self) -> bool:
        """Whether it is not ready for work yet."""
        return self._state is State.INITIALIZING

    @property
    def is_idle(self) -> bool:
        """Whether its loop neither works nor waits."""
        return self._state is State.IDLE

    @property
    def is_sleeping(self) -> bool:
        """Whether its loop waits for work."""
        return self._state is State.SLEEPING

    @property
    def is_active(self) -> bool:
        """Whether a hook of the subclass is running."""
        return self._state is State.ACTIVE

    @property
    def is_reloading(self) -> bool:
        """Whether HUP has asked it to start over."""
        return self._state is State.RELOADING

    @property
    def is_waiting_to_stop(self) -> bool:
        """Whether it is finishing its current work before it stops."""
        return self._state is State.STOP_REQUESTED

    @property
    def is_stopping(self) -> bool:
        """Whether it is stopping: finishing its current work, or running ``_cleanup``."""
        return self._state in (State.STOP_REQUESTED, State.STOPPING)

    @property
    def is_stopped(self) -> bool:
        """Whether it has stopped."""
        return self._state is State.STOPPED

    # What the application and the life cycle use.

    def attach(self, life: Runner) -> None:
        """Attach the life cycle, before ``__init__`` so that it can use the configuration."""
        self._life = life
        self.take_over(life.config)

    def take_over(self, config: Config) -> None:
        """Use another configuration from now on."""
        self._config = config

    def driven(self) -> Controller:
        """Return the controller whose hooks the life cycle calls; a stand-in overrides this."""
        return self

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in self.further_attributes:
                return self.further_attributes[name](self, name)
            return object.__getattribute__(self, name)  # which raises the usual error

    @property
    def _life_cycle(self) -> Runner:
        if self._life is None:
            raise RuntimeError(
                f'{type(self).__name__} is not being run: see clihelper.run and clihelper.testing'
            )
        return self._life

    def make_loop(self, life: Host) -> Loop:
        """Make a loop of :attr:`loop_class` for the next round."""
        from clihelper import loops

        return loops.load(self.loop_class)(life)

    @property
    def own_surroundings(self) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:
        """What puts the context of the subclass around its handler; None: it has none."""
        return None

    @property
    def is_consumer(self) -> bool:
        """Whether it handles messages that the broker sends."""
        return isinstance(self, ConsumerController)

    @property
    def brings_loop(self) -> bool:
        """Whether the subclass waits for work in its own way."""
        return _overridden(self, '_loop')

    @property
    def has_process(self) -> bool:
        """Whether the subclass has periodic work."""
        return _overridden(self, '_process')

    @property
    def overrides_sigusr2(self) -> bool:
        """Whether the subclass handles USR2 itself."""
        return _overridden(self, 'on_sigusr2')

    @property
    def overrides_wake_interval(self) -> bool:
        """Whether the subclass decides each delay."""
        return _overridden(self, 'wake_interval')


class IOLoopController(Controller):
    """A controller on Tornado's IOLoop.

    ``_setup`` starts servers; they serve until a graceful stop, which lets current requests
    finish. ``_setup``, ``_process`` and ``_cleanup`` may be coroutines.
    """

    loop_class = 'clihelper.loops.ioloop.TornadoLoop'

    @property
    def io_loop(self) -> IOLoop:
        """The :class:`tornado.ioloop.IOLoop`."""
        io_loop: IOLoop = self._life_cycle.loop.io_loop  # type: ignore[attr-defined]
        return io_loop

    # Messages, as in every controller, but awaited. Only code on the IOLoop may call these.

    def publish(  # type: ignore[override]
        self,
        body: Any,
        exchange: str = '',
        routing_key: str = '',
        *,
        mandatory: bool = True,
        delay: float = 0,
        compress: bool = False,
        **properties: Unpack[Properties],
    ) -> Awaitable[None]:
        """Publish a message; the result is to be awaited, and is there once a queue has it.

        What several coroutines publish is sent, and confirmed, together. The message is sent even
        if nothing awaits the result. See :meth:`Controller.publish` for the arguments.

        :raises clihelper.PublishError: when awaited: the broker does not have it, or is not known
            to have it.
        :raises TypeError, ValueError: the body cannot be encoded.
        """
        return self._async_client.publish(
            body, exchange, routing_key, properties,
            mandatory=mandatory, delay=delay, compress=compress,
        )  # fmt: skip

    def pipeline(self) -> AsyncPipeline:  # type: ignore[override]
        """Publish many messages and wait for all confirmations together::

            async with self.pipeline() as pipeline:
                for order in orders:
                    await pipeline.publish(order, routing_key='orders')

        :raises clihelper.PublishError: in the ``async with`` or at its end: not all messages were
            confirmed; its ``failed`` says which, and why.
        """
        return self._async_client.pipeline()

    async def call(
        self,
        body: Any,
        exchange: str = '',
        routing_key: str = '',
        *,
        timeout: float = 30.0,
        **properties: Unpack[CallProperties],
    ) -> Any:
        """Publish a request and await its reply; see :meth:`Controller.call`."""
        return await self._async_client.call(body, exchange, routing_key, timeout, properties)

    async def queue_depth(self, queue: str) -> int:  # type: ignore[override]
        """Await the number of messages ready in *queue*; see :meth:`Controller.queue_depth`."""
        return await self._async_client.queue_depth(queue)

    async def get(self, queue: str) -> Message | None:  # type: ignore[override]
        """Take one message from *queue*; None if it is empty; see :meth:`Controller.get`."""
        return await self._async_client.get(queue)

    def messages(  # type: ignore[override]
        self, queue: str, timeout: float | None = None, *, prefetch: int | None = None
    ) -> AsyncMessages:
        """Consume *queue* in a loop of the program's own, with ``async for``.

        A stop waits for the loop's message to be handled. ``async with`` takes the place of
        ``with``. See :meth:`Controller.messages`.
        """
        self._async_client.check_thread()
        loop = self._life_cycle.loop
        messages: AsyncMessages = loop.iterations.messages(queue, timeout, prefetch)
        return messages

    async def once(  # type: ignore[override]
        self,
        message: Message,
        connection: Any,
        *,
        key: object = ...,
        keep: float = 7 * 24 * 3600,
    ) -> bool:
        """Note in the program's own transaction that a message has its effect.

        The connection is an AsyncConnection of psycopg, one of aiosqlite, or an AsyncConnection
        or AsyncSession of SQLAlchemy. See :meth:`Controller.once`.
        """
        return await self._ledger.claim_async(message, connection, key, keep)

    @property
    def _async_client(self) -> AsyncClient:
        client: AsyncClient = self._life_cycle.loop.client
        client.check_thread()
        return client


class ConsumerController(Controller):
    """A consumer of the queues that the ``AMQP`` section declares.

    A subclass implements :meth:`on_message` or :meth:`on_messages`, and :meth:`_process` if there
    is also periodic work, which is done between two messages while the broker is connected.
    """

    loop_class = 'clihelper.loops.consumer.ConsumerLoop'

    queues: Sequence[Any] = ()
    """:class:`kombu.Queue` objects to consume, besides ``AMQP.queues``; may be a property."""

    exchanges: Sequence[Any] = ()
    """:class:`kombu.Exchange` objects to declare, besides ``AMQP.exchanges`` and the queues'."""

    def on_message(self, body: Any, message: Message) -> Any:
        """Handle a message. Returning acknowledges it; raising retries it: see ``AMQP.retry``.

        :param body: decoded: an object for JSON, ``str`` for ``text/*``, otherwise ``bytes``.
        :param message: a :class:`clihelper.Message`: its properties, and
            ``ack()``, ``reject()`` and ``requeue()`` for settling it explicitly.
        :returns: None, or the reply to a message that has ``reply_to``.
        """
        raise NotImplementedError(f'{type(self).__name__} has no on_message')

    def on_messages(self, messages: list[Message]) -> Any:
        """Handle several messages of one queue, instead of :meth:`on_message`; see ``AMQP.batch``.

        Returning acknowledges all of them. If it raises, it is called again with each half of
        them, and so on: what it raises for a single message is that message's failure. So it
        should undo what it has done before it raises. :exc:`clihelper.Requeue` returns all of
        them to the queue at once.

        :param messages: :class:`clihelper.Message` objects, in the order of their
            arrival; their ``body`` is decoded. Those that it settles itself, with ``ack()``,
            ``reject()`` or ``requeue()``, are left out of what becomes of the others.
        :returns: None: there are no replies.
        """
        raise NotImplementedError(f'{type(self).__name__} has no on_messages')

    def around_message(self, message: Message) -> Any:
        """Return a context manager that is around each run of :meth:`on_message`::

            @contextlib.contextmanager
            def around_message(self, message):
                with super().around_message(message), Session(self.engine) as self.session:
                    yield
                    self.session.commit()

        It is entered when the body has been decoded, and left before the message is settled and
        its reply is published. What it raises is a failure of the message, as if the handler had
        raised it. If it suppresses what the handler raises, the message is acknowledged, without
        a reply. It is not around a loop over :meth:`messages`. See :ref:`around`.

        :param message: as for :meth:`on_message`.
        :returns: a context manager; of an :class:`AsyncConsumerController`, an asynchronous one
            or a plain one. By default, one that does nothing and is both.
        """
        return nullcontext()

    def around_messages(self, messages: list[Any]) -> Any:
        """Return a context manager that is around each run of :meth:`on_messages`.

        See :meth:`around_message`. After a failure it is around the run of each half, too.

        :param messages: as for :meth:`on_messages`.
        """
        return nullcontext()

    @property
    def own_surroundings(self) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:
        """What puts :meth:`around_message`, or :meth:`around_messages`, around the handler."""
        hook = CONTEXTS['on_messages' if self.handles_batches else 'on_message']
        if not _overridden(self, hook):
            return None
        from clihelper.amqp.surroundings import Surroundings

        awaits = isinstance(self, AsyncConsumerController)
        return Surroundings(getattr(self, hook), hook, awaits=awaits).surround

    def order_key(self, message: Message) -> Hashable:
        """Return the key of a message: those with the same key are handled in order.

        They are handled one after the other, in the order in which the broker delivers them, in
        this process; see :ref:`order`. Called in the main thread, once for each delivery, before
        its handler. Whatever it raises is a failure of that message.

        :param message: as for :meth:`on_message`; its ``body`` is decoded each time it is read.
        :returns: anything hashable; None, as by default: the message waits for no other.
        """
        return None

    def handlers(self) -> list[Handler]:
        """Return the methods that handle messages, in the order in which they are tried.

        :returns: of each its ``name``, its ``routes`` (see :func:`clihelper.handles`; none of
            ``on_message``), and ``body``, what bodies are converted to, or None.
        """
        return self.handler_table().all

    @classmethod
    def handler_table(cls) -> Handlers:
        """Return the methods that handle messages, and which one a message is for."""
        from clihelper.amqp.handlers import handlers_of

        return handlers_of(cls)

    @property
    def has_order_key(self) -> bool:
        """Whether the subclass has messages handled in order."""
        return _overridden(self, 'order_key')

    @property
    def handles_batches(self) -> bool:
        """Whether it handles several messages by one call, of :meth:`on_messages`."""
        return _overridden(self, 'on_messages')

    def make_loop(self, life: Host) -> Loop:
        """Make the loop of the next round: one that handles messages in threads, if wanted."""
        if self.loop_class != ConsumerController.loop_class:
            return super().make_loop(life)
        if self.config.amqp['threads'] > 1:
            from clihelper.loops.threads import ThreadedConsumerLoop

            return ThreadedConsumerLoop(life)
        if self.handles_batches:
            from clihelper.loops.batches import BatchConsumerLoop

            return BatchConsumerLoop(life)
        return super().make_loop(life)

    def recover(self) -> None:
        """Ask the broker to redeliver every message that was delivered and is not settled.

        Prefetched messages go back to their queues, and so does the current one: whatever its
        handler then does no longer settles it (``basic.recover`` of AMQP 0-9-1).
        """
        self._life_cycle.loop.recover()  # type: ignore[attr-defined]


class AsyncConsumerController(IOLoopController, ConsumerController):
    """A consumer on Tornado's IOLoop, which handles up to ``AMQP.concurrency`` messages at a time.

    A subclass implements :meth:`on_message`, or :meth:`on_messages`, as a coroutine. Servers that
    ``_setup`` has started serve beside it, and everything else is as in an
    :class:`IOLoopController`. Each message is settled as soon as its coroutine ends, in whatever
    order they end.
    """

    loop_class = 'clihelper.loops.async_consumer.AsyncConsumerLoop'

    async def on_message(self, body: Any, message: Message) -> Any:
        """Handle a message; see :meth:`ConsumerController.on_message`.

        Its context variables are those of a task of its own.
        """
        raise NotImplementedError(f'{type(self).__name__} has no on_message')

    async def on_messages(self, messages: list[Message]) -> Any:
        """Handle several messages; see :meth:`ConsumerController.on_messages`."""
        raise NotImplementedError(f'{type(self).__name__} has no on_messages')

    def recover(self) -> None:
        """Have every message redelivered that is not settled, over a new connection."""
        super().recover()


def own_topology(cls: type[Controller]) -> tuple[Sequence[Any], Sequence[Any], str] | None:
    """Return the queues and exchanges that a class declares, and its name.

    They are included only where they are known before it runs. None: the class is not a consumer.
    """
    if not issubclass(cls, ConsumerController):
        return None
    queues, exchanges = cls.queues, cls.exchanges
    if isinstance(queues, property) or isinstance(exchanges, property):
        queues = exchanges = ()  # known only when the loop starts
    return queues, exchanges, cls.__name__


def check_class(cls: type[Controller], config: Config) -> None:
    """Check what a class defines: its hooks, and its queues and exchanges.

    :raises clihelper.errors.Error: a hook would never be run, or its name is misspelt.
    :raises clihelper.errors.ConfigurationError: the queues and exchanges contradict the
        configuration.
    """
    for name in HOOKS:
        _check_hook(cls, name)
    _check_contexts(cls)
    _check_batches(cls, config)
    _check_topology(cls, config)
    if issubclass(cls, ConsumerController):
        _check_handlers(cls, config)
    else:
        _check_none_is_routed(cls)


def _check_hook(cls: type[Controller], name: str) -> None:
    """Check that a hook is a plain function, or a coroutine if allowed, and spelt correctly."""
    flags = getattr(code_of(getattr(cls, name, None)), 'co_flags', 0)
    shown = f'{cls.__name__}.{name}'
    if name in CONTEXTS.values() and flags & (CO_GENERATOR | CO_ASYNC_GENERATOR | CO_COROUTINE):
        _refuse_undecorated(cls, shown, flags)
    if flags & (CO_GENERATOR | CO_ASYNC_GENERATOR):
        raise Error(f'{shown} is a generator function, which would never be run: it has a yield')
    if flags & CO_COROUTINE and not (issubclass(cls, IOLoopController) and name in AWAITED):
        _refuse_coroutine(cls, name)
    _check_spelling(cls, name)


def _refuse_coroutine(cls: type[Controller], name: str) -> None:
    """Raise an error for a hook that is a coroutine, unless it is the handler of messages."""
    if name in HANDLERS:
        if issubclass(cls, AsyncConsumerController):
            return
        may = 'that of an AsyncConsumerController may be'
    else:
        may = f'{", ".join(AWAITED[:-1])} and {AWAITED[-1]} of an IOLoopController may be'
    raise Error(
        f'{cls.__name__}.{name} is a coroutine function, which would never be run: only {may}')


def _refuse_undecorated(cls: type[Controller], shown: str, flags: int) -> NoReturn:
    """Raise an error for a function that was meant to be made a context manager."""
    kind = 'generator' if flags & (CO_GENERATOR | CO_ASYNC_GENERATOR) else 'coroutine'
    awaits = issubclass(cls, AsyncConsumerController) and not flags & CO_GENERATOR
    decorator = 'asynccontextmanager' if awaits else 'contextmanager'
    raise Error(f'{shown} is a {kind} function, which returns no context manager: decorate one'
                f' that has a yield with @contextlib.{decorator}')


def _check_contexts(cls: type[Controller]) -> None:
    """Check that what is meant to be around the handler is around it, and can be."""
    if not issubclass(cls, ConsumerController):
        return
    defined = {name for owner in classes_of_program(cls) for name in vars(owner)}
    handler, other = HANDLERS[::-1] if 'on_messages' in defined else HANDLERS
    if CONTEXTS[other] in defined and CONTEXTS[handler] not in defined:
        raise Error(f'{cls.__name__}.{CONTEXTS[other]} would never be called: {handler} has'
                    f' {CONTEXTS[handler]}')
    made_of = getattr(getattr(cls, CONTEXTS[handler]), '__wrapped__', None)
    flags = getattr(code_of(made_of), 'co_flags', 0)
    if flags & CO_ASYNC_GENERATOR and not issubclass(cls, AsyncConsumerController):
        raise Error(f'{cls.__name__}.{CONTEXTS[handler]} is asynchronous: only that of an'
                    ' AsyncConsumerController may be')


def _check_spelling(cls: type[Controller], name: str) -> None:
    """Check that no unused method has almost the name of a hook that the class lacks."""
    owners = list(classes_of_program(cls))
    defined = {each for owner in owners for each, value in vars(owner).items() if callable(value)}
    if name in defined:
        return
    if name in OF_CONSUMERS and not issubclass(cls, ConsumerController):
        return
    if name in HANDLERS and defined & {*HANDLERS}:
        return
    for each in sorted(defined - mentioned(owners) - {*HOOKS}):
        # With an added or removed leading underscore it is a name of clihelper 1.x.
        is_near = each.lstrip('_') != name.lstrip('_') and is_misspelt(each, name)
        if is_near and each not in _routed(cls):
            raise Error(f'{cls.__name__}.{each} would never be called; did you mean {name}?')


def _check_batches(cls: type[Controller], config: Config) -> None:
    """Check that ``on_messages`` would be called, and that ``AMQP.batch`` is for it."""
    defined = {name for owner in classes_of_program(cls) for name in vars(owner)}
    if 'on_messages' not in defined:
        if config.amqp['batch'] is not None:
            raise ConfigurationError(
                f'{config.locate("AMQP", "batch")}: AMQP.batch: has no effect: {cls.__name__} has'
                ' no on_messages')
        return
    shown = f'{cls.__name__}.on_messages'
    if not issubclass(cls, ConsumerController):
        raise Error(f'{shown} would never be called: only a ConsumerController has messages')
    if 'on_message' in defined:
        raise Error(f'{cls.__name__} has both on_message and on_messages: only one can be called')
    if 'order_key' in defined:
        raise Error(f'{cls.__name__} has both on_messages and order_key: a batch has messages of'
                    ' any key')
    if cls.loop_class not in (ConsumerController.loop_class, AsyncConsumerController.loop_class):
        raise Error(f'{shown} would never be called: loop_class is one of its own')


def _check_none_is_routed(cls: type[Controller]) -> None:
    """Check that no method of a controller that gets no messages is to handle them."""
    for name in _routed(cls):
        raise Error(f'{cls.__name__}.{name} would never be called: only a ConsumerController has'
                    ' messages')


def _routed(cls: type[Controller]) -> list[str]:
    """Return the names of the methods that handle certain messages."""
    from clihelper.amqp.routes import routed_methods

    return [name for name, _ in routed_methods(cls)]


def _check_handlers(cls: type[ConsumerController], config: Config) -> None:
    """Check that each handler can be called, and that there is one if anything is consumed."""
    from clihelper.amqp import handlers

    found = handlers.handlers_of(cls)
    for handler in found.routed:
        _check_handler(cls, handler.name)
    if found.routed and found.rest is not None and found.rest.name == 'on_messages':
        raise Error(f'{cls.__name__} has both on_messages and {found.routed[0].name}, a handler of'
                    ' certain messages: a batch has messages of any kind')
    own = cls.queues
    if isinstance(own, property):
        return  # known only when the loop starts
    queues = config.amqp['queues']
    consumed = [name for name, options in queues.items() if options['consume']]
    consumed += [each.name or each.alias for each in own]
    faults = handlers.check_queues(
        found, consumed, cls.__name__, config.locate('AMQP', 'queues'))
    if faults:
        raise ConfigurationError(*faults)
    if consumed and not found.all and not _has_own_loop(cls):
        raise Error(f'{cls.__name__} has no handler of messages: neither on_message nor'
                    ' on_messages, nor a method with clihelper.handles')


def _has_own_loop(cls: type[Controller]) -> bool:
    own = (ConsumerController.loop_class, AsyncConsumerController.loop_class)
    return cls.loop_class not in own or any(
        '_loop' in vars(owner) for owner in classes_of_program(cls))


def _check_handler(cls: type[Controller], name: str) -> None:
    """Check that a method that handles certain messages would be run."""
    if name in HOOKS:
        raise Error(f'{cls.__name__}.{name} is called for other reasons: clihelper.handles is for'
                    ' methods of other names')
    flags = getattr(code_of(getattr(cls, name)), 'co_flags', 0)
    if flags & (CO_GENERATOR | CO_ASYNC_GENERATOR):
        raise Error(f'{cls.__name__}.{name} is a generator function, which would never be run: it'
                    ' has a yield')
    if flags & CO_COROUTINE and not issubclass(cls, AsyncConsumerController):
        raise Error(f'{cls.__name__}.{name} is a coroutine function, which would never be run:'
                    ' only that of an AsyncConsumerController may be')


def _check_topology(cls: type[Controller], config: Config) -> None:
    queues, exchanges, name = own_topology(cls) or ((), (), '')
    if queues or exchanges:
        from clihelper.amqp.entities import Entities

        Entities(config.amqp, queues, exchanges, name)


def _overridden(controller: Controller, name: str) -> bool:
    """Return whether the instance, or a class outside clihelper, overrides the attribute."""
    if name in vars(controller):
        return True
    owner = next(cls for cls in type(controller).__mro__ if name in vars(cls))
    return owner.__module__.partition('.')[0] != 'clihelper'
