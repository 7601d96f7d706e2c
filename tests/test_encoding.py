"""Bodies as JSON: what Python programs have besides JSON's own types."""

from __future__ import annotations

import collections
import dataclasses
import enum
import importlib.util
import json
import types
import uuid
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pytest

from clihelper.amqp.encoding import encode

UUID = uuid.UUID('12345678-1234-5678-1234-567812345678')


class Colour(enum.Enum):
    RED = 'red'


class Level(enum.IntEnum):
    HIGH = 3


class Kind(str, enum.Enum):  # noqa: UP042 - as many write it
    NEW = 'new'


@dataclasses.dataclass
class Line:
    item: str
    price: Decimal


@dataclasses.dataclass(frozen=True)
class Order:
    number: int
    lines: list[Line]
    when: datetime


class Model:
    """What pydantic 2 has."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        assert mode == 'json'
        return self.values


class OldModel:
    """What pydantic 1 has."""

    __fields__: dict[str, Any] = {}  # noqa: RUF012

    @classmethod
    def parse_obj(cls, value: Any) -> Any: ...

    def dict(self) -> Any:
        return {'price': Decimal('1.10')}


def decoded(body: Any) -> Any:
    payload, content_type = encode(body)
    assert content_type == 'application/json'
    return json.loads(payload)


@pytest.mark.parametrize(
    ('value', 'expected'),
    [
        (datetime(2026, 1, 2, 3, 4, 5, 600, UTC), '2026-01-02T03:04:05.000600+00:00'),
        (datetime(2026, 1, 2, 3, 4, 5), '2026-01-02T03:04:05'),  # noqa: DTZ001
        (date(2026, 1, 2), '2026-01-02'),
        (time(3, 4), '03:04:00'),
        (Decimal('0.10'), '0.10'),
        (UUID, str(UUID)),
        (Colour.RED, 'red'),
        (Level.HIGH, 3),
        (Kind.NEW, 'new'),
        (b'\x00\xff', 'AP8='),
        (bytearray(b'ab'), 'YWI='),
        ((1, (2,)), [1, [2]]),
        ({1}, [1]),
        (frozenset('a'), ['a']),
        (types.MappingProxyType({'a': {1}}), {'a': [1]}),
        (collections.ChainMap({'a': 1}, {'b': 2}), {'a': 1, 'b': 2}),
        (Line('tea', Decimal(1)), {'item': 'tea', 'price': '1'}),
        (Model(a=[1], b=None), {'a': [1], 'b': None}),
        (OldModel(), {'price': '1.10'}),
        ({UUID: 1, date(2026, 1, 2): 2, 3: 4}, {str(UUID): 1, '2026-01-02': 2, '3': 4}),
        ([{'a': {Colour.RED: Line('tea', Decimal(1))}}],
         [{'a': {'red': {'item': 'tea', 'price': '1'}}}]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_value_is_written_as_others_read_it_back(value: Any, expected: Any) -> None:
    assert decoded([value]) == [expected]
    assert decoded({'deep': {'er': [value]}}) == {'deep': {'er': [expected]}}


def test_a_dataclass_is_an_object_with_all_that_is_in_it() -> None:
    order = Order(1, [Line('tea', Decimal('2.50'))], datetime(2026, 1, 2, tzinfo=UTC))
    assert decoded(order) == {
        'number': 1, 'lines': [{'item': 'tea', 'price': '2.50'}],
        'when': '2026-01-02T00:00:00+00:00',
    }  # fmt: skip


def test_a_struct_and_a_model_are_objects_as_their_library_has_them() -> None:
    found = {name for name in ('msgspec', 'pydantic') if importlib.util.find_spec(name)}
    if 'msgspec' in found:
        import msgspec

        parts = [('item_name', str), ('price', Decimal), ('data', bytes), ('line', Any)]
        struct = msgspec.defstruct('Struct', parts, rename='camel', tag='line')
        assert decoded([struct('tea', Decimal('0.10'), b'\x00', Model(a=1))]) == [
            {'type': 'line', 'itemName': 'tea', 'price': '0.10', 'data': 'AA==', 'line': {'a': 1}}]
    if 'pydantic' in found:
        import pydantic

        for version in {pydantic, getattr(pydantic, 'v1', pydantic)}:
            model = version.create_model('Payment', when=(date, ...), amount=(Decimal, ...))
            payment = model(when='2026-01-02', amount='0.10')
            assert decoded({'it': payment}) == {'it': {'when': '2026-01-02', 'amount': '0.10'}}


@pytest.mark.parametrize(
    'value',
    [float('nan'), float('inf'), Decimal('NaN'), Decimal('-Infinity'), Model(a=float('nan'))],
)
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match='cannot be encoded as JSON'):
        encode({'a': [value]})


def test_what_contains_itself_is_refused() -> None:
    body: dict[str, Any] = {}
    body['a'] = types.MappingProxyType(body)
    with pytest.raises(ValueError, match='cannot be encoded as JSON'):
        encode(body)


@pytest.mark.parametrize('value', [object(), Line, {(1, 2): 3}, {'a': {b'x': object()}}, print])
def test_what_json_has_no_type_for_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match='cannot be encoded as JSON: '):
        encode([value])
