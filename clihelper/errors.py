"""What ends a program with a line for its user: errors, each with an exit status.

The statuses are those of ``sysexits.h``; see also the table in ``docs/options.rst``. Anything
that is not an :class:`Error` is a bug, of the program or of clihelper, and gets a traceback.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection


class Error(Exception):
    """A fault that its user can mend: ``str(error)`` is one line that says where and what.

    :cvar int status: the exit status of a program that ends with this error.
    """

    status = 1


class UsageError(Error):
    """Wrong use of the command line."""

    status = 2


class UnavailableError(Error):
    """The broker cannot be used: refused credentials, a missing vhost, a differing queue."""

    status = os.EX_UNAVAILABLE  # 69


class PidfileError(Error):
    """The program runs already, or its pidfile cannot be created."""

    status = os.EX_CANTCREAT  # 73


class CannotListen(Error):
    """An address of ``Daemon.listen`` is in use, or cannot be listened at."""

    status = os.EX_CANTCREAT  # 73


class NotPermitted(Error):
    """An unknown user or group, a missing privilege, a file that may not be read or written."""

    status = os.EX_NOPERM  # 77


class ConfigurationError(Error):
    """The configuration is missing, unreadable as YAML, or wrong.

    :param faults: one line each, ``file:line:column: Section.key: what is wrong``. All of them
        are in ``str(error)``, a line each: it is the one error of more than one line.
    """

    status = os.EX_CONFIG  # 78

    def __init__(self, *faults: str) -> None:
        super().__init__('\n'.join(faults))
        self.faults = faults


class StopNow(SystemExit):
    """Raised in the main thread to abandon the work in hand: QUIT, a second INT, a deadline.

    It is a :class:`SystemExit` because asyncio swallows every other exception that it does not
    know, and so that the status is right even where nobody catches it. It is no
    :class:`Exception`: a handler's ``except Exception`` does not stop it.

    :param signum: the signal that ends the program.
    :ivar int status: the exit status, ``128 + signum``.
    """

    def __init__(self, signum: int) -> None:
        import signal  # and with it enum, which ``clihelper status`` does without

        self.signum: signal.Signals = signal.Signals(signum)
        self.status = 128 + self.signum
        super().__init__(self.status)

    def __str__(self) -> str:
        return f'stopped at once by {self.signum.name}'


class StoppedEarly(SystemExit):
    """A signal stopped the program before it was ready.

    It may be raised anywhere while the program starts, in an import perhaps, and is no
    :class:`Exception` for the same reasons as :class:`StopNow`.
    """

    status = os.EX_TEMPFAIL  # 75

    def __init__(self) -> None:
        super().__init__(self.status)

    def __str__(self) -> str:
        return 'stopped before it was ready'


def did_you_mean(word: object, known: Collection[object]) -> str:
    """The end of an error message, ``; did you mean x?``; empty where nothing is near.

    :param word: what was written; case, and whether ``-`` or ``_`` is in it, do not matter.
    :param known: what could have been written.
    """
    # Many or long words take difflib minutes.
    if not isinstance(word, str) or len(word) > 60 or len(known) > 100:
        return ''
    from difflib import get_close_matches

    folded = {name.casefold(): name for name in known if isinstance(name, str)}
    near = get_close_matches(word.casefold().replace('-', '_'), folded, 1)
    return f'; did you mean {folded[near[0]]}?' if near else ''


def is_misspelt(word: str, known: str) -> bool:
    """Whether two words differ in one letter more, less or other, or in two that are swapped."""
    start = _in_common(word, known)
    word, known = word[start:], known[start:]
    end = _in_common(word[::-1], known[::-1])
    word, known = word[:len(word) - end], known[:len(known) - end]
    return max(len(word), len(known)) < 2 or (len(word) == 2 and word == known[::-1])


def _in_common(word: str, known: str) -> int:
    """How many letters two words have in common at their beginning."""
    lengths = range(min(len(word), len(known)), 0, -1)
    return next((n for n in lengths if word[:n] == known[:n]), 0)
