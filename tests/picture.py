"""Draws the pictures of the live page for the documentation: ``python -m tests.picture``.

What they show is made up: four workers of a shop, an hour with a few minutes of trouble in it.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import math
import multiprocessing
import os
import random
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from clihelper.config import parse
from clihelper.operations import history, page, web
from clihelper.process.statistics import _PID, _REAL, _STARTED, _WHOLE, Statistics
from clihelper.states import State
from tests.browser import Browser

DOCS = Path(__file__).resolve().parent.parent / 'docs'

CONFIGURATION = """\
Application: {wake_interval: 60, warehouse: north, api_key: 1234}
Daemon: {workers: 4, user: orders, metrics: 'localhost:9321'}
AMQP:
  url: amqp://orders:secret@mq1:5672//shop
  queues: {orders: , invoices: , mails: }
"""
ERROR = 'OperationalError: connection to the database timed out'
TYPICAL = {'orders': (24.0, 0.012), 'invoices': (9.0, 0.045), 'mails': (4.0, 0.180)}
FRACTIONS = {'orders': 0.6, 'invoices': 0.25, 'mails': 0.15}


def sample(number: int, now: float, chance: random.Random) -> dict[str, Any]:
    """Return what was done in some seconds of the hour."""
    trouble = max(0.0, 1 - abs(number - 235) / 14)
    queues = {}
    for name, (rate, seconds) in TYPICAL.items():
        wave = 1 + 0.25 * math.sin(number / 40 + len(name)) + chance.uniform(-0.12, 0.12)
        runs = int(10 * rate * wave * (1 - 0.8 * trouble))
        slower = 1 + chance.uniform(-0.1, 0.15) + 6 * trouble
        failed = int(runs * 0.35 * trouble) if name == 'orders' else 0
        ready = int(chance.uniform(0, 20) + 900 * FRACTIONS[name] * max(
            0.0, 1 - abs(number - 246) / 26))
        queues[name] = [runs, failed, seconds * slower, 3.4 * seconds * slower, ready]
    return {'number': number, 'time': now - history.INTERVAL * (history.KEPT - number),
            'seconds': history.INTERVAL, 'queues': queues}


def filled(statistics: Statistics, pids: list[int], error: str) -> history.History:
    """Write what four workers have done, and return the hour before."""
    chance, now = random.Random(14), time.time()
    found = history.History()
    found.samples.extend(sample(number, now, chance) for number in range(1, history.KEPT + 1))
    found.number = history.KEPT
    workers = [statistics.slot(number) for number in range(4)]
    for number, worker in enumerate(workers):
        worker.begin(number + 1)
        _WHOLE.pack_into(worker._memory, worker._offset + _PID, pids[number])
        _REAL.pack_into(worker._memory, worker._offset + _STARTED, now - 2211 + number)
        worker.set_state(State.ACTIVE if number % 2 else State.SLEEPING)
        worker.tell(broker={'url': 'amqp://orders:**@mq1:5672//shop', 'consuming': True,
                            'since': now - 2210})
        for name, (rate, seconds) in TYPICAL.items():
            queue = worker.queues[name]
            for _ in range(int(rate * 15)):
                queue.run(seconds * chance.lognormvariate(0, 0.5))
            worker.set_depth(name, len(name), 4)
            worker.set_dead(name, 0)
        for _ in range(8):
            worker.queues['orders'].count('failed')
            worker.queues['orders'].count('retry')
        for _ in range(3 + number):
            worker.queues['orders'].count('dead_letter')
            worker.count_dead_letter('orders', 'exception', 'OperationalError')
        worker.set_dead('orders', 20)
        worker.sample()
        worker.tell(last_error={
            'time': now - 1200 - 7 * number, 'outcome': 'dead-lettered',
            'message': f'queue orders, message_id {48211 + number}',
            'error': error})
    workers[1].since[0] = time.monotonic() - 0.3
    workers[2].count_dead_letter('orders', 'invalid', '')
    return found


def serve(listening: socket.socket, ending: int, error: str) -> None:
    """Serve the page of a daemon that is made up, until the descriptor *ending* is readable."""
    logging.disable()
    statistics = Statistics.make(4)
    now = time.time()
    statistics.tell(program='orders', version='1.2', pid=4242, started=now - 274_500, workers=4,
                    config='/etc/orders.yml', config_read=now - 7800)
    config = parse(CONFIGURATION.encode(), '/etc/orders.yml', appname='orders',
                   shown='orders.yml')
    statistics.tell_configuration(config.shown())
    workers = [multiprocessing.Process(target=signal.pause) for _ in range(4)]
    for worker in workers:
        worker.start()
    past = filled(statistics, [worker.pid or 0 for worker in workers], error)
    page.History = lambda: past  # type: ignore[assignment, misc]
    try:
        web.run(statistics, [listening], [], {'name': 'orders'}, [ending])
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


@contextlib.contextmanager
def shop(error: str = ERROR, buffer: int = 0) -> Any:
    """The URL of the page, while it is served.

    :param error: the last one of each worker.
    :param buffer: the bytes that the kernel keeps for a client; 0: as it likes.
    """
    with socket.create_server(('127.0.0.1', 0)) as listening:
        url = f'http://127.0.0.1:{listening.getsockname()[1]}/'
        listening.setblocking(False)
        if buffer:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        reading, writing = os.pipe()
        process = multiprocessing.get_context('fork').Process(
            target=serve, args=(listening, reading, error))
        process.start()
    try:
        yield url
    finally:
        os.write(writing, b'.')
        process.join(5)
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
        os.close(reading)
        os.close(writing)


SHOWN = """
new Promise(resolve => {
    const look = () => document.querySelector('#connection').textContent === 'Live'
        && document.querySelectorAll('.curve').length ? resolve() : setTimeout(look, 50);
    look();
})
"""


def draw(browser: Browser, url: str, file: Path, width: int, scheme: str, height: int) -> None:
    browser.call('Emulation.setScrollbarsHidden', hidden=True)
    browser.look(width, scheme)
    browser.open(url)
    browser.evaluate(SHOWN)
    browser.call('Emulation.setDeviceMetricsOverride', width=width, height=height,
                 deviceScaleFactor=1, mobile=False)
    image = browser.call('Page.captureScreenshot', format='png')
    file.write_bytes(base64.b64decode(image['data']))


def main(folder: Path = DOCS) -> None:
    with tempfile.TemporaryDirectory() as profile, shop() as url, \
            Browser(Path(profile)) as browser:
        for scheme in ('light', 'dark'):
            draw(browser, url, folder / f'page-{scheme}.png', 1100, scheme, 960)


if __name__ == '__main__':
    main()
