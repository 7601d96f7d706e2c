"""A controller inside the test: the real life cycle and the real loops, one step at a time."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from clihelper.amqp.settlement import ATTEMPTS
from clihelper.application import make_controller
from clihelper.config import Config
from clihelper.controller import (
    ConsumerController,
    Controller,
    IOLoopController,
    check_class,
)
from clihelper.lifecycle import LifeCycle
from clihelper.loops import Loop
from clihelper.options import Options
from clihelper.process.deadline import Deadline
from clihelper.process.signals import HANDLED, Signals
from clihelper.process.systemd import Notifier
from clihelper.states import RUNNING, State
from clihelper.testing import configuration
from clihelper.testing.process import signal_number
from clihelper.testing.waiting import TIMEOUT, WaitError

if TYPE_CHECKING:
    from clihelper.testing.messages import Delivered, Mailbox, Outbox, Published

C = TypeVar('C', bound=Controller)


class Harness(Generic[C]):
    """Runs a controller in the test's own process and thread, each step when the test says so.

    Entering the ``with`` makes the controller and runs ``_setup``; leaving it stops the
    controller gracefully, as TERM does, which runs ``_shutdown`` and ``_cleanup``. In between,
    the controller waits for work, and the methods here give it some. What a hook raises comes
    out of the method that had it called; before that, the controller has come to its end as it
    would in a daemon.

    Nothing of the process changes: no signal is taken over, logging and standard output are left
    alone, nobody is connected to. An :class:`~clihelper.IOLoopController` has an event loop of
    its own for the time; after it there is no current one, as after :func:`asyncio.run`.

    A ``_loop`` that a subclass brings is not run, nor is its ``_shutdown``: use
    :class:`~clihelper.testing.Program`.

    :param controller: the subclass to test.
    :param config: its configuration: a mapping, YAML text, or the name of a file (a text without
        a colon, or a path). It is validated, and the defaults are filled in, as for a daemon; but
        the ``Logging`` section is not acted on. In a mapping, write ``Daemon.umask`` as text.
    :param options: the command line's options by name, besides ``configuration``,
        ``foreground`` (true) and ``check``.
    :param arguments: the command line's remaining words.
    :param appname: the program's name.
    :param required: sections that the configuration must have; see
        :func:`clihelper.add_config_key`.
    :raises clihelper.errors.ConfigurationError: on entering: the configuration is wrong.
    :ivar controller: the controller; from entering on.
    """

    controller: C

    def __init__(
        self,
        controller: type[C],
        config: configuration.Source = None,
        *,
        options: Mapping[str, Any] | None = None,
        arguments: Sequence[str] = (),
        appname: str = 'test',
        required: Iterable[str] = (),
    ) -> None:
        from clihelper.testing.messages import Outbox

        self._outbox = Outbox()
        self._class = controller
        self._config = config
        self._options = options or {}
        self._arguments = list(arguments)
        self._appname = appname
        self._required = tuple(required)
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
        """What the controller has published so far.

        It takes whatever the broker would have to, routable or not.
        """
        return self._outbox.published

    @property
    def queues(self) -> dict[str, list[Any]]:
        """The bodies that wait in queues, by name: ``queue_depth`` counts, ``get`` takes them."""
        return self._outbox.queues

    def answer(self, reply: Callable[[Published], Any] | None) -> None:
        """Say what replies to the controller's ``call``.

        :param reply: called with the request, returns the reply's body; None: nobody replies, and
            ``call`` raises :class:`TimeoutError` at once.
        """
        self._outbox.answer = reply

    # What the test has the controller do.

    def tick(self) -> Any:
        """Call ``_process`` once, and run it to its end if it is a coroutine.

        :returns: what it returned.
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
        """Hand one message to the consumer: it is decoded, handled and settled.

        What ``on_message`` raises does not come out of here but is the result's ``error``, since
        it concerns that message alone.

        :param body: ``bytes`` as they are, ``str`` as UTF-8 text, anything else as JSON.
        :param queue: one of ``AMQP.queues``; may be left out where there is one only.
        :param exchange: where it was published to; by default, the default exchange.
        :param routing_key: with which routing key; by default, the queue's name.
        :param redelivered: whether it may have been delivered before.
        :param attempts: which run of it this is: it has failed once less.
        :param properties: AMQP's: ``content_type`` (by default, what suits the body),
            ``headers``, ``reply_to``, ``correlation_id``, ``message_id``, ...
        :raises ValueError: the queue is not consumed.
        :raises TypeError: JSON has no way to say the body.
        """
        mailbox = self._mailbox()
        if attempts > 1:
            headers = {ATTEMPTS: attempts - 1, **properties.get('headers', {})}
            properties['headers'] = headers
        message = mailbox.message(body, queue, exchange, routing_key, redelivered, properties)
        with self._life.step():
            return mailbox.deliver(*message)

    @contextmanager
    def refusing_publications(self) -> Iterator[None]:
        """A context in which the controller's ``publish`` raises ``clihelper.PublishError``."""
        self._outbox.refuses = True
        try:
            yield
        finally:
            self._outbox.refuses = False

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """Run a coroutine on the IOLoop, where the servers that ``_setup`` started serve.

        Its tasks end with the controller: a client that is to see a graceful stop through
        belongs into a thread.

        :returns: its result; what it raises comes out, and concerns the test alone.
        """
        if not isinstance(self.controller, IOLoopController):
            raise TypeError(f'{self._class.__name__} is no IOLoopController')
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
        """Send a signal to the controller, and to nobody else; it is served when this returns.

        TERM and INT stop it, ``_cleanup`` included. HUP lets it begin again with what
        :meth:`configure` has given, USR1 takes that over in place, as long as it is valid.

        :param signum: its number or its name, as ``'TERM'``.
        :raises ValueError: it is none that a controller answers to.
        :raises clihelper.errors.StopNow: it was QUIT.
        """
        number = signal_number(signum)
        if number not in HANDLED:
            raise ValueError(f'no controller answers to {number.name}')
        with self._life.step():
            self._life.signals.send(number)

    def configure(self, config: configuration.Source) -> None:
        """Give the configuration that the next HUP or USR1 reads, like rewriting the file."""
        self._config = config

    def _mailbox(self) -> Mailbox:
        if self._life.mailbox is None:
            raise TypeError(f'{self._class.__name__} is no ConsumerController')
        return self._life.mailbox

    def _read_configuration(self) -> Config:
        return configuration.read(self._config, appname=self._appname, required=self._required)

    def _make_controller(self, life: LifeCycle) -> C:
        options = {
            'configuration': life.config.path,
            'foreground': True,
            'check': False,
            'check_broker': False,
        }
        return make_controller(
            self._class, life, Options(**{**options, **self._options}), self._arguments
        )


