"""What has become of each message, and whether its plan and the faults allow it.

Delivery is at least once. A run whose outcome may not have reached the broker, because a fault
came upon it, may leave a second copy of its message. So a message may end as often as it has
copies: one, one for each such run, one for each time that it was published again, and one for each
fault that may have interrupted its being published anew.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tests.model import journal
from tests.model.broker import LIMIT, Found
from tests.model.faults import Fault
from tests.model.journal import Run
from tests.model.kind import KIND, UNSETTLED, WORKERS
from tests.model.plan import (
    ATTEMPTS,
    FAILED,
    HANDLED,
    KILLED,
    PROGRAMS,
    REJECTED,
    REJECTED_BY_HAND,
    program_of,
    queue_of,
    script,
)
from tests.model.trial import Trial

REACH = 0.6
"""seconds from the outcome of a run until the broker surely has what came of it"""

RENEWED_AT = LIMIT // 2
"""returns to its queue, from which on a message is published anew"""

RESTARTED = 5.0
"""seconds from the end of a process until the next one has looked at what ended it"""

AFTERWARDS = 20.0
"""seconds after the last run of a message of which its history tells"""

WAITED = 1.0
"""seconds that a message waits in the broker for its next run, at most"""

BACKOFF = 4.0
"""seconds more if the queue that it goes to is full"""

FLUSHED = 3.0
"""seconds until a broker's crash can hardly undo what it was told"""

NOTICED = 2.0
"""seconds in which a process goes on as if nothing had happened to its connection"""

HINDRANCES = ('full queues', 'full dead letters')
CRASHES = ('kill broker', 'stop broker')

LOST = 'lost'
UNDONE = 'lost by the broker'
DROPPED = 'dropped at the limit'
ACCUSED = 'accused'
CAUSELESS = 'dead for no reason'
TWICE = 'dead twice'
AGAIN = 'handled again'
TOO_OFTEN = 'run too often'
WRONG = (LOST, DROPPED, ACCUSED, CAUSELESS, TWICE, AGAIN, TOO_OFTEN)
"""What must not be. :data:`UNDONE` is the broker's: a classic queue does not wait for the queue
that it gives a message to when it is rejected by hand, so a crash may undo that"""


class Finding(NamedTuple):
    """Something that must not be."""

    kind: str
    number: int
    text: str


