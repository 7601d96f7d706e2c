"""An AsyncAPI 3.0 document of what a consumer receives: its queues, handlers and bodies.

See https://www.asyncapi.com/docs/reference/specification/v3.0.0 and the AMQP bindings, version
0.3.0. It has the addresses of brokers, without users and passwords, and no arguments of queues.
"""

from __future__ import annotations

import re

from clihelper.amqp import url as broker_url
from clihelper.amqp.bodies import REFERENCE
from clihelper.amqp.entities import Entities, bindings_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from clihelper.amqp.handlers import Handler, Handlers

    Document = dict[str, Any]

VERSION, BINDING = '3.0.0', {'bindingVersion': '0.3.0'}

EXCHANGE_TYPES = ('topic', 'direct', 'fanout', 'default', 'headers')
"""the types that the bindings know"""


def document(
    section: Mapping[str, Any],
    entities: Entities,
    handlers: Handlers,
    name: str,
    description: str | None,
    version: str | None,
) -> Document:
    """Describe what a program receives.

    :param section: the ``AMQP`` section.
    :param entities: the exchanges and queues, of the section and of the program.
    :param name: the program's name, with its description and its version.
    """
    servers = dict(_servers(section['url']))
    info = {'title': name, 'version': version or 'unknown'}
    if description:
        info['description'] = description
    maker = _Maker(entities, next(iter(_vhosts(section['url'])), '/'))
    for handler in handlers.all:
        maker.add(handler)
    made = {
        'asyncapi': VERSION, 'info': info, 'servers': servers, 'channels': maker.channels,
        'operations': maker.operations,
        'components': {'messages': maker.messages, 'schemas': maker.schemas},
    }
    return {key: value for key, value in made.items() if value}


def _urls(url: str | list[str]) -> list[str]:
    urls = [url] if isinstance(url, str) else url
    return [each for each in urls if each.partition('://')[0] in ('amqp', 'amqps')]


def _vhosts(url: str | list[str]) -> Iterator[str]:
    for each in _urls(url):
        yield broker_url.parameters(each)['virtual_host']


def _servers(url: str | list[str]) -> Iterator[tuple[str, Document]]:
    for number, each in enumerate(_urls(url), 1):
        found = broker_url.parameters(each)
        yield f'broker-{number}' if number > 1 else 'broker', {
            'host': found['host'],
            'protocol': 'amqps' if found['ssl'] else 'amqp',
            'protocolVersion': '0-9-1',
        }


