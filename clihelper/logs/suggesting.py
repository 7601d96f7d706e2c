"""What somebody who misspelt a word may have meant."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error message, ``; did you mean 'x'?``; empty where nothing is near.

    :param word: what was written.
    :param known: what could have been written; upper case is tried as well.
    """
    from difflib import get_close_matches  # Only a fault pays for it.

    known = list(known)
    near = get_close_matches(word, known) or get_close_matches(word.upper(), known)
    return f'; did you mean {near[0]!r}?' if near else ''
