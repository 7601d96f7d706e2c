"""Bodies as the annotation of their handler has them: with each library that is installed."""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal, NewType, Optional, Protocol, TypedDict

import pytest

import clihelper
from clihelper.amqp.annotations import body_type, convertible
from clihelper.amqp.settlement import Invalid, Undecodable
from clihelper.errors import Error
from clihelper.testing import Harness

CONFIG = 'AMQP: {url: "memory://", queues: {q: }, retry: {attempts: 1}}'
RAW = {'content_type': 'application/json'}

#: Those that are installed: Debian 12 has pydantic 1, and not msgspec. None of them is required.
INSTALLED = [name for name in ('msgspec', 'pydantic') if importlib.util.find_spec(name)]


@dataclasses.dataclass
class Item:
    name: str
    count: int = 1


@dataclasses.dataclass
class Order:
    number: int
    items: list[Item] = dataclasses.field(default_factory=list)
    stock: dict[str, int] = dataclasses.field(default_factory=dict)


class Fields(TypedDict):
    number: int


class Colour(enum.Enum):
    RED = 'red'


class Odd:
    pass


class Duck(Protocol):
    number: int


Number = NewType('Number', int)


def models() -> dict[str, Any]:
    """The same order as each library has it, by the library."""
    found: dict[str, Any] = {'dataclass': Order} if INSTALLED else {}
    if 'msgspec' in INSTALLED:
        import msgspec

        item = msgspec.defstruct('Item', [('name', str), ('count', int, 1)])
        found['msgspec'] = msgspec.defstruct('Order', [
            ('number', int), ('items', list[item], msgspec.field(default_factory=list)),
            ('stock', dict[str, int], msgspec.field(default_factory=dict))])
    if 'pydantic' in INSTALLED:
        import pydantic

        found['pydantic'] = of_pydantic(pydantic)
        if pydantic.VERSION >= '2' and sys.version_info < (3, 14):
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                from pydantic import v1
            found['pydantic 1'] = of_pydantic(v1)
    return found


def of_pydantic(library: Any) -> Any:
    item = library.create_model('Item', name=(str, ...), count=(int, 1))
    return library.create_model(
        'Order', number=(int, ...), items=(list[item], []), stock=(dict[str, int], {}))


MODELS = models()


def consumer(annotation: Any, base: Any = clihelper.ConsumerController, **more: Any) -> Any:
    """A consumer with a handler of that annotation, which keeps what it gets."""
    def on_message(self: Any, body: Any, message: Any) -> None:
        self.got = body

    async def awaited(self: Any, body: Any, message: Any) -> None:
        self.got = body

    handler = awaited if base is clihelper.AsyncConsumerController else on_message
    handler.__annotations__['body'] = annotation
    return type('Consumer', (base,), {'on_message': handler, 'got': None, **more})


# What fits.


@pytest.mark.parametrize('base', [
    clihelper.ConsumerController, clihelper.AsyncConsumerController])
@pytest.mark.parametrize('library', MODELS)
def test_a_body_is_of_the_class_that_its_annotation_names(library: str, base: Any) -> None:
    with Harness(consumer(MODELS[library], base), CONFIG) as harness:
        harness.deliver({'number': 7, 'items': [{'name': 'pen'}], 'more': 0})
        got = harness.controller.got
        assert type(got) is MODELS[library]
        assert (got.number, got.items[0].name, got.items[0].count) == (7, 'pen', 1)


@pytest.mark.parametrize('library', MODELS)
def test_models_may_be_within_generics_and_unions(library: str) -> None:
    model = MODELS[library]
    for annotation in (list[model], Optional[list[model]], list[model] | None,  # noqa: UP045
                       Annotated[list[model], 'orders'], tuple[model, ...]):
        with Harness(consumer(annotation), CONFIG) as harness:
            harness.deliver([{'number': 1}, {'number': 2}])
            assert [each.number for each in harness.controller.got] == [1, 2]