class _Maker:
    """Makes the parts of a document, one handler after another.

    :param entities: the exchanges and queues.
    :param vhost: the virtual host that they are in.
    """

    def __init__(self, entities: Entities, vhost: str) -> None:
        self.channels: Document = {}
        self.operations: Document = {}
        self.messages: Document = {}
        self.schemas: Document = {}
        self._entities = entities
        self._vhost = vhost
        self._ids: dict[tuple[str, ...], str] = {}
        self._queues = {
            entities.partitions.get(label, label): options
            for label, options in entities.queues.items() if options.get('consume', True)
        }
        for label, options in self._queues.items():
            self._add_queue(label, options)

    def _id(self, *names: str) -> str:
        """An identifier that may be part of a reference, the same for the same names."""
        if names not in self._ids:
            made = re.sub(r'[^A-Za-z0-9_-]', '_', '-'.join(names)) or '_'
            while made in self._ids.values():
                made += '_'
            self._ids[names] = made
        return self._ids[names]

    # Channels.

    def _add_queue(self, label: str, options: Mapping[str, Any]) -> None:
        name = options.get('partition_of', options['name'])
        self.channels[self._id('queue', label)] = {
            'title': label,
            'address': name or None,
            'messages': {},
            'bindings': {'amqp': {'is': 'queue', **BINDING, 'queue': {
                **({'name': name} if name else {}), 'vhost': self._vhost,
                'durable': options['durable'], 'exclusive': options['exclusive'],
                'autoDelete': options['auto_delete'],
            }}},
        }
        for exchange, key in self._sources(label):
            self._add_source(exchange, key)

    def _sources(self, label: str) -> Iterator[tuple[str, str]]:
        """Yield the exchanges and routing keys by which a queue gets messages."""
        whole = [each for each in self._entities.partitioned if each.label == label]
        bindings = whole[0].bindings if whole else bindings_of(self._queues[label])
        for each in bindings:
            yield each['exchange'], each.get('routing_key', '')

    def _add_source(self, exchange: str, key: str) -> None:
        options = self._entities.exchanges.get(exchange, {})
        binding: Document = {'name': exchange, 'vhost': self._vhost}
        if options.get('type') in EXCHANGE_TYPES:
            binding['type'] = options['type']
        if options:
            binding |= {'durable': options['durable'], 'autoDelete': options['auto_delete']}
        self.channels.setdefault(self._id('exchange', exchange, key), {
            'title': f'{exchange}, {key}' if key else exchange,
            'address': key,
            'messages': {},
            'bindings': {'amqp': {'is': 'routingKey', **BINDING, 'exchange': binding}},
        })

    # Operations.

    def add(self, handler: Handler) -> None:
        """Add a handler, with what it receives of each queue."""
        messages = list(self._messages_of(handler))
        queues = [label for label in self._queues if not handler.routes or any(
            route.queue in (None, label) for route in handler.routes)]
        for label in queues:
            channel = self._id('queue', label)
            for each in (channel, *(self._id('exchange', *of) for of in self._sources(label))):
                self.channels[each]['messages'].update(
                    {message: {'$ref': f'#/components/messages/{message}'}
                     for message in messages})
            names = (handler.name,) if len(queues) == 1 else (handler.name, label)
            self.operations[self._id(*names)] = {
                'action': 'receive',
                'title': handler.name,
                'summary': handler.description,
                'channel': {'$ref': f'#/channels/{channel}'},
                'messages': [{'$ref': f'#/channels/{channel}/messages/{message}'}
                             for message in messages],
                'bindings': {'amqp': {'ack': True, **BINDING}},
            }

    def _messages_of(self, handler: Handler) -> Iterator[str]:
        """Add the messages of a handler, one for each type; yield their identifiers."""
        payload = self._payload(handler)
        types = {route.type: None for route in handler.routes if route.type is not None}
        for type in types or (None,):
            names = ('message', handler.name) if type is None else ('message', handler.name, type)
            binding = {'messageType': type, **BINDING} if type is not None else None
            message: Document = {'name': type or handler.name}
            if payload is not None:
                message |= {'contentType': 'application/json', 'payload': payload}
            if binding is not None:
                message['bindings'] = {'amqp': binding}
            self.messages[self._id(*names)] = message
            yield self._id(*names)

    # Schemas.

    def _payload(self, handler: Handler) -> Any:
        if handler.body is None:
            return None
        try:
            schema, components = handler.body.schema()
        except Exception:  # not everything that can be validated has a schema
            return {'title': str(handler.body)}
        renamed = {name: self._schema_name(name, of, handler) for name, of in components.items()}
        for name, of in components.items():
            self.schemas[renamed[name]] = adapted(of, renamed)
        return adapted(schema, renamed)

    def _schema_name(self, name: str, schema: Any, handler: Handler) -> str:
        """A name for a schema; handlers may have different models of the same name."""
        plain = re.sub(r'[^A-Za-z0-9._-]', '_', name)
        if self.schemas.get(plain) in (None, adapted(schema, {})):
            return plain
        return f'{handler.name}.{plain}'


def adapted(schema: Any, names: Mapping[str, str]) -> Any:
    """A JSON Schema as AsyncAPI has it: close to draft 7, with a ``discriminator`` that is text.

    :param names: new names for schemas that are referred to.
    """
    if isinstance(schema, list):
        return [adapted(each, names) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: adapted(value, names) for key, value in schema.items()}
    reference = made.get('$ref')
    if isinstance(reference, str) and reference.startswith(REFERENCE):
        name = reference.removeprefix(REFERENCE)
        made['$ref'] = REFERENCE + names.get(name, name)
    if isinstance(made.get('discriminator'), dict):
        made['discriminator'] = made['discriminator'].get('propertyName', '')
    if isinstance(made.get('prefixItems'), list):
        made['additionalItems'] = made.pop('items', True)
        made['items'] = made.pop('prefixItems')
    return made

