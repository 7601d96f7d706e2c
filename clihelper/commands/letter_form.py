"""A dead letter as text to edit: properties and headers in YAML, a line ``---``, then the body.

What is left as it is stays the same byte for byte, also what the text can only show with escapes
or as text of another type: two texts are compared, and only the differences become properties,
headers or a body.
"""

from __future__ import annotations

import base64
import re
from math import isfinite
from typing import NamedTuple

from clihelper.amqp.dead_letters import as_text, is_left_out
from clihelper.amqp.message import NOT_RENEWED
from clihelper.amqp.properties import HEADERS, copied, encode
from clihelper.errors import one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from clihelper.amqp.dead_letters import DeadLetter

INTRODUCTION = """\
# A dead letter. Above the line "---" are its properties and headers in YAML, below it is its body.
# What you do not change stays the same, byte for byte. Nothing happens if you change nothing.
# Values of types that YAML does not have are shown as text; as soon as they are changed, they are
# what YAML says. Headers that RabbitMQ writes are not shown. A line break at the end of the file
# does not belong to the body.
"""

SEPARATOR = re.compile(rb'^---[ \t]*\r?\n', re.MULTILINE)

PARTS = ('properties', 'headers', 'body')

TEXT, BASE64 = 'text', 'base64'


class InvalidForm(ValueError):
    """The text cannot become a letter; one line says why."""


class _Form(NamedTuple):
    """The parts of a text."""

    properties: dict[str, Any]
    headers: dict[str, Any]
    body: bytes


class Edited(NamedTuple):
    """What an edited text says.

    :ivar letter: the letter with the changes.
    :ivar changes: what is different, in words; empty if nothing is.
    """

    letter: DeadLetter
    changes: list[str]


def as_form(letter: DeadLetter) -> bytes:
    """The text of a letter."""
    import yaml

    shown_as = BASE64 if _is_binary(letter.body) else TEXT
    front = {
        'properties': {
            name: value for name, value in letter.properties.items() if name not in NOT_RENEWED
        },
        'headers': {
            name: for_yaml(value)
            for name, value in letter.headers.items()
            if not is_left_out(name.encode('utf-8', 'surrogatepass'))
        },
        'body': shown_as,
    }
    text = yaml.safe_dump(front, allow_unicode=True, sort_keys=False, width=99)
    return b''.join((INTRODUCTION.encode(), text.encode(), b'---\n', _shown(letter.body), b'\n'))


def edited(letter: DeadLetter, before: bytes, after: bytes) -> Edited:
    """Apply to a letter what is different between two texts.

    :param before: what :func:`as_form` returned for it.
    :raises InvalidForm: the second text is wrong.
    """
    old, new = _parsed(before), _parsed(after)
    properties = _differences(old.properties, new.properties)
    headers = _differences(old.headers, new.headers)
    body = letter.body if new.body == old.body else new.body
    _check_properties(properties)
    _check_names(letter, headers)
    try:
        packed = copied(
            letter.packed,
            without=properties,
            without_headers=lambda name: name.decode(errors='backslashreplace') in headers,
            defaults={name: values[0] for name, values in properties.items() if values},
            headers={name: values[0] for name, values in headers.items() if values},
        )
    except (TypeError, ValueError) as error:
        raise InvalidForm(one_line(str(error))) from error
    changes = [f'property {name}' for name in properties]
    changes += [f'header {name}' for name in headers]
    changes += ['body'] if body != letter.body else []
    result = letter.edited(body, packed)
    if fault := _body_fault(result, changes):
        raise InvalidForm(f'body: {fault}')
    return Edited(result, changes)


def for_yaml(value: Any) -> Any:
    """The value of a header; values of types that YAML and JSON do not have become text."""
    if isinstance(value, dict):
        return {name: for_yaml(each) for name, each in value.items()}
    if isinstance(value, list):
        return [for_yaml(each) for each in value]
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    return value if value is None or isinstance(value, int) else as_text(value)