class _Life(LifeCycle):
    """A life cycle whose loop is the test."""

    signals: _Signals

    def __init__(
        self, appname: str, config: Config, reread: Callable[[], Config], outbox: Outbox
    ) -> None:
        super().__init__(
            appname=appname,
            config=config,
            signals=_Signals(),
            notifier=Notifier(),
            reread=reread,
            configure_logging=lambda _: None,
            before_loop=lambda: None,
            report_ready=lambda: None,
            last_resort=lambda _: None,
        )
        self.mailbox: Mailbox | None = None
        self._outbox = outbox
        self._deadline = _NoDeadline(lambda _: None)
        self._alive, self._round = ExitStack(), ExitStack()
        self._failure: Exception | None = None

    # The way through, which LifeCycle.run() goes at once.

    def begin(self, controller: Controller) -> None:
        """As far as the loop, where the test takes over."""
        self._alive.enter_context(self.alive(controller))
        with self._ending():
            self._begin_round()
            self._go_on()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Something that the loop does, and after it what the loop would do next."""
        state = self._controller.state
        if state not in RUNNING:
            name = type(self._controller).__name__
            raise RuntimeError(f'{name} does not run any more: it is {state.name}')
        with self._ending():
            yield
            self._go_on()

    def finish(self) -> None:
        """Stop gracefully, unless it has stopped already."""
        if self._controller.state is not State.STOPPED:
            with self._ending():
                self.stop()
                self._go_on()

    def make_loop(self) -> Loop:
        """The real loop; it publishes into the test, and a consumer's has it for a broker."""
        loop = super().make_loop()
        connection = self._outbox.adopt(loop)
        if self.mailbox is not None:
            self.mailbox.adopt(loop, connection)  # type: ignore[arg-type]
        return loop

    def _begin_round(self) -> None:
        self._round.enter_context(self.round())
        self._looping = not self._controller.brings_loop
        self._round.callback(setattr, self, '_looping', False)

    def _go_on(self) -> None:
        """Do what was asked for meanwhile; then wait for the next step, if there is one."""
        self.serve_signals()
        while self._controller.state in (State.RELOADING, State.STOP_REQUESTED):
            with self._round:
                self._finish_work_in_hand()
            if not self.begin_again():
                self._alive.close()
                return
            self._begin_round()
            self.serve_signals()
        self.sleeping()

    def _finish_work_in_hand(self) -> None:
        """Run the IOLoop until its servers have; no other loop has work between two steps."""
        if not self._looping or not isinstance(self._controller, IOLoopController):
            return
        io_loop = self._controller.io_loop
        deadline = io_loop.time() + TIMEOUT
        timer = io_loop.call_at(deadline, io_loop.stop)
        self.loop.run()
        io_loop.remove_timeout(timer)
        if io_loop.time() >= deadline:
            raise WaitError(f'the work in hand was not finished within {TIMEOUT:g} s')

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """A context in which whatever is raised ends the controller, as it would a daemon."""
        try:
            yield
        except BaseException:
            with self._alive:
                self._round.__exit__(*sys.exc_info())
            raise
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    # What differs from a daemon.

    @property
    def on_message(self) -> Callable[[Any, Any], Any]:
        """The handler, watched by the mailbox."""
        assert self.mailbox is not None
        return self.mailbox.watched(super().on_message)

    def _hook(self, signum: int) -> Callable[[], object]:
        """The hook of a signal. A daemon logs what it raises; the test gets it, too."""
        hook = super()._hook(signum)

        def call() -> None:
            try:
                hook()
            except Exception as error:
                self._failure = error
                raise

        return call

    def _end_loop(self, *, again: bool = False) -> None:
        """A daemon tries a failed ``_shutdown`` again; the test gets what it raised."""
        os.eventfd_write(self._interrupt, 1)
        if self._looping:
            try:
                self._controller._shutdown()
            except Exception as error:
                self._failure = error
                self.loop.stop()


