"""Stops and reloads of HTTP servers on the IOLoop, under clients that ask without end."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import time

from benchmarks.idle import FRAMEWORK
from benchmarks.programs import LOGGING, Program, Workshop
from benchmarks.requests import free_port
from benchmarks.tables import Table
from faults.web_clients import Clients

KEPT, PIPELINING = 8, 3
HUPS, QUICK_HUPS = 20, 3
STOPS, QUICK_STOPS = 20, 3
WORK = 0.005
"""seconds that a handler takes"""

EXIT = 100.0
"""milliseconds from TERM to the end, on a quiet machine"""

QUIET = 40.0
"""milliseconds that bare Tornado takes there: what it takes more, clihelper may take, too"""

SETTLED = 0.2
"""seconds until the clients have noticed all"""

TIMEOUT = 2.0
"""stop_timeout, in seconds, for the client that stays"""

SETTING_UP = 1.0
"""seconds that a new round may take besides"""

SERVERS = {'one process': (1, True), '2 workers': (2, True), 'one process, app.listen': (1, False)}
"""how many workers there are, and whether they serve at Daemon.listen"""


BARE = 'bare Tornado'


def measure(workshop: Workshop, quick: bool) -> Table:
    """HUP and TERM each of them, and HUP them under a client that stays."""
    table = Table(f'{HUPS} HUPs, and TERM, under {KEPT} keep-alive clients (TERM: and '
                  f'{PIPELINING} pipelining ones); handlers of {WORK * 1000:g} ms',
                  ['answers', 'median', 'max'])
    for name in SERVERS:
        _reload(workshop, name, QUICK_HUPS if quick else HUPS, table)
    _stop(workshop, QUICK_STOPS if quick else STOPS, table)
    for name in SERVERS:
        _stay(workshop, name, table)
    return table


class Server:
    """A program, its port, and the events that it tells.

    :param timeout: its ``stop_timeout``, in seconds.
    """

    def __init__(self, workshop: Workshop, name: str, timeout: float = 60) -> None:
        self.program: Program
        self.port = free_port()
        if name == BARE:
            self.program = workshop.run(f'bare_web {self.port} {FRAMEWORK}', work=WORK)
            self.program.event()
            return
        self.workers, shares = SERVERS[name]
        listen = f'listen: "127.0.0.1:{self.port}", ' if shares else ''
        configuration = workshop.configuration(
            f'web-{self.port}', f'Application: {{port: {self.port}}}\nDaemon: {{{listen}'
            f'workers: {self.workers}, stop_timeout: {timeout}}}\n{LOGGING}')
        self.program = workshop.run(
            f'clihelper_web -f -c {configuration}', work=WORK)
        for _ in range(self.workers):
            self.program.event()

    def reload(self) -> float:
        """Send HUP; return the seconds until a new round is ready in each worker.

        By then each old one has ended, too, or has at least told how many requests it had.
        """
        sent = time.monotonic()
        os.kill(self.program.pid, signal.SIGHUP)
        times = [self.program.event() for _ in range(3 * self.workers)]
        return max(times) - sent  # the counts are smaller than any time


def _reload(workshop: Workshop, name: str, hups: int, table: Table) -> None:
    server = Server(workshop, name)
    times, most = [], 0
    with server.program, Clients(server.port, KEPT) as clients:
        for _ in range(hups):
            time.sleep(SETTLED)
            before = list(clients.closed)
            times.append(server.reload() * 1000)
            most = max(most, *(now - then for now, then
                               in zip(clients.closed, before, strict=True)))
        clients.end()
        server.program.terminate()
    table.row(f'HUP, {name}, ms to the last new round', clients.answers,
              statistics.median(times), max(times))
    table.bar(f'HUP, {name}: refused', clients.refused, 0)
    table.bar(f'HUP, {name}: reset, or closed unannounced',
              clients.resets + clients.unannounced, 0)
    table.bar(f'HUP, {name}: connections closed, of one client by one HUP', most, 1)


def _stop(workshop: Workshop, stops: int, table: Table) -> None:
    """Stop each of the servers, and bare Tornado, which answers nobody, in turns."""
    tallies = {name: Tally() for name in (*SERVERS, BARE)}
    for _ in range(stops):
        for name, tally in tallies.items():
            tally.add(workshop, name)
    for name, tally in tallies.items():
        table.row(f'TERM, {name}, ms to the end', tally.answers, statistics.median(tally.times),
                  max(tally.times))
    more = max(statistics.median(tallies[BARE].times) - QUIET, 0)
    for name in SERVERS:
        tally = tallies[name]
        table.bar(f'TERM, {name}: ms to the end', statistics.median(tally.times), EXIT + more)
        table.bar(f'TERM, {name}: begun and not answered', tally.begun - tally.answers, 0)
        table.bar(f'TERM, {name}: begun after', tally.late, 0)


class Tally:
    """What came of stopping one server many times."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.answers = self.begun = self.late = 0

    def add(self, workshop: Workshop, name: str) -> None:
        """Start it, have it answer for a moment, and stop it."""
        server = Server(workshop, name)
        with server.program, Clients(server.port, KEPT, PIPELINING) as clients:
            time.sleep(SETTLED)
            self.times.append(server.program.terminate() * 1000)
            clients.end()
            told = list(map(int, server.program.events()))
        self.begun += sum(told[::2])
        self.late += sum(told[1::2])
        self.answers += clients.answers


def _stay(workshop: Workshop, name: str, table: Table) -> None:
    server = Server(workshop, name, TIMEOUT)
    with server.program, socket.create_connection(('127.0.0.1', server.port)) as staying, \
            Clients(server.port, brief=4) as clients:
        staying.sendall(b'GET /events HTTP/1.1\r\nHost: x\r\n\r\n')
        staying.recv(1)
        took = server.reload()
        clients.end()
        server.program.terminate(128 + signal.SIGTERM)  # of the old worker that had it
    table.row(f'HUP, a client stays, {name}, s', clients.answers, took, took)
    table.bar(f'HUP, a client stays, {name}: s to the new round', took, TIMEOUT + SETTING_UP)
    table.bar(f'HUP, a client stays, {name}: refused or reset',
              clients.refused + clients.resets + clients.unannounced, 0)


