"""Controllers: what a user subclasses."""

from __future__ import annotations

import logging
from itertools import takewhile

from clihelper.errors import Error, is_misspelt
from clihelper.states import RUNNING, State, check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from socket import socket
    from typing import Any, Protocol

    from clihelper.amqp.client import Pipeline
    from clihelper.amqp.message import Message
    from clihelper.config import Config
    from clihelper.loops import Host, Loop

    class Runner(Host, Protocol):
        """What a controller asks of whoever runs it; see the life cycle's of the same names."""

        loop: Loop
        sockets: list[socket]

        @property
        def worker(self) -> int: ...
        def run_own_loop(self) -> None: ...
        def stop(self) -> None: ...
        def restart(self) -> None: ...
        def reload(self) -> None: ...
        def log_stacks(self) -> None: ...
        def wait(self, seconds: float) -> bool: ...


AWAITED = ('_setup', '_process', '_cleanup')
"""The hooks of an IOLoopController that may be coroutine functions"""

SIGNAL_HOOKS = ('on_sigterm', 'on_sighup', 'on_sigusr1', 'on_sigusr2')

HOOKS = (*AWAITED, '_loop', '_shutdown', 'on_message', 'on_configuration_reloaded', *SIGNAL_HOOKS)
"""The methods that a subclass may override to be called"""

CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR = 0x20, 0x80, 0x200
"""flags of a code object; the module :mod:`inspect`, which has them, takes long to import"""