class _Signals(Signals):
    """The signal pipe alone, into which the test writes: no signal is taken over."""

    def __init__(self) -> None:
        super().__init__()
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._owner = os.getpid()

    def send(self, signum: signal.Signals) -> None:
        """Do what the interpreter does when the signal comes."""
        os.write(self._writer, bytes([signum]))
        self._handle(signum, None)

    def close(self) -> None:
        """Close the pipe."""
        self._close()

    def _is_ours(self, signum: int) -> bool:
        return True


class _NoDeadline(Deadline):
    """One that never expires: it would send a signal to the process of the tests."""

    def arm(self, seconds: float) -> None:
        pass

    def force(self, signum: int) -> None:
        pass


@contextmanager
def _event_loop() -> Iterator[None]:
    """An event loop of its own for a test, so that nothing is left of it."""
    import asyncio

    from tornado.ioloop import IOLoop

    event_loop = asyncio.new_event_loop()
    asyncio.set_event_loop(event_loop)
    io_loop = IOLoop.current()
    try:
        yield
    finally:
        # As asyncio.run() ends; what was closed a moment ago is finished with on the way.
        event_loop.run_until_complete(event_loop.shutdown_asyncgens())
        event_loop.run_until_complete(event_loop.shutdown_default_executor())
        io_loop.close()
        asyncio.set_event_loop(None)
