"""Nothing is lost, and little comes twice, while consumers and the broker are killed."""

from __future__ import annotations

from benchmarks.programs import Workshop
from faults.soak import QUICK_FAULTS, QUICK_MESSAGES, Soak

SEED = 20


def test_what_was_confirmed_is_handled_whatever_is_killed(tmp_path):
    """The short form of ``make soak``; about 45 s."""
    with Workshop(str(tmp_path)) as workshop:
        soak = Soak(workshop, QUICK_MESSAGES, QUICK_FAULTS, SEED)
        soak.run()
        numbers = soak.numbers()
        assert set(numbers) == set(range(QUICK_MESSAGES))
        assert len(numbers) - QUICK_MESSAGES <= soak.allowed
        assert soak.left() == (0, 0)
