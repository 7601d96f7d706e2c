"""The main loop of a program that overrides ``_sleep`` or ``_wake``."""

from __future__ import annotations

import signal
import time

from clihelper.loops import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Protocol

    from clihelper.loops import Host

    class Driver(Protocol):
        """What the loop needs from the hook driver, which has these methods."""

        @property
        def program(self) -> Any: ...
        @property
        def is_going_on(self) -> bool: ...
        def hook(self, which: str) -> str | None: ...


class AlarmLoop(Loop):
    """Works, lets the program's ``_sleep`` sleep or set the alarm, and waits for the alarm.

    :param driver: the hook driver of the program.
    """

    def __init__(self, host: Host, driver: Driver) -> None:
        super().__init__(host)
        self._driver = driver
        self._rings = False

    def run(self) -> None:
        host, driver = self._host, self._driver
        host.ready()
        previous = signal.getsignal(signal.SIGALRM)
        if driver.hook('wake') is not None or not callable(previous):
            signal.signal(signal.SIGALRM, self._ring)
        try:
            while host.is_running and not self._stopping:
                self._work()
                self._sleep()
                host.serve_signals()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL if previous is None else previous)

    def _work(self) -> None:
        """Work at the start, and each time that ``_sleep`` itself has slept."""
        self._host.active()
        began = time.monotonic()
        self._host.process()
        self._host.statistics.ticks.run(time.monotonic() - began)
        self._host.serve_signals()
        if self._driver.is_going_on:
            self._call('sleep')

    def _sleep(self) -> None:
        """Sleep as long as an alarm is set; each alarm wakes the program, which sets the next."""
        host = self._host
        while host.is_running and not self._stopping:
            is_set = signal.getitimer(signal.ITIMER_REAL)[0] > 0
            if self._rings:
                self._rings = False
                host.active()
                self._call('wake', signal.SIGALRM, None)
            elif is_set:
                host.sleeping()
                host.signals.wait(host.heartbeat())
            else:
                return
            host.serve_signals()

    def _call(self, which: str, *arguments: object) -> None:
        name = self._driver.hook(which) or f'_{which}'
        getattr(self._driver.program, name)(*arguments)

    def _ring(self, signum: int, frame: FrameType | None) -> None:
        self._rings = True
