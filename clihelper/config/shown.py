"""The configuration in force, as anybody may see it: without what is secret.

Hidden are values that ``!env`` and ``!file`` have brought, those of keys whose names say that they
are secret, and passwords in URLs and other strings.
"""

from __future__ import annotations

import json
import re

from clihelper.config.nodes import Mapping, Scalar, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from clihelper.config.nodes import Node

HIDDEN = '(hidden)'
"""what stands for a value that is secret"""

LONGEST = 500
"""characters of a string that are shown"""

MOST_BYTES = 30_000
"""what all that is shown takes at most, as JSON"""

OWN = ('Daemon', 'AMQP')
"""the sections of which the defaults are shown, too; others are shown as they are written"""

_SECRET = re.compile(
    r'pass(?!ive)|pwd|secret|token|credential|auth(?!or)|cookie|dsn|salt|signature|bearer'
    r'|(api|access|account|client|encryption|license|master|private|signing)[-_ ]?key|^key$',
    re.IGNORECASE)
_USER = re.compile(r'(://[^:/?#@\s]*):\S*@')
_TOKEN = re.compile(r'://[^:/?#@\s]+@')
_PARAMETER = re.compile(
    r'((?:^|[?&;,\s])[\w-]*(?:pass|pwd|secret|token|key|auth|sig)[\w-]*\s?=\s?)[^&;,\s]+',
    re.IGNORECASE)
_PATHS = ('AMQP.tls.key',)  # of a file, and so no secret


def shown(sections: dict[str, Any], root: Node | None) -> dict[str, Any]:
    """Return what may be shown of a configuration: dictionaries, lists and plain values.

    :param sections: with the defaults.
    :param root: the file, as it is written.
    """
    found: dict[str, Any] = {}
    for name, section in sections.items():
        node = _child(root, name)
        if name in OWN:
            found[name] = _value(section, node, name)
        elif node is not None:  # what a program has made of it may hold anything
            found[name] = _value(node.plain(), node, name)
    return _bounded(found)


def _value(value: Any, node: Node | None, path: str) -> Any:
    name = path.rpartition('.')[2]
    if isinstance(node, Scalar) and node.origin:
        return f'({node.origin})'
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, bytes) or (_SECRET.search(name) and path not in _PATHS):
        return HIDDEN
    if isinstance(value, dict):
        return {_text(str(key)): _value(each, _child(node, key), f'{path}.{key}')
                for key, each in value.items()}
    if isinstance(value, (list, tuple, set)):
        items = node.items if isinstance(node, Sequence) else []
        nodes = [*items, *[None] * len(value)]
        return [_value(each, its, path) for each, its in zip(value, nodes, strict=False)]
    if name == 'umask' and isinstance(value, int):
        return f'{value:03o}'
    if isinstance(value, (int, float)) and value == value and abs(value) != float('inf'):
        return value
    return _text(str(value))


def _child(node: Node | None, key: object) -> Node | None:
    return node.entries[key][1] if isinstance(node, Mapping) and key in node.entries else None


def _text(text: str) -> str:
    masked = _TOKEN.sub('://**@', _USER.sub(r'\1:**@', text))
    masked = _PARAMETER.sub(r'\1**', masked)
    return masked if len(masked) <= LONGEST else f'{masked[: LONGEST - 3]}...'


def _bounded(sections: dict[str, Any]) -> dict[str, Any]:
    """Leave the largest sections out, until the rest is small enough."""
    sizes = {name: len(json.dumps(section, ensure_ascii=False).encode(errors='replace'))
             for name, section in sections.items()}
    while sum(sizes.values()) > MOST_BYTES - 100 * len(sizes):
        name = max(sizes, key=lambda each: sizes[each])
        if not sizes[name]:
            return {'': 'too large to be shown'}
        sizes[name] = 0
        sections[name] = 'too large to be shown'
    return sections
