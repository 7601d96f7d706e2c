"""What scraping ``Daemon.metrics`` ten times a second costs a consumer: CPU time a message."""

from __future__ import annotations

import socket
import statistics
import threading
import time
import urllib.request
from urllib.parse import urlsplit

from benchmarks.programs import LOGGING, Program, Workshop
from benchmarks.stream import HUNDRED, PREFETCH, Streams
from benchmarks.tables import Samples, Table, interleave, paired_ratio

ROUNDS = 9
COUNT = 500_000
INTERVAL = 0.1
LIMIT = 1.01


def measure(workshop: Workshop, quick: bool) -> Table:
    """Consume full queues, scraped and not, in turns."""
    streams, cpu, answers = Streams(workshop), {'not scraped': [], 'scraped': []}, []
    count = COUNT // 10 if quick else COUNT

    def rate(name: str) -> float:
        queue, port = streams.queue(), _free_port()
        streams.fill(queue, count + 2 * PREFETCH, *HUNDRED)
        stop = threading.Event()
        with _start(workshop, queue, port, count) as program:
            began, cpu_before = program.event(), program.event()
            if name == 'scraped':
                threading.Thread(target=_scrape, args=(port, stop, answers)).start()
            ended, cpu_after = program.event(), program.event()
            stop.set()
        streams.delete(queue)
        cpu[name].append((cpu_after - cpu_before) / count * 1e6)
        return count / (ended - began)

    rates = interleave(list(cpu), 1 if quick else ROUNDS, rate)
    for name in cpu:
        del cpu[name][0]  # of the round that does not count
    return _table(rates, cpu, answers)


def _table(rates: Samples, cpu: Samples, answers: list[float]) -> Table:
    table = Table(f'A consumer that is scraped every {INTERVAL} s', ['messages/s', 'CPU us'])
    for name, each in rates.items():
        table.row(name, statistics.median(each), statistics.median(cpu[name]))
    table.bar('scraped, CPU over not scraped', paired_ratio(cpu, 'scraped', 'not scraped'), LIMIT)
    print(f'/metrics of one process, of {len(answers)} answers the median:'
          f' {1000 * statistics.median(answers):.1f} ms')
    return table


def _start(workshop: Workshop, queue: str, port: int, count: int) -> Program:
    configuration = workshop.configuration(
        f'scraped-{queue}',
        f"Daemon: {{metrics: '127.0.0.1:{port}'}}\nAMQP:\n  url: {workshop.url}\n"
        f'  prefetch: {PREFETCH}\n  queues: {{{queue}: {{durable: true}}}}\n{LOGGING}')
    return workshop.run(
        f'clihelper_stream -f -c {configuration}', url=workshop.url,
        port=urlsplit(workshop.url).port, queue=queue, prefetch=PREFETCH, heartbeat=10,
        count=count)


def _scrape(port: int, stop: threading.Event, answers: list[float]) -> None:
    due = time.monotonic()
    while not stop.wait(max(due - time.monotonic(), 0)):
        due += INTERVAL
        began = time.monotonic()
        try:
            with urllib.request.urlopen(f'http://127.0.0.1:{port}/metrics', timeout=5) as answer:
                answer.read()
        except OSError:  # the program has ended
            continue
        answers.append(time.monotonic() - began)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port: int = probe.getsockname()[1]
        return port