def test_typed_dicts_and_enums_are_checked_too() -> None:
    if not INSTALLED:
        return
    with Harness(consumer(Fields), CONFIG) as harness:
        harness.deliver({'number': 1})
        assert harness.controller.got == {'number': 1}
        assert harness.deliver({'number': 'x'}).reason == 'invalid'
    with Harness(consumer(list[Colour]), CONFIG) as harness:
        harness.deliver(['red'])
        assert harness.controller.got == [Colour.RED]
        done = harness.deliver(['secret'])
        assert done.reason == 'invalid'
        assert 'secret' not in done.dead_letter.headers['x-clihelper-message']


@pytest.mark.parametrize('annotation', [
    'Any', Any, dict, 'dict', dict[str, Any], 'dict[str, Any]', list[int], int, str, bytes,
    'bytes', str | bytes, None, 'None', object, Literal['a'], Number, Duck, 'Mapping[str, Any]',
    'Optional[Message]',
])
def test_annotations_of_pythons_own_types_change_nothing(annotation: Any) -> None:
    if annotation == 'Optional[Message]':
        pytest.raises(Error, Harness(consumer(annotation), CONFIG).__enter__)
        return
    with Harness(consumer(annotation), CONFIG) as harness:
        for body in ({'number': 'x'}, b'bytes', 'text', [1], 7.5, None):
            done = harness.deliver(body)
            assert (done.reason, done.error) == (None, None)
            assert harness.controller.got == body


@pytest.mark.parametrize('library', MODELS)
def test_text_and_bytes_fit_where_they_are_named(library: str) -> None:
    model = MODELS[library]
    with Harness(consumer(model | str), CONFIG) as harness:
        harness.deliver('{"number": 1}')
        assert harness.controller.got == '{"number": 1}'
    with Harness(consumer(model), CONFIG) as harness:
        for body, kind in ((b'{"number": 1}', 'application/octet-stream'), ('x', 'text/plain')):
            done = harness.deliver(body)
            assert done.reason == 'invalid'
            text = done.dead_letter.headers['x-clihelper-message']
            assert text.endswith(f'; the content type is {kind}')


@pytest.mark.parametrize('library', MODELS)
def test_the_charset_is_that_of_the_content_type(library: str) -> None:
    raw = '{"number": 1, "items": [{"name": "é"}]}'
    with Harness(consumer(MODELS[library]), CONFIG) as harness:
        for charset in ('utf-8', 'UTF-8', 'latin-1', 'utf-16'):
            harness.deliver(raw.encode(charset),
                            content_type=f'application/json; charset={charset}')
            assert harness.controller.got.items[0].name == 'é'
            harness.controller.got = None
        assert harness.deliver(
            raw.encode(), content_type='application/json; charset=odd').reason == 'undecodable'


@pytest.mark.parametrize('library', MODELS)
def test_accept_max_body_and_compression_are_as_ever(library: str) -> None:
    import gzip

    config = CONFIG.replace('retry', 'max_body: 50, accept: [json], retry')
    with Harness(consumer(MODELS[library]), config) as harness:
        assert harness.deliver('text').reason == 'unaccepted'
        assert harness.deliver({'number': 1, 'items': [{'name': 'x' * 50}]}).reason == 'oversize'
        bomb = gzip.compress(b' ' * 60 + b'{"number": 1}')
        gzipped = {**RAW, 'content_encoding': 'gzip'}
        assert harness.deliver(bomb, **gzipped).reason == 'oversize'
        harness.deliver(gzip.compress(b'{"number": 1}'), **gzipped)
        assert harness.controller.got.number == 1


# What does not.