class Controller:
    """A daemon, less what the daemon does: a subclass has that in :meth:`_process`.

    Every hook is optional but :meth:`_process`, which this class calls at once and then every
    ``Application.wake_interval`` seconds. A subclass that overrides :meth:`_loop` waits for work
    in its own way; one that overrides :attr:`wake_interval` decides each delay itself, counted
    from the end of :meth:`_process`.

    :param options: the command line's options: ``configuration``, ``foreground``, and those that
        the application added.
    :param arguments: the command line's remaining words.
    """

    loop_class: str | type[Loop] = 'clihelper.loops.interval.IntervalLoop'
    """How the controller waits for work: a loop, or the dotted name of one."""

    further_attributes: Mapping[str, Callable[[Controller, str], Any]] = {}
    """What every controller has besides what is written here: names, and what gives the value.
    Whoever extends the class from above, without its knowledge, puts another mapping here."""

    _life: Runner | None = None
    _config: Config | None = None

    def __init__(self, options: Any, arguments: list[str]) -> None:
        self.options = options
        self.arguments = arguments
        self._state = State.INITIALIZING

    # The hooks.

    def _setup(self) -> None:
        """Called once before the loop, and again after each HUP: open what the work needs."""

    def _process(self) -> Any:
        """The work, done every wake interval."""

    def _loop(self) -> None:
        """Wait for work and do it until :meth:`_shutdown`; overridden to bring another loop."""
        self._life_cycle.run_own_loop()

    def _shutdown(self) -> None:
        """Make :meth:`_loop` return. Called in the main thread, for a stop and for a HUP."""
        self._life_cycle.loop.stop()

    def _cleanup(self) -> None:
        """Called once after the loop, however it ended: close what ``_setup`` opened."""

    def on_sigterm(self) -> None:
        """TERM, and the first INT: stop gracefully."""
        self.stop()

    def on_sighup(self) -> None:
        """HUP: begin again with the new configuration, in the same process, if it is good."""
        self._life_cycle.restart()

    def on_sigusr1(self) -> None:
        """USR1: reload the configuration in place, reopen the log files; the loop goes on."""
        self._life_cycle.reload()

    def on_sigusr2(self) -> None:
        """USR2: log the state and every thread's stack. It is answered at once, also while a hook
        works; a subclass that overrides this is called between two calls of its hooks."""
        self._life_cycle.log_stacks()

    def on_configuration_reloaded(self) -> None:
        """USR1 has put a new configuration in place."""

    # What a subclass uses.

    @property
    def config(self) -> Config:
        """The whole configuration, a dictionary of sections; defaults are filled in."""
        if self._config is None:
            from clihelper.config import Config

            self._config = Config.default()
        return self._config

    @config.setter
    def config(self, config: Config) -> None:
        self.take_over(config)

    @property
    def application_config(self) -> Mapping[str, Any]:
        """The ``Application`` section."""
        return self.config.application

    @property
    def wake_interval(self) -> float:
        """The seconds between two calls of :meth:`_process`: ``Application.wake_interval``."""
        return float(self.application_config['wake_interval'])

    @property
    def logger(self) -> logging.Logger:
        """The application's logger, named like it."""
        return logging.getLogger(self._life.appname if self._life else 'clihelper')

    _logger = logger

    def stop(self) -> None:
        """Stop gracefully, as TERM does."""
        self._life_cycle.stop()

    def wait(self, seconds: float) -> bool:
        """Sleep in a way that a stop and a HUP end.

        In the main thread, signals are served meanwhile; it may be called in a thread, too.

        :param seconds: how long, at most.
        :returns: :attr:`is_running`, so that ``while self.wait(5):`` is a loop that ends.
        """
        return self._life_cycle.wait(seconds)

    @property
    def worker(self) -> int:
        """Which of ``Daemon.workers`` processes this is, from 1; 1 where there is but one."""
        return self._life.worker if self._life else 1

    @property
    def sockets(self) -> list[socket]:
        """What ``Daemon.listen`` names: sockets that listen, the same in all workers.

        They are this round's own: whoever takes them in ``_setup``, as Tornado's
        ``add_sockets`` does, may close them.
        """
        return self._life.sockets if self._life else []

    # Messages, by the broker of the AMQP section. These may be called in any thread.

    def publish(
        self, body: Any, exchange: str = '', routing_key: str = '', **properties: Any
    ) -> None:
        """Publish a message, and return once the broker has it in a queue.

        :param body: ``bytes`` as they are, ``str`` as UTF-8 text, anything else as JSON.
        :param exchange: its name; '' is the default exchange, which routes to the queue that is
            named like the routing key.
        :param properties: AMQP's (``correlation_id``, ``headers``, ``expiration``, ...);
            ``delivery_mode`` is 2, persistent, by default.
        :raises clihelper.PublishError: the broker has it not, or nobody is known to have it.
        :raises TypeError, ValueError: the body or a property cannot be encoded.
        """
        self._life_cycle.loop.client.publish(body, exchange, routing_key, properties)

    def pipeline(self) -> Pipeline:
        """Publish many messages, whose confirmations are awaited together::

            with self.pipeline() as pipeline:
                for order in orders:
                    pipeline.publish(order, routing_key='orders')

        :raises clihelper.PublishError: at the end of the ``with``, or in it: not all are
            confirmed; its ``failed`` has which, and why.
        """
        return self._life_cycle.loop.client.pipeline()

    def call(
        self,
        body: Any,
        exchange: str = '',
        routing_key: str = '',
        *,
        timeout: float = 30.0,
        **properties: Any,
    ) -> Any:
        """Publish a request, and return the reply to it, decoded as for ``on_message``.

        :param timeout: seconds to wait for the reply.
        :raises TimeoutError: none has come.
        :raises clihelper.PublishError: the request has not been taken.
        """
        client = self._life_cycle.loop.client
        return client.call(body, exchange, routing_key, timeout, properties)

    def queue_depth(self, queue: str) -> int:
        """How many messages wait in *queue*; those that a consumer has already are not counted.

        :raises LookupError: there is no such queue.
        :raises ConnectionError: the broker cannot be asked.
        """
        return self._life_cycle.loop.client.queue_depth(queue)

    def get(self, queue: str) -> Message | None:
        """Take one message of *queue*, without consuming it; None if there is none.

        Its ``body`` is decoded when it is asked for; it is to be settled by its ``ack()``,
        ``reject()`` or ``requeue()``, and goes back to the queue if it is not.

        :raises LookupError: there is no such queue.
        :raises ConnectionError: the broker cannot be asked.
        """
        return self._life_cycle.loop.client.get(queue)

    # The state.

    @property
    def state(self) -> State:
        """Where the controller is in its life."""
        return self._state

    def set_state(self, state: State) -> None:
        """Become *state*; raises :class:`~clihelper.states.IllegalTransition`."""
        check(self._state, state)
        self._state = state

    @property
    def is_running(self) -> bool:
        """Whether nothing has asked it to stop, or to begin again."""
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
        """Whether a hook of the subclass works."""
        return self._state is State.ACTIVE

    @property
    def is_reloading(self) -> bool:
        """Whether HUP has asked it to begin again."""
        return self._state is State.RELOADING

    @property
    def is_waiting_to_stop(self) -> bool:
        """Whether it finishes the work in hand before it stops."""
        return self._state is State.STOP_REQUESTED

    @property
    def is_stopping(self) -> bool:
        """Whether it is being stopped: the work in hand is finished, or ``_cleanup`` runs."""
        return self._state in (State.STOP_REQUESTED, State.STOPPING)

    @property
    def is_stopped(self) -> bool:
        """Whether it is over."""
        return self._state is State.STOPPED

    # What the application and the life cycle ask.

    def attach(self, life: Runner) -> None:
        """Called before ``__init__``, so that a subclass has its configuration there."""
        self._life = life
        self.take_over(life.config)

    def take_over(self, config: Config) -> None:
        """Have another configuration from now on."""
        self._config = config

    def driven(self) -> Controller:
        """Whose hooks the life cycle calls: this one's, unless it has somebody stand in."""
        return self

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in self.further_attributes:
                return self.further_attributes[name](self, name)
            return object.__getattribute__(self, name)  # which raises what is usual

    @property
    def _life_cycle(self) -> Runner:
        if self._life is None:
            raise RuntimeError(
                f'{type(self).__name__} is not being run: see clihelper.run and clihelper.testing'
            )
        return self._life

    def make_loop(self, life: Host) -> Loop:
        """The loop of the next round, of :attr:`loop_class`."""
        from clihelper import loops

        return loops.load(self.loop_class)(life)

    @property
    def brings_loop(self) -> bool:
        """Whether the subclass waits for work in a way of its own."""
        return _overridden(self, '_loop')

    @property
    def has_process(self) -> bool:
        """Whether the subclass has periodic work."""
        return _overridden(self, '_process')

    @property
    def overrides_sigusr2(self) -> bool:
        """Whether the subclass answers USR2 itself."""
        return _overridden(self, 'on_sigusr2')

    @property
    def overrides_wake_interval(self) -> bool:
        """Whether the subclass decides each delay."""
        return _overridden(self, 'wake_interval')


