"""The same with bodies of 4 KiB."""

from __future__ import annotations

from benchmarks.programs import Workshop
from benchmarks.stream import FOUR_KIB
from benchmarks.tables import Table
from benchmarks.throughput import Throughput

FASTER = 2.5


def measure(workshop: Workshop, quick: bool) -> Table:
    """Consume them, with the peers that are neither asynchronous nor slow."""
    names = ['clihelper', 'ConsumerMixin', 'pika', 'C, an ack per 100']
    runs = Throughput(workshop, names, FOUR_KIB, quick)
    table = runs.table('4 KiB bodies')
    runs.at_least(table, 'ConsumerMixin', FASTER)
    return table
