"""Run a controller inside the test: the real life cycle and loops, one step at a time."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from clihelper.amqp.settlement import ATTEMPTS
from clihelper.config import Config
from clihelper.controller import (
    ConsumerController,
    Controller,
    IOLoopController,
    check_class,
)
from clihelper.legacy import make_controller
from clihelper.lifecycle import LifeCycle, WorkerContext
from clihelper.loops import Loop
from clihelper.process.deadline import Deadline
from clihelper.process.signals import HANDLED, Signals
from clihelper.process.sockets import Listening
from clihelper.process.systemd import Notifier
from clihelper.states import RUNNING, State
from clihelper.testing import configuration
from clihelper.testing.options import command_line
from clihelper.testing.process import signal_number
from clihelper.testing.waiting import TIMEOUT, WaitError

if TYPE_CHECKING:
    from clihelper.parser import Parser
    from clihelper.testing.messages import Delivered, Mailbox, Outbox, Published

C = TypeVar('C', bound=Controller)


class Harness(Generic[C]):
    """Runs a controller in the test's own process and thread, one step at a time.

    Entering the ``with`` makes the controller and runs ``_setup``. Leaving it stops the
    controller gracefully, as TERM does, which runs ``_shutdown`` and ``_cleanup``. In between,
    the controller waits for work, which the methods here provide. An exception of a hook is
    raised by the method that caused the call. Before that, the controller ends as it would in a
    daemon; or goes on, with the configuration of before, where that of a HUP has failed.

    The process itself does not change: no signal handler is installed, logging and standard
    output are left alone, and no connection is opened; but the addresses of ``Daemon.listen`` are
    bound for the controller's ``sockets``, where port 0 stands for any free one. An
    :class:`~clihelper.IOLoopController` gets an event loop of its own. Afterwards there is no
    current one, as after :func:`asyncio.run`.

    If a subclass overrides ``_loop``, neither that nor its ``_shutdown`` is run: use
    :class:`~clihelper.testing.Program` instead.

    :param controller: the subclass to test.
    :param config: its configuration: a mapping, YAML text, or the name of a file (a string
        without a colon, or a path). It is validated, and the defaults are filled in, as for a
        daemon; but the ``Logging`` section has no effect. In a mapping, write ``Daemon.umask`` as
        a string.
    :param options: the command line's options by name, besides ``configuration``,
        ``foreground`` (true) and ``check``.
    :param option_callback: the function that the program passes to :func:`clihelper.run`: the
        options that it adds are there, with their defaults where *options* has none.
    :param arguments: the command line's remaining words.
    :param appname: the program's name.
    :param required: sections that the configuration must contain, or a mapping of them to their
        ``parse``; see :func:`clihelper.add_config_key`.
    :raises clihelper.errors.ConfigurationError: on entering, if the configuration is faulty.
    :raises clihelper.errors.UsageError: on entering, if the options or arguments do not suit
        *option_callback*.
    :ivar controller: the controller; it exists once the ``with`` is entered.
    """

    controller: C

    def __init__(
        self,
        controller: type[C],
        config: configuration.Source = None,
        *,
        options: Mapping[str, Any] | None = None,
        option_callback: Callable[[Parser], object] | None = None,
        arguments: Sequence[str] = (),
        appname: str = 'test',
        required: configuration.Required = (),
    ) -> None:
        from clihelper.testing.messages import Outbox

        self._outbox = Outbox()
        self._class = controller
        self._config = config
        self._options = options or {}
        self._option_callback = option_callback
        self._arguments = list(arguments)
        self._appname = appname
        self._required = required if isinstance(required, Mapping) else tuple(required)
        self._held = ExitStack()
        self._life: _Life

    def __enter__(self) -> Self:
        config = self._read_configuration()
        check_class(self._class, config)
        life = self._life = _Life(
            self._appname, config, self._read_configuration, self._outbox
        )
        with ExitStack() as held:
            held.callback(life.signals.close)
            life.listening.bind(self._addresses(config))
            held.callback(life.listening.close)
            if issubclass(self._class, IOLoopController):
                held.enter_context(_event_loop())
            if issubclass(self._class, ConsumerController):
                from clihelper.testing.messages import Mailbox

                life.mailbox = Mailbox(self._outbox)
            self.controller = self._make_controller(life)
            life.begin(self.controller)
            self._held = held.pop_all()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        with self._held:
            self._life.finish()

    @property
    def published(self) -> list[Published]:
        """The messages that the controller has published so far, routable or not."""
        return self._outbox.published

    @property
    def retried(self) -> list[Published]:
        """The copies that wait for their next runs, of all messages delivered so far."""
        return self._outbox.retried

    @property
    def dead_letters(self) -> list[Published]:
        """The dead letters of all messages delivered so far."""
        return self._outbox.dead_letters

    @property
    def queues(self) -> dict[str, list[Any]]:
        """The bodies in queues, by queue name: ``queue_depth`` counts them, ``get`` takes them.

        ``messages`` yields them, and ends when there are no more; what it had in hand when it was
        left by an exception, or by ``break`` without ``message.ack()``, is in the queue again.
        """
        return self._outbox.queues

    @property
    def metrics(self) -> dict[str, float]:
        """What the controller has counted by its ``metrics``, as Prometheus would get it.

        The names are those of the samples: ``sent_total{kind="letter"}``; of what was observed,
        ``..._count`` and ``..._sum`` are among them.
        """
        from clihelper.operations import exposition

        return {
            exposition.sample_name(name, labels): value
            for (kind, own, its), numbers in self._life.statistics.read().series.items()
            for name, labels, value in exposition.samples_of(kind, own, its, numbers)
        }

    def answer(self, reply: Callable[[Published], Any] | None) -> None:
        """Set the function that replies to the controller's ``call``.

        :param reply: is called with the request and returns the body of the reply. With None
            nobody replies, and ``call`` raises :class:`TimeoutError` at once.
        """
        self._outbox.answer = reply

    # What the test makes the controller do.

    def tick(self) -> Any:
        """Call ``_process`` once, and run it to its end if it is a coroutine.

        :returns: its return value.
        """
        with self._life.step():
            self._life.active()
            return self._life.loop.call(self._life.process)

    def deliver(
        self,
        body: Any,
        *,
        queue: str | None = None,
        exchange: str = '',
        routing_key: str | None = None,
        redelivered: bool = False,
        attempts: int = 1,
        **properties: Any,
    ) -> Delivered:
        """Deliver one message to the consumer, which decodes, handles and settles it.

        An exception of ``on_message`` concerns only that message, so it is not raised here: it is
        the result's ``error``.

        :param body: ``bytes`` are sent unchanged, ``str`` as UTF-8 text, anything else as JSON.
        :param queue: one of ``AMQP.queues``; may be left out if there is only one. Of one in
            partitions it is the first, or the one that is named.
        :param exchange: the exchange that it was published to; by default, the default exchange.
        :param routing_key: its routing key; by default, the queue's name.
        :param redelivered: whether it may have been delivered before.
        :param attempts: the number of this run, from 1; all runs before it failed.
        :param properties: AMQP's properties: ``content_type`` (by default, what suits the body),
            ``headers``, ``reply_to``, ``correlation_id``, ``message_id``, ...
        :raises ValueError: the queue is not consumed.
        :raises TypeError: the body cannot be encoded as JSON.
        """
        mailbox = self._mailbox()
        message = self._message(
            mailbox, body, queue, exchange, routing_key, redelivered, attempts, properties)
        with self._life.step():
            return mailbox.deliver([message])[0]

    def deliver_batch(
        self,
        bodies: Iterable[Any],
        *,
        queue: str | None = None,
        exchange: str = '',
        routing_key: str | None = None,
        redelivered: bool = False,
        attempts: int = 1,
        **properties: Any,
    ) -> list[Delivered]:
        """Deliver several messages to a consumer that has ``on_messages``.

        It gets them at once, or ``AMQP.batch.size`` at a time if there are more, and halves of
        them after it has raised. All have the same properties: see :meth:`deliver` for those.

        :param bodies: one for each message.
        :returns: what became of each message.
        :raises TypeError: the controller has no ``on_messages``, or a body cannot be encoded.
        """
        mailbox = self._mailbox()
        if not self._life.handles_batches:
            raise TypeError(f'{self._class.__name__} has no on_messages')
        messages = [
            self._message(mailbox, each, queue, exchange, routing_key, redelivered, attempts,
                          properties)
            for each in bodies
        ]
        with self._life.step():
            return mailbox.deliver(messages)

    def _message(
        self,
        mailbox: Mailbox,
        body: Any,
        queue: str | None,
        exchange: str,
        routing_key: str | None,
        redelivered: bool,
        attempts: int,
        properties: dict[str, Any],
    ) -> tuple[str, Any]:
        if attempts > 1:
            headers = {ATTEMPTS: attempts - 1, **properties.get('headers', {})}
            properties = {**properties, 'headers': headers}
        return mailbox.message(body, queue, exchange, routing_key, redelivered, properties)

    @contextmanager
    def refusing_publications(self) -> Iterator[None]:
        """Return a context in which the controller's ``publish`` raises ``PublishError``."""
        self._outbox.refuses = True
        try:
            yield
        finally:
            self._outbox.refuses = False

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """Run a coroutine on the IOLoop, along with the servers that ``_setup`` started.

        Its tasks end with the controller: a client that must outlast a graceful stop belongs in
        a thread.

        :returns: its result. An exception of it is raised, and does not end the controller.
        """
        if not isinstance(self.controller, IOLoopController):
            raise TypeError(f'{self._class.__name__} is not an IOLoopController')
        result, error = None, None
        with self._life.step():
            try:
                result = self._life.loop.call(lambda: awaitable)
            except Exception as raised:
                error = raised
        if error is not None:
            raise error
        return result

    def signal(self, signum: int | str) -> None:
        """Send a signal only to the controller; it has been handled when this returns.

        TERM and INT stop the controller, including ``_cleanup``. HUP makes it start over with the
        configuration from :meth:`configure`. USR1 reloads that in place. Either requires that it
        is valid.

        :param signum: the signal's number or its name, such as ``'TERM'``.
        :raises ValueError: controllers do not handle the signal.
        :raises clihelper.errors.StopNow: the signal was QUIT.
        """
        number = signal_number(signum)
        if number not in HANDLED:
            raise ValueError(f'controllers do not handle {number.name}')
        with self._life.step():
            self._life.signals.send(number)

    def configure(self, config: configuration.Source) -> None:
        """Set the configuration that the next HUP or USR1 reads, like rewriting the file."""
        self._config = config

    def _addresses(self, config: Config) -> list[str]:
        """Return the addresses to listen on."""
        addresses: list[str] = config.daemon['listen']
        return addresses

    def _mailbox(self) -> Mailbox:
        if self._life.mailbox is None:
            raise TypeError(f'{self._class.__name__} is not a ConsumerController')
        return self._life.mailbox

    def _read_configuration(self) -> Config:
        return configuration.read(self._config, appname=self._appname, required=self._required)

    def _make_controller(self, life: LifeCycle) -> C:
        options, arguments = command_line(
            life.config.path, self._option_callback, self._options, self._arguments, self._appname
        )
        return make_controller(self._class, life, options, arguments)


