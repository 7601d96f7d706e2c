"""Validation of a file's nodes against the schema, and of its keys against each other."""

from __future__ import annotations

from clihelper.config import schema
from clihelper.config.faults import quoted, unquoted
from clihelper.config.nodes import (
    FAULTY,
    Mapping,
    Scalar,
    Sequence,
    key_at,
    resolve,
    value_at,
)
from clihelper.errors import did_you_mean, is_misspelt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Any

    from clihelper.config.faults import Faults
    from clihelper.config.nodes import Node

Keys = tuple[object, ...]


class Validation:
    """Checks nodes against types of the schema; makes values with defaults, and notes faults."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def value(self, kind: schema.Type, node: Node, keys: Keys) -> Any:
        """Return the value of a node; if it is not of its type, note a fault and return None."""
        if isinstance(node, Scalar) and node.value is FAULTY:
            return None
        if isinstance(kind, schema.Either):
            kind = kind.alternative(isinstance(node, Mapping), isinstance(node, Sequence))
        if isinstance(kind, schema.List):
            return self.list(kind, node, keys)
        if isinstance(kind, (schema.Scalar, schema.Either)):
            return self.scalar(kind, node, keys)
        if isinstance(node, Scalar) and node.value is None:
            node = Mapping(node.line, node.column, None)
        if not isinstance(node, Mapping):
            return self._expected(kind.noun, kind, node, keys)
        return self.table(kind, node, keys) if isinstance(kind, schema.Table) else (
            self.mapping(kind, node, keys))

    def scalar(self, kind: schema.Scalar | schema.Either, node: Node, keys: Keys) -> Any:
        if not isinstance(node, Scalar):
            return self._expected(kind.noun, kind, node, keys)
        try:
            return _read_scalar(kind, node)
        except schema.WrongType as wrong:
            return self._expected(str(wrong), kind, node, keys, _hint(kind, node))
        except schema.InvalidValue as unfit:
            return self._expected(str(unfit), kind, node, keys)

    def list(self, kind: schema.List, node: Node, keys: Keys) -> Any:
        items = node.items if isinstance(node, Sequence) else []
        if isinstance(node, Scalar) and node.value is not None and kind.single:
            return [self.value(kind.item, node, keys)]
        if isinstance(node, Mapping) or (isinstance(node, Scalar) and node.value is not None):
            return self._expected(kind.noun, kind, node, keys)
        if len(items) < kind.least:
            return self._expected(f'a list of at least {kind.least}', kind, node, keys)
        return [self.value(kind.item, item, (*keys, i)) for i, item in enumerate(items)]

    def mapping(self, kind: schema.Map | schema.Arguments, node: Mapping,
                keys: Keys) -> dict[Any, Any]:
        values = {}
        for name, (key, value) in node.entries.items():
            if isinstance(kind, schema.Arguments):
                values[name] = value.plain()
                if not kind.takes(values[name]) and not _is_faulty(value):
                    self._expected(kind.fit, kind, value, (*keys, name))
            else:
                values[name] = self.value(kind.value, value, (*keys, name))
            if kind.key is not None:
                self.scalar(kind.key, key, keys)
        return values

    def table(self, kind: schema.Table, node: Mapping, keys: Keys) -> dict[str, Any]:
        values = {}
        for name, (key, value) in node.entries.items():
            if name in kind.keys:
                values[name] = self.value(kind.keys[name].type, value, (*keys, name))
            elif kind.free:
                values[name] = value.plain()
            else:
                text = 'unknown key' + _suggestion(name, kind.keys, self._faults)
                self._faults.at(key, (*keys, name), text)
        for name in kind.required:
            if name not in node.entries:
                self._faults.at(node, (*keys, name), 'is missing')
        return {**kind.defaults(), **values}

    def _expected(self, expected: str, kind: schema.Type, node: Node, keys: Keys,
                  hint: str = '') -> None:
        """Note that a node is not what was expected there."""
        text = f'expected {expected}'
        if not (isinstance(node, Scalar) and getattr(kind, 'secret', False)):
            text += f', got {_shown(node)}'
        if isinstance(node, Scalar) and not node.origin:
            text += hint + _suggestion(node.value, getattr(kind, 'choices', ()), self._faults)
        self._faults.at(node, keys, text)


def _is_faulty(node: Node) -> bool:
    """Whether a fault of the value, or of one in it, was noted when the file was parsed."""
    if isinstance(node, Sequence):
        return any(map(_is_faulty, node.items))
    if isinstance(node, Mapping):
        return any(_is_faulty(value) for _, value in node.entries.values())
    return isinstance(node, Scalar) and node.value is FAULTY


def _suggestion(word: object, known: Collection[object], faults: Faults) -> str:
    """Return ``; did you mean this?`` if one of the known words is similar; otherwise empty."""
    return '' if faults.full else did_you_mean(word, known)


def _read_scalar(kind: schema.Scalar | schema.Either, node: Scalar) -> Any:
    """Read a value by its type; that of an environment variable may also be read as a string.

    :raises schema.InvalidValue: it is not of the type.
    """
    try:
        return kind.read(node.value, node.text)
    except schema.WrongType:
        if not node.origin:
            raise
        return kind.read(node.text, node.text)


def _shown(node: Node) -> str:
    """Return a value as an error may show it: as typed, but never one that the file refers to."""
    if not isinstance(node, Scalar):
        kind = 'mapping' if isinstance(node, Mapping) else 'list'
        return f'a {kind}' if node.size > 1 else f'an empty {kind}'
    if node.origin:
        return node.origin
    if isinstance(node.value, str):
        return quoted(node.text)
    return unquoted(node.text) if node.text else 'nothing'


def _hint(kind: schema.Scalar | schema.Either, node: Scalar) -> str:
    """Return advice to add or to leave out quotes, if that would make the value valid."""
    with_quotes = isinstance(node.value, str)
    if with_quotes and node.bare:
        return _hint_for_exponent(kind, node.text)
    if node.value is None:
        return ''
    try:
        kind.read(resolve(node.text) if with_quotes else node.text, node.text)
    except ValueError:
        return ''
    return ' (leave out the quotes)' if with_quotes else ' (put it in quotes)'


def _hint_for_exponent(kind: schema.Scalar | schema.Either, text: str) -> str:
    """Return advice for ``1e3``: in YAML 1.1 a number with an exponent has a dot and a sign."""
    import re

    found = re.fullmatch(r'([-+]?[0-9]+)(\.[0-9]*)?[eE]([-+]?)([0-9]+)', text)
    if found is None:
        return ''
    wanted = f'{found[1]}{found[2] or ".0"}e{found[3] or "+"}{found[4]}'
    try:
        kind.read(resolve(wanted), wanted)
    except ValueError:
        return ''
    return f' (YAML 1.1 reads that as a string: write {wanted})'


# Checks across several keys

def check_required_sections(root: Mapping, required: Collection[str], appname: str,
                            faults: Faults) -> None:
    """Note the required sections that are missing: where another may be meant for it, there."""
    others = [name for name in root.entries
              if name not in schema.SECTIONS.keys and name not in required]
    del others[100:]  # comparing takes time
    for name in required:
        if name in root.entries:
            continue
        found = next((other for other in others if did_you_mean(other, [name])), None)
        if found is None:
            faults.add(0, 0, (name,), f'a section that {appname} requires is missing')
        else:
            faults.at(root.entries[found][0], (found,), f'the section {name}, which {appname}'
                      f' requires, is missing; did you mean {name}?')


def check_misspelt_sections(root: Mapping, required: Iterable[str], faults: Faults) -> None:
    """Note sections whose name is one slip from one of clihelper's: they are taken as misspelt."""
    for name, (key, _) in root.entries.items():
        if isinstance(name, str) and name not in schema.SECTIONS.keys and name not in required:
            for known in schema.SECTIONS.keys:
                if is_misspelt(name.casefold(), known.casefold()):
                    faults.at(key, (name,), f'unknown section; did you mean {known}?')


