"""The AMQP loop with one batch of messages at a time, in the main thread."""

from __future__ import annotations

import time

from clihelper.amqp.batch_processing import BatchProcessor
from clihelper.loops.consumer import ConsumerLoop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clihelper.amqp.processing import ProcessorFactory
    from clihelper.loops import Host


class BatchConsumerLoop(ConsumerLoop):
    """Consumes every queue of the ``AMQP`` section, and handles one batch after another."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._processor: BatchProcessor

    def make_processor(self) -> ProcessorFactory:
        return lambda *arguments: BatchProcessor(*arguments, most=1)

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
        if self._subscription.returned:
            self._renew()
        self._processor.collect(self._deliveries)

    def _handle_what_is_here(self) -> None:
        batch = self._processor.next_message(self._deliveries)
        if batch is not None:
            self._host.active()
            self._processor.handle(batch)

    @property
    def _due(self) -> float:
        return min(super()._due, self._processor.start_due)
