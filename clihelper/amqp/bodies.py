"""Bodies as the annotation of a handler has them: validated, and converted.

Which library does it is decided in :mod:`clihelper.amqp.annotations`. A body that does not fit is
:class:`~clihelper.amqp.settlement.Invalid`: what is told of it is where in the body something is
wrong, and what is expected there. A value of the body, or a key that no model has, is never told.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cached_property

from clihelper.amqp.settlement import Invalid, Undecodable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

MOST_FAULTS = 5
"""how many of the places where a body does not fit are told"""

REFERENCE = '#/components/schemas/'
"""where a schema is in a document, before its name"""

UNKNOWN = '[...]'
"""in a path, the key of a mapping, which is part of the body"""


class BodyType:
    """What a body is to become.

    :param annotation: the annotation of the handler.
    :raises Exception: the library cannot handle it.
    """

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation

    def from_json(self, raw: bytes | str, content_type: str) -> Any:
        """Return what JSON in UTF-8 stands for.

        :raises Undecodable: it is not JSON.
        :raises Invalid: it does not fit.
        """
        raise NotImplementedError

    def from_value(self, value: bytes | str, content_type: str) -> Any:
        """Return what the body of a message stands for that is not JSON.

        :raises Invalid: it does not fit.
        """
        raise NotImplementedError

    def schema(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return its JSON Schema, and those that it refers to at :data:`REFERENCE`, by name."""
        raise NotImplementedError

    def __str__(self) -> str:
        return name_of(self.annotation)


class MsgspecBody(BodyType):
    """What :mod:`msgspec` decodes: a Struct, a dataclass, a TypedDict, and generics of them."""

    def __init__(self, annotation: Any) -> None:
        super().__init__(annotation)
        import msgspec

        self._msgspec = msgspec
        self._invalid, self._malformed = msgspec.ValidationError, msgspec.DecodeError
        self._decode = msgspec.json.Decoder(annotation).decode

    def from_json(self, raw: bytes | str, content_type: str) -> Any:
        try:
            return self._decode(raw)
        except self._invalid as error:
            raise Invalid(_msgspec_fault(error)) from None
        except self._malformed as error:
            position = re.search(r'\(byte (\d+)\)$', str(error))
            where = f' at byte {position[1]}' if position else ''
            raise Undecodable(f'not {content_type}: DecodeError{where}') from None

    def from_value(self, value: bytes | str, content_type: str) -> Any:
        try:
            return self._msgspec.convert(value, self.annotation)
        except self._invalid as error:
            raise Invalid(_with_type(_msgspec_fault(error), content_type)) from None

    def schema(self) -> tuple[dict[str, Any], dict[str, Any]]:
        (found,), components = self._msgspec.json.schema_components(
            [self.annotation], ref_template=f'{REFERENCE}{{name}}')
        return found, components


def _msgspec_fault(error: Exception) -> str:
    """What is wrong, and where. Values are in some of msgspec's texts, and may be in others'."""
    text, path = str(error), ''
    found = re.search(r' - at `((?:key in )?)\$([^`]*)`$', text)
    if found:
        text, path = text[:found.start()], found[2] + (UNKNOWN if found[1] else '')
    if error.__cause__ is not None:  # what a __post_init__ of the program raised
        text = type(error.__cause__).__name__
    elif not text.startswith(('Expected ', 'Object missing required field ')):
        text = re.split(r''' [`'"\d-]''', text)[0]
    return f'body{path}: {text}'


class PydanticBody(BodyType):
    """What pydantic 2 validates: models, dataclasses, TypedDicts, and generics of them."""

    def __init__(self, annotation: Any) -> None:
        super().__init__(annotation)
        import pydantic

        self._adapter = pydantic.TypeAdapter(annotation)
        self._invalid = pydantic.ValidationError
        self._validate = self._adapter.validate_json

    def from_json(self, raw: bytes | str, content_type: str) -> Any:
        try:
            return self._validate(raw)
        except self._invalid as error:
            errors: Any = error.errors(include_url=False, include_input=False)
            if errors[0]['type'] == 'json_invalid':
                position = re.search(r' at line \d+ column \d+$', errors[0]['ctx']['error'])
                where = position[0] if position else ''
                raise Undecodable(f'not {content_type}: ValueError{where}') from None
            raise Invalid(self._faults(errors)) from None

    def from_value(self, value: bytes | str, content_type: str) -> Any:
        try:
            return self._adapter.validate_python(value)
        except self._invalid as error:
            faults = self._faults(error.errors(include_url=False, include_input=False))
            raise Invalid(_with_type(faults, content_type)) from None

    def schema(self) -> tuple[dict[str, Any], dict[str, Any]]:
        found = self._adapter.json_schema(ref_template=f'{REFERENCE}{{model}}')
        return found, found.pop('$defs', {})

    def _faults(self, errors: Any) -> str:
        return _pydantic_faults(errors, self._names)

    @cached_property
    def _names(self) -> set[str]:
        return _names_in_schema(self)