def check_amqp(root: Mapping, amqp: dict[str, Any], faults: Faults) -> None:
    """Check the keys of the section against each other. A value with a noted fault is None."""
    for label, queue in (amqp['queues'] or {}).items():
        if queue is not None:
            _check_queue(root, amqp['exchanges'] or {}, label, queue, faults)
    retry = amqp['retry'] or {}
    delay, limit = retry.get('delay'), retry.get('max_delay')
    if delay is not None and limit is not None and delay > limit:
        keys = ('AMQP', 'retry', 'delay')
        faults.at(value_at(root, keys), keys, f'{delay} is above max_delay, {limit}')
    _check_batch(root, amqp, faults)
    _check_queue_names(root, amqp, faults)
    _check_lengths(root, amqp, faults)
    if amqp['tls'] and amqp['url']:
        _check_tls(root, amqp['tls'], amqp['url'], faults)
    if amqp['tracing']:
        _check_tracing(root, faults)


def _check_tracing(root: Mapping, faults: Faults) -> None:
    """Check that there is what spans are made with."""
    try:
        import opentelemetry.trace  # noqa: F401
    except ImportError:
        keys: Keys = ('AMQP', 'tracing')
        faults.at(value_at(root, keys), keys,
                  'needs the package opentelemetry-api, which is not installed')


def _check_queue(root: Mapping, exchanges: dict[str, Any], label: str, queue: dict[str, Any],
                 faults: Faults) -> None:
    """Check that a queue's exchanges exist, and that no connection would leave it behind."""
    position: Keys = ('AMQP', 'queues', label)
    bound = {(*position, 'exchange'): queue.get('exchange', '')}
    for number, binding in enumerate(queue['bindings'] or []):
        bound[(*position, 'bindings', number, 'exchange')] = (binding or {}).get('exchange')
    for keys, exchange in bound.items():
        if exchange and exchange not in exchanges and not exchange.startswith('amq.'):
            node = value_at(root, keys)
            text = f'no such exchange in AMQP.exchanges: {_shown(node)}'
            faults.at(node, keys, text + _suggestion(exchange, exchanges, faults))
    if queue.get('exchange', '') == '' and queue['routing_keys']:
        keys = (*position, 'routing_keys')
        faults.at(value_at(root, keys), keys, 'routing keys, but no exchange')
    if queue.get('partitions'):
        _check_partitions(root, position, label, queue, faults)
    if queue.get('name', label) == '' and queue.get('exclusive') is False and not (
            queue['auto_delete'] or 'x-expires' in (queue['arguments'] or {})):
        keys = (*position, 'exclusive')
        faults.at(value_at(root, keys), keys, 'each connection would leave such a queue behind:'
                  ' it needs auto_delete or the argument x-expires')


