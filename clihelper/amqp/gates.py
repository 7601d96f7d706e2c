"""Decides which queues are consumed now, and which message may be handled.

A queue is not consumed while it is paused, or for the time that its breaker or its handler has
asked for; after that time one process of the daemon consumes one message of it, to try. A rate
delays the messages that have arrived::

    OPEN <-----------------------------.
      | paused, failures, Pause        | the message that was tried has not failed
      v                                |
    CLOSED -- the time is over --> TRIAL

What all processes share is in :mod:`clihelper.process.flow`.
"""

from __future__ import annotations

import enum
import logging
import time
from collections import deque
from math import ceil, inf

from clihelper.amqp import exception_text, settlement
from clihelper.errors import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from clihelper.amqp.message import Message
    from clihelper.amqp.topology import Topology
    from clihelper.process.flow import Entry, Flow

LOGGER = logging.getLogger('clihelper.amqp')

AHEAD = 5.0
"""seconds for which messages are prefetched where there is a rate"""

LONG = 10.0
"""seconds that prefetched messages wait because of a rate; for longer, they go back"""


class State(enum.Enum):
    """Whether a queue is consumed."""

    OPEN = 'consumed'
    TRIAL = 'one message is tried'
    CLOSED = 'not consumed'


OPEN, TRIAL, CLOSED = State.OPEN, State.TRIAL, State.CLOSED


class Gate:
    """One queue, or all partitions of one.

    :param label: its key in ``AMQP.queues``.
    :param entry: what the daemon's processes share about it.
    :param options: its options.
    :param section: ``AMQP``.
    :ivar labels: the labels of what is consumed: its own, or those of its partitions.
    :ivar keeps: whether its consumer stays while it is closed, and what has arrived is kept: a
        queue that is deleted with its last consumer, or a stream, which takes nothing back.
    :ivar interval: seconds from one message to the next; 0.0: there is no rate.
    :ivar parked: messages that have arrived and have to wait.
    :ivar released: those that need not wait any more, and have not begun.
    :ivar trying: the message that is tried.
    """

    def __init__(
        self, label: str, entry: Entry, options: Mapping[str, Any], section: Mapping[str, Any],
        *, keeps: bool,
    ) -> None:
        self.label = label
        self.entry = entry
        self.labels: list[str] = []
        self.keeps = keeps
        rate = options.get('rate')
        self.interval = 1 / rate if rate else 0.0
        breaker = options.get('breaker')
        self.breaker: Mapping[str, Any] | None = section['breaker'] if breaker is None else breaker
        self.state = OPEN
        self.parked: deque[Message] = deque()
        self.released: dict[Message, None] = {}
        self.trying: Message | None = None
        self.waits_until = 0.0

    def wanted(self, now: float) -> tuple[State, float]:
        """Return the state that it should have, and until when."""
        entry = self.entry
        if entry.paused:
            return CLOSED, inf
        until = entry.until
        if not until:
            return (CLOSED, self.waits_until) if self.waits_until > now else (OPEN, inf)
        if until > now:
            return CLOSED, until
        return (TRIAL if entry.claim() else CLOSED), inf

    def prefetch(self, most: int) -> int:
        """Return how many messages the broker should send ahead, at most so many."""
        if self.state is TRIAL:
            return 1
        if self.interval:
            return min(most, max(ceil(AHEAD / self.interval), 1))
        return most

    def forget(self) -> None:
        """Forget all messages: they will be delivered again."""
        self.parked.clear()
        self.released.clear()
        self.trying = None


