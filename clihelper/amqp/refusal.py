"""What a broker refuses, in a line for the operator of the program.

RabbitMQ's texts are the source; one that is not understood is repeated as it is.
"""

from __future__ import annotations

import re

from clihelper.amqp.escaping import escaped
from clihelper.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NOT_FOUND, RESOURCE_LOCKED = 404, 405

FOR_GOOD = (503, 530, 540)
"""Replies that end the connection although it was sound: trying again would have no effect."""

_VALUE = r"(?:none|(?:the value )?'(.*?)'(?: of type '(\w+)')?)"
_DIFFERENCE = re.compile(
    rf"inequivalent arg '(.+?)' for (\w+) '(.*?)' in vhost '.*?': "
    rf'received {_VALUE} but current is {_VALUE}$'
)
_INVALID = re.compile(r"invalid (?:arg|property) '(.+?)' for \w+ '.*?' in vhost '.*?'(?:: )?(.*)$")

_UNAVAILABLE = re.compile(
    'is down or inaccessible|is stopped by supervisor|has crashed|failed to perform operation'
)
"""What RabbitMQ says with 404 of a queue that exists, and cannot be used for now"""

_WORDS = {
    'invalid_overflow': 'no such way to overflow',
    'routing_key_but_no_dlx_defined': 'it takes x-dead-letter-exchange, too',
}


class Refused(UnavailableError):
    """The broker refuses a declaration.

    :ivar int code: its reply code, as 406; 0 for none.
    :ivar bool missing: whether what was asked for does not exist.
    :ivar bool transient: whether it may be taken later: the queue exists, but its node is down.
    """

    def __init__(self, where: str, error: BaseException) -> None:
        text = reply_text(error)
        self.code = int(getattr(error, 'reply_code', None) or 0)
        self.transient = self.code == NOT_FOUND and _UNAVAILABLE.search(text) is not None
        self.missing = self.code == NOT_FOUND and not self.transient
        super().__init__(f'{where}: {explained(text)}')


def reply_text(error: Any) -> str:
    """What the broker says, without the name of the code."""
    text = getattr(error, 'reply_text', None) or f'{error}' or type(error).__name__
    return re.sub('^[A-Z_]+ - ', '', escaped(text))


def explained(text: str) -> str:
    """A reply in words for the one who wrote the declaration.

    >>> explained("inequivalent arg 'durable' for queue 'orders' in vhost '/': "
    ...           "received 'false' but current is 'true'")
    "durable is false here, but true in the queue 'orders' that exists"
    >>> explained("something new")
    'something new'
    """
    found = _DIFFERENCE.search(text)
    if found:
        argument, kind, name, here, here_type, there, there_type = found.groups()
        if here == there:
            # Nothing but the type differs.
            here = f"'{here}', of type {here_type or 'another'},"
            there = f"'{there}', of type {there_type or 'another'},"
        return (
            f'{argument} is {_shown(here)} here, but {_shown(there)}'
            f" in the {kind} '{name}' that exists"
        )
    found = _INVALID.search(text)
    if found:
        argument, why = found.groups()
        why = _WORDS.get(why, why.strip('"'))
        return f'the broker does not take {argument}' + (f': {why}' if why else '')
    if text.startswith('cannot obtain exclusive access'):
        # It goes on about what may be the reason.
        reason = 'it belongs to another connection, or is not exclusive there as it is here'
        return f'{text.partition(".")[0]}: {reason}'
    return text


def _shown(value: str | None) -> str:
    return 'not set' if value is None else value