class Verdict:
    """All that was found of a trial.

    :ivar findings: what must not be.
    :ivar duplicates: how many ends there are beyond one for each message.
    :ivar allowed: how many there may be.
    :ivar queued: the messages that were left in queues to be handled.
    """

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._faults = trial.faults.done + list(self._told())
        self._numbers = trial.numbers
        self.runs = {number: journal.read(trial.journal, number) for number in self._numbers}
        self._found: dict[int, list[Found]] = defaultdict(list)
        for found in trial.found:
            self._found[found.number].append(found)
        self._kills = _kills(self.runs.values(), trial.faults.done)
        self._unseen = self._all_unseen()
        self._disruptions = {name: self._all_disruptions(name) for name in PROGRAMS}
        self.findings = [finding for number in self._numbers for finding in self._judge(number)]
        self.counts = Counter(finding.kind for finding in self.findings)
        ends = {number: self._ends(number) for number in self._numbers}
        self.duplicates = sum(max(count - 1, 0) for count in ends.values())
        self.allowed = self._allowed()
        self.queued = [number for number in self._numbers if self._waiting(number)]

    @property
    def is_right(self) -> bool:
        """Whether all is as it must be."""
        return (not any(self.counts[kind] for kind in WRONG) and not self.ends
                and self.duplicates <= self.allowed)

    @property
    def ends(self) -> list[str]:
        """Why programs have ended, where nobody had asked for it."""
        return [end for service in self._trial.services for end in service.ends]

    @property
    def dead(self) -> int:
        """How many dead letters there were."""
        return sum(found.queue.endswith(('.dead', '.rejected')) for found in self._trial.found)

    # One message.

    def _judge(self, number: int) -> Iterator[Finding]:
        dead = [found for found in self._found[number] if found.queue.endswith('.dead')]
        rejected = [found for found in self._found[number] if found.queue.endswith('.rejected')]
        copies = self._copies(number)
        if not self._ends(number) and not self._waiting(number):
            kind = UNDONE if self._is_undone(number) else LOST
            yield Finding(kind, number, 'nothing has become of it, and no queue has it')
        for found in dead:
            yield from self._judge_dead(number, found)
        for found in rejected:
            if found.reason != 'rejected':
                yield Finding(DROPPED, number, f'it is in {found.queue}: {found.reason}')
            elif not self._did(number, REJECTED_BY_HAND):
                yield Finding(CAUSELESS, number, 'it was never rejected by hand')
        letters = len(dead) + len(rejected)
        if letters > copies:
            yield Finding(TWICE, number, f'{letters} times, with at most {copies} copies')
        ends = self._did(number, HANDLED + REJECTED + REJECTED_BY_HAND)
        if ends > copies:
            yield Finding(AGAIN, number, f'{ends} runs have ended it, with at most {copies} '
                                         'copies')
        failed = self._did(number, FAILED)
        if failed > ATTEMPTS * copies:
            yield Finding(TOO_OFTEN, number, f'{failed} runs have failed, with at most '
                                             f'{copies} copies of {ATTEMPTS} attempts')

    def _judge_dead(self, number: int, found: Found) -> Iterator[Finding]:
        failed, deaths = self._did(number, FAILED), self._deaths(number)
        what = f'{found.reason}, attempts {found.attempts}; {failed} failed, {deaths} deaths'
        if found.reason == 'rejected':
            if not self._did(number, REJECTED):
                yield Finding(CAUSELESS, number, what)
        elif found.reason == 'exception':
            if not failed or failed + deaths < ATTEMPTS or found.attempts != ATTEMPTS:
                yield Finding(CAUSELESS, number, what)
        elif found.reason == 'crashed':
            if not deaths or failed + deaths < ATTEMPTS:
                yield Finding(ACCUSED, number, what)
        else:
            yield Finding(CAUSELESS, number, what)

    def _did(self, number: int, words: tuple[str, ...]) -> int:
        """How many of its runs had one of these outcomes."""
        return sum(run.what in words for run in self.runs[number])

    def _waiting(self, number: int) -> bool:
        """Whether it is in a queue, to be handled."""
        return any(not found.queue.endswith(('.dead', '.rejected'))
                   for found in self._found[number])

    def _ends(self, number: int) -> int:
        """How often it has come to an end."""
        return self._did(number, HANDLED) + sum(
            found.queue.endswith(('.dead', '.rejected')) for found in self._found[number])

    def _deaths(self, number: int) -> int:
        """How many processes may have died under it, as far as the program notes that."""
        if program_of(number) == 'bare':
            return 0
        return self._unseen[number] + sum(map(self._is_death, self.runs[number]))

    def _is_death(self, run: Run) -> bool:
        """Whether the process may have died before the program noted another message."""
        return run.ended is None or run.what in KILLED or any(
            run.ended <= when < run.ended + REACH for when in self._kills[run.pid])

    def _all_unseen(self) -> Counter[int]:
        """How many processes have died under each dead message before its journal had the run.

        A program notes that it has a message in hand, then calls the handler, which then adds to
        the journal. That a process was killed in between counts as a run: nobody could tell what
        the handler had done of it. The number of the next run shows it, and each process that was
        killed from outside while its journal had no run open explains one such run. Where several
        are handled at a time, each process that was killed explains one of each message.
        """
        kills = list(self._killers()) if KIND else self._kills_between_runs()
        unseen: Counter[int] = Counter()
        for number in self._found:
            for began, ended in self._gaps(number):
                kill = next(((fault, cause) for fault, cause in kills
                             if fault.program == program_of(number) and cause != number
                             and began <= fault.began <= ended), None)
                if kill is not None:
                    unseen[number] += 1
                    if not KIND:
                        kills.remove(kill)
        return unseen

    def _kills_between_runs(self) -> list[tuple[Fault, int | None]]:
        """The processes that were killed from outside while no handler ran."""
        running = {run.pid for runs in self.runs.values() for run in runs if run.ended is None}
        return [(fault, None) for fault in self._trial.faults.done
                if fault.pid and fault.pid not in running]

    def _killers(self) -> Iterator[tuple[Fault, int | None]]:
        """What has killed a process: from outside, or the handler of the message with a number."""
        for fault in self._trial.faults.done:
            if fault.pid:
                yield fault, None
        for number, runs in self.runs.items():
            for run in runs:
                if run.what in KILLED and run.ended is not None:
                    program = program_of(number)
                    yield Fault(run.what, program, run.ended, run.ended, run.pid), number

    def _gaps(self, number: int) -> Iterator[tuple[float, float]]:
        """The times in which the program has counted a run of a message that its journal lacks.

        A run among others is counted only after the message has killed a process alone, too.
        """
        before, counted = self._trial.published[number], 0
        for run in self.runs[number]:
            if run.attempts > counted + 1:
                yield before, run.began
            if not KIND:
                before = run.ended or run.began
            counted = run.attempts - (run.what not in FAILED) + self._is_death(run)
        for found in self._found[number]:
            if found.attempts > counted:
                yield before, found.when

    def _copies(self, number: int) -> int:
        """How many copies of it there may be."""
        return 1 + self._trial.republished[number] + self._renewals(number) + sum(
            self._is_interrupted(run) for run in self.runs[number])

    def _renewals(self, number: int) -> int:
        """How often it may have been interrupted that the message was published anew.

        Messages are, even those that were never run, when they have been returned so often that
        their queue may drop them soon.
        """
        if not queue_of(number).endswith('quorum'):
            return 0
        disruptions = [when for when in self._disruptions[program_of(number)]
                       if when > self._trial.published[number]]
        runs = [run.ended or run.began for run in self.runs[number]]
        earliest = sorted(disruptions + runs)[RENEWED_AT - 1:RENEWED_AT]
        return sum(when >= earliest[0] for when in disruptions) if earliest else 0

    def _all_disruptions(self, program: str) -> list[float]:
        """When any process of the program lost its connection, or stopped."""
        pids = {run.pid for number, runs in self.runs.items() if program_of(number) == program
                for run in runs}
        return [fault.ended for fault in self._faults
                if fault.program in ('', program) and fault.kind not in HINDRANCES] + [
                    when for pid in pids for when in self._kills[pid]]

    def _is_interrupted(self, run: Run) -> bool:
        """Whether the outcome of the run may not have reached the broker."""
        if run.ended is None or (run.what in KILLED and program_of(run.number) == 'bare'):
            return False
        full = any(self._is_of(fault, run) and fault.kind in HINDRANCES
                   and fault.began < run.ended + REACH and run.ended < fault.ended + BACKOFF
                   for fault in self._faults)
        latest = run.ended + self._reach(run)
        for fault in self._faults:
            if not self._is_of(fault, run) or fault.kind in HINDRANCES:
                continue
            if fault.orderly and not full:
                continue
            reach = BACKOFF if full else FLUSHED if fault.kind in CRASHES else 0.0
            if run.began <= fault.ended + NOTICED and fault.began <= latest + reach:
                return True
        return any(run.began <= when <= latest + BACKOFF * full and run.what not in KILLED
                   for when in self._kills[run.pid])

    def _is_undone(self, number: int) -> bool:
        """Whether a classic queue may have given it away, and that was lost in a crash."""
        last = self.runs[number][-1] if self.runs[number] else None
        if last is None or last.ended is None or not queue_of(number).endswith('classic'):
            return False
        if last.what not in REJECTED_BY_HAND:
            return False
        latest = last.ended + FLUSHED
        return any(fault.kind == CRASHES[0] and last.ended <= fault.ended
                   and fault.began <= latest for fault in self._faults)

    def _reach(self, run: Run) -> float:
        """Seconds after the run in which the broker surely has what comes of it.

        One that has ended its process is dead-lettered by the next one.
        """
        if run.what in KILLED:
            return RESTARTED
        return REACH + WAITED if run.what in FAILED else REACH

    def _is_of(self, fault: Fault, run: Run) -> bool:
        """Whether the fault comes upon the process of the run."""
        if fault.pid:
            return fault.pid == run.pid
        return fault.program in ('', program_of(run.number))

    # All messages.

    def _allowed(self) -> int:
        """A fault has at most the prefetch of each connection come again, besides the copies."""
        most = 2 * UNSETTLED  # of both queues
        total = sum(max(self._copies(number) - self._renewals(number) - 1, 0)
                    for number in self._numbers if self._did(number, FAILED))
        for fault in self._trial.faults.done:
            if fault.kind in HINDRANCES or fault.orderly:
                continue
            processes = {'': 2 + WORKERS, 'crew': WORKERS}.get(fault.program, 1)
            total += most * (1 if fault.pid else processes)
        return total + most * sum(map(len, self._kills.values())) + (
            self._trial.republished.total())

    # In words.

    def history(self, number: int) -> str:
        """All that is known of a message."""
        first, last = script(self._trial.seed, number)
        plan = [step.what for step in first] + [f'{last.what} from then on']
        span = [run.began for run in self.runs[number]] or [float('inf')]
        events = [(fault.began, f'{fault.kind} until {fault.ended:.3f}'
                   + (f', pid {fault.pid}' if fault.pid else '')) for fault in self._faults
                  if fault.program in ('', program_of(number))
                  and span[0] - RESTARTED < fault.ended and fault.began < span[-1] + AFTERWARDS]
        for run in self.runs[number]:
            events.append((run.began, f'pid {run.pid} RUNS IT: {run.facts}'))
            events.append((run.ended or run.began, f'pid {run.pid} DOES {run.what or "nothing"}'))
        events += [(found.when, f'FOUND in {found.queue}: {found.reason} attempts='
                                f'{found.attempts} returned={found.returned}')
                   for found in self._found[number]]
        events += self._logged(self.runs[number][-2:], program_of(number))
        lines = [f'{when:.6f} {text}' for when, text in sorted(events)]
        return '\n  '.join([f'message {number} in {queue_of(number)}, planned: {", ".join(plan)}',
                            *lines])

    def _by_queue(self, kind: str) -> str:
        counts = Counter(queue_of(each.number) for each in self.findings if each.kind == kind)
        return ', '.join(f'{queue} {count}' for queue, count in sorted(counts.items()))

    def _examples(self) -> Iterable[Finding]:
        """The first of each kind in each queue."""
        found: dict[tuple[str, str], Finding] = {}
        for finding in self.findings:
            if finding.kind in WRONG:
                found.setdefault((finding.kind, queue_of(finding.number)), finding)
        return found.values()

    def _told(self) -> Iterator[Fault]:
        """What programs say has happened to them, where nothing was caused.

        A busy machine may have nothing come for two heartbeats, and a queue of dead letters is
        full as soon as it has :data:`~tests.model.broker.MOST_DEAD`.
        """
        for service in self._trial.services:
            for line in service.log:
                word, _, rest = line.partition(' ')
                if not word.replace('.', '', 1).isdigit():
                    continue  # of a traceback
                when, pid = float(word), rest.partition(' ')[0]
                if 'lost the broker' in rest:
                    yield Fault('connection lost', service.name, when - NOTICED, when, int(pid))
                elif 'the broker has not taken the copy' in rest:
                    yield Fault('full dead letters', service.name, when, when, int(pid))

    def _logged(self, runs: list[Run], program: str) -> Iterator[tuple[float, str]]:
        """What the program has logged about the time of the runs."""
        (service,) = (each for each in self._trial.services if each.name == program)
        for line in service.log:
            word, _, rest = line.partition(' ')
            try:
                when = float(word)
            except ValueError:
                continue  # of a traceback
            if any(rest.startswith(f'{run.pid} ')
                   and run.began - 0.01 < when < (run.ended or run.began) + 0.1 for run in runs):
                yield when, f'log: {rest}'

    def __str__(self) -> str:
        lines = [f'seed {self._trial.seed}: {len(self._numbers)} messages, '
                 f'{len(self._trial.faults.done)} faults, {self.duplicates} duplicates of at most '
                 f'{self.allowed}, {len(self.queued)} left in queues']
        lines += [f'{kind}: {self.counts[kind]} ({self._by_queue(kind)})'
                  for kind in (*WRONG, UNDONE) if self.counts[kind]]
        lines += self.ends
        for finding in self._examples():
            lines.append(f'{finding.kind}: {finding.text}\n  {self.history(finding.number)}')
        lines += [f'counted at {counts}' for counts in (self._trial.stalled, self._trial.counted)
                  if counts]
        if self.queued:
            lines += ['left: ' + ', '.join(
                f'{queue} {count}' for queue, count in sorted(Counter(
                    found.queue for number in self.queued for found in self._found[number]
                    if not found.queue.endswith(('.dead', '.rejected'))).items())),
                self.history(self.queued[0])]
        return '\n'.join(lines)


def _kills(runs: Iterable[list[Run]], faults: list[Fault]) -> dict[int, list[float]]:
    """When each process was killed by a message, or alone from outside."""
    kills: dict[int, list[float]] = defaultdict(list)
    for run in (run for each in runs for run in each):
        if run.what in KILLED and run.ended is not None:
            kills[run.pid].append(run.ended)
    for fault in faults:
        if fault.pid:
            kills[fault.pid].append(fault.began)
    return kills
