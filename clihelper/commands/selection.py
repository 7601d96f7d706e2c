"""Which dead letters the words and options of a command line select."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from clihelper.amqp.dead_letters import DeadLetter

FEWEST_DIGITS = 7
"""The fewest digits of an ID; a decimal number of fewer is a position."""

HEXADECIMAL = frozenset('0123456789abcdef')


def is_position(word: str) -> bool:
    """Whether *word* is a position in the list."""
    return word.isascii() and word.isdecimal() and len(word) < FEWEST_DIGITS


def is_id(word: str) -> bool:
    """Whether *word* is an ID, or the beginning of one."""
    return len(word) >= FEWEST_DIGITS and not set(word) - HEXADECIMAL


def is_group(word: str) -> bool:
    """Whether *word* is the name of a group."""
    return len(word) == FEWEST_DIGITS and word[0] == 'g' and not set(word[1:]) - HEXADECIMAL


def is_selected(letter: DeadLetter, options: Namespace) -> bool:
    """Whether a letter is one of those that the command line is about."""
    return (
        options.queue in (None, letter.queue)
        and options.reason in (None, letter.reason)
        and options.exception in (None, letter.exception)
        and (not options.letters or any(names(word, letter) for word in options.letters))
    )


def names(word: str, letter: DeadLetter) -> bool:
    """Whether *word* is the position, the group or the ID of a letter."""
    if is_position(word):
        return letter.position == int(word)
    return letter.group == word if is_group(word) else letter.id.startswith(word)
