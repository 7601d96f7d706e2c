"""The states of a controller and the legal transitions between them."""

from __future__ import annotations

import enum


class State(enum.Enum):
    """The stages of a controller's life::

          .-------------------------- running --------------------------.
          |                                                             |
          |  INITIALIZING ---> { IDLE <--> SLEEPING <--> ACTIVE <--> }  |
          |       ^                                                     |
          '-------+---------------------+-----------------------+-------'
                  |                     | HUP                   | TERM, INT
                  |                     v                       v
                  '---------------- RELOADING ---------> STOP_REQUESTED
                                                                |
                             (or an exception, from any) ---> STOPPING ---> STOPPED

    The three in braces may follow each other in any order. RELOADING leads back to INITIALIZING.
    """

    INITIALIZING = 1
    """``_setup`` runs, or the loop prepares to wait for work."""
    IDLE = 2
    """The loop runs, and neither works nor waits; a loop of the user's own stays in this state."""
    SLEEPING = 3
    """The loop waits for work."""
    ACTIVE = 4
    """``_process`` or ``on_message`` runs."""
    RELOADING = 5
    """HUP: the loop is being stopped to run again with the new configuration."""
    STOP_REQUESTED = 6
    """A stop was requested; the current work is being finished."""
    STOPPING = 7
    """``_cleanup`` runs."""
    STOPPED = 8
    """The controller has ended."""

    # Loops look up the state in a set for each message, and enum's own hash is slow.
    __hash__ = object.__hash__


RUNNING = frozenset({State.INITIALIZING, State.IDLE, State.SLEEPING, State.ACTIVE})
"""The states of a controller that has not been asked to stop or to start over."""

TRANSITIONS: dict[State, frozenset[State]] = {
    State.INITIALIZING: frozenset(
        {
            State.IDLE,
            State.SLEEPING,
            State.ACTIVE,
            State.RELOADING,
            State.STOP_REQUESTED,
            State.STOPPING,
        }
    ),
    State.IDLE: frozenset(
        {State.SLEEPING, State.ACTIVE, State.RELOADING, State.STOP_REQUESTED, State.STOPPING}
    ),
    State.SLEEPING: frozenset(
        {State.IDLE, State.ACTIVE, State.RELOADING, State.STOP_REQUESTED, State.STOPPING}
    ),
    State.ACTIVE: frozenset(
        {State.IDLE, State.SLEEPING, State.RELOADING, State.STOP_REQUESTED, State.STOPPING}
    ),
    State.RELOADING: frozenset({State.INITIALIZING, State.STOP_REQUESTED, State.STOPPING}),
    State.STOP_REQUESTED: frozenset({State.STOPPING}),
    State.STOPPING: frozenset({State.STOPPED}),
    State.STOPPED: frozenset(),
}
"""From each state, the states that may follow it."""


class IllegalTransition(RuntimeError):
    """A state may not follow the present one: a bug, here or in a subclass."""

    def __init__(self, old: State, new: State) -> None:
        super().__init__(f'a controller that is {old.name} cannot become {new.name}')


def check(old: State, new: State) -> None:
    """Raise :class:`IllegalTransition` unless *new* may follow *old*."""
    if new not in TRANSITIONS[old]:
        raise IllegalTransition(old, new)
