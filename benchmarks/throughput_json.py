"""The same with bodies in JSON, which are decoded before they are handed over."""

from __future__ import annotations

from benchmarks.programs import Workshop
from benchmarks.stream import JSON
from benchmarks.tables import Table
from benchmarks.throughput import Throughput

FASTER, LESS_CPU = 2.8, 0.16


def measure(workshop: Workshop, quick: bool) -> Table:
    """Consume JSON of 100 bytes, beside the peer that decodes it as well."""
    runs = Throughput(workshop, ['clihelper', 'ConsumerMixin'], JSON, quick)
    table = runs.table('JSON decoded')
    runs.at_least(table, 'ConsumerMixin', FASTER)
    runs.at_most(table, 'ConsumerMixin', LESS_CPU)
    return table
