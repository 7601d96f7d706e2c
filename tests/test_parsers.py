"""Sections validated by the libraries that one would use: each error has its place."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import clihelper
from clihelper import program
from tests.test_sections import faults, load


def pydantic_2() -> Callable[[dict[str, Any]], Any]:
    from pydantic import create_model

    depot = create_model('Depot', port=(int, ...), name=(str, ...))
    model: Any = create_model(
        'Shipping', __config__={'extra': 'forbid'}, carriers=(list[str], ...), depot=(depot, ...))
    return model.model_validate  # type: ignore[no-any-return]


def pydantic_1() -> Callable[[dict[str, Any]], Any]:
    from pydantic import v1 as pydantic

    depot = pydantic.create_model('Depot', port=(int, ...), name=(str, ...))
    model: Any = pydantic.create_model(
        'Shipping', __config__=type('Strict', (), {'extra': 'forbid'}),
        carriers=(list[str], ...), depot=(depot, ...))
    return model.parse_obj  # type: ignore[no-any-return]


def msgspec_struct() -> Callable[[dict[str, Any]], Any]:
    import msgspec

    depot = msgspec.defstruct('Depot', [('port', int), ('name', str)])
    struct = msgspec.defstruct(
        'Shipping', [('carriers', list[str]), ('depot', depot)], forbid_unknown_fields=True)
    return lambda section: msgspec.convert(section, struct)


@dataclasses.dataclass
class Depot:
    port: int
    name: str


@dataclasses.dataclass
class Shipping:
    carriers: list[str]
    depot: Depot


def dataclass_by_msgspec() -> Callable[[dict[str, Any]], Any]:
    import msgspec

    return lambda section: msgspec.convert(section, Shipping)


def dataclass_by_pydantic() -> Callable[[dict[str, Any]], Any]:
    import pydantic

    return pydantic.TypeAdapter(Shipping).validate_python


SCHEMA = {
    'type': 'object',
    'properties': {'carriers': {'type': 'array'}, 'depot': {'$ref': '#/$defs/depot'}},
    'additionalProperties': False,
    '$defs': {'depot': {
        'type': 'object',
        'properties': {'port': {'type': 'integer'}, 'name': {'type': 'string'}},
        'required': ['port', 'name'],
    }},
}


def from_schema() -> Callable[[dict[str, Any]], Any]:
    return clihelper.json_schema(SCHEMA)


def plain_jsonschema() -> Callable[[dict[str, Any]], Any]:
    import jsonschema

    def validated(section: dict[str, Any]) -> dict[str, Any]:
        jsonschema.validate(section, SCHEMA)
        return section

    return validated


ALL = [pydantic_2, msgspec_struct, from_schema, plain_jsonschema]
if sys.version_info < (3, 14):  # where pydantic's first version, which the second brings, ends
    ALL.append(pydantic_1)

AT_ONCE = (pydantic_1, pydantic_2, from_schema)

RIGHT = 'Shipping:\n  carriers: [bike]\n  depot:\n    port: 80\n    name: north\n'


@pytest.mark.parametrize('library', ALL, ids=[each.__name__ for each in ALL])
def test_the_errors_of_libraries_have_their_places(
    tmp_path: Path, library: Callable[[], Callable[[dict[str, Any]], Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parse = library()
    assert load(tmp_path, RIGHT, Shipping=parse)['Shipping']
    (fault,) = faults(tmp_path, RIGHT.replace('80', 'http'), Shipping=parse)
    assert fault.startswith('app.yml:4:5: Shipping.depot.port: ')
    (fault,) = faults(tmp_path, RIGHT.replace('    name: north\n', ''), Shipping=parse)
    plain = library is plain_jsonschema
    assert fault.startswith(f'app.yml:3:3: Shipping.depot{"" if plain else ".name"}: ')
    (fault,) = faults(tmp_path, RIGHT + '  carier: 1\n', Shipping=parse)
    assert fault.startswith('app.yml:1:1: Shipping' if plain else 'app.yml:6:3: Shipping.carier')
    several = RIGHT.replace('80', 'http').replace('[bike]', '1')
    assert len(faults(tmp_path, several, Shipping=parse)) == (
        2 if library in AT_ONCE else 1)
    for secret in ('swordfish', 'sword' * 40):
        monkeypatch.setenv('PORT', secret)
        (fault,) = faults(tmp_path, RIGHT.replace('80', '!env PORT'), Shipping=parse)
        assert secret[:12] not in fault
        assert secret[-12:] not in fault


@pytest.mark.parametrize('library', [dataclass_by_msgspec, dataclass_by_pydantic],
                         ids=['msgspec', 'pydantic'])
def test_dataclasses_that_nest_are_made_by_libraries(
    tmp_path: Path, library: Callable[[], Callable[[dict[str, Any]], Any]]
) -> None:
    parse = library()
    assert load(tmp_path, RIGHT, Shipping=parse)['Shipping'] == Shipping(
        ['bike'], Depot(80, 'north'))
    (fault,) = faults(tmp_path, RIGHT.replace('80', 'http'), Shipping=parse)
    assert fault.startswith('app.yml:4:5: Shipping.depot.port: ')


def test_a_model_that_would_take_the_section_for_a_field_is_refused() -> None:
    import msgspec
    import pydantic

    struct = msgspec.defstruct('Struct', [('carriers', dict)])
    model = pydantic.create_model('Model', carriers=(dict, ...))
    for each in (struct, model):
        with pytest.raises(TypeError, match='parse is a class of models, '):
            clihelper.add_config_key('Shipping', each)
    assert program.current.parsers == {}
