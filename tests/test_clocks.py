"""Clocks that jump and processes that are suspended leave the intervals alone."""

from __future__ import annotations

import glob
import time
from pathlib import Path

import pytest

from tests.life import Life

HOUR = 3600

CONFIG = 'Application: {wake_interval: 0.05}\n'


def ticks(life: Life, number: int) -> list[tuple[float, float]]:
    """The monotonic and the wall-clock time of the next ticks."""
    found = []
    for _ in range(number):
        _, monotonic, wall = life.wait_report('tick').split()
        found.append((float(monotonic), float(wall)))
    return found


@pytest.mark.parametrize('controller', ['Ticking', 'Ioloop'])
@pytest.mark.parametrize('jump', [HOUR, -HOUR])
def test_a_wall_clock_that_jumps_leaves_the_intervals_alone(
    tmp_path: Path, controller: str, jump: int
) -> None:
    [library] = glob.glob('/usr/lib/*/faketime/libfaketime.so.1')
    clock = tmp_path / 'clock'
    clock.write_text('+0')
    env: dict[str, str | None] = {
        'LD_PRELOAD': library,
        'FAKETIME_TIMESTAMP_FILE': str(clock),
        'FAKETIME_NO_CACHE': '1',
        'FAKETIME_DONT_FAKE_MONOTONIC': '1',
        'DONT_FAKE_MONOTONIC': '1',
    }
    with Life(tmp_path, 'ticking.py', controller, config=CONFIG, env=env) as life:
        (before, wall_before), = ticks(life, 1)
        clock.write_text(f'{jump:+d}')
        after, wall_after = ticks(life, 5)[-1]
        life.signal('TERM')
        assert life.wait() == 0
    assert abs(wall_after - wall_before - jump) < 60, 'the clock has not jumped'
    assert 0.2 <= after - before < 5


@pytest.mark.parametrize('controller', ['Ticking', 'Ioloop'])
def test_ticks_missed_while_it_was_suspended_are_not_made_up_for(
    tmp_path: Path, controller: str
) -> None:
    with Life(tmp_path, 'ticking.py', controller, config=CONFIG) as life:
        (start, _), = ticks(life, 1)
        life.signal('STOP')
        time.sleep(0.5)  # ten ticks
        life.signal('CONT')
        end, _ = ticks(life, 4)[-1]
        life.signal('TERM')
        assert life.wait() == 0
    # One may have been under way, one comes late, two are on the grid.
    assert end - start > 0.5 + 0.05
