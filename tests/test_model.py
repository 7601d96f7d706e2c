"""Whatever handlers and faults do, each message is handled, dead-lettered or queued in the end.

It begins with another seed each time; ``MODEL_SEED=4711 make test ARGS=tests/test_model.py``
repeats one, as far as processes and a broker repeat what they do.
"""

from __future__ import annotations

import os
import random

from tests.broker import Broker
from tests.model.trial import ADVANCED_CONFIG, Trial
from tests.model.verdict import Verdict

MESSAGES, FAULTS = 100_000, 16
STALLED = 8.0


def test_each_message_ends_as_its_plan_and_the_faults_allow(tmp_path, figure):
    """The short form of ``make faults ARGS=model``; about 20 s."""
    seed = int(os.environ.get('MODEL_SEED') or random.SystemRandom().randrange(10**6))
    figure('model test', f'seed {seed}')
    with Broker(advanced_config=ADVANCED_CONFIG) as broker:
        trial = Trial(str(tmp_path), broker, seed, MESSAGES, FAULTS, stalled=STALLED)
        trial.run()
    verdict = Verdict(trial)
    assert verdict.is_right, f'MODEL_SEED={seed}\n{verdict}'
