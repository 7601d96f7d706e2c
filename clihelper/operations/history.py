"""What a daemon did in the last hour, for the plots of the page.

It is kept by the process that serves the page: so it begins when that began.
"""

from __future__ import annotations

import time
from collections import deque

from clihelper.process.statistics import QueueFigures

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from clihelper.process.statistics import Figures

INTERVAL = 10.0
"""seconds between two samples"""

KEPT = 360
"""samples that are kept: an hour"""

MOST_QUEUES = 64
"""queues of which samples are kept"""

MOST_ERRORS = 20
"""errors that are kept"""


class History:
    """The samples, and the last errors.

    :ivar int number: of the last sample.
    :ivar samples: the last ones, the oldest first: its ``number``, its ``time`` in seconds since
        the epoch, the ``seconds`` since the one before, and of each queue ``[runs, failed, p50,
        p99, ready]``: the first two in these seconds, and in seconds what half of the runs took
        at most, and 99 of 100.
    """

    def __init__(self) -> None:
        self.number = 0
        self.samples: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._before: dict[str, QueueFigures] | None = None
        self._taken = 0.0
        self._errors: deque[dict[str, Any]] = deque(maxlen=MOST_ERRORS)

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The last errors that were seen, the newest first."""
        return sorted(self._errors, key=lambda error: -error['time'])

    def note_errors(self, processes: list[Figures], ended: Figures) -> None:
        """Keep the last error of each process, if it is new."""
        found = [each.report['last_error'] for each in (*processes, ended)
                 if 'last_error' in each.report]
        for error in sorted(found, key=lambda each: each['time']):
            if error not in self._errors:
                self._errors.append(error)

    def sample(self, queues: dict[str, QueueFigures]) -> None:
        """Take a sample.

        :param queues: the sums over all processes.
        """
        now = time.monotonic()
        queues = dict(list(queues.items())[:MOST_QUEUES])
        if self._before is not None:
            self.number += 1
            self.samples.append({
                'number': self.number,
                'time': round(time.time(), 1),
                'seconds': round(now - self._taken, 3),
                'queues': {name: _row(figures, self._before.get(name, QueueFigures()), now)
                           for name, figures in queues.items()},
            })
        self._before, self._taken = queues, now


def _row(figures: QueueFigures, before: QueueFigures, now: float) -> list[float | None]:
    """Return what was done of a queue's messages since a sample before."""
    since = QueueFigures()
    since.histogram = [max(a - b, 0)
                       for a, b in zip(figures.histogram, before.histogram, strict=True)]
    failed = max(figures.outcomes['failed'] - before.outcomes['failed'], 0)
    is_known = figures.depth is not None and now - figures.depth[2] < 2 * INTERVAL
    ready = figures.depth[0] if figures.depth and is_known else None
    return [since.runs, failed, since.quantile(0.5), since.quantile(0.99), ready]
