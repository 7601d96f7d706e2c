"""Programs that have begun to wait for work: what three of the tables are about."""

from __future__ import annotations

from benchmarks.programs import Program, Workshop

# What clihelper's programs have imported by then, so that a bare one pays for it as well.
FRAMEWORK = 'yaml argparse logging.config logging.handlers'

PAIRS = {'interval': 'bare', 'IOLoop': 'bare Tornado', 'consumer': 'bare kombu'}
"""clihelper's kinds of controllers, and the bare program to compare each with."""


class Idlers:
    """Starts them.

    :param workshop: what to start them with.
    :param queue: of the consumers, each of which has one of its own: it takes one message, and
        waits for more.
    :param heartbeat: of clihelper's consumer, in seconds; 0 for none.
    """

    def __init__(self, workshop: Workshop, queue: str, heartbeat: int = 10) -> None:
        self._workshop = workshop
        self._queue = queue
        interval = workshop.interval(60)
        consumer = workshop.consumer(self._queue_of('clihelper consumer'), heartbeat)
        self._commands = {
            'clihelper interval': f'clihelper_interval -f -c {interval}',
            'bare': 'bare_interval',
            'helper': f'helper_interval -f -c {interval}',
            'clihelper IOLoop': f'clihelper_ioloop -f -c {interval}',
            'bare Tornado': 'bare_ioloop',
            'clihelper consumer': f'clihelper_consumer -f -c {consumer}',
            'bare kombu': 'bare_consumer',
            'ConsumerMixin': 'mixin_consumer',
            'pika': 'pika_consumer',
        }

    @property
    def names(self) -> list[str]:
        """The programs' names."""
        return list(self._commands)

    def start(self, name: str, imports: str = '') -> Program:
        """Start one, and return when it has done its first work.

        :param imports: what a bare program is to import beside what it needs.
        """
        command = self._commands[name]
        if name in PAIRS.values():
            command = f'{command} {imports}'
        if 'consumer' in command:
            self._workshop.fill(self._queue_of(name), 1)
        program = self._workshop.run(
            command, url=self._workshop.url, queue=self._queue_of(name))
        try:
            program.event()
        except BaseException:
            program.__exit__()
            raise
        return program

    def _queue_of(self, name: str) -> str:
        return f'{self._queue}-{name}'.replace(' ', '-')