@pytest.mark.parametrize('library', MODELS)
@pytest.mark.parametrize(('body', 'path'), [
    ({'number': 'secret'}, 'body.number: '),
    ({'number': 1, 'items': [{'name': 'pen'}, {'name': 'ink', 'count': 'secret'}]},
     'body.items[1].count: '),
    ({'number': 1, 'stock': {'secret': 'secret'}}, 'body.stock[...]: '),
    ({'number': 1, 'items': 'secret'}, 'body.items: '),
    ({'secret': 1}, 'body'),
    (['secret'], 'body: '),
])
def test_what_does_not_fit_names_the_place_and_no_value(
    library: str, body: Any, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Harness(consumer(MODELS[library]), CONFIG) as harness:
        done = harness.deliver(body)
        assert harness.controller.got is None
    headers = done.dead_letter.headers
    assert (done.reason, done.error, headers['x-clihelper-exception']) == (
        'invalid', None, 'Invalid')
    assert headers['x-clihelper-attempts'] == 0
    assert headers['x-clihelper-message'].startswith(path)
    assert done.dead_letter.body == body
    assert 'secret' not in f'{headers}{caplog.text}'
    assert f'invalid: {path}' in caplog.text


@pytest.mark.parametrize('library', MODELS)
@pytest.mark.parametrize('raw', [
    b'{"number": ', b'', b'{"number": 1} x', b'\xff', b'[' * 100_000, b'{"number": 1, "\xff": 1}'])
def test_what_is_no_json_is_undecodable(library: str, raw: bytes) -> None:
    with Harness(consumer(MODELS[library]), CONFIG) as harness:
        done = harness.deliver(raw, **RAW)
        if raw == b'[' * 100_000 and done.reason == 'invalid':
            return  # an array is no order, however it goes on
        if raw.endswith(b'": 1}') and b'\xff' in raw and library in ('msgspec', 'dataclass'):
            return  # msgspec does not look at what it skips
        assert done.reason == 'undecodable'
        assert done.dead_letter.headers['x-clihelper-message'].startswith('not application/json: ')


def test_what_validators_of_the_program_say_is_not_told(
    caplog: pytest.LogCaptureFixture
) -> None:
    def check(self: Any) -> None:
        raise ValueError(f'{self.number} is a secret')

    for library in INSTALLED:
        if library == 'msgspec':
            import msgspec

            model = msgspec.defstruct(
                'Checked', [('number', int)], namespace={'__post_init__': check})
            text = 'body: ValueError'
        else:
            import pydantic

            if pydantic.VERSION < '2':
                continue
            model = pydantic.create_model('Checked', number=(
                Annotated[int, pydantic.AfterValidator(lambda number: check(Order(number)))], ...))
            text = 'body.number: value_error'
        with Harness(consumer(model), CONFIG) as harness:
            done = harness.deliver({'number': 4711})
        assert done.dead_letter.headers['x-clihelper-message'] == text
    assert 'secret' not in caplog.text
    assert '4711' not in caplog.text


def test_of_many_faults_some_are_told() -> None:
    if 'pydantic' not in INSTALLED:
        return
    with Harness(consumer(MODELS['pydantic']), CONFIG) as harness:
        done = harness.deliver({'number': 1, 'stock': {str(n): 'x' for n in range(1000)}})
        text = done.dead_letter.headers['x-clihelper-message']
        assert text.count('body.stock[...]: ') == 5
        assert text.endswith('; and 995 more')


# Batches.


@pytest.mark.parametrize('base', [
    clihelper.ConsumerController, clihelper.AsyncConsumerController])
@pytest.mark.parametrize('library', MODELS)
def test_a_batch_is_without_those_that_do_not_fit(library: str, base: Any) -> None:
    def plain(self: Any, messages: Any) -> None:
        self.got = [each.body for each in messages]

    async def awaited(self: Any, messages: Any) -> None:
        plain(self, messages)

    handler = awaited if base is clihelper.AsyncConsumerController else plain
    handler.__annotations__['messages'] = list[clihelper.Message[MODELS[library]]]
    cls = type('Batches', (base,), {'on_messages': handler, 'got': None})
    with Harness(cls, CONFIG) as harness:
        done = harness.deliver_batch([{'number': 1}, {'number': 'secret'}, {'number': 3}])
        assert [each.reason for each in done] == [None, 'invalid', None]
        assert [each.number for each in harness.controller.got] == [1, 3]
        assert type(harness.controller.got[0]) is MODELS[library]


def test_a_batch_of_messages_without_a_class_is_as_ever() -> None:
    for annotation in ('list[Message]', 'list[Message[Any]]', list, 'Nowhere', list[Any]):
        def on_messages(self: Any, messages: Any) -> None:
            self.got = [each.body for each in messages]

        on_messages.__annotations__['messages'] = annotation
        cls = type('Batches', (clihelper.ConsumerController,), {'on_messages': on_messages})
        with Harness(cls, CONFIG) as harness:
            harness.deliver_batch([{'number': 'x'}])
            assert harness.controller.got == [{'number': 'x'}]


# At the start.


@pytest.mark.parametrize(('annotation', 'line'), [
    (Odd, 'Consumer.on_message: body: no body would be of class Odd, which is neither a model of'
     ' pydantic, a msgspec.Struct, a dataclass nor a TypedDict'),
    ('list[Odd]', 'Consumer.on_message: body: no body would be of class Odd, '),
    ('Nowhere', "Consumer.on_message: body: the annotation 'Nowhere' cannot be evaluated:"
     " NameError: name 'Nowhere' is not defined"),
    ('Order[', "Consumer.on_message: body: the annotation 'Order[' cannot be evaluated: "),
])
def test_what_no_body_would_fit_is_an_error_of_one_line(annotation: Any, line: str) -> None:
    with pytest.raises(Error) as caught, Harness(consumer(annotation), CONFIG):
        pass
    assert str(caught.value).startswith(line)
    assert (caught.value.status, str(caught.value).count('\n')) == (1, 0)


def test_two_libraries_do_not_go_together() -> None:
    if {'msgspec', 'pydantic'} <= MODELS.keys():
        both = MODELS['msgspec'] | MODELS['pydantic']
        with pytest.raises(Error, match='no library handles classes of msgspec and pydantic'):
            convertible(both, 'body')


PROGRAM = """\
from __future__ import annotations

import dataclasses
import sys

for name in ('msgspec', 'pydantic'):
    sys.modules[name] = None
    sys.meta_path.insert(0, type(name, (), {'find_spec': classmethod(lambda cls, *of: None)}))

import importlib.util

found = importlib.util.find_spec
importlib.util.find_spec = lambda name: (
    None if name in ('msgspec', 'pydantic') else found(name))

import clihelper


@dataclasses.dataclass
class Order:
    number: int


class Orders(clihelper.ConsumerController):
    @clihelper.handles(type='order')
    def on_order(self, body: Order, message):
        pass


clihelper.setup('orders')
clihelper.run(Orders)
"""


@pytest.mark.parametrize('words', ['-f', '--check'])
def test_a_missing_library_is_an_error_of_one_line(tmp_path: Path, words: str) -> None:
    (tmp_path / 'orders.py').write_text(PROGRAM)
    (tmp_path / 'orders.yml').write_text(CONFIG)
    done = subprocess.run([sys.executable, 'orders.py', '-c', 'orders.yml', words],
                          cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (
        1, '', 'orders: Orders.on_order: body: needs msgspec or pydantic, and neither is'
        ' installed\n')


@pytest.mark.parametrize('library', MODELS)
def test_a_converter_raises_nothing_else(library: str) -> None:
    found = convertible(MODELS[library], 'body')
    assert found is not None
    with pytest.raises(Invalid):
        found.from_json(b'[]', 'application/json')
    with pytest.raises((Undecodable, ValueError)):
        found.from_json(b'{', 'application/json')
    with pytest.raises(Invalid):
        found.from_value(b'', '')
    schema, components = found.schema()
    assert 'number' in str((schema, components))
    assert str(found) == 'Order'


def test_without_an_annotation_nothing_is_needed() -> None:
    assert body_type(lambda self, body, message: None, 'body', 'here') is None
