"""A Chromium without a screen, driven over a pipe by the DevTools protocol."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Self

CHROMIUM = '/usr/bin/chromium'

#: How long one answer, or the loading of a page, may take (seconds).
PATIENCE = 60

OPTIONS = (
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--disable-breakpad', '--remote-debugging-pipe',
)


class BrowserError(Exception):
    """The browser has refused a command, or a script in a page has raised."""


class Browser:
    """One browser with one page.

    :param folder: empty, for its profile.
    :ivar events: what it has reported and nobody has taken yet: (method, parameters).
    """

    def __init__(self, folder: Path) -> None:
        self.events: collections.deque[tuple[str, dict[str, Any]]] = collections.deque()
        self._buffer = b''
        self._number = 0
        self._session = ''
        self._process = self._start(folder)

    def _start(self, folder: Path) -> subprocess.Popen[bytes]:
        """It reads commands from descriptor 3, and writes answers and events to 4."""
        commands, self._out = os.pipe()
        self._in, answers = os.pipe()
        try:
            return subprocess.Popen(
                ['sh', '-c', f'exec "$@" 3</dev/fd/{commands} 4>/dev/fd/{answers}', 'sh',
                 CHROMIUM, *OPTIONS, f'--user-data-dir={folder}', 'about:blank'],
                pass_fds=(commands, answers), start_new_session=True,
                env={**os.environ, 'HOME': str(folder)},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        finally:
            os.close(commands)
            os.close(answers)

    def __enter__(self) -> Self:
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        attached = self.call('Target.attachToTarget', targetId=target, flatten=True)
        self._session = attached['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.call(f'{domain}.enable')
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Have a command carried out.

        :raises BrowserError: it is refused.
        :returns: its result.
        """
        self._number += 1
        command = {'id': self._number, 'method': method, 'params': parameters}
        if self._session:
            command['sessionId'] = self._session
        self._write(json.dumps(command).encode() + b'\0')
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._read(deadline)
            if answer.get('id') == self._number:
                break
            self._note(answer)
        if 'error' in answer:
            raise BrowserError(f'{method}: {answer["error"]}')
        result: dict[str, Any] = answer['result']
        return result

    def open(self, url: str) -> None:
        """Load a page, up to its ``load`` event.

        :raises BrowserError: it cannot be loaded.
        """
        self.events.clear()
        result = self.call('Page.navigate', url=url)
        if 'errorText' in result:
            raise BrowserError(f'{url}: {result["errorText"]}')
        deadline = time.monotonic() + PATIENCE
        while all(method != 'Page.loadEventFired' for method, _ in self.events):
            self._note(self._read(deadline))

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page; a promise is awaited.

        :raises BrowserError: it raises.
        """
        result = self.call('Runtime.evaluate', expression=expression, awaitPromise=True,
                           returnByValue=True, userGesture=True)
        if 'exceptionDetails' in result:
            raise BrowserError(result['exceptionDetails'])
        return result['result'].get('value')

    def look(self, width: int, scheme: str) -> None:
        """Have the window be so many pixels wide, and the user prefer ``light`` or ``dark``.

        When it returns, the page has been drawn so.
        """
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=800,
                  deviceScaleFactor=1, mobile=False)
        self.call('Emulation.setEmulatedMedia',
                  features=[{'name': 'prefers-color-scheme', 'value': scheme}])
        self.evaluate('new Promise(resolve => requestAnimationFrame('
                      '() => requestAnimationFrame(() => resolve())))')

    def _note(self, message: dict[str, Any]) -> None:
        if 'method' in message:
            self.events.append((message['method'], message['params']))

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._out, data):]

    def _read(self, deadline: float) -> dict[str, Any]:
        while b'\0' not in self._buffer:
            if not select.select([self._in], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f'the browser has not answered for {PATIENCE} seconds')
            data = os.read(self._in, 1 << 20)
            if not data:
                raise BrowserError(f'the browser has ended: {self._process.wait()}')
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b'\0')
        message: dict[str, Any] = json.loads(text)
        return message
