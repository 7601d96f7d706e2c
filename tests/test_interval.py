"""Intervals: a grid that does not drift, ticks that are skipped, delays of the user's own."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from clihelper.loops.interval import Grid, Ticks
from clihelper.process.statistics import Statistics
from tests.life import Life


class Host:
    """What a loop asks its host about intervals."""

    def __init__(self, wake_interval: float, decides_each_delay: bool = False) -> None:
        self.wake_interval = wake_interval
        self.decides_each_delay = decides_each_delay
        self.statistics = Statistics.make().slot(0)


class Clock:
    """Time that passes when a test says so."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr('clihelper.loops.interval.time', clock)
    return clock


def ticking(folder: Path, controller: str, interval: float = 60, work: float = 0) -> Life:
    config = f'Application: {{wake_interval: {interval}, work: {work}}}\n'
    return Life(folder, 'ticking.py', controller, config=config)


def moment(report: str) -> float:
    """The monotonic time of a report."""
    return float(report.split()[1])


def test_deadlines_are_at_fixed_distances_however_late_each_comes() -> None:
    grid = Grid(100.0)
    for lateness, due in [(0.0, 100.5), (0.4, 101.0), (0.01, 101.5), (0.499, 102.0)]:
        assert grid.advance(grid.due + lateness, 0.5) == 0
        assert grid.due == due


def test_deadlines_do_not_drift_in_a_million_steps() -> None:
    grid = Grid(0.0)
    for _ in range(1_000_000):
        grid.advance(grid.due + 0.001, 0.125)
    assert grid.due == 125_000.0


@pytest.mark.parametrize(('now', 'missed', 'due'), [
    (10.0, 0, 11.0), (10.999, 0, 11.0), (11.0, 1, 12.0), (11.5, 1, 12.0), (13.2, 3, 14.0),
    (9.0, 0, 11.0),
])
def test_missed_deadlines_are_skipped_and_counted(now: float, missed: int, due: float) -> None:
    grid = Grid(10.0)
    assert grid.advance(now, 1.0) == missed
    assert grid.due == due
    assert grid.due > now


def test_a_new_interval_is_counted_from_the_last_deadline() -> None:
    grid = Grid(10.0)
    grid.advance(10.1, 60.0)
    assert grid.due == 70.0
    grid.advance(70.1, 0.5)
    assert grid.due == 70.5


def test_the_first_tick_is_due_at_once() -> None:
    assert Ticks(Host(60)).due <= time.monotonic()


def test_an_overrun_is_told_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    ticks = Ticks(Host(0.5))
    for _ in range(3):
        clock.now = ticks.due + 1.25
        ticks.done()
        assert ticks.due == clock.now + 0.25
    assert [record.levelname for record in caplog.records] == ['WARNING']
    assert '_process overran its interval of 0.5 s; calls skipped: 2' in caplog.text


def test_a_delay_that_a_subclass_decides_is_counted_from_the_end(
    caplog: pytest.LogCaptureFixture
) -> None:
    ticks = Ticks(Host(60.0, decides_each_delay=True))
    before = time.monotonic()
    ticks.done()
    assert before + 60.0 <= ticks.due <= time.monotonic() + 60.0
    assert not caplog.records


def test_after_a_pause_the_grid_goes_on_without_a_burst(clock: Clock) -> None:
    ticks = Ticks(Host(0.5))
    due = ticks.due
    clock.now = due + 1.75
    ticks.resume()
    assert ticks.due == due + 2.0


@pytest.mark.parametrize('controller', ['Ticking', 'Ioloop'])
def test_process_is_called_at_once_and_then_on_the_grid(tmp_path: Path, controller: str) -> None:
    begin = time.monotonic()
    with ticking(tmp_path, controller, interval=0.05) as life:
        ticks = [moment(life.wait_report('tick')) for _ in range(6)]
        life.signal('TERM')
        assert life.wait() == 0
    # None is before its time, however late the one before was.
    for number, tick in enumerate(ticks):
        assert tick - begin >= number * 0.05


def test_a_process_that_overruns_skips_ticks_and_says_so_once(tmp_path: Path) -> None:
    begin = time.monotonic()
    with ticking(tmp_path, 'Ticking', interval=0.02, work=0.03) as life:
        ticks = [moment(life.wait_report('tick')) for _ in range(6)]
        life.signal('TERM')
        assert life.wait() == 0
        assert life.logged('_process overran its interval of 0.02 s; calls skipped: ') == 1
        assert life.logged('overran') == 1
    assert ticks[5] - begin >= 5 * 0.04


def test_an_interval_of_the_subclass_is_waited_for_after_each_end(tmp_path: Path) -> None:
    with ticking(tmp_path, 'Deciding', interval=60, work=0.03) as life:
        for _ in range(4):
            end = moment(life.wait_report('done'))
            assert moment(life.wait_report('tick')) - end >= 0.05
        life.signal('TERM')
        assert life.wait() == 0
        assert life.logged('overran') == 0