class IOLoopController(Controller):
    """A controller on Tornado's IOLoop.

    ``_setup`` starts servers; they serve until a graceful stop, which lets requests in hand
    finish. ``_setup``, ``_process`` and ``_cleanup`` may be coroutines.
    """

    loop_class = 'clihelper.loops.ioloop.TornadoLoop'

    @property
    def io_loop(self) -> Any:
        """The :class:`tornado.ioloop.IOLoop`."""
        return self._life_cycle.loop.io_loop  # type: ignore[attr-defined]


class ConsumerController(Controller):
    """A consumer of the queues that the ``AMQP`` section declares.

    A subclass has :meth:`on_message`; and :meth:`_process` if there is periodic work too, done
    between two messages while the broker is connected.
    """

    loop_class = 'clihelper.loops.consumer.ConsumerLoop'

    queues: Sequence[Any] = ()
    """:class:`kombu.Queue` objects to consume, besides ``AMQP.queues``; may be a property."""

    exchanges: Sequence[Any] = ()
    """:class:`kombu.Exchange` objects to declare, besides ``AMQP.exchanges`` and the queues'."""

    def on_message(self, body: Any, message: Any) -> Any:
        """One message. Returning acknowledges it; raising has it run again: see ``AMQP.retry``.

        :param body: decoded: an object for JSON, ``str`` for ``text/*``, else ``bytes``.
        :param message: a :class:`clihelper.amqp.message.Message`: its properties, and
            ``ack()``, ``reject()`` and ``requeue()`` for who settles it himself.
        :returns: None, or the reply to a message that has ``reply_to``.
        """
        raise NotImplementedError(f'{type(self).__name__} has no on_message')

    def recover(self) -> None:
        """Have every message that has been delivered and is not settled delivered again.

        What the broker has sent ahead goes back to its queue, and the message in hand too: it is
        not settled by what the handler does then (``basic.recover`` of AMQP 0-9-1).
        """
        self._life_cycle.loop.recover()  # type: ignore[attr-defined]


