"""The states of a controller: every pair of them is tried."""

from __future__ import annotations

from itertools import product

import pytest

from clihelper import Controller, State
from clihelper.states import RUNNING, IllegalTransition, check

#: As the documentation draws it, written down a second time on purpose.
LEGAL = {
    'INITIALIZING': 'IDLE SLEEPING ACTIVE RELOADING STOP_REQUESTED STOPPING',
    'IDLE': 'SLEEPING ACTIVE RELOADING STOP_REQUESTED STOPPING',
    'SLEEPING': 'IDLE ACTIVE RELOADING STOP_REQUESTED STOPPING',
    'ACTIVE': 'IDLE SLEEPING RELOADING STOP_REQUESTED STOPPING',
    'RELOADING': 'INITIALIZING STOP_REQUESTED STOPPING',
    'STOP_REQUESTED': 'STOPPING',
    'STOPPING': 'STOPPED',
    'STOPPED': '',
}

PREDICATES = {
    'is_running': 'INITIALIZING IDLE SLEEPING ACTIVE',
    'is_initializing': 'INITIALIZING',
    'is_idle': 'IDLE',
    'is_sleeping': 'SLEEPING',
    'is_active': 'ACTIVE',
    'is_reloading': 'RELOADING',
    'is_waiting_to_stop': 'STOP_REQUESTED',
    'is_stopping': 'STOP_REQUESTED STOPPING',
    'is_stopped': 'STOPPED',
}


def in_state(state: State) -> Controller:
    controller = Controller(None, [])
    controller._state = state
    return controller


def test_every_state_has_its_successors() -> None:
    assert set(LEGAL) == set(State.__members__)


@pytest.mark.parametrize(('old', 'new'), list(product(State, State)), ids=lambda each: each.name)
def test_a_state_follows_another_only_where_it_may(old: State, new: State) -> None:
    controller = in_state(old)
    if new.name in LEGAL[old.name].split():
        check(old, new)
        controller.set_state(new)
        assert controller.state is new
        return
    with pytest.raises(IllegalTransition, match=f'{old.name} cannot become {new.name}'):
        controller.set_state(new)
    assert controller.state is old


@pytest.mark.parametrize('predicate', PREDICATES)
@pytest.mark.parametrize('state', State, ids=lambda each: each.name)
def test_a_predicate_is_true_in_its_states(predicate: str, state: State) -> None:
    assert getattr(in_state(state), predicate) == (state.name in PREDICATES[predicate].split())


def test_a_controller_that_nobody_runs_says_so() -> None:
    controller = Controller(None, ['x'])
    assert controller.state is State.INITIALIZING
    assert controller.is_running
    assert {state.name for state in RUNNING} == set(PREDICATES['is_running'].split())
    with pytest.raises(RuntimeError, match='Controller is not being run'):
        controller.stop()
    with pytest.raises(RuntimeError, match='not being run'):
        controller.wait(1)
