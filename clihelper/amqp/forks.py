"""Connections and fork(2): a child has its parent's descriptors, and must not use them.

What the child wrote would be mixed with what its parent writes, and closing the connection in the
child would close the parent's. So before anything else runs in the child, every object watched
here gives up its connection. That costs nothing until a fork.
"""

from __future__ import annotations

import os
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Owned(Protocol):
        """An object that belongs to the process that created it."""

        def disown(self) -> None:
            """Give up what belongs to the parent, and replace locks. Called in a child process.

            A lock that another thread of the parent held at the fork is never released in the
            child.
            """


_watched: weakref.WeakSet[Owned] = weakref.WeakSet()


def watch(owned: Owned) -> None:
    """Have :meth:`Owned.disown` called in each child that this process forks from now on."""
    _watched.add(owned)


def fault(pid: int) -> str:
    """The text of the error for using a connection that process *pid* has opened."""
    return (
        f'the connection to the broker belongs to process {pid}, not to its child'
        f' {os.getpid()}: a child process needs a connection of its own'
    )


def _disown_all() -> None:
    for owned in list(_watched):
        owned.disown()


os.register_at_fork(after_in_child=_disown_all)
