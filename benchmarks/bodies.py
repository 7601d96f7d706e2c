"""CPU time a message of bodies in JSON that are validated, and of handlers chosen by type.

The handlers do nothing. Without an annotation a body is what ``json.loads`` returns.
"""

from __future__ import annotations

import statistics

from benchmarks.programs import Workshop
from benchmarks.stream import JSON
from benchmarks.tables import Table, paired_ratio
from benchmarks.throughput import Throughput

MOST, MORE = 1.0, 0.5
"""The bars: the CPU time of a Struct over that of ``json.loads``, and microseconds that a choice
among 20 handlers takes"""

PLAIN, STRUCT, HANDLERS = 'clihelper', 'clihelper Struct', 'clihelper handlers'

PROPERTIES = {'type': 'order.13', 'message_id': '9c9c4a0e-93f0-4a57-8a10-7b4e5a4a7c0d',
              'timestamp': 1_700_000_000, 'application_headers': {'traceparent': '0'}}
"""what is before the type, and has to be passed over"""


def measure(workshop: Workshop, quick: bool) -> Table:
    """Consume the same messages with one handler, with a Struct, and with 20 handlers."""
    body, properties = JSON
    message = (body, {**properties, **PROPERTIES})
    cpu = Throughput(workshop, [PLAIN, STRUCT, HANDLERS], message, quick).cpu
    rounds = len(cpu[PLAIN])
    table = Table(f'Bodies and handlers, CPU us a message; medians of {rounds} rounds',
                  ['CPU us', 'ratio', 'more us'])
    more = {name: statistics.median(
        one - other for one, other in zip(cpu[name], cpu[PLAIN], strict=True)) for name in cpu}
    for name, samples in cpu.items():
        ratio = f'{paired_ratio(cpu, name, PLAIN):.2f}x'
        table.row(name, statistics.median(samples), ratio, f'{more[name]:.2f}')
    table.bar('a Struct, CPU over json.loads', paired_ratio(cpu, STRUCT, PLAIN), MOST)
    table.bar('20 handlers by type, more us than one', more[HANDLERS], MORE)
    return table
