"""The body of a message as bytes: what a program publishes, and what a handler replies.

JSON has few types. Those that Python programs use besides are written as others read them back:
:func:`encode` lists them. Nothing is imported for them: models are known by what they can do.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

BINARY, TEXT, JSON = 'application/octet-stream', 'text/plain', 'application/json'

_encoders: list[Callable[[Any], str]] = []  # the one that is used, once it is made


def encode(body: Any) -> tuple[bytes, str]:
    """The body as bytes, and its content type.

    ``bytes`` are left as they are, ``str`` is text in UTF-8, anything else JSON. In JSON

    - a dataclass, a pydantic model and a msgspec Struct are objects, as their library has them;
    - a mapping is an object, whose keys may be whatever is written as text;
    - a tuple, a set and a frozenset are arrays;
    - ``datetime``, ``date`` and ``time`` are text by ISO 8601, ``UUID`` is text, and ``Decimal``
      is text, since a number would lose digits;
    - ``bytes`` within are text in base64 (:rfc:`4648`, section 4), and an ``Enum`` is its value.

    :raises TypeError: JSON has no type for it.
    :raises ValueError: it contains itself, or a number that JSON does not support (NaN, infinity).
    """
    if type(body) is bytes:
        return body, BINARY
    if isinstance(body, bytes | bytearray | memoryview):
        # Bypass the methods of derived classes.
        return bytes(memoryview(body)), BINARY
    if isinstance(body, str):
        return str.encode(body), TEXT
    try:
        encoded = _to_json(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'the body cannot be encoded as JSON: {error}') from error
    return encoded.encode(), JSON


def _to_json(body: Any) -> str:
    dumps = _encoders[0] if _encoders else _make_encoder()
    try:
        return dumps(body)
    except TypeError:
        # json never asks for another form of a key: perhaps that is all.
        return dumps(_with_text_keys(body))


def _make_encoder() -> Callable[[Any], str]:
    import json

    encoder = json.JSONEncoder(separators=(',', ':'), allow_nan=False, default=plain)
    _encoders.append(encoder.encode)
    return encoder.encode


def plain(value: Any) -> Any:
    """One value in types that are closer to JSON's; what it contains may need the same.

    :raises TypeError: there are none for it.
    :raises ValueError: it is a ``Decimal`` that is not a number, or infinite.
    """
    kind = type(value)
    for convert in (_plain_model, _plain_container, _plain_scalar):
        found = convert(value, kind)
        if found is not value:
            return found
    raise TypeError('the body cannot be encoded as JSON: an object of the type'
                    f' {kind.__name__} is not JSON serializable')  # fmt: skip


def _plain_model(value: Any, kind: type) -> Any:
    if hasattr(kind, 'model_dump'):  # pydantic's
        return value.model_dump(mode='json')
    if hasattr(kind, '__struct_fields__') and 'msgspec' in sys.modules:
        return sys.modules['msgspec'].to_builtins(value, enc_hook=plain)
    if hasattr(kind, '__dataclass_fields__'):
        from dataclasses import fields

        return {each.name: getattr(value, each.name) for each in fields(value)}
    if hasattr(kind, '__fields__') and hasattr(kind, 'parse_obj'):  # those of pydantic 1
        return value.dict()
    return value


def _plain_container(value: Any, kind: type) -> Any:
    if issubclass(kind, set | frozenset):
        return list(value)
    if hasattr(kind, 'keys') and hasattr(kind, '__getitem__'):
        return {key: value[key] for key in value.keys()}  # noqa: SIM118 - it may have no __iter__
    return value


def _plain_scalar(value: Any, kind: type) -> Any:
    from datetime import date, time
    from decimal import Decimal
    from enum import Enum
    from uuid import UUID

    if issubclass(kind, Enum):
        return value.value
    if issubclass(kind, date | time):
        return value.isoformat()
    if issubclass(kind, Decimal):
        if not value.is_finite():
            raise ValueError(f'{value} is no number of JSON')
        return str(value)
    if issubclass(kind, UUID):
        return str(value)
    if issubclass(kind, bytes | bytearray | memoryview):
        from base64 import b64encode

        return b64encode(value).decode()
    return value


def _with_text_keys(value: Any) -> Any:
    """A copy whose mappings have keys that json accepts.

    :raises TypeError: one has a key that is not written as text, or contains an unknown type.
    """
    if isinstance(value, dict):
        return {_key(key): _with_text_keys(value[key]) for key in value}
    if isinstance(value, list | tuple):
        return [_with_text_keys(each) for each in value]
    if value is None or isinstance(value, str | int | float):
        return value
    return _with_text_keys(plain(value))


def _key(key: Any) -> Any:
    if key is None or isinstance(key, str | int | float):
        return key
    simpler = _plain_scalar(key, type(key))
    if simpler is key or not isinstance(simpler, str | int | float):
        raise TypeError('the body cannot be encoded as JSON: an object has a key of the type'
                        f' {type(key).__name__}')  # fmt: skip
    return simpler
