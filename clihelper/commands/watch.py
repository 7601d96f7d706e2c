"""``clihelper status --watch``: the status again and again, on the whole screen of a terminal."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INTERVAL = 1.0
"""the seconds between two looks"""

KEYS = 'q: quit'

_WHOLE_SCREEN, _AS_IT_WAS = '\x1b[?1049h\x1b[?25l', '\x1b[?25h\x1b[?1049l'
_TO_TOP, _CLEAR_LINE, _CLEAR_REST = '\x1b[H', '\x1b[K', '\x1b[J'


def watch(look: Callable[[], tuple[int, list[str]]]) -> int:
    """Show what *look* returns until the user ends it.

    On a terminal it has the whole screen, until ``q`` or Ctrl-C. Elsewhere it prints what has
    changed, with the time, until Ctrl-C, or until nobody reads it.

    :param look: returns the exit status and the lines.
    :returns: the exit status of the last look.
    """
    if sys.stdout.isatty() and sys.stdin.isatty():
        return _on_screen(look)
    return _in_lines(look)


def _in_lines(look: Callable[[], tuple[int, list[str]]]) -> int:
    status = 0
    with contextlib.suppress(KeyboardInterrupt):
        for _ in _ticks():
            status, lines = look()
            print(time.strftime('%Y-%m-%d %H:%M:%S'))
            print('\n'.join(lines), end='\n\n', flush=True)
    return status


def _on_screen(look: Callable[[], tuple[int, list[str]]]) -> int:
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    status = 0
    try:
        tty.setcbreak(sys.stdin)
        sys.stdout.write(_WHOLE_SCREEN)
        with contextlib.suppress(KeyboardInterrupt):
            for _ in _ticks(sys.stdin.fileno()):
                status, lines = look()
                _draw(lines)
    finally:
        sys.stdout.write(_AS_IT_WAS)
        sys.stdout.flush()
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
    return status


def _draw(lines: list[str]) -> None:
    """Draw the lines on the screen, cut to its size, with the time and the keys below."""
    columns, rows = shutil.get_terminal_size()
    if len(lines) > rows - 1:
        lines = [*lines[: rows - 2], f'... and {len(lines) - rows + 2} lines more']
    lines = [*lines, *[''] * (rows - 1 - len(lines)), f'{time.strftime("%H:%M:%S")}  {KEYS}']
    shown = '\n'.join(f'{line[:columns]}{_CLEAR_LINE}' for line in lines)
    sys.stdout.write(f'{_TO_TOP}{shown}{_CLEAR_REST}')
    sys.stdout.flush()


def _ticks(keyboard: int | None = None) -> Iterator[None]:
    """Yield at once and then every :data:`INTERVAL`, until the key ``q``."""
    keyboards = [] if keyboard is None else [keyboard]
    due = time.monotonic()
    while True:
        yield
        due = max(due + INTERVAL, time.monotonic())
        while (left := due - time.monotonic()) > 0:
            if select.select(keyboards, (), (), left)[0]:
                pressed = os.read(keyboards[0], 100)
                if not pressed or b'q' in pressed.lower():
                    return