class _Life(LifeCycle):
    """A life cycle in which the test takes the place of the loop."""

    signals: _Signals

    def __init__(
        self, appname: str, config: Config, reread: Callable[[], Config], outbox: Outbox
    ) -> None:
        self.listening = Listening()
        super().__init__(
            appname=appname,
            config=config,
            signals=_Signals(),
            notifier=Notifier(),
            reread=reread,
            configure_logging=lambda _: None,
            before_loop=lambda: None,
            report_ready=lambda: None,
            ending=_NoEnding(),
            context=WorkerContext(listening=self.listening.sockets),
        )
        self.mailbox: Mailbox | None = None
        self._outbox = outbox
        self._deadline = _NoDeadline(_NoEnding())
        self._alive, self._round = ExitStack(), ExitStack()
        self._failure: BaseException | None = None

    # The steps that LifeCycle.run() takes at once.

    def begin(self, controller: Controller) -> None:
        """Run as far as the loop, where the test takes over."""
        self._alive.enter_context(self.alive(controller))
        with self._ending():
            self._begin_round()
            self._go_on()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Return a context for one step of the loop; then do what the loop would do next."""
        state = self._controller.state
        if state not in RUNNING:
            name = type(self._controller).__name__
            raise RuntimeError(f'{name} is no longer running: it is {state.name}')
        with self._ending():
            yield
            self._go_on()

    def finish(self) -> None:
        """Stop the controller gracefully, unless it has already stopped."""
        if self._controller.state is not State.STOPPED:
            with self._ending():
                self.stop()
                self._go_on()

    def make_loop(self) -> Loop:
        """Return the real loop, which publishes into the test; that also replaces the broker."""
        loop = super().make_loop()
        connection = self._outbox.adopt(loop)
        if self.mailbox is not None:
            self.mailbox.adopt(loop, connection)  # type: ignore[arg-type]
        return loop

    def _begin_round(self) -> None:
        with self.undoing():
            self._round.enter_context(self.round())
            self._looping = not self._controller.brings_loop
            self._round.callback(setattr, self, '_looping', False)

    @contextmanager
    def undoing(self) -> Iterator[None]:
        """Return a context for a round. A daemon logs what undoes a reload; the test gets it."""
        try:
            yield
        except BaseException as error:
            if not self._undoes(error):
                raise
            self._failure = error

    def _go_on(self) -> None:
        """Carry out pending requests, such as signals; then wait for the next step, if any."""
        self.serve_signals()
        while self._controller.state in (State.RELOADING, State.STOP_REQUESTED):
            with self._round:
                self._finish_pending_work()
            if not self.begin_again():
                self._alive.close()
                return
            self._begin_round()
            self.serve_signals()
        self.ready()
        self.sleeping()

    def _finish_pending_work(self) -> None:
        """Run the IOLoop until its servers are done; other loops have no work between steps."""
        if not self._looping or not isinstance(self._controller, IOLoopController):
            return
        io_loop = self._controller.io_loop
        deadline = io_loop.time() + TIMEOUT
        timer = io_loop.call_at(deadline, io_loop.stop)
        self.loop.run()
        io_loop.remove_timeout(timer)
        if io_loop.time() >= deadline:
            raise WaitError(f'the pending work was not finished within {TIMEOUT:g} s')

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """Return a context in which any exception ends the controller, as it would a daemon."""
        try:
            yield
        except BaseException:
            with self._alive:
                self._round.__exit__(*sys.exc_info())
            raise
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    # Differences from a daemon.

    @property
    def on_message(self) -> Callable[[Any, Any], Any]:
        """The handler, watched by the mailbox."""
        assert self.mailbox is not None
        return self.mailbox.watched(super().on_message, super().order_key)

    def handler(self, name: str) -> Callable[[Any, Any], Any]:
        """One of several handlers, watched by the mailbox."""
        assert self.mailbox is not None
        return self.mailbox.watched(super().handler(name), super().order_key)

    @property
    def order_key(self) -> None:
        """None: messages are delivered one by one. The mailbox calls the controller's."""

    @property
    def on_messages(self) -> Callable[[Any], Any]:
        """The handler of batches, watched by the mailbox."""
        assert self.mailbox is not None
        return self.mailbox.watched(super().on_messages)

    def _hook(self, signum: int) -> Callable[[], object]:
        """Return the hook of a signal. A daemon logs its exception; the test also gets it."""
        hook = super()._hook(signum)

        def call() -> None:
            try:
                hook()
            except Exception as error:
                self._failure = error
                raise

        return call

    def _end_loop(self, *, again: bool = False) -> None:
        """End the loop. A daemon retries a failed ``_shutdown``; the test gets its exception."""
        os.eventfd_write(self._interrupt, 1)
        if self._looping:
            try:
                self._controller._shutdown()
            except Exception as error:
                self._failure = error
                self.loop.stop()