def _check_partitions(root: Mapping, position: Keys, label: str, queue: dict[str, Any],
                      faults: Faults) -> None:
    """Check that a queue can be divided: it lasts, and gives each message to one consumer."""
    keys = (*position, 'partitions')
    reasons = {
        'the broker names the queue': queue.get('name', label) == '',
        'the queue is exclusive': queue.get('exclusive') is True,
        'the queue is a stream': (queue['arguments'] or {}).get('x-queue-type') == 'stream',
    }
    for reason in [each for each, holds in reasons.items() if holds]:
        faults.at(value_at(root, keys), keys, f'cannot have partitions: {reason}')


def _names_of(label: str, queue: dict[str, Any]) -> list[str]:
    """Return the names of a queue, or of its partitions, on the broker."""
    name = queue.get('name', label)
    count = queue.get('partitions')
    return [f'{name}.{number}' for number in range(count)] if name and count else [name]


def _check_batch(root: Mapping, amqp: dict[str, Any], faults: Faults) -> None:
    """Check that a broker can send as many messages in advance as are handled at a time."""
    size = (amqp['batch'] or {}).get('size') or 1
    for name in ('threads', 'concurrency'):
        count = amqp[name] or 1
        if amqp['batch'] and size * count > schema.LARGEST_PREFETCH:
            keys = ('AMQP', 'batch', 'size')
            faults.at(value_at(root, keys), keys, f'with {count} {name} these are'
                      f' {size * count} messages at a time; AMQP allows {schema.LARGEST_PREFETCH}')


def _check_queue_names(root: Mapping, amqp: dict[str, Any], faults: Faults) -> None:
    """Check that no queue is consumed twice, and that no dead letter is dead-lettered again."""
    seen: dict[str, str] = {}
    for label, queue in (amqp['queues'] or {}).items():
        for name in _names_of(label, queue or {}):
            keys: Keys = ('AMQP', 'queues', label, 'name')
            if name and name in seen:
                faults.at(value_at(root, keys), keys, f'is also that of AMQP.queues.{seen[name]}')
            elif name and name == amqp['dead_letter'] and (queue or {}).get('consume', True):
                keys = ('AMQP', 'dead_letter')
                faults.at(value_at(root, keys), keys, 'is consumed by AMQP.queues: what fails'
                          ' there would come back for ever')
            seen[name] = label


def _check_lengths(root: Mapping, amqp: dict[str, Any], faults: Faults) -> None:
    """Check that each name leaves room for the suffixes of the names derived from it."""
    for label, queue in (amqp['queues'] or {}).items():
        if queue is None or queue.get('name', label) is None:
            continue
        fault = schema.name_fault(label, queue, amqp)
        if fault:
            keys: Keys = ('AMQP', 'queues', label)
            named = bool(queue.get('name'))
            node = value_at(root, (*keys, 'name')) if named else key_at(root, keys)
            faults.at(node, (*keys, 'name') if named else keys, fault)
    for kind in ('exchanges', 'queues'):
        for label, options in (amqp[kind] or {}).items():
            _check_naming_arguments(root, ('AMQP', kind, label), options or {}, faults)


def _check_naming_arguments(root: Mapping, keys: Keys, options: dict[str, Any],
                            faults: Faults) -> None:
    for name in schema.NAMING_ARGUMENTS:
        value = (options.get('arguments') or {}).get(name)
        if isinstance(value, str) and (schema.utf8_size(value) or 0) > schema.LONGEST_NAME:
            keys = (*keys, 'arguments', name)
            faults.at(value_at(root, keys), keys,
                      f'expected a name of at most {schema.LONGEST_NAME} bytes')


def _check_tls(root: Mapping, tls: dict[str, Any], url: str | list[str], faults: Faults) -> None:
    """Check that each key given has an effect: one without would give a false sense of safety."""
    urls = [url] if isinstance(url, str) else [each for each in url if each]
    plain = not any(each.startswith(('amqps:', 'memory:')) for each in urls)
    ineffective = {
        name: 'has no effect: no AMQP.url begins with amqps://'
        for name, value in tls.items() if plain and value != schema.TLS.keys[name].default
    }
    if tls['key'] and not tls['certificate']:
        ineffective['key'] = 'a key, but no certificate'
    for name in ('ca', 'strict'):
        if tls[name] and tls['verify'] is False:
            ineffective[name] = 'has no effect: verify is false'
    for name, text in ineffective.items():
        keys: Keys = ('AMQP', 'tls', name)
        faults.at(value_at(root, keys), keys, text)
