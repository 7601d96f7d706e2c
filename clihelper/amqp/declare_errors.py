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

NOT_FOUND, RESOURCE_LOCKED, PRECONDITION_FAILED = 404, 405, 406

FOR_GOOD = (503, 530, 540)
"""Replies that end the connection although it was sound: trying again would have no effect."""

INTERNAL_ERROR = 541

_VALUE = r"(?:none|(?:the value )?'(.*?)'(?: of type '(\w+)')?)"
_DIFFERENCE = re.compile(
    rf"inequivalent arg '(.+?)' for (\w+) '(.*?)' in vhost '.*?': "
    rf'received {_VALUE} but current is {_VALUE}$'
)
_DIFFERENT_ARGUMENT = re.compile("inequivalent arg '(.+?)'")
_WHOLE_NUMBERS = (
    'byte', 'unsignedbyte', 'short', 'unsignedshort', 'signedint', 'unsignedint', 'long',
)  # fmt: skip
_INVALID = re.compile(r"invalid (?:arg|property) '(.+?)' for \w+ '.*?' in vhost '.*?'(?:: )?(.*)$")
_OF_TYPE = re.compile(r' of queue type rabbit_(\w+)_queue')

_DENIED = re.compile(r'Feature `(\w+)` is deprecated')
"""What RabbitMQ says with 541, from 3.12 on, when its configuration does not permit something."""

_DEPRECATED = {
    'transient_nonexcl_queues': 'a queue that is neither durable nor exclusive',
    'queue_master_locator': 'x-queue-master-locator',
}
"""What such features are for a declaration: https://www.rabbitmq.com/docs/deprecated-features"""

_UNAVAILABLE = re.compile(
    'is down or inaccessible|is stopped by supervisor|has crashed|failed to perform operation'
)
"""What RabbitMQ says with 404 of a queue that exists, and cannot be used for now"""

_WORDS = {
    'invalid_overflow': 'no such way to overflow',
    'routing_key_but_no_dlx_defined': 'it takes x-dead-letter-exchange, too',
}


class DeclarationRefused(UnavailableError):
    """The broker refuses a declaration.

    :ivar int code: its reply code, as 406; 0 for none.
    :ivar bool missing: whether what was asked for does not exist.
    :ivar bool transient: whether it may be taken later: the queue exists, but its node is down.
    :ivar difference: in what it differs from what exists, if that is the reason.
    """

    def __init__(self, where: str, error: BaseException) -> None:
        text = reply_text(error)
        self.code = int(getattr(error, 'reply_code', None) or 0)
        self.transient = self.code == NOT_FOUND and _UNAVAILABLE.search(text) is not None
        self.missing = self.code == NOT_FOUND and not self.transient
        self.difference = Difference.in_text(text) if self.code == PRECONDITION_FAILED else None
        super().__init__(f'{where}: {explain(text)}')


class Difference:
    """In what a declaration differs from what exists.

    :ivar argument: one argument or property; there may be more.
    :ivar known: whether the reply says what exists: RabbitMQ cuts a long one.
    :ivar existing: as it is there: text as RabbitMQ prints it; None: it is not set.
    :ivar kind: the type of AMQP that this is of; None: that of what was declared.
    """

    __slots__ = ('argument', 'existing', 'kind', 'known')

    def __init__(
        self, argument: str, known: bool, existing: str | None = None, kind: str | None = None
    ) -> None:
        self.argument = argument
        self.known = known
        self.existing = existing
        self.kind = kind

    @classmethod
    def in_text(cls, text: str) -> Difference | None:
        """The difference that a reply tells of."""
        found = _DIFFERENCE.search(text)
        if found:
            return cls(found[1], True, found[6], found[7])
        found = _DIFFERENT_ARGUMENT.match(text)
        return cls(found[1], False) if found else None

    def value(self, declared: object) -> object:
        """What exists, as it is to be declared.

        :param declared: the value that was declared; None: none was.
        :raises ValueError: it is of a type that cannot be told from its text.
        """
        if self.existing is None:
            return None
        # Without its type it is of that of what was declared; where nothing was, of a text that
        # the broker has taken for the default.
        if self.kind in _WHOLE_NUMBERS or (self.kind is None and type(declared) is int):
            return int(self.existing)
        if self.kind == 'bool' or (self.kind is None and isinstance(declared, bool)):
            return self.existing == 'true'
        if self.kind in (None, 'longstr'):
            return self.existing
        raise ValueError(f'{self.argument}: {self.existing}')


def is_for_good(error: BaseException) -> bool:
    """Whether a connection has ended for what was asked, and would again."""
    code = getattr(error, 'reply_code', None)
    return code in FOR_GOOD or (
        code == INTERNAL_ERROR and _DENIED.search(reply_text(error)) is not None
    )


def reply_text(error: Any) -> str:
    """What the broker says, without the name of the code."""
    text = getattr(error, 'reply_text', None) or f'{error}' or type(error).__name__
    return re.sub('^[A-Z_]+ - ', '', escaped(text))


def explain(text: str) -> str:
    """A reply in words for the one who wrote the declaration.

    >>> explain("inequivalent arg 'durable' for queue 'orders' in vhost '/': "
    ...         "received 'false' but current is 'true'")
    "durable is false here, but true in the queue 'orders' that exists"
    >>> explain("something new")
    'something new'
    """
    found = _DIFFERENCE.search(text)
    if found:
        argument, kind, name, here, here_type, there, there_type = found.groups()
        if argument == 'x-queue-type':
            there = there or 'classic'  # which has had such an argument since RabbitMQ 4.0
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
        of_type = _OF_TYPE.fullmatch(why)
        if of_type:
            return f'the broker does not take {argument} for a {of_type[1]} queue'
        why = _WORDS.get(why, why.strip('"'))
        return f'the broker does not take {argument}' + (f': {why}' if why else '')
    found = _DENIED.match(text)
    if found:
        what = _DEPRECATED.get(found[1], 'it')
        return f'the broker does not permit {what}: its deprecated feature {found[1]}'
    if text.startswith('cannot obtain exclusive access'):
        # It goes on about what may be the reason.
        reason = 'it belongs to another connection, or is not exclusive there as it is here'
        return f'{text.partition(".")[0]}: {reason}'
    return text


def _shown(value: str | None) -> str:
    return 'not set' if value is None else value
