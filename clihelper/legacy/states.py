"""The states as the numbers of 1.x: two sets, which overlap."""

from __future__ import annotations

from clihelper.states import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Number(int):
    """The number of a state in 1.x.

    :ivar state: the corresponding state of 2.0.
    :ivar words: the description returned by ``current_state``.
    """

    state: State
    words: str

    @property
    def name(self) -> str:
        """The name of the corresponding state of 2.0."""
        return self.state.name

    def __new__(cls, value: int, state: State, words: str) -> Number:
        number = super().__new__(cls, value)
        number.state = state
        number.words = words
        return number


CONNECTING = Number(8, State.ACTIVE, 'Connecting')

#: The numbers of 1.6 and 1.7. In 1.6.0 CONNECTING was 2, and the following ones were one higher.
LATER: Mapping[str, Number] = {
    'STATE_INITIALIZING': Number(1, State.INITIALIZING, 'Initializing'),
    'STATE_SLEEPING': Number(2, State.SLEEPING, 'Sleeping'),
    'STATE_IDLE': Number(3, State.IDLE, 'Idle'),
    'STATE_ACTIVE': Number(4, State.ACTIVE, 'Active'),
    'STATE_STOP_REQUESTED': Number(5, State.STOP_REQUESTED, 'Stop Requested'),
    'STATE_STOPPING': Number(6, State.STOPPING, 'Stopping'),
    'STATE_STOPPED': Number(7, State.STOPPED, 'Stopped'),
    'STATE_CONNECTING': CONNECTING,
}

#: The numbers of 1.0 to 1.5, in which a program that had ended was idle.
EARLIER: Mapping[str, Number] = {
    '_STATE_IDLE': Number(0, State.STOPPED, 'Idle'),
    '_STATE_RUNNING': Number(1, State.ACTIVE, 'Running'),
    '_STATE_SLEEPING': Number(2, State.SLEEPING, 'Sleeping'),
    '_STATE_SHUTTING_DOWN': Number(3, State.STOPPING, 'Shutting Down'),
}

ENDING = frozenset({State.STOP_REQUESTED, State.STOPPING, State.STOPPED})

_SEEN_EARLIER = {
    State.INITIALIZING: '_STATE_IDLE',
    State.IDLE: '_STATE_RUNNING',
    State.SLEEPING: '_STATE_SLEEPING',
    State.ACTIVE: '_STATE_RUNNING',
    State.RELOADING: '_STATE_SHUTTING_DOWN',
    State.STOP_REQUESTED: '_STATE_SHUTTING_DOWN',
    State.STOPPING: '_STATE_SHUTTING_DOWN',
    State.STOPPED: '_STATE_IDLE',
}


def number_of(state: State, *, later: bool) -> Number:
    """Return the number of a state.

    :param later: whether to use the numbers of 1.6 and 1.7.
    """
    if not later:
        return EARLIER[_SEEN_EARLIER[state]]
    if state is State.RELOADING:
        state = State.STOP_REQUESTED
    return LATER[f'STATE_{state.name}']


def read(value: object, *, later: bool) -> Number:
    """Return the number for the *value* that a program sets its state to.

    :raises ValueError: it is not a state.
    """
    if isinstance(value, Number):
        return value
    if isinstance(value, State):
        return number_of(value, later=later)
    for number in (LATER if later else EARLIER).values():
        if number == value:
            return number
    raise ValueError(f'Invalid Runtime State: {value!r}')
