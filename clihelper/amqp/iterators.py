"""What ``Controller.messages`` returns, and the iterations of a controller that are open."""

from __future__ import annotations

import logging
import threading
import weakref

from clihelper.amqp.iteration import Iteration, IterationProcessor, section_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, Protocol, Self

    from clihelper.amqp.message import Message

    class Open(Protocol):
        """An iteration that is open, whatever thread it is used in."""

        @property
        def is_open(self) -> bool: ...
        def give_up_record(self) -> None: ...
        def finish(self) -> None: ...
        def description(self) -> str: ...

LOGGER = logging.getLogger('clihelper.amqp')

MOST_PREFETCH = 65535


class Messages:
    """The messages of one queue; an iterator.

    Taking the next message acknowledges the last one. In a ``with``, the last one is settled by
    how that is left: without an exception it is acknowledged, with one it has failed, as if
    ``on_message`` had raised that. Otherwise a message that is in hand when the iterator is
    closed, or is not referenced any more, has failed unless it was settled explicitly.
    """

    def __init__(self, iteration: Any) -> None:
        self._iteration = iteration

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message:
        iteration = self._iteration
        del self  # an exception that somebody keeps would keep this frame, and delay __del__
        message: Message | None = None if iteration.has_ended else iteration.next()
        if message is None:
            raise StopIteration
        return message

    def close(self) -> None:
        """End: prefetched messages return to the queue, and the message in hand has failed."""
        if not self._iteration.has_ended:
            self._iteration.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not self._iteration.has_ended:
            self._iteration.end(error)

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:
            LOGGER.exception('messages could not be returned to their queue')


class _OpenHere:
    """An iteration that is open, and the thread that uses it."""

    def __init__(self, iteration: Iteration) -> None:
        self._iteration = weakref.ref(iteration)
        self._thread = threading.get_ident()

    @property
    def is_open(self) -> bool:
        iteration = self._iteration()
        return iteration is not None and not iteration.has_ended

    def give_up_record(self) -> None:
        if (iteration := self._iteration()) is not None:
            iteration.give_up_record()

    def finish(self) -> None:
        """End it at the end of a round; in another thread, which may use it now, it ends soon."""
        iteration = self._iteration()
        if iteration is None or iteration.has_ended:
            return
        if self._thread == threading.get_ident():
            iteration.leave()
        else:
            iteration.cancel()

    def description(self) -> str:
        iteration = self._iteration()
        return '' if iteration is None or iteration.has_ended else iteration.description()


class Iterations:
    """Opens iterations, and knows those that are open, for one round of a controller.

    :param host: the life cycle.
    :param consumes: whether the controller's own loop handles messages, too.
    """

    def __init__(self, host: Any, *, consumes: bool) -> None:
        self._host = host
        self._consumes = consumes
        self._open: list[Open] = []
        self._known: set[str] = set()

    def messages(self, queue: str, timeout: float | None, prefetch: int | None) -> Messages:
        """The messages of *queue*; see ``Controller.messages``."""
        iteration = self.iteration(queue, timeout, prefetch)
        self.add(_OpenHere(iteration))
        return Messages(iteration)

    def iteration(self, queue: str, timeout: float | None, prefetch: int | None) -> Iteration:
        """A new iteration, which is not connected yet."""
        check(timeout, prefetch)
        host = self._host
        own: tuple[Sequence[Any], Sequence[Any], str] = (
            host.own_topology if self._consumes else ((), (), ''))
        section = section_for(queue, host.config.amqp, own)
        if prefetch is not None:
            section['prefetch'] = prefetch
        announces = queue not in self._known
        self._known.add(queue)
        iteration = Iteration(host, queue, section, timeout, self._claim_slot(), announces,
                              reports=not self._consumes, processor_class=_processor(section))
        iteration.on_closed = self._restore_status
        return iteration

    def _restore_status(self) -> None:
        """Report that nothing is consumed any more, nor a broker waited for."""
        if self._host.is_running and not self._consumes:
            self._host.notifier.status('running')

    def _claim_slot(self) -> Any:
        """The slot in which a message is accused of killing the process: only one that is alone.

        Nobody knows which of several messages, in several loops, a process has died of.
        """
        self._open = [each for each in self._open if each.is_open]
        if self._consumes or self._open:
            for each in self._open:
                each.give_up_record()
            return None
        return self._host.slot

    def add(self, opened: Open) -> None:
        """Note an iteration that was opened."""
        self._open.append(opened)

    def finish(self) -> None:
        """End those that are open still: the round is over."""
        while self._open:
            self._open.pop().finish()

    def description(self) -> str:
        """What is consumed, for USR2. Any thread may call this."""
        return joined(each.description() for each in list(self._open))


def _processor(section: dict[str, Any]) -> type[IterationProcessor]:
    if not section['tracing']:
        return IterationProcessor
    from clihelper.amqp.traced_processing import TracedIterationProcessor

    return TracedIterationProcessor


def joined(descriptions: Iterable[str]) -> str:
    """Those that are not empty, as lines."""
    return '\n'.join(filter(None, descriptions))


def check(timeout: float | None, prefetch: int | None) -> None:
    """Check the arguments of ``Controller.messages``.

    :raises ValueError: one is out of range.
    """
    if timeout is not None and not timeout > 0:
        raise ValueError(f'a timeout is above 0 seconds, not {timeout!r}')
    if prefetch is not None and not 1 <= prefetch <= MOST_PREFETCH:
        raise ValueError(f'a prefetch is from 1 to {MOST_PREFETCH}, not {prefetch!r}')
