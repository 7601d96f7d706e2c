"""Whatever handlers and faults do, each message is handled, dead-lettered or queued in the end.

It begins with another seed each time; ``MODEL_SEED=4711 make test ARGS=tests/test_model.py``
repeats one, as far as processes and a broker repeat what they do.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from clihelper.testing import TIMEOUT
from tests.broker import Broker
from tests.model.plan import DELAYS, QUEUES, program_of, script
from tests.model.trial import ADVANCED_CONFIG, Trial
from tests.model.verdict import CAUSELESS, Verdict

MESSAGES, FAULTS = 100_000, 16
STALLED = 8.0

QUEUE = 'ledger-quorum'


def test_each_message_ends_as_its_plan_and_the_faults_allow(tmp_path, figure):
    """The short form of ``make faults ARGS=model``; about 20 s."""
    seed = int(os.environ.get('MODEL_SEED') or random.SystemRandom().randrange(10**6))
    figure('model test', f'seed {seed}')
    with Broker(advanced_config=ADVANCED_CONFIG) as broker:
        trial = Trial(str(tmp_path), broker, seed, MESSAGES, FAULTS, stalled=STALLED)
        trial.run()
    verdict = Verdict(trial)
    assert verdict.is_right, f'MODEL_SEED={seed}\n{verdict}'


class KilledBeforeItsLine(Trial):
    """One process is killed that has a message in hand, and has not begun its line yet.

    The journal's file is under a lease, so that the process that opens it waits in the kernel, and
    this one is told by a signal; see fcntl(2).
    """

    def _cause_faults(self) -> None:
        number = self._next[QUEUE]
        path = os.path.join(self.journal, str(number))
        (service,) = (each for each in self.services if each.name == program_of(number))
        with open(path, 'w') as file:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            with waiting_for(signal.SIGIO):
                self._publish(QUEUE, 1)
            self.faults._kill_worker(service, 'kill worker')

    def _finish(self) -> None:
        self._look_until(lambda: not self._unfinished(), TIMEOUT)


@contextmanager
def waiting_for(signum: int) -> Iterator[None]:
    """Wait in the end until the signal has come."""
    come = threading.Event()
    before = signal.signal(signum, lambda *_: come.set())
    try:
        yield
        assert come.wait(TIMEOUT)
    finally:
        signal.signal(signum, before)


def failing(number: int) -> int:
    """A seed with which all runs of a message fail."""
    def fails(seed: int) -> bool:
        first, last = script(seed, number)
        return all(step.what == 'raise_error' for step in (*first, last))

    return next(filter(fails, itertools.count()))


def test_a_message_in_hand_of_a_killed_process_has_had_a_run_though_its_handler_knows_of_none(
        tmp_path):
    """The program has noted it; what the handler has done of it nobody else could tell."""
    number = QUEUES.index(QUEUE) + len(QUEUES) * len(DELAYS)
    with Broker(advanced_config=ADVANCED_CONFIG) as broker:
        trial = KilledBeforeItsLine(str(tmp_path), broker, failing(number), messages=1)
        trial.run()
    verdict = Verdict(trial)
    assert [run.attempts for run in verdict.runs[number]] == [2, 3, 4]
    assert [(found.reason, found.attempts) for found in trial.found
            if found.number == number] == [('exception', 4)]
    assert verdict.is_right, verdict
    trial.faults.done.clear()
    unexplained = Verdict(trial).findings
    assert [finding.kind for finding in unexplained if finding.number == number] == [CAUSELESS]
