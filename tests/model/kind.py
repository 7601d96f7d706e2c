"""Which kind of consumers is tried.

MODEL_KIND in the environment says it: ``threads`` or ``coroutines``; by default they handle one
message at a time.
"""

from __future__ import annotations

import os

KIND = os.environ.get('MODEL_KIND', '')

SEVERAL = {'': '', 'threads': 'threads: 8', 'coroutines': 'concurrency: 100'}[KIND]
"""What the section ``AMQP`` says of it"""

PREFETCH = 20

UNSETTLED = 100 if KIND == 'coroutines' else PREFETCH
"""messages of one queue, at most, that a process has not settled"""

WORKERS = 2
