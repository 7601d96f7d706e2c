"""How a controller waits for work: one module for each way. None of them imports a controller.

A loop gets the :class:`~clihelper.lifecycle.LifeCycle`, and uses only what :class:`Host` lists.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from socket import socket
    from typing import Any, Protocol

    from clihelper.amqp.handlers import Handlers
    from clihelper.config import Config
    from clihelper.process.scoreboard import Slot
    from clihelper.process.signals import Signals
    from clihelper.process.statistics import ProcessStatistics
    from clihelper.process.systemd import Notifier

    class Host(Protocol):
        """What a loop calls; see the methods of the same names in the life cycle."""

        config: Config
        signals: Signals
        notifier: Notifier
        sockets: list[socket]
        watchers: set[Callable[[], object]]

        def retire(self) -> None: ...
        @property
        def worker(self) -> int: ...
        @property
        def slot(self) -> Slot | None: ...
        @property
        def statistics(self) -> ProcessStatistics: ...
        @property
        def is_running(self) -> bool: ...
        @property
        def interrupt(self) -> int: ...
        @property
        def begins_again(self) -> bool: ...
        @property
        def is_final(self) -> bool: ...
        @property
        def wake_interval(self) -> float: ...
        @property
        def decides_each_delay(self) -> bool: ...
        @property
        def has_process(self) -> bool: ...
        @property
        def process(self) -> Callable[[], Any]: ...
        @property
        def on_message(self) -> Callable[[Any, Any], Any]: ...
        @property
        def on_messages(self) -> Callable[[Any], Any]: ...
        @property
        def handles_batches(self) -> bool: ...
        @property
        def handlers(self) -> Handlers | None: ...
        def handler(self, name: str) -> Callable[[Any, Any], Any]: ...
        @property
        def order_key(self) -> Callable[[Any], Any] | None: ...
        @property
        def own_topology(self) -> tuple[Sequence[Any], Sequence[Any], str]: ...
        @property
        def appname(self) -> str: ...
        def ready(self) -> None: ...
        def idle(self) -> None: ...
        def sleeping(self) -> None: ...
        def active(self) -> None: ...
        def heartbeat(self) -> float | None: ...
        def serve_signals(self) -> None: ...


class Loop:
    """A way of waiting for work, used for one round from ``_setup`` to ``_cleanup``.

    :param host: the life cycle that the loop calls.
    """

    reads_signals = True
    """Whether :meth:`run` reads the signal pipe; otherwise signals are delivered to it."""

    polls_client = False
    """Whether :meth:`run` reads the client's connection while it is idle."""

    consumes = False
    """Whether :meth:`run` handles messages."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._stopping = False
        self._client: Any = None
        self._iterations: Any = None
        self._pid = os.getpid()

    @property
    def host(self) -> Host:
        """The life cycle."""
        return self._host

    def _check_owner(self) -> None:
        if os.getpid() != self._pid:
            from clihelper.amqp import forks

            raise RuntimeError(forks.fault(self._pid))

    @property
    def client(self) -> Any:
        """The client with which the controller publishes; it is created on first use.

        :raises RuntimeError: this process is a child of the one that runs the loop.
        """
        self._check_owner()
        if self._client is None:
            self.client = self.make_client()
        return self._client

    @client.setter
    def client(self, client: Any) -> None:
        from clihelper.amqp.partitions import Partitions

        section = self._host.config.amqp
        client.partitions = Partitions(section['queues'])
        client.declares = section['declare']
        if section['tracing']:
            from clihelper.amqp.traced_client import TracedAsyncClient, TracedClient

            kind = TracedClient if self.reads_signals else TracedAsyncClient
            client = kind(self._host, client)
        self._client = client

    def make_client(self) -> Any:
        """Make the client; it opens its connection when that is needed."""
        from clihelper.amqp.client import Client

        return Client.of(self._host, polled=self.polls_client)

    @property
    def iterations(self) -> Any:
        """What opens iterations over messages; it is created on first use.

        :raises RuntimeError: this process is a child of the one that runs the loop.
        """
        self._check_owner()
        if self._iterations is None:
            self._iterations = self.make_iterations()
        return self._iterations

    @iterations.setter
    def iterations(self, iterations: Any) -> None:
        self._iterations = iterations

    def make_iterations(self) -> Any:
        """Make what opens iterations over messages."""
        from clihelper.amqp.iterators import Iterations

        return Iterations(self._host, consumes=self.consumes)

    def end_iterations(self) -> None:
        """End the iterations that are still open: the round is over."""
        if self._iterations is not None:
            self._iterations.finish()

    @classmethod
    def preload(cls, config: Config) -> None:
        """Import what :meth:`run` needs, and nothing more: processes are forked afterwards."""

    def call(self, hook: Callable[[], Any]) -> Any:
        """Call ``_setup`` or ``_cleanup``."""
        return hook()

    def run(self) -> None:
        """Wait for work and do it until :meth:`stop`. Work in progress is finished first."""
        raise NotImplementedError

    def description(self) -> str:
        """What the loop waits for or works on, for USR2; empty if there is nothing to report.

        It is called in a different thread from :meth:`run`, and never waits.
        """
        return '' if self._iterations is None else self._iterations.description()

    def goes_on(self) -> bool:
        """Whether nothing has asked :meth:`run` to return."""
        return self._host.is_running and not self._stopping

    def stop(self) -> None:
        """Make :meth:`run` return. Called in the main thread, by :meth:`run` or while it runs."""
        self._stopping = True

    def leave(self) -> None:
        """Begin no more work. Called before ``_cleanup``, even if :meth:`run` was not called."""

    def close(self) -> None:
        """Release what the loop holds, after ``_cleanup``, without ever waiting for a peer."""
        if self._client is not None:
            self._client.close()


def wait_until(host: Host, goes_on: Callable[[], bool], due: float) -> None:
    """Wait; keep feeding the watchdog and serving signals.

    :param goes_on: whether there is a reason to keep waiting; a signal may remove it.
    :param due: when to stop waiting, by the monotonic clock.
    """
    while goes_on():
        watchdog_delay = host.heartbeat()
        left = due - time.monotonic()
        if left <= 0:
            return
        host.signals.wait(left if watchdog_delay is None else min(left, watchdog_delay))
        host.serve_signals()


def load(loop: str | type[Loop]) -> type[Loop]:
    """The loop class with that dotted name; a class is returned unchanged.

    Modules that are slow to import are imported here, and only for programs that need them.
    """
    if not isinstance(loop, str):
        return loop
    import importlib

    module, _, name = loop.rpartition('.')
    loaded: type[Loop] = getattr(importlib.import_module(module), name)
    return loaded


def processor_class(kind: Any, section: Mapping[str, Any]) -> Any:
    """Return the kind of processor to use in place of *kind*: the same, unless spans are wanted.

    :param section: ``AMQP``.
    """
    if not section['tracing']:
        return kind
    from clihelper.amqp.traced_processing import traced

    return traced(kind)
