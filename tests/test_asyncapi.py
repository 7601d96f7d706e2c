"""The AsyncAPI document of a program; tests/test_asyncapi_schema.py validates it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clihelper.amqp.asyncapi import adapted

PROGRAMS = Path(__file__).parent / 'programs'

CONFIG = """\
AMQP:
  url: ['amqps://me:secret@broker/shop', 'amqp://me:secret@other:5673/shop', 'memory://']
  exchanges:
    shop: {type: topic}
    odd: {type: x-consistent-hash}
  queues:
    orders: {exchange: shop, routing_keys: [order.*, 'returns.#'], arguments: {x-a: secret}}
    äöü: {durable: false, bindings: [{exchange: odd, routing_key: '1'}]}
    stock: {exchange: amq.topic, partitions: 2}
    declared: {consume: false}
"""

LIBRARIES = any(map(importlib.util.find_spec, ('msgspec', 'pydantic')))


def with_bodies(test: Any) -> Any:
    """Leave a test out where no library for bodies is installed: none is required."""
    return test if LIBRARIES else None


def document(folder: Path, config: str = CONFIG, program: str = 'documented.py') -> Any:
    (folder / 'shop.yml').write_text(config)
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / program), '-c', 'shop.yml', '--asyncapi'], cwd=folder,
        capture_output=True, text=True, check=True)
    assert (done.stderr, 'secret' in done.stdout) == ('', False)
    return json.loads(done.stdout)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if '$ref' in value:
            yield value['$ref']
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from references(each)


@with_bodies
def test_it_describes_queues_handlers_and_bodies(tmp_path: Path) -> None:
    found = document(tmp_path)
    assert found['asyncapi'] == '3.0.0'
    assert found['info'] == {'title': 'shop', 'description': 'Sells.', 'version': '1.2'}
    assert found['servers'] == {
        'broker': {'host': 'broker:5671', 'protocol': 'amqps', 'protocolVersion': '0-9-1'},
        'broker-2': {'host': 'other:5673', 'protocol': 'amqp', 'protocolVersion': '0-9-1'},
    }
    addresses = {each['title']: each['address'] for each in found['channels'].values()}
    assert addresses == {
        'orders': 'orders', 'äöü': 'äöü', 'stock': 'stock', 'shop, order.*': 'order.*',
        'shop, returns.#': 'returns.#', 'odd, 1': '1', 'amq.topic': '',
    }
    receivers: dict[str, set[str]] = {}
    for each in found['operations'].values():
        channel = found['channels'][each['channel']['$ref'].rpartition('/')[2]]
        receivers.setdefault(each['title'], set()).add(channel['title'])
    everywhere = {'orders', 'äöü', 'stock'}
    assert receivers == {'on_paid': {'orders'}, 'on_gone': everywhere, 'on_message': everywhere}
    names = {each['name']: each for each in found['components']['messages'].values()}
    assert set(names) == {'order.paid', 'order.gone', 'order.lost', 'on_message'}
    assert names['order.paid']['bindings']['amqp']['messageType'] == 'order.paid'
    assert 'payload' not in names['on_message']


@with_bodies
def test_each_reference_leads_somewhere(tmp_path: Path) -> None:
    found = document(tmp_path)
    for reference in references(found):
        place: Any = found
        for step in reference.removeprefix('#/').split('/'):
            place = place[step]
        assert place


@with_bodies
def test_models_of_the_same_name_are_kept_apart(tmp_path: Path) -> None:
    found = document(tmp_path)
    texts = {name: str(each['payload']) for name, each in
             found['components']['messages'].items() if 'payload' in each}
    schemas = found['components']['schemas']
    whole = json.dumps(found)
    assert {'number', 'word'} <= {key for each in (*schemas.values(), *(
        each['payload'] for each in found['components']['messages'].values()
        if 'payload' in each)) for key in each.get('properties', ())}
    assert len(texts) == 3
    assert whole.count('"word": {') == 1


def test_what_the_broker_names_has_no_address(tmp_path: Path) -> None:
    config = 'AMQP: {url: "memory://", queues: {mine: {name: "", exclusive: true}}}'
    found = document(tmp_path, config, 'consumer.py')
    (channel,) = found['channels'].values()
    assert (channel['title'], channel['address']) == ('mine', None)
    assert 'servers' not in found


def test_what_is_no_consumer_has_none(tmp_path: Path) -> None:
    (tmp_path / 'app.yml').write_text('Application:\n')
    (tmp_path / 'app.py').write_text(
        'import clihelper\nclihelper.setup("app")\nclihelper.run(clihelper.Controller)\n')
    done = subprocess.run([sys.executable, 'app.py', '-c', 'app.yml', '--asyncapi'], cwd=tmp_path,
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (
        2, '', 'app: argument --asyncapi: Controller is no consumer\n')


def test_schemas_are_of_draft_7_and_know_their_new_names() -> None:
    schema = {
        'prefixItems': [{'$ref': '#/components/schemas/A'}], 'items': False,
        'discriminator': {'propertyName': 'type', 'mapping': {'a': '#/components/schemas/A'}},
        'anyOf': [{'$ref': '#/components/schemas/B'}],
    }
    assert adapted(schema, {'A': 'on_a.A'}) == {
        'items': [{'$ref': '#/components/schemas/on_a.A'}], 'additionalItems': False,
        'discriminator': 'type', 'anyOf': [{'$ref': '#/components/schemas/B'}],
    }
