"""Escapes what a peer says for use in a log line, a status line or an exception."""

from __future__ import annotations

LONGEST = 500
"""the most characters of a peer's text that are repeated"""


def escaped(text: str | bytes) -> str:
    """A foreign text as one line: what is not printable is escaped.

    The result has at most :data:`LONGEST` characters. Bytes are decoded as UTF-8, as in AMQP.

    >>> escaped(b'gone\\r\\nCRITICAL \\x1b[1m caf\\xe9')
    'gone\\\\r\\\\nCRITICAL \\\\x1b[1m caf\\\\xe9'
    """
    if isinstance(text, bytes):
        text = text.decode(errors='backslashreplace')
    if not text.isprintable():
        text = ''.join(map(_escaped_character, text[:LONGEST]))
    return text if len(text) <= LONGEST else f'{text[: LONGEST - 3]}...'


def _escaped_character(character: str) -> str:
    return character if character.isprintable() else character.encode('unicode_escape').decode()
