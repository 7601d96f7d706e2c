"""JSON Schema for a section: which file it is in, what is wrong with it, and what it finds."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import clihelper
from clihelper import config
from clihelper.errors import Error

SCHEMA: dict[str, Any] = {
    'properties': {
        'since': {'type': 'string', 'format': 'date'},
        'limit': {'type': 'integer', 'minimum': 1, 'default': 7},
        'at': {'anyOf': [{'type': 'null'}, {'properties': {'port': {'type': 'integer'}}}]},
    },
    'patternProperties': {'^x-': {}},
    'additionalProperties': False,
}

Parse = Callable[[dict[str, Any]], Any]


def load(folder: Path, section: str, parse: Parse) -> Any:
    path = folder / 'app.yml'
    path.write_text(f'Own: {section}\n')
    return config.load(str(path), appname='app', shown='app.yml', parsers={'Own': parse})['Own']


def failure(folder: Path, parse: Parse, section: str = '{}') -> Error:
    with pytest.raises(Error) as caught:
        load(folder, section, parse)
    return caught.value


def test_a_relative_file_is_beside_the_module_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / 'package'
    package.mkdir()
    (package / 'own.json').write_text(json.dumps(SCHEMA))
    (package / 'own.yml').write_text('properties: {limit: {type: integer}}\n')
    for name in ('own.json', 'own.yml'):
        module = package / 'module.py'
        module.write_text(f'import clihelper\nparse = clihelper.json_schema({name!r})\n')
        monkeypatch.chdir(tmp_path)
        parse = runpy.run_path(str(module))['parse']
        monkeypatch.chdir('/')  # as a daemon does
        assert load(tmp_path, '{limit: 3}', parse) == {'limit': 3}
        assert 'Own.limit' in str(failure(tmp_path, parse, '{limit: x}'))


def test_without_jsonschema_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'jsonschema', None)
    error = failure(tmp_path, clihelper.json_schema({}))
    assert str(error) == (
        'the JSON Schema: needs the package jsonschema, which is not installed')
    assert error.status == 1


@pytest.mark.parametrize(('name', 'text', 'fault'), [
    ('missing.json', None, ': No such file or directory'),
    ('own.json', '{"a": 1,\n "b"}', ':2:5: '),
    ('own.json', b'\xff', ": 'utf-8' codec can't decode"),
    ('own.yaml', 'a: [1\nb: ]\n', ':2:'),
])
def test_a_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, name: str, text: str | bytes | None, fault: str
) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    error = failure(tmp_path, clihelper.json_schema(path))
    assert str(error).startswith(f'{path}{fault}')
    assert str(error).count('\n') == 0
    assert error.status == 78


@pytest.mark.parametrize(('schema', 'fault'), [
    ([], 'not a JSON Schema: expected an object'),
    ({'properties': {'limit': {'type': 'int'}}}, 'not a JSON Schema: properties.limit.type: '),
    ({'items': [{'$ref': 'https://example.com/'}]}, '$ref: not within the same file: https:'),
])
def test_what_is_no_schema_is_one_line(tmp_path: Path, schema: Any, fault: str) -> None:
    if isinstance(schema, dict) and 'items' in schema:
        schema['$schema'] = 'http://json-schema.org/draft-07/schema#'
    path = tmp_path / 'own.json'
    path.write_text(json.dumps(schema))
    error = failure(tmp_path, clihelper.json_schema(path))
    assert str(error).startswith(f'{path}: {fault}')
    assert error.status == 78


def test_what_conforms_is_returned_as_it_was(tmp_path: Path) -> None:
    parse = clihelper.json_schema(SCHEMA)
    assert load(tmp_path, '{x-y: 1}', parse) == {'x-y': 1}
    assert str(load(tmp_path, '{since: 2026-12-01}', parse)['since']) == '2026-12-01'


def test_every_fault_has_its_place(tmp_path: Path) -> None:
    section = '{since: "soon", limt: 1, at: {port: x}, limit: 0}'
    error = failure(tmp_path, clihelper.json_schema(SCHEMA), section)
    lines = str(error).splitlines()
    assert lines[1] == 'app.yml:1:22: Own.limt: unknown key; did you mean limit?'
    assert [line.split(' ')[:2] for line in lines] == [
        ['app.yml:1:7:', 'Own.since:'], ['app.yml:1:22:', 'Own.limt:'],
        ['app.yml:1:36:', 'Own.at.port:'], ['app.yml:1:46:', 'Own.limit:'],
    ]


def test_the_file_is_read_once(tmp_path: Path) -> None:
    """A daemon that has left its user or root cannot read it again, and its code stays."""
    path = tmp_path / 'own.json'
    path.write_text(json.dumps(SCHEMA))
    parse = clihelper.json_schema(path)
    load(tmp_path, '{}', parse)
    path.unlink()
    load(tmp_path, '{}', parse)
