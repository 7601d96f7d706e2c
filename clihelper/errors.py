"""Errors that end a program with a line for its user, each with an exit status.

The statuses are those of ``sysexits.h``; see also the table in ``docs/options.rst``. Anything
that is not an :class:`Error` is a bug in the program or in clihelper, and shows a traceback.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection


class Error(Exception):
    """A fault that the user can fix: ``str(error)`` is one line that says where and what.

    :cvar int status: the exit status of a program that ends with this error.
    """

    status = 1


class UsageError(Error):
    """The command line is wrong."""

    status = 2


class UnavailableError(Error):
    """The broker cannot be used: refused credentials, a missing vhost, a differing queue."""

    status = os.EX_UNAVAILABLE  # 69


class PidfileError(Error):
    """The program is already running, or its pidfile cannot be created."""

    status = os.EX_CANTCREAT  # 73


class CannotListen(Error):
    """An address of ``Daemon.listen`` is in use or cannot be bound."""

    status = os.EX_CANTCREAT  # 73


class UnavailableForNow(Error):
    """Something outside the configuration is missing, and may be there at a later start."""

    status = os.EX_TEMPFAIL  # 75


class NotPermitted(Error):
    """An unknown user or group, a missing privilege, a file that may not be read or written."""

    status = os.EX_NOPERM  # 77


class ConfigurationError(Error):
    """The configuration is missing, unreadable as YAML, or wrong.

    :param faults: one line each, ``file:line:column: Section.key: what is wrong``. ``str(error)``
        contains all of them, so this is the only error that may have more than one line.
    """

    status = os.EX_CONFIG  # 78

    def __init__(self, *faults: str) -> None:
        super().__init__('\n'.join(faults))
        self.faults = faults


class StopNow(SystemExit):
    """Raised in the main thread to abandon the current work: QUIT, a second INT, a deadline.

    It is a :class:`SystemExit` because asyncio swallows other exceptions that it does not know,
    and so that the status is right even if nobody catches it. It is not an :class:`Exception`, so
    a handler's ``except Exception`` does not catch it.

    :param signum: the signal that ends the program.
    :ivar int status: the exit status, ``128 + signum``.
    """

    def __init__(self, signum: int) -> None:
        import signal  # imports enum, which ``clihelper status`` does not need

        self.signum: signal.Signals = signal.Signals(signum)
        self.status = 128 + self.signum
        super().__init__(self.status)

    def __str__(self) -> str:
        return f'stopped at once by {self.signum.name}'


class StoppedEarly(SystemExit):
    """A signal stopped the program before it was ready.

    It may be raised anywhere while the program starts, even in an import. It is not an
    :class:`Exception`, for the same reasons as :class:`StopNow`.
    """

    status = os.EX_TEMPFAIL  # 75

    def __init__(self) -> None:
        super().__init__(self.status)

    def __str__(self) -> str:
        return 'stopped before it was ready'


def in_one_line(error: BaseException) -> str:
    """Return an error's class and text in one line; of an :class:`Error`, the text alone."""
    text = one_line(str(error))
    if isinstance(error, Error) and text:
        return text
    return f'{type(error).__name__}: {text}' if text else type(error).__name__


def did_you_mean(word: object, known: Collection[object]) -> str:
    """Return the end of an error message, ``; did you mean x?``, or '' if nothing is close.

    :param word: the word found; its case does not matter, nor do ``-`` and ``_`` differ.
    :param known: the valid words.
    """
    # With many or long words, difflib would take minutes.
    if not isinstance(word, str) or len(word) > 60 or len(known) > 100:
        return ''
    from difflib import get_close_matches

    folded = {name.casefold(): name for name in known if isinstance(name, str)}
    near = get_close_matches(word.casefold().replace('-', '_'), folded, 1)
    return f'; did you mean {folded[near[0]]}?' if near else ''


def is_misspelt(word: str, known: str) -> bool:
    """Return whether two words differ by one letter, or by two adjacent letters swapped."""
    start = _in_common(word, known)
    word, known = word[start:], known[start:]
    end = _in_common(word[::-1], known[::-1])
    word, known = word[:len(word) - end], known[:len(known) - end]
    return max(len(word), len(known)) < 2 or (len(word) == 2 and word == known[::-1])


def _in_common(word: str, known: str) -> int:
    """Return the length of the common prefix of two words."""
    lengths = range(min(len(word), len(known)), 0, -1)
    return next((n for n in lengths if word[:n] == known[:n]), 0)


def encodable(text: str, encoding: str | None) -> str:
    """*text* with escapes for what an encoding does not have: a name to print, in any terminal."""
    return text.encode(encoding or 'utf-8', 'backslashreplace').decode(encoding or 'utf-8')


def counted(number: int, noun: str) -> str:
    """Return *number* and *noun* in singular or plural: ``1 worker``, ``2 workers``."""
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'


def one_line(text: str) -> str:
    """*text* with each run of white space, line breaks included, as one space."""
    return ' '.join(text.split())