class Gates:
    """All queues of one subscription. One thread uses them, but for :meth:`is_closed`.

    :param flow: what the daemon's processes share.
    :param topology: which queues there are.
    :param section: ``AMQP``.
    :ivar changes: its element changes when the processes have to :meth:`look`.
    :ivar seen: its value when this was done.
    :ivar is_watching: whether each message has to be asked for by :meth:`admit`.
    :ivar trying: whether a message is being tried.
    :ivar on_open: called with a queue that is to be consumed, and how many messages ahead.
    :ivar on_close: called with a queue that is not to be consumed any more.
    :ivar give_back: returns a message to its queue.
    :ivar keep: keeps a message unsettled while others are acknowledged.
    :ivar do_later: has a function called after so many seconds, unless the connection is lost.
    :ivar deliveries: messages that have arrived.
    """

    on_open: Callable[[Gate], None]
    on_close: Callable[[Gate], None]
    give_back: Callable[[Message], None]
    keep: Callable[[Message], None]
    do_later: Callable[[Callable[[], None], float], None]

    def __init__(self, flow: Flow, topology: Topology, section: Mapping[str, Any]) -> None:
        self._flow = flow
        self.changes = flow.changes
        self.seen = -1
        self.trying = False
        self.deliveries: deque[Message] = deque()
        self._gates: dict[str, Gate] = {}
        for label in topology.queues:
            self._add(label, topology, section)
        self._all = list({id(gate): gate for gate in self._gates.values()}.values())
        self._total = 1 / section['rate'] if section['rate'] else 0.0
        self._is_limited = any(gate.interval or self._total for gate in self._all)
        self.is_watching = self._is_limited
        self._due = inf
        self._is_connected = False

    def _add(self, label: str, topology: Topology, section: Mapping[str, Any]) -> None:
        options = topology.options_of(label)
        whole = label
        if 'partition' in options:
            whole = label.removesuffix(f'.{options["partition"]}')
        gate = self._gates.get(f'{whole}.0') if whole != label else None
        if gate is None:
            keeps = options['auto_delete'] or topology.is_stream(label)
            gate = Gate(whole, self._flow.entry(whole), options, section, keeps=keeps)
        gate.labels.append(label)
        self._gates[label] = gate

    def of(self, label: str) -> Gate:
        """Return the gate of a queue, or of a partition."""
        return self._gates[label]

    @property
    def must_ask(self) -> bool:
        """Whether :meth:`admit` has to be asked about the next message."""
        return self.is_watching or self.changes[0] != self.seen

    @property
    def consumed(self) -> list[str]:
        """The labels of what is consumed now, partitions each for itself."""
        return [label for label, gate in self._gates.items()
                if gate.keeps or gate.state is not CLOSED]

    @property
    def closed(self) -> list[str]:
        """The labels of queues that are not consumed now."""
        return [gate.label for gate in self._all if gate.state is CLOSED]

    def is_closed(self, label: str) -> bool:
        """Whether no message of a queue may begin, whatever was seen yet. For any thread."""
        entry = self._gates[label].entry
        return bool(entry.paused) or entry.until > time.monotonic()

    # What is consumed.

    def begin(self) -> None:
        """Begin with a new connection: nothing is consumed yet."""
        self.forget()
        self._look(())
        self._is_connected = True

    def forget(self) -> None:
        """Forget all messages: they will be delivered again; and what was to be done later."""
        for gate in self._all:
            gate.forget()
        self.trying = False
        self._due = inf

    def disconnect(self) -> None:
        """Note that the connection is lost."""
        self._is_connected = False
        self.forget()

    def leave(self) -> None:
        """Have other processes try what this one would have tried: it consumes no more."""
        for gate in self._all:
            if gate.state is TRIAL:
                gate.entry.leave()
                gate.state = CLOSED

    def look(self) -> None:
        """Consume what is to be consumed now, and nothing else.

        :raises Lost: the connection is lost.
        """
        if self._is_connected:
            self._due = inf
            self._look((OPEN, TRIAL, CLOSED))

    def _look(self, acting: Iterable[State]) -> None:
        self.seen = self.changes[0]
        now, due = time.monotonic(), inf
        changed = []
        for gate in self._all:
            state, until = gate.wanted(now)
            due = min(due, until)
            if state is not gate.state:
                changed.append((gate, gate.state))
                gate.state = state
        self._watch()
        for gate, before in changed:
            self._log(gate, before)
            if acting:
                self._act(gate, before)
        if due < inf:
            self._look_again(due - now)

    def _watch(self) -> None:
        self.is_watching = self._is_limited or any(
            gate.state is not OPEN or gate.parked or gate.released for gate in self._all)

    def _act(self, gate: Gate, before: State) -> None:
        if before is not CLOSED:
            self._close(gate)
        if gate.state is not CLOSED:
            if not gate.keeps:
                self.on_open(gate)
            self._release(gate, len(gate.parked))

    def _close(self, gate: Gate) -> None:
        """Consume a queue no more, and return what has arrived; but not what was run already."""
        self._recall(gate)
        gate.trying = None
        self.trying = any(each.trying for each in self._all)
        if gate.keeps:
            return
        self.on_close(gate)
        waiting, gate.parked = gate.parked, deque()
        for message in waiting:
            self.turn_away(message)

    def _log(self, gate: Gate, before: State) -> None:
        entry = gate.entry
        if gate.state is TRIAL:
            LOGGER.info('queue %s: one message is tried', gate.label)
        elif gate.state is OPEN:
            LOGGER.info('queue %s is consumed', gate.label)
        elif entry.paused:
            LOGGER.info('queue %s is paused', gate.label)
        else:
            LOGGER.debug('queue %s is not consumed for now', gate.label)

    def _look_again(self, seconds: float) -> None:
        due = time.monotonic() + seconds
        if due < self._due:
            self._due = due
            self.do_later(self.look, max(seconds, 0.0))

    # Which message begins.

    def admit(self, message: Message) -> bool:
        """Return whether a message may begin; otherwise it waits, or has been returned.

        :raises Lost: the connection is lost.
        """
        if self.changes[0] != self.seen:
            self.look()
        gate = self._gates[message.queue]
        is_first = message in gate.released
        if gate.state is CLOSED:
            gate.released.pop(message, None)
            self.turn_away(message)
            return False
        waits = inf if gate.parked and not is_first else 0.0
        if gate.state is TRIAL and gate.trying not in (None, message):
            waits = inf
        waits = waits or self._take_turn(gate)
        if not waits:
            self._note_begun(gate, message)
            return True
        self._park(gate, message, first=is_first)
        if waits < inf:
            self._wait_for_turn(gate, waits)
        return False

    def _note_begun(self, gate: Gate, message: Message) -> None:
        gate.released.pop(message, None)
        if gate.state is TRIAL:
            gate.trying, self.trying = message, True
        elif not self._is_limited:
            self._watch()
        elif gate.parked and not gate.released:
            self._wait_for_turn(gate, max(self._next_turn(gate) - time.monotonic(), 0.0))

    def is_tried(self, message: Message) -> bool:
        """Whether a message shows whether its queue can be consumed again."""
        return self.trying and self._gates[message.queue].trying is message

    def ended(self, message: Message) -> None:
        """Note that a message was handled; if it was tried, it has not failed."""
        gate = self._gates[message.queue]
        if gate.trying is message:
            gate.trying = None
            self.trying = any(each.trying for each in self._all)
            if gate.state is TRIAL:
                gate.entry.succeed()
                self.look()

    def _take_turn(self, gate: Gate) -> float:
        """Return 0.0 if the rate admits a message now, else for how many seconds it does not."""
        limits = self._limits(gate)
        if not limits:
            return 0.0
        with self._flow.locked():
            now = time.monotonic()
            wait = self._next_turn(gate) - now
            if wait > 0:
                return wait
            for entry, interval in limits:
                entry.take(interval, now)
        return 0.0

    def _limits(self, gate: Gate) -> list[tuple[Entry, float]]:
        both = (gate.entry, gate.interval), (self._flow.total, self._total)
        return [(entry, interval) for entry, interval in both if interval]

    def _next_turn(self, gate: Gate) -> float:
        """When the rates admit the next message, by the monotonic clock."""
        return max((entry.next for entry, _ in self._limits(gate)), default=0.0)

    def _wait_for_turn(self, gate: Gate, seconds: float) -> None:
        if seconds > LONG:
            gate.waits_until = time.monotonic() + seconds
            self.look()
        else:
            self.do_later(lambda: self._release_in_turn(gate), seconds)

    def _release_in_turn(self, gate: Gate) -> None:
        """Have messages handled whose turn has come."""
        interval = max(gate.interval, self._total)
        if interval and gate.state is not CLOSED:
            self._release(gate, 1 + int(SOON / interval))

    def _release(self, gate: Gate, count: int) -> None:
        """Have so many messages of those that wait handled next."""
        messages = [gate.parked.popleft() for _ in range(min(count, len(gate.parked)))]
        gate.released.update(dict.fromkeys(messages))
        self.is_watching = True
        self.deliveries.extendleft(reversed(messages))

    def _recall(self, gate: Gate) -> None:
        """Have those that were released wait again, in their order."""
        for message in reversed(list(gate.released)):
            if message in self.deliveries:
                self.deliveries.remove(message)
                gate.parked.appendleft(message)
        gate.released.clear()

    def _park(self, gate: Gate, message: Message, *, first: bool) -> None:
        self.keep(message)
        if first:
            gate.released.pop(message)
            self._recall(gate)
            gate.parked.appendleft(message)
        else:
            gate.parked.append(message)

    def turn_away(self, message: Message) -> None:
        """Return a message; one that has been run, and waits here for its next run, is kept."""
        gate = self._gates[message.queue]
        if gate.keeps or message.has_run_here:
            self._park(gate, message, first=False)
        else:
            self.give_back(message)

    # What closes a queue for a while.

    def failed(self, message: Message, error: BaseException) -> bool:
        """Return whether a failure is not the message's, which goes back to its queue uncounted.

        :param error: what its handler has raised.
        :raises Lost: the connection is lost.
        """
        gate = self._gates[message.queue]
        if exception_text.is_a(error, settlement.Pause):
            seconds = settlement.pause_of(error)
            gate.entry.close(seconds, 'handler')
            LOGGER.warning('queue %s is not consumed for %g s, as its handler has asked; then one'
                           ' message is tried', gate.label, seconds)  # fmt: skip
            self.look()
            return True
        breaker = gate.breaker
        if not breaker or exception_text.is_a(error, settlement.BLAMELESS):
            return False
        if gate.entry.until:
            if gate.trying is message:
                self._break(gate, breaker, 'the message that was tried has failed', error)
            return True
        if gate.entry.fail(breaker['failures'], breaker['within']):
            failures = counted(breaker['failures'], 'failure')
            self._break(gate, breaker, f'{failures} within {breaker["within"]:g} s', error)
            return True
        return False

    def _break(
        self, gate: Gate, breaker: Mapping[str, Any], why: str, error: BaseException
    ) -> None:
        gate.entry.close(breaker['pause'], 'breaker')
        LOGGER.error(
            'queue %s is not consumed for %g s, then one message is tried: %s, the last: %s: %s',
            gate.label, breaker['pause'], why, exception_text.name(error),
            exception_text.text(error)[: exception_text.SHOWN],
        )  # fmt: skip
        self.look()


SOON = 0.005
"""seconds within which several messages are released at the same time"""

