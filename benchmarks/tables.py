"""Samples, and the tables they are printed in."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence


class Bar:
    """What one program must reach: a figure of it, and the limit.

    :param text: the bar in words.
    :param figure: what was measured.
    :param limit: the most that it may be.
    """

    def __init__(self, text: str, figure: float, limit: float) -> None:
        self.text = text
        self.figure = figure
        self.limit = limit

    @property
    def reached(self) -> bool:
        """Whether the figure is within the limit."""
        return self.figure <= self.limit

    def __str__(self) -> str:
        verdict = 'pass' if self.reached else 'FAIL'
        return f'{verdict}  {self.text}: {_number(self.figure)} <= {_number(self.limit)}'


class Table:
    """A table, and the bars below it.

    :param title: what was measured, and in which unit.
    :param columns: their heads, less the first, which is the program's name.
    """

    def __init__(self, title: str, columns: Sequence[str]) -> None:
        self.title = title
        self.columns = columns
        self.rows: list[tuple[str, list[float | str]]] = []
        self.bars: list[Bar] = []

    def row(self, name: str, *figures: float | str) -> None:
        """Add a row."""
        self.rows.append((name, list(figures)))

    def bar(self, text: str, figure: float, limit: float) -> None:
        """Add a bar."""
        self.bars.append(Bar(text, figure, limit))

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.rows) + 2
        lines = [self.title,
                 ' ' * width + ''.join(f'{column:>10}' for column in self.columns)]
        for name, figures in self.rows:
            cells = [figure if isinstance(figure, str) else _number(figure)
                     for figure in figures]
            lines.append(f'{name:{width}}' + ''.join(f'{cell:>10}' for cell in cells))
        return '\n'.join([*lines, *map(str, self.bars)])


Samples = dict[str, list[float]]
"""What was measured of each program, one figure for each round, so that rounds pair up."""


def interleave(names: Sequence[str], rounds: int, measure: Callable[[str], float]) -> Samples:
    """Measure each program once a round, the next round in the reverse order.

    Whatever else the machine does falls upon all of them; a first round, which fills caches, is
    not counted.
    """
    for name in names:
        measure(name)
    samples: Samples = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            samples[name].append(measure(name))
    return samples


def paired_ratio(samples: Samples, name: str, base: str) -> float:
    """The median of the ratios of *name* to *base* in the same round."""
    return statistics.median(
        one / other for one, other in zip(samples[name], samples[base], strict=True))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least *percent* of the values do not exceed."""
    return sorted(values)[max(-(-len(values) * int(percent) // 100) - 1, 0)]


def distribution(title: str, samples: Samples, base: str) -> Table:
    """A table of the median, the extremes, and the ratio to *base*, of each program."""
    rounds = len(samples[base])
    table = Table(f'{title}; medians of {rounds} rounds, ratio to {base}',
                  ['median', 'min', 'max', 'ratio'])
    for name, values in samples.items():
        table.row(name, statistics.median(values), min(values), max(values),
                  f'{paired_ratio(samples, name, base):.2f}x')
    return table


def _number(figure: float) -> str:
    return f'{figure:.0f}' if figure == int(figure) else f'{figure:.2f}'
