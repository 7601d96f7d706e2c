"""From exec to the first message handled, from RabbitMQ, of a queue that holds messages.

All of them connect, declare the durable queue, and consume it with a prefetch of 1; clihelper
declares the queue of the dead letters, too.
"""

from __future__ import annotations

from benchmarks.programs import Workshop
from benchmarks.tables import Table, distribution, interleave, paired_ratio

QUEUE = 'first'
COMMANDS = {
    'clihelper': 'clihelper_consumer -f -c {}',
    'pika': 'pika_consumer',
    'pika, configured': 'configured_pika_consumer -c {}',
    'bare py-amqp': 'amqp_consumer',
    'bare kombu': 'bare_consumer',
    'ConsumerMixin': 'mixin_consumer',
}


def measure(workshop: Workshop, quick: bool) -> Table:
    """Start, many times."""
    rounds = 3 if quick else 30
    workshop.fill(QUEUE, 10 * (rounds + 1) * len(COMMANDS))
    configuration = workshop.consumer(QUEUE, heartbeat=10)

    def wall(name: str) -> float:
        with workshop.run(
                COMMANDS[name].format(configuration), url=workshop.url, queue=QUEUE) as program:
            return (program.event() - program.started) * 1000

    samples = interleave(list(COMMANDS), rounds, wall)
    table = distribution('Exec to first message handled, ms', samples, 'pika')
    table.bar("clihelper, over pika's BlockingConnection",
              paired_ratio(samples, 'clihelper', 'pika'), 1)
    return table
