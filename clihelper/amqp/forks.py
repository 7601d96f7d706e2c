"""Connections and fork(2): a child has its parent's descriptors, and must leave them alone.

What a child wrote would come in between what its parent writes, and an orderly end of its own
would end the parent's connection. So in the child, before anything else runs there, what is
watched here leaves the connection. That costs nothing until a fork.
"""

from __future__ import annotations

import os
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Owned(Protocol):
        """What belongs to the process that made it."""

        def disown(self) -> None:
            """Called in a child process: leave what is the parent's, and hold no lock.

            A lock that another thread of the parent held at the fork is never released here.
            """


_watched: weakref.WeakSet[Owned] = weakref.WeakSet()


def watch(owned: Owned) -> None:
    """Have :meth:`Owned.disown` called in each child that this process is going to fork."""
    _watched.add(owned)


def fault(pid: int) -> str:
    """What is wrong with using a connection that the process *pid* has made."""
    return (
        f'the connection to the broker is that of process {pid}, not of this child of it,'
        f' {os.getpid()}: a child process needs a connection of its own'
    )


def _disown_all() -> None:
    for owned in list(_watched):
        owned.disown()


os.register_at_fork(after_in_child=_disown_all)
