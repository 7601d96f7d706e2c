"""The AMQP loop with one batch of messages at a time, in the main thread."""

from __future__ import annotations

import time
from math import inf

from clihelper.amqp.batch_processing import BatchProcessor, section_of
from clihelper.loops import processor_class
from clihelper.loops.consumer import ConsumerLoop
from clihelper.process.signals import wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clihelper.amqp.processing import ProcessorFactory
    from clihelper.loops import Host


PACE = 0.00001
"""seconds for each message of a full batch between two looks at what has arrived: at a rate of
100,000 messages a second it is full after that time"""


class BatchConsumerLoop(ConsumerLoop):
    """Consumes every queue of the ``AMQP`` section, and handles one batch after another.

    While messages come for a batch, they are read now and then, as many as there are by then:
    waking up for each of them would cost more than handling it.
    """

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        batch = section_of(self._section)
        self._pause = min(batch['wait'] / 20, batch['size'] * PACE)
        self._is_busy = False
        self._processor: BatchProcessor

    def make_processor(self) -> ProcessorFactory:
        kind = processor_class(BatchProcessor, self._section)
        return lambda *arguments: kind(*arguments, most=1)

    def _has_message(self) -> bool:
        """Whether there is a batch to handle, after all that has arrived has been read."""
        processor = self._processor
        self._collect()
        while processor.start_due <= time.monotonic():
            if processor.is_complete or not self._connection.drain():
                return True
            self._collect()
        return False

    def _collect(self) -> None:
        if self._deliveries:
            self._is_busy = True
        if self._subscription.returned:
            self._renew()
        self._processor.collect(self._deliveries)

    def _handle_what_is_here(self) -> None:
        batch = self._processor.next_message(self._deliveries)
        if batch is not None:
            self._host.active()
            self._processor.handle(batch)

    def _wait(self) -> None:
        if not self._is_busy or self._processor.start_due == inf:
            super()._wait()
            return
        self._is_busy = False
        self._host.sleeping()
        if wait_readable((self._host.signals.fileno(),), self._pause):
            self._host.serve_signals()

    @property
    def _due(self) -> float:
        return min(super()._due, self._processor.start_due)
