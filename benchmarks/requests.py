"""Requests a second of hello world, by wrk(1): an IOLoop controller beside bare Tornado."""

from __future__ import annotations

import re
import socket
import statistics
import subprocess

from benchmarks.idle import FRAMEWORK
from benchmarks.programs import LOGGING, Program, Workshop
from benchmarks.tables import Table, interleave, paired_ratio

CONNECTIONS = 8
SECONDS, QUICK_SECONDS = 2, 1
ROUNDS, QUICK_ROUNDS = 15, 2

SHARE = 0.98
"""of the requests that bare Tornado answers"""

PASSES = 3
"""What else runs on the machine tells in single rounds: a bar that is missed has another chance"""


def measure(workshop: Workshop, quick: bool) -> Table:
    """Run both side by side, and have wrk ask one after the other."""
    ports = {'clihelper': free_port(), 'bare Tornado': free_port()}
    configuration = workshop.configuration(
        'requests', f'Application: {{port: {ports["clihelper"]}}}\n{LOGGING}')
    rounds = QUICK_ROUNDS if quick else ROUNDS
    with workshop.run(f'clihelper_web -f -c {configuration}') as daemon, \
            workshop.run(f'bare_web {ports["bare Tornado"]} {FRAMEWORK}') as bare:
        daemon.event()
        bare.event()

        def rate(name: str) -> float:
            return _wrk(ports[name], QUICK_SECONDS if quick else SECONDS)

        for _ in range(PASSES):
            samples = interleave(list(ports), rounds, rate)
            ratio = paired_ratio(samples, 'bare Tornado', 'clihelper')
            if ratio <= 1 / SHARE:
                break
        _end(daemon, bare)
    table = Table(f'Requests/s of {CONNECTIONS} connections, medians of {rounds} rounds, each of '
                  'one after the other', ['median', 'min', 'max', 'ratio'])
    for name, values in samples.items():
        table.row(name, statistics.median(values), min(values), max(values),
                  f'{paired_ratio(samples, name, "bare Tornado"):.3f}x')
    table.bar(f'bare Tornado over clihelper: 1/{SHARE}', ratio, 1 / SHARE)
    return table


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port: int = probe.getsockname()[1]
        return port


def _wrk(port: int, seconds: float) -> float:
    command = ['wrk', '-t1', f'-c{CONNECTIONS}', f'-d{seconds}s', f'http://127.0.0.1:{port}/']
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r'Requests/sec: +([\d.]+)', printed)
    if found is None or 'Socket errors' in printed or 'Non-2xx' in printed:
        raise RuntimeError(printed)
    return float(found[1])


def _end(*programs: Program) -> None:
    for program in programs:
        program.terminate()