def _is_binary(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return True
    return False


def _shown(body: bytes) -> bytes:
    """The body as it is in the text."""
    return base64.encodebytes(body).rstrip() if _is_binary(body) else body


def _parsed(text: bytes) -> _Form:
    import yaml

    separator = SEPARATOR.search(text)
    if separator is None:
        raise InvalidForm('there is no line "---" between the properties and the body')
    body = re.sub(rb'\r?\n\Z', b'', text[separator.end() :], count=1)
    try:
        front = yaml.safe_load(text[: separator.start()].decode())
    except UnicodeDecodeError:
        raise InvalidForm('the properties and headers are not UTF-8') from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidForm(f'not YAML: {one_line(str(error))}') from error
    front = _table(front, 'the part above the line "---"')
    for name in front:
        if name not in PARTS:
            raise InvalidForm(f'expected properties, headers and body, got {name!r:.40}')
    return _Form(
        _table(front.get('properties'), 'properties'),
        _table(front.get('headers'), 'headers'),
        _decoded(body, front.get('body', TEXT)),
    )


def _table(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidForm(f'{name}: expected names with values')
    for each in value:
        if not isinstance(each, str):
            raise InvalidForm(f'{name}: expected a text as name, got {each!r:.40}')
    return value


def _decoded(body: bytes, shown_as: Any) -> bytes:
    if shown_as == TEXT:
        return body
    if shown_as != BASE64:
        raise InvalidForm(f'body: expected {TEXT} or {BASE64}, got {shown_as!r:.40}')
    try:
        return base64.b64decode(b''.join(body.split()), validate=True)
    except ValueError as error:
        raise InvalidForm(f'body: not Base64: {error}') from error


def _differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """What is different by name: the new value in a tuple, which is empty if it is gone."""
    # As text: 1 and True are equal in Python.
    changed = {
        name: (value,)
        for name, value in new.items()
        if name not in old or repr(old[name]) != repr(value)
    }
    return {**changed, **{name: () for name in old if name not in new}}


def _check_properties(properties: dict[str, tuple[Any, ...]]) -> None:
    """Check changed properties; a value of None removes one.

    :raises InvalidForm: says which cannot be as it is.
    """
    for name, values in properties.items():
        if name == HEADERS or name in NOT_RENEWED:
            raise InvalidForm(f'properties: {name} cannot be given')
        if values == (None,):
            properties[name] = values = ()
        for value in values:
            expected = _expected(name, value)
            if expected:
                raise InvalidForm(f'properties: {name}: expected {expected}, got {value!r:.40}')
            try:
                encode({name: value})
            except (TypeError, ValueError) as error:
                raise InvalidForm(f'properties: {one_line(str(error))}') from error


def _expected(name: str, value: Any) -> str:
    """What a property has to be, beyond what AMQP can encode; empty if it is."""
    if name == 'delivery_mode' and (isinstance(value, bool) or value not in (1, 2)):
        return '1 or 2'
    if isinstance(value, bool):
        return 'no truth value'
    is_time = isinstance(value, str) and value.isascii() and value.isdecimal()
    return 'milliseconds as text' if name == 'expiration' and not is_time else ''


def _check_names(letter: DeadLetter, headers: dict[str, tuple[Any, ...]]) -> None:
    """Check the names of changed headers.

    :raises InvalidForm: RabbitMQ's own are changed, or the name of one is not UTF-8.
    """
    for name, values in headers.items():
        if values and is_left_out(name.encode('utf-8', 'backslashreplace')):
            raise InvalidForm(f'headers: {name} cannot be given')
        if values and _is_escaped(name, letter):
            raise InvalidForm(f'headers: {name}: its name is not UTF-8: it can only be removed')


def _is_escaped(name: str, letter: DeadLetter) -> bool:
    """Whether the letter has a header that is shown by that name, but has another one."""
    return name in letter.headers and name.encode() not in letter.packed


def _body_fault(letter: DeadLetter, changes: list[str]) -> str:
    """Why a changed body, or one whose type was changed, is not what its type says."""
    relevant = {'body', 'property content_type', 'property content_encoding'}
    return letter.body_fault() if relevant.intersection(changes) else ''
