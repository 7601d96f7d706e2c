"""What the queues of a program hold, asked of the broker from time to time.

The questions are passive declarations on a channel of their own of the connection that consumes.
Nothing waits for the answers: they are read when the loop reads what arrives. So nothing is
disturbed, whatever the broker answers, and while a handler runs what was answered grows older.

Of all processes of a daemon, only the one whose turn it is asks.
"""

from __future__ import annotations

from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from clihelper.amqp.connection import Connection
    from clihelper.amqp.topology import Topology
    from clihelper.process.statistics import ProcessStatistics

INTERVAL = 5.0
"""seconds between two rounds of questions by the same daemon"""


class Depths:
    """Asks, and writes the answers for whoever looks.

    :param connection: the one that consumes.
    :param statistics: where the answers go.
    :param do_later: calls a function after some seconds, unless the connection is lost before.
    """

    def __init__(
        self, connection: Connection, statistics: ProcessStatistics,
        do_later: Callable[[Callable[[], None], float], None],
    ) -> None:
        self._connection = connection
        self._statistics = statistics
        self._do_later = do_later
        self._questions: dict[str, list[Callable[[int, int | None], None]]] = {}

    def begin(self, topology: Topology) -> None:
        """Ask about each queue that is consumed, and its dead letters, from now on."""
        self._questions.clear()
        for label in topology.queues:
            answered = partial(self._statistics.set_depth, label)
            self._questions.setdefault(topology.name_of(label), []).append(answered)
        dead = {label: topology.dead_letters_of(label) for label in topology.queues}
        for label, name in dead.items():
            if name:
                answered = partial(self._statistics.set_dead, label)
                self._questions.setdefault(name, []).append(answered)
        names = [*dead.values()]
        shared = {label: name for label, name in dead.items() if name and names.count(name) > 1}
        self._statistics.tell(shared_dead_letters=shared or None)
        self._go_on()

    def _go_on(self) -> None:
        self._do_later(self._go_on, INTERVAL)
        if not self._questions or not self._statistics.claims_question(INTERVAL):
            return
        with self._connection.guard():
            self._connection.transport.ask_depths(
                [*self._questions], self._on_answer, self._on_refused)

    def _on_answer(self, queue: str, messages: int, consumers: int | None) -> None:
        for answered in self._questions.get(queue, ()):
            answered(messages, consumers)

    def _on_refused(self, queue: str) -> None:
        """Ask no more about a queue that is not there, or that this user may not see."""
        self._questions.pop(queue, None)
