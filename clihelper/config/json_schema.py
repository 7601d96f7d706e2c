"""JSON Schema for a section of the application's own: :func:`clihelper.json_schema`."""

from __future__ import annotations

import os
import sys

from clihelper.config.parse_errors import MISSING, UNKNOWN
from clihelper.errors import ConfigurationError, Error, did_you_mean, one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


class Invalid(ValueError):
    """A section does not conform to its schema.

    :param faults: the path to each key, and what is wrong with it.
    """

    def __init__(self, faults: list[tuple[tuple[object, ...], str]]) -> None:
        super().__init__('; '.join(text for _, text in faults))
        self._faults = faults

    def errors(self) -> list[dict[str, Any]]:
        """Return the faults, as pydantic's ``ValidationError`` does."""
        return [{'loc': keys, 'msg': text} for keys, text in self._faults]


def json_schema(
    source: str | os.PathLike[str] | dict[str, Any],
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a ``parse`` for :func:`clihelper.add_config_key` that validates by a JSON Schema.

    It needs the package ``jsonschema``, and reports all faults at once. The section is returned
    as it was: a ``default`` in a schema fills in nothing. A date of YAML is taken for the text
    that it is in JSON. The draft is the one that ``$schema`` names, by default the latest one;
    ``format`` is checked where ``jsonschema`` can; ``$ref`` may refer to the same file only.

    :param source: the file of the schema, JSON, or YAML if it ends in ``.yml`` or ``.yaml``; or
        the schema itself. A relative path is relative to the folder of the module that calls this
        function. The file is read once, when the configuration is first validated: if it cannot
        be, that is reported in one line.
    """
    if isinstance(source, dict):
        return _Schema('the JSON Schema', lambda: source)
    called_by = sys._getframe(1).f_globals.get('__file__') or ''
    path = os.path.join(os.path.dirname(os.path.abspath(called_by)), os.fspath(source))
    return _Schema(path, lambda: _read(path))


class _Schema:
    """A JSON Schema.

    :param shown: what errors call it.
    :param read: returns it.
    """

    def __init__(self, shown: str, read: Callable[[], Any]) -> None:
        self._shown = shown
        self._read = read
        self._validator: Any = None

    def __call__(self, section: dict[str, Any]) -> dict[str, Any]:
        """Validate a section, and return it.

        :raises Invalid: it does not conform.
        :raises Error: the schema itself cannot be used.
        """
        if self._validator is None:
            self._validator = _validator(self._read(), self._shown)
        faults = [
            fault
            for error in self._validator.iter_errors(_as_json(section))
            for fault in _faults(error)
        ]
        if faults:
            raise Invalid(faults)
        return section


def _read(path: str) -> Any:
    """Read the file of a schema.

    :raises ConfigurationError: it cannot be read, or is not what its name says.
    """
    try:
        with open(path, 'rb') as file:
            text = file.read().decode()
        if path.endswith(('.yml', '.yaml')):
            import yaml

            return yaml.safe_load(text)
        import json

        return json.loads(text)
    except OSError as error:
        raise ConfigurationError(f'{path}: {error.strerror}') from None
    except Exception as error:  # UnicodeDecodeError, json's and yaml's
        line, column = getattr(error, 'lineno', 0), getattr(error, 'colno', 0)
        if mark := getattr(error, 'problem_mark', None):
            line, column = mark.line + 1, mark.column + 1
        text = getattr(error, 'msg', None) or getattr(error, 'problem', None) or str(error)
        where = f'{path}:{line}:{column}' if line else path
        raise ConfigurationError(f'{where}: {one_line(text)}') from None


def _validator(schema: Any, shown: str) -> Any:
    """Return jsonschema's validator.

    :raises ConfigurationError: it is no JSON Schema.
    :raises Error: jsonschema is not installed.
    """
    try:
        from jsonschema import Draft202012Validator, SchemaError
        from jsonschema.validators import validator_for
    except ImportError:
        raise Error(f'{shown}: needs the package jsonschema, which is not installed') from None
    if not isinstance(schema, dict):
        raise ConfigurationError(f'{shown}: not a JSON Schema: expected an object')
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        place = '.'.join(map(str, error.absolute_path))
        fault = f'{place}: {error.message}' if place else error.message
        raise ConfigurationError(f'{shown}: not a JSON Schema: {one_line(fault)}') from None
    for reference in _references(schema):
        if not reference.startswith('#'):  # jsonschema might fetch it, and wait for long
            raise ConfigurationError(f'{shown}: $ref: not within the same file: {reference}')
    return kind(schema, format_checker=kind.FORMAT_CHECKER)


def _references(schema: Any) -> Iterator[str]:
    """Yield each ``$ref`` of a schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get('$ref'), str):
            yield schema['$ref']
        schema = list(schema.values())
    if isinstance(schema, list):
        for each in schema:
            yield from _references(each)


def _as_json(value: Any) -> Any:
    """Return a value of YAML as JSON has it: a date is a text."""
    if isinstance(value, dict):
        return {key: _as_json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_as_json(each) for each in value]
    return value.isoformat() if hasattr(value, 'isoformat') else value


def _faults(error: Any) -> Iterator[tuple[tuple[object, ...], str]]:
    """Yield the keys and the text of each fault that an error of jsonschema's stands for."""
    from jsonschema.exceptions import best_match

    error = best_match([error])  # of several alternatives, the one that was probably meant
    keys = tuple(error.absolute_path)
    if error.validator == 'additionalProperties' and isinstance(error.validator_value, bool):
        for name in _additional(error):
            meant = did_you_mean(name, error.schema.get('properties', {}))
            yield (*keys, name), UNKNOWN + meant
    elif error.validator == 'required':
        for name in error.validator_value:
            if error.message.startswith(repr(name)):
                yield (*keys, name), MISSING
    else:
        yield keys, error.message


def _additional(error: Any) -> Iterator[object]:
    """Yield the keys that are not allowed."""
    import re

    patterns = error.schema.get('patternProperties', {})
    for name in error.instance:
        if name not in error.schema.get('properties', {}) and not any(
                re.search(each, str(name)) for each in patterns):
            yield name