class _Signals(Signals):
    """Only the signal pipe, into which the test writes: no signal handler is installed."""

    def __init__(self) -> None:
        super().__init__()
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._owner = os.getpid()

    def send(self, signum: signal.Signals) -> None:
        """Do what the interpreter does when the signal arrives."""
        os.write(self._writer, bytes([signum]))
        self._handle(signum, None)

    def close(self) -> None:
        """Close the pipe."""
        self._close()

    def is_reset(self, signum: int) -> bool:
        return False

    def _claim(self) -> bool:
        return True

    def _is_ours(self, signum: int) -> bool:
        return True


class _NoDeadline(Deadline):
    """A deadline that never expires: it would send a signal to the process of the tests."""

    def arm(self, seconds: float, signum: int = signal.SIGTERM) -> None:
        pass

    def force(self, signum: int) -> bool:
        return True

    def outlive(self) -> None:
        pass


class _NoEnding:
    """Ends nothing."""

    def unblock(self) -> bool:
        return False

    def report(self, signum: int) -> None:
        pass

    def end(self, signum: int) -> None:
        pass


@contextmanager
def _event_loop() -> Iterator[None]:
    """Return a context with an event loop of its own, so that nothing is left of it."""
    import asyncio

    from tornado.ioloop import IOLoop

    event_loop = asyncio.new_event_loop()
    asyncio.set_event_loop(event_loop)
    io_loop = IOLoop.current()
    try:
        yield
    finally:
        # As at the end of asyncio.run(). This also completes what was closed just before.
        event_loop.run_until_complete(event_loop.shutdown_asyncgens())
        event_loop.run_until_complete(event_loop.shutdown_default_executor())
        io_loop.close()
        asyncio.set_event_loop(None)