def own_topology(cls: type[Controller]) -> tuple[Sequence[Any], Sequence[Any], str] | None:
    """The queues and exchanges that a class declares, as far as they are known before it runs,
    and its name; None: it does not consume, and declares nothing."""
    if not issubclass(cls, ConsumerController):
        return None
    queues, exchanges = cls.queues, cls.exchanges
    if isinstance(queues, property) or isinstance(exchanges, property):
        queues = exchanges = ()  # known only when the loop begins
    return queues, exchanges, cls.__name__


def check_class(cls: type[Controller], config: Config) -> None:
    """Check what a class defines: its hooks, and its queues and exchanges.

    :raises clihelper.errors.Error: a hook would never be run, or its name is misspelt.
    :raises clihelper.errors.ConfigurationError: the queues and exchanges contradict the
        configuration.
    """
    for name in HOOKS:
        _check_hook(cls, name)
    _check_topology(cls, config)


def _check_hook(cls: type[Controller], name: str) -> None:
    """A hook is a plain function, unless the loop runs coroutines, and has its own name."""
    function = getattr(getattr(cls, name, None), '__func__', getattr(cls, name, None))
    flags = getattr(getattr(function, '__code__', None), 'co_flags', 0)
    shown = f'{cls.__name__}.{name}'
    if flags & CO_GENERATOR or (flags & CO_ASYNC_GENERATOR):
        raise Error(f'{shown} is a generator function, which would never be run: it has a yield')
    if flags & CO_COROUTINE and not (issubclass(cls, IOLoopController) and name in AWAITED):
        raise Error(f'{shown} is a coroutine function, which would never be run: only'
                    f' {", ".join(AWAITED[:-1])} and {AWAITED[-1]} of an IOLoopController may be')
    if function is getattr(Controller, name, None) or name == 'on_message':
        _check_spelling(cls, name)


def _check_spelling(cls: type[Controller], name: str) -> None:
    """No method that nothing calls has nearly the name of a hook that the class does not have."""
    owners = list(takewhile(_is_of_program, cls.__mro__))
    defined = {each for owner in owners for each, value in vars(owner).items() if callable(value)}
    if name in defined or (name == 'on_message' and not issubclass(cls, ConsumerController)):
        return
    values = [value for owner in owners for value in vars(owner).values()]
    codes = [value.__code__ for value in values if hasattr(value, '__code__')]
    used = {each for code in codes for each in code.co_names}
    for each in sorted(defined - used - {*HOOKS, *SIGNAL_HOOKS}):
        # With a leading underscore more or less it is a name of clihelper 1.x.
        if each.lstrip('_') != name.lstrip('_') and is_misspelt(each, name):
            raise Error(f'{cls.__name__}.{each} would never be called; did you mean {name}?')


def _is_of_program(cls: type) -> bool:
    return cls.__module__.partition('.')[0] != 'clihelper'


def _check_topology(cls: type[Controller], config: Config) -> None:
    queues, exchanges, name = own_topology(cls) or ((), (), '')
    if queues or exchanges:
        from clihelper.amqp.entities import Entities

        Entities(config.amqp, queues, exchanges, name)


def _overridden(controller: Controller, name: str) -> bool:
    """Whether a class below clihelper's, or the instance, has an attribute of its own."""
    if name in vars(controller):
        return True
    owner = next(cls for cls in type(controller).__mro__ if name in vars(cls))
    return owner.__module__.partition('.')[0] != 'clihelper'