class Pydantic1Body(BodyType):
    """What pydantic 1 validates: models, dataclasses, TypedDicts, and generics of them.

    :param library: the name of the package: pydantic 2 contains it as ``pydantic.v1``.
    """

    def __init__(self, annotation: Any, library: str = 'pydantic') -> None:
        super().__init__(annotation)
        import importlib

        self._invalid = importlib.import_module(library).ValidationError
        self._tools = importlib.import_module(f'{library}.tools')
        with suppress(self._invalid):
            self._convert(None)

    def from_json(self, raw: bytes | str, content_type: str) -> Any:
        import json

        # pydantic's own way from bytes is this one, too.
        value = json.loads(raw if isinstance(raw, str) else raw.decode())
        try:
            return self._convert(value)
        except self._invalid as error:
            raise Invalid(self._faults(error)) from None

    def from_value(self, value: bytes | str, content_type: str) -> Any:
        try:
            return self._convert(value)
        except self._invalid as error:
            raise Invalid(_with_type(self._faults(error), content_type)) from None

    def schema(self) -> tuple[dict[str, Any], dict[str, Any]]:
        # It is kept by pydantic, so it must not change.
        kept = self._tools.schema_of(self.annotation, ref_template=f'{REFERENCE}{{model}}')
        found = {**kept, 'title': str(self)}  # not that of pydantic's own model around it
        return found, found.pop('definitions', {})

    def _convert(self, value: Any) -> Any:
        return self._tools.parse_obj_as(self.annotation, value)

    def _faults(self, error: Any) -> str:
        errors = [{**each, 'loc': each['loc'][1:]} for each in error.errors()]  # from __root__ on
        return _pydantic_faults(errors, self._names)

    @cached_property
    def _names(self) -> set[str]:
        return _names_in_schema(self)


def _pydantic_faults(errors: Sequence[Any], names: set[str]) -> str:
    """What is wrong and where, by pydantic's word for it: its texts may contain values."""
    parts = [f'{_path(each["loc"], names)}: {each["type"]}' for each in errors[:MOST_FAULTS]]
    more = len(errors) - len(parts)
    return '; '.join(parts) + (f'; and {more} more' if more else '')


def _path(keys: Sequence[object], names: set[str]) -> str:
    """A path in the body, without keys that come from there."""
    steps = (
        f'[{key}]' if isinstance(key, int) else f'.{key}' if key in names else UNKNOWN
        for key in keys
    )
    return 'body' + ''.join(steps)


def _names_in_schema(body: BodyType) -> set[str]:
    """The names that models have for what they contain."""
    try:
        found, components = body.schema()
    except Exception:  # not everything that can be validated has a schema
        return set()
    return {*components, *_properties((found, components))}


def _properties(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        properties = schema.get('properties')
        if isinstance(properties, dict):
            yield from properties
        schema = schema.values()
    elif not isinstance(schema, (list, tuple)):
        return
    for each in schema:
        yield from _properties(each)


def _with_type(text: str, content_type: str) -> str:
    return f'{text}; the content type is {content_type or "none"}'


def name_of(annotation: Any) -> str:
    """An annotation for people to read: as it is written, without its modules.

    >>> name_of(dict[str, int]), name_of(int), name_of(int | None)
    ('dict[str, int]', 'int', 'int | None')
    """
    if isinstance(annotation, type) and not hasattr(annotation, '__args__'):
        return annotation.__name__
    return re.sub(r'\b(?:\w+\.)+(?:<locals>\.)?(?=\w)', '', str(annotation))
