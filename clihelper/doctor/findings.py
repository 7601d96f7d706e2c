"""What a check has found: a level, where, a text, and what to do."""

from __future__ import annotations

from clihelper.amqp.escaping import escaped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Level = Literal['ok', 'warning', 'fault']

OK: Level = 'ok'
WARNING: Level = 'warning'
FAULT: Level = 'fault'

WIDTH = 9
"""characters of the column of levels"""


class Finding:
    """One line of the report.

    :ivar check: the name of the check, such as ``broker.tls``.
    :ivar level: ``ok``; ``warning``: it may lose messages, or fail later; ``fault``: it keeps the
        daemon from running, or from working.
    :ivar where: a key of the configuration, a file, a broker, or ``file:line:column``.
    :ivar text: what was found, without passwords.
    :ivar remedy: what to do; empty if there is nothing to do, or *text* says it.
    """

    __slots__ = ('check', 'level', 'remedy', 'text', 'where')

    def __init__(self, check: str, level: Level, where: str, text: str, remedy: str = '') -> None:
        self.check = check
        self.level: Level = level
        self.where = escaped(where)
        self.text = escaped(text)
        self.remedy = escaped(remedy)

    def __str__(self) -> str:
        said = ': '.join(filter(None, (self.where, self.text, self.remedy)))
        return f'{self.level:<{WIDTH}}{said}'

    def __repr__(self) -> str:
        return f'<Finding {self.check} {self}>'

    def as_dict(self) -> dict[str, str]:
        """The finding as ``--json`` prints it."""
        return {name: getattr(self, name) for name in FIELDS}


FIELDS = ('check', 'level', 'where', 'text', 'remedy')
"""the keys of a finding in ``--json``, in their order"""


def ok(check: str, where: str, text: str, remedy: str = '') -> Finding:
    """A finding that is as it should be."""
    return Finding(check, OK, where, text, remedy)


def warning(check: str, where: str, text: str, remedy: str = '') -> Finding:
    """Something that may lose messages, or fail later."""
    return Finding(check, WARNING, where, text, remedy)


def fault(check: str, where: str, text: str, remedy: str = '') -> Finding:
    """Something that keeps the daemon from running, or from working."""
    return Finding(check, FAULT, where, text, remedy)
