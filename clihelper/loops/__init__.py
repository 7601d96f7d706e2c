"""How a controller waits for work. One module for each way; none imports a controller.

A loop is handed the :class:`~clihelper.lifecycle.LifeCycle`, of which it uses what :class:`Host`
names, and nothing else.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    from clihelper.amqp.client import Client
    from clihelper.config import Config
    from clihelper.process.scoreboard import Slot
    from clihelper.process.signals import Signals
    from clihelper.process.systemd import Notifier

    class Host(Protocol):
        """What a loop calls; see the life cycle's methods of the same names."""

        config: Config
        signals: Signals
        notifier: Notifier

        def retire(self) -> None: ...
        @property
        def slot(self) -> Slot | None: ...
        @property
        def is_running(self) -> bool: ...
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
    """A way of waiting for work, for one round from ``_setup`` to ``_cleanup``.

    :param host: what it calls.
    """

    reads_signals = True
    """Whether :meth:`run` reads the signal pipe; otherwise signals are delivered to it."""

    polls_client = False
    """Whether :meth:`run` looks after the client's connection while that is idle."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._stopping = False
        self._client: Client | None = None
        self._pid = os.getpid()

    @property
    def client(self) -> Client:
        """What the controller publishes with; made when it is first used.

        :raises RuntimeError: this is a child of the process that runs the loop.
        """
        if os.getpid() != self._pid:
            from clihelper.amqp import forks

            raise RuntimeError(forks.fault(self._pid))
        if self._client is None:
            from clihelper.amqp.client import Client

            self._client = Client.of(self._host, polled=self.polls_client)
        return self._client

    @client.setter
    def client(self, client: Client) -> None:
        self._client = client

    @classmethod
    def preload(cls, config: Config) -> None:
        """Import what :meth:`run` needs, and nothing more: processes are forked after it."""

    def call(self, hook: Callable[[], Any]) -> Any:
        """Call ``_setup`` or ``_cleanup``."""
        return hook()

    def run(self) -> None:
        """Wait for work and do it, until :meth:`stop`. The work in hand is finished first."""
        raise NotImplementedError

    def description(self) -> str:
        """What it waits for or works at, for USR2; empty: there is nothing to say. It is called
        in another thread than :meth:`run`, and waits for nothing."""
        return ''

    def goes_on(self) -> bool:
        """Whether nothing has asked :meth:`run` to return."""
        return self._host.is_running and not self._stopping

    def stop(self) -> None:
        """Have :meth:`run` return. Called in the main thread, by :meth:`run` itself or in it."""
        self._stopping = True

    def close(self) -> None:
        """Release what the loop holds, after ``_cleanup``. It never waits for a peer."""
        if self._client is not None:
            self._client.close()


def wait_until(host: Host, goes_on: Callable[[], bool], due: float) -> None:
    """Wait, with the watchdog fed and signals served meanwhile.

    :param goes_on: whether there is a reason to wait on; a signal may end it.
    :param due: until when, by the monotonic clock.
    """
    while goes_on():
        watchdog_delay = host.heartbeat()
        left = due - time.monotonic()
        if left <= 0:
            return
        host.signals.wait(left if watchdog_delay is None else min(left, watchdog_delay))
        host.serve_signals()


def load(loop: str | type[Loop]) -> type[Loop]:
    """The loop of that dotted name; a class is returned as it is.

    What costs time to import is imported here, for the program that needs it.
    """
    if not isinstance(loop, str):
        return loop
    import importlib

    module, _, name = loop.rpartition('.')
    loaded: type[Loop] = getattr(importlib.import_module(module), name)
    return loaded
