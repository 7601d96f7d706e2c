"""Explains in one line, for the program's operator, what a broker refuses.

The explanations are derived from RabbitMQ's texts; an unknown text is repeated as it is.
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
"""Replies that end a sound connection because of a request; trying again would not help."""

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
"""RabbitMQ's text with 541, from 3.12 on, if its configuration does not permit something."""

_DEPRECATED = {
    'transient_nonexcl_queues': 'a queue that is neither durable nor exclusive',
    'queue_master_locator': 'x-queue-master-locator',
}
"""What these features mean in a declaration: https://www.rabbitmq.com/docs/deprecated-features"""

_UNKNOWN_EXCHANGE = re.compile("unknown exchange type '(.+?)'")
_PLUGINS = {
    'x-consistent-hash': 'rabbitmq_consistent_hash_exchange',
    'x-modulus-hash': 'rabbitmq_sharding',
    'x-delayed-message': 'rabbitmq_delayed_message_exchange',
}
"""The plugins that bring these types of exchanges."""

_UNAVAILABLE = re.compile(
    'is down or inaccessible|is stopped by supervisor|has crashed|failed to perform operation'
)
"""RabbitMQ's text with 404 if a queue exists, but cannot be used at the moment"""

_WORDS = {
    'invalid_overflow': 'no such way to overflow',
    'routing_key_but_no_dlx_defined': 'it also requires x-dead-letter-exchange',
}


class DeclarationRefused(UnavailableError):
    """The broker refuses a declaration.

    :ivar int code: the reply code, such as 406; 0 if there is none.
    :ivar bool missing: whether what was asked for does not exist.
    :ivar bool transient: whether it may succeed later: the queue exists, but its node is down.
    :ivar difference: how it differs from what exists, if that is the reason.
    """

    def __init__(self, where: str, error: BaseException) -> None:
        text = reply_text(error)
        self.code = int(getattr(error, 'reply_code', None) or 0)
        self.transient = self.code == NOT_FOUND and _UNAVAILABLE.search(text) is not None
        self.missing = self.code == NOT_FOUND and not self.transient
        self.difference = Difference.in_text(text) if self.code == PRECONDITION_FAILED else None
        super().__init__(f'{where}: {explain(text)}')


class Difference:
    """How a declaration differs from what exists.

    :ivar argument: the name of one argument or property; others may differ, too.
    :ivar known: whether the reply contains the existing value: RabbitMQ truncates long replies.
    :ivar existing: the existing value as RabbitMQ prints it; None: it is not set.
    :ivar kind: the AMQP type of that value; None: the type of the declared value.
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
        """The difference that a reply describes, or None."""
        found = _DIFFERENCE.search(text)
        if found:
            return cls(found[1], True, found[6], found[7])
        found = _DIFFERENT_ARGUMENT.match(text)
        return cls(found[1], False) if found else None

    def value(self, declared: object) -> object:
        """The existing value, as it would have to be declared.

        :param declared: the value that was declared; None: none was.
        :raises ValueError: its type cannot be determined from its text.
        """
        if self.existing is None:
            return None
        # If the reply does not name a type, the value has the type of the declared one; if none
        # was declared, it is a string.
        if self.kind in _WHOLE_NUMBERS or (self.kind is None and type(declared) is int):
            return int(self.existing)
        if self.kind == 'bool' or (self.kind is None and isinstance(declared, bool)):
            return self.existing == 'true'
        if self.kind in (None, 'longstr'):
            return self.existing
        raise ValueError(f'{self.argument}: {self.existing}')


def is_for_good(error: BaseException) -> bool:
    """Whether the connection ended because of a request, and would end again if it is repeated."""
    code = getattr(error, 'reply_code', None)
    return code in FOR_GOOD or (
        code == INTERNAL_ERROR and _DENIED.search(reply_text(error)) is not None
    )


def reply_text(error: Any) -> str:
    """The broker's text, without the name of the reply code."""
    text = getattr(error, 'reply_text', None) or f'{error}' or type(error).__name__
    return re.sub('^[A-Z_]+ - ', '', escaped(text))


def explain(text: str) -> str:
    """Explain a reply to whoever wrote the declaration.

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
            there = there or 'classic'  # classic queues have this argument since RabbitMQ 4.0
        if here == there:
            # Only the type differs.
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
    found = _UNKNOWN_EXCHANGE.match(text)
    if found and found[1] in _PLUGINS:
        return f"{found[0]}: the broker's plugin {_PLUGINS[found[1]]} has to be enabled"
    if text.startswith('cannot obtain exclusive access'):
        # RabbitMQ's text continues with possible reasons.
        reason = 'it belongs to another connection, or exists without being exclusive'
        return f'{text.partition(".")[0]}: {reason}'
    return text


def _shown(value: str | None) -> str:
    return 'not set' if value is None else value
