"""YAML -> :class:`Config`: read, merge with the defaults, validate, say where it is wrong.

What is right is declared in :mod:`clihelper.config.schema`.
"""

from __future__ import annotations

import errno
import os
import stat

from clihelper import program
from clihelper.config import nodes, schema
from clihelper.config.nodes import Faults, Mapping, Node, Scalar, Sequence
from clihelper.errors import ConfigurationError, NotPermitted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from typing import Any

    _Base = dict[str, Any]
else:
    _Base = dict

Keys = tuple[object, ...]


class Config(_Base):
    """The whole configuration: a dictionary of sections, clihelper's four and the program's own.

    It is plain dictionaries and lists all through, the defaults filled in, and may be written to.

    :param sections: the contents.
    :param path: the file that it is from, absolute; empty where there is none.
    """

    def __init__(self, sections: Any = (), path: str = '') -> None:
        super().__init__(sections)
        self.path = path
        self._shown = path
        self._root: Node | None = None

    @classmethod
    def default(cls, appname: str = '') -> Config:
        """What a file without a word in it would stand for."""
        config = cls(schema.SECTIONS.defaults())
        _complete(config.daemon, appname, os.geteuid() == 0)
        return config

    @property
    def application(self) -> dict[str, Any]:
        """The section ``Application``."""
        section: dict[str, Any] = self['Application']
        return section

    @property
    def daemon(self) -> dict[str, Any]:
        """The section ``Daemon``. Its paths are absolute."""
        section: dict[str, Any] = self['Daemon']
        return section

    @property
    def logging(self) -> dict[str, Any] | None:
        """The section ``Logging``; None where it is absent, null or empty."""
        return self['Logging'] or None

    @property
    def amqp(self) -> dict[str, Any]:
        """The section ``AMQP``."""
        section: dict[str, Any] = self['AMQP']
        return section

    def written(self) -> dict[str, Any]:
        """What is in the file, made anew, without the defaults."""
        written: dict[str, Any] = self._root.plain() if self._root is not None else dict(self)
        return written

    def locate(self, *keys: object) -> str:
        """Where a key is, ``file:line:column``; or the nearest that contains it, or the file.

        :param keys: the way to it from the root: ``locate('Logging', 'handlers', 'file')``.
        """
        position = self._shown
        for key, _ in _steps(self._root, keys):
            position = nodes.position(self._shown, key.line, key.column)
        return position


def load(path: str, required: Iterable[str] = (), *, appname: str, shown: str | None = None,
         as_root: bool | None = None) -> Config:
    """Read and validate a configuration.

    :param path: the file, absolute.
    :param required: sections that must be there.
    :param appname: the program's name, of which the default of ``pidfile`` is made.
    :param shown: the file as its user typed it, for errors; default: ``path``.
    :param as_root: whether the defaults are root's, as at a reload by a daemon that root started;
        default: whether the process is root's.
    :raises ConfigurationError: the file is missing or wrong; all faults, by their place.
    :raises NotPermitted: the file may not be read, or others than root may write it.
    """
    shown = nodes.printable(shown or path)
    return parse(_read(path, shown), path, required, appname=appname, shown=shown, as_root=as_root)


def parse(data: bytes, path: str, required: Iterable[str] = (), *, appname: str, shown: str,
          as_root: bool | None = None) -> Config:
    """As :func:`load`, of a file that has been read."""
    required = tuple(required)
    faults = Faults(shown)
    root = nodes.parse(data, os.path.dirname(path), faults)
    for name in required:
        if name not in root.entries:
            faults.add(0, 0, (name,), f'a section that {appname} requires is missing')
    validation = _Validation(faults)
    config = Config(validation.table(schema.SECTIONS, root, ()), path)
    config._root, config._shown = root, shown
    _check_misspelt_sections(root, required, faults)
    if config.amqp is not None:
        _check_amqp(root, config.amqp, faults)
    faults.raise_any()
    _complete_queues(config.amqp['queues'])
    try:
        _complete(config.daemon, appname, os.geteuid() == 0 if as_root is None else as_root)
        _complete_tls(config.amqp['tls'], config.daemon['working_directory'])
    except FileNotFoundError:
        where = 'Daemon.working_directory: the current directory is gone, and no other is named'
        raise ConfigurationError(f'{shown}: {where}') from None
    return config


def load_daemon(path: str, *, shown: str) -> dict[str, Any]:
    """Read what finds and ends a daemon: ``pidfile``, ``working_directory``, ``stop_timeout``.

    Faults elsewhere in the file are not looked at: a daemon that runs may have been started
    before they were made, or by one who has more in the environment.

    :param path: the file, absolute.
    :param shown: the file as its user typed it.
    :returns: the defaults filled in, but for a pidfile and a directory that are not there.
    :raises ConfigurationError: the file is missing or no YAML, or these keys are wrong.
    :raises NotPermitted: the file may not be read, or others than root may write it.
    """
    shown = nodes.printable(shown)
    faults, others = Faults(shown), Faults(shown)
    root = nodes.parse(_read(path, shown), os.path.dirname(path), others)
    section = root.entries.get('Daemon', (root, root))[1]
    if isinstance(section, Mapping) and section is not root:
        for name in set(section.entries) - {'pidfile', 'working_directory', 'stop_timeout'}:
            del section.entries[name]
        if any(getattr(node, 'value', None) is nodes.FAULTY
               for _, node in section.entries.values()):
            others.raise_any()
    else:
        section = Mapping(section.line, section.column, None)
    daemon: dict[str, Any] = _Validation(faults).table(schema.DAEMON, section, ('Daemon',))
    faults.raise_any()
    return daemon


def expand_pidfile(path: str, appname: str) -> str:
    """A ``Daemon.pidfile`` with the program's name filled in."""
    parts = path.split('%%')
    return '%'.join(part.replace('%(app)s', appname) for part in parts)


# Reading

def _read(path: str, shown: str) -> bytes:
    """The file's bytes, if it is a file, may be read, and can be trusted."""
    try:
        descriptor = nodes.open_regular(path)
        try:
            if os.geteuid() == 0:
                _refuse_foreign_writers(path, descriptor, shown)
            return nodes.read_bounded(descriptor, nodes.MAX_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        line = f'{shown}: cannot be read: {error.strerror}'
        if error.errno in (errno.EACCES, errno.EPERM):
            raise NotPermitted(line) from None
        raise ConfigurationError(line) from None
    except ValueError as error:
        raise ConfigurationError(f'{shown}: {error}') from None


def _refuse_foreign_writers(path: str, descriptor: int, shown: str) -> None:
    """Refuse a file that another than root could change: it names classes to be called.

    Looked at are the file and every folder and symbolic link that leads to it, since who writes
    to a folder can put another file in the place of the one that was looked at.

    :raises NotPermitted: somebody else can write one of them.
    """
    opened = os.fstat(descriptor)
    found = opened
    for entry in _crossed(path):
        found = os.lstat(entry)
        reason = _foreign_writer(entry, found)
        if reason:
            raise NotPermitted(f'{shown}: refused, as root: {nodes.printable(entry)} {reason}')
    if not os.path.samestat(opened, found):
        raise NotPermitted(f'{shown}: refused, as root: it was replaced while it was read')


def _crossed(path: str) -> Iterator[str]:
    """Every folder and link that opening a path crosses, and the file; as path_resolution(7)."""
    folder = '/'
    pending = (path if os.path.isabs(path) else os.path.abspath(path)).split('/')[::-1]
    yield folder
    while pending:
        name = pending.pop()
        if name == '..':
            folder = os.path.dirname(folder)
        elif name not in ('', '.'):
            entry = os.path.join(folder, name)
            yield entry
            if os.path.islink(entry):
                target = os.readlink(entry)
                folder = '/' if target.startswith('/') else folder
                pending += target.split('/')[::-1]
            else:
                folder = entry


def _foreign_writer(entry: str, status: os.stat_result) -> str:
    """Why somebody who is not root could change a file, folder or link; empty if nobody could."""
    mode = status.st_mode
    if status.st_uid != 0:
        return f'is owned by user {status.st_uid}'
    if stat.S_ISLNK(mode) or (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
        # In a sticky folder only the owner replaces an entry, and each entry is looked at.
        return ''
    if mode & stat.S_IWOTH:
        return f'can be written by everybody (mode {stat.S_IMODE(mode):04o})'
    if mode & stat.S_IWGRP and (status.st_gid != 0 or _has_acl(entry)):
        return f'can be written by group {status.st_gid} (mode {stat.S_IMODE(mode):04o})'
    return ''


def _has_acl(entry: str) -> bool:
    """Whether the bits of the group are the mask of an access control list, see acl(5)."""
    try:
        return bool(os.getxattr(entry, 'system.posix_acl_access'))
    except OSError:
        return False


# Validation

class _Validation:
    """Holds nodes against types of the schema: values with defaults, and faults."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def value(self, kind: schema.Type, node: Node, keys: Keys) -> Any:
        """What a node stands for; None, and a fault noted, where it is not of its type."""
        if isinstance(node, Scalar) and node.value is nodes.FAULTY:
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
    """Whether a fault of the value, or of one in it, has been noted where it was read."""
    if isinstance(node, Sequence):
        return any(map(_is_faulty, node.items))
    if isinstance(node, Mapping):
        return any(_is_faulty(value) for _, value in node.entries.values())
    return isinstance(node, Scalar) and node.value is nodes.FAULTY


def _suggestion(word: object, known: Collection[object], faults: Faults) -> str:
    """``; did you mean this?`` where one of the known words is near."""
    # Many or long words take difflib minutes.
    if not isinstance(word, str) or len(word) > 60 or len(known) > 100 or faults.full:
        return ''
    from difflib import get_close_matches
    folded = {name.casefold(): name for name in known if isinstance(name, str)}
    near = get_close_matches(word.casefold().replace('-', '_'), folded, 1)
    return f'; did you mean {folded[near[0]]}?' if near else ''


def _read_scalar(kind: schema.Scalar | schema.Either, node: Scalar) -> Any:
    """The value by its type; of an environment variable, its text where a string is wanted.

    :raises schema.Unfit: it is not of the type.
    """
    try:
        return kind.read(node.value, node.text)
    except schema.WrongType:
        if not node.origin:
            raise
        return kind.read(node.text, node.text)


def _shown(node: Node) -> str:
    """A value as an error may show it: as it was typed, but never what the file only refers to."""
    if not isinstance(node, Scalar):
        kind = 'mapping' if isinstance(node, Mapping) else 'list'
        return f'a {kind}' if node.size > 1 else f'an empty {kind}'
    if node.origin:
        return node.origin
    if isinstance(node.value, str):
        return nodes.quoted(node.text)
    return nodes.unquoted(node.text) if node.text else 'nothing'


def _hint(kind: schema.Scalar | schema.Either, node: Scalar) -> str:
    """What quotes have to do with it, if they have."""
    with_quotes = isinstance(node.value, str)
    if node.value is None or (with_quotes and node.bare):
        return ''
    try:
        kind.read(nodes.resolve(node.text) if with_quotes else node.text, node.text)
    except ValueError:
        return ''
    return ' (leave out the quotes)' if with_quotes else ' (put it in quotes)'


# What concerns several keys

def _check_misspelt_sections(root: Mapping, required: Iterable[str], faults: Faults) -> None:
    """Sections that are nearly clihelper's are no sections of the program's own."""
    for name, (key, _) in root.entries.items():
        if isinstance(name, str) and name not in schema.SECTIONS.keys and name not in required:
            for known in schema.SECTIONS.keys:
                if _one_slip(name.casefold(), known.casefold()):
                    faults.at(key, (name,), f'unknown section; did you mean {known}?')


def _one_slip(word: str, known: str) -> bool:
    """Whether two words differ in one letter more, less or other, or in two that are swapped."""
    start = _in_common(word, known)
    word, known = word[start:], known[start:]
    end = _in_common(word[::-1], known[::-1])
    word, known = word[:len(word) - end], known[:len(known) - end]
    return max(len(word), len(known)) < 2 or (len(word) == 2 and word == known[::-1])


def _in_common(word: str, known: str) -> int:
    """How many letters two words have in common at their beginning."""
    lengths = range(min(len(word), len(known)), 0, -1)
    return next((n for n in lengths if word[:n] == known[:n]), 0)


def _check_amqp(root: Mapping, amqp: dict[str, Any], faults: Faults) -> None:
    """What the keys of the section say of each other. What has a fault already is None here."""
    for label, queue in (amqp['queues'] or {}).items():
        if queue is not None:
            _check_queue(root, amqp['exchanges'] or {}, label, queue, faults)
    retry = amqp['retry'] or {}
    delay, limit = retry.get('delay'), retry.get('max_delay')
    if delay is not None and limit is not None and delay > limit:
        keys = ('AMQP', 'retry', 'delay')
        faults.at(_value(root, keys), keys, f'{delay} is above max_delay, {limit}')
    _check_queue_names(root, amqp, faults)
    _check_lengths(root, amqp, faults)
    if amqp['tls'] and amqp['url']:
        _check_tls(root, amqp['tls'], amqp['url'], faults)


def _check_queue(root: Mapping, exchanges: dict[str, Any], label: str, queue: dict[str, Any],
                 faults: Faults) -> None:
    """It is bound to exchanges that there are, and is not left behind by each connection."""
    position: Keys = ('AMQP', 'queues', label)
    bound = {(*position, 'exchange'): queue.get('exchange', '')}
    for number, binding in enumerate(queue['bindings'] or []):
        bound[(*position, 'bindings', number, 'exchange')] = (binding or {}).get('exchange')
    for keys, exchange in bound.items():
        if exchange and exchange not in exchanges and not exchange.startswith('amq.'):
            node = _value(root, keys)
            text = f'no such exchange in AMQP.exchanges: {_shown(node)}'
            faults.at(node, keys, text + _suggestion(exchange, exchanges, faults))
    if queue.get('exchange', '') == '' and queue['routing_keys']:
        keys = (*position, 'routing_keys')
        faults.at(_value(root, keys), keys, 'routing keys, but no exchange')
    if queue.get('name', label) == '' and queue.get('exclusive') is False and not (
            queue['auto_delete'] or 'x-expires' in (queue['arguments'] or {})):
        keys = (*position, 'exclusive')
        faults.at(_value(root, keys), keys, 'each connection would leave such a queue behind:'
                  ' it needs auto_delete or the argument x-expires')


def _check_queue_names(root: Mapping, amqp: dict[str, Any], faults: Faults) -> None:
    """No queue is consumed twice, and no dead letter becomes a dead letter again."""
    seen: dict[str, str] = {}
    for label, queue in (amqp['queues'] or {}).items():
        name = (queue or {}).get('name', label)
        keys: Keys = ('AMQP', 'queues', label, 'name')
        if name and name in seen:
            faults.at(_value(root, keys), keys, f'is that of AMQP.queues.{seen[name]}, too')
        elif name and name == amqp['dead_letter']:
            keys = ('AMQP', 'dead_letter')
            faults.at(_value(root, keys), keys, 'is consumed by AMQP.queues: what fails there'
                      ' would come back for ever')
        seen[name] = label


def _check_lengths(root: Mapping, amqp: dict[str, Any], faults: Faults) -> None:
    """What names are made of leaves room for what they are followed by."""
    for label, queue in (amqp['queues'] or {}).items():
        if queue is None or queue.get('name', label) is None:
            continue
        name = queue.get('name', label)
        retries = schema.is_retried(amqp, queue)
        fault = schema.name_fault(name, label, amqp['dead_letter'], retries)
        if fault:
            keys: Keys = ('AMQP', 'queues', label)
            named = bool(name) and 'name' in queue
            node = _value(root, (*keys, 'name')) if named else _key(root, keys)
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
            faults.at(_value(root, keys), keys,
                      f'expected a name of at most {schema.LONGEST_NAME} bytes')


def _check_tls(root: Mapping, tls: dict[str, Any], url: str | list[str], faults: Faults) -> None:
    """No key is given that would have no effect: it would be taken for safety."""
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
        faults.at(_value(root, keys), keys, text)


# The nodes of a key

def _steps(root: Node | None, keys: Iterable[object]) -> Iterator[tuple[Node, Node]]:
    """The nodes of each key and its value on the way from the root, as far as it leads."""
    node = root
    for key in keys:
        if isinstance(node, Mapping) and _hashable(key) and key in node.entries:
            where, node = node.entries[key]
        elif isinstance(node, Sequence) and key in range(len(node.items)):
            where = node = node.items[int(str(key))]
        else:
            return
        yield where, node


def _value(root: Mapping, keys: Keys) -> Node:
    """The node of a value; of what is nearest, if the value is a default."""
    return [root, *(value for _, value in _steps(root, keys))][-1]


def _key(root: Mapping, keys: Keys) -> Node:
    """The node of a key; of what is nearest, if it is not there."""
    return [root, *(key for key, _ in _steps(root, keys))][-1]


def _hashable(key: object) -> bool:
    return isinstance(key, (str, int, float, bool, bytes, type(None)))


# Defaults that depend on the surroundings

def _complete(daemon: dict[str, Any], appname: str, as_root: bool) -> None:
    """Fill in what depends on the user and the environment, and make paths absolute.

    :raises FileNotFoundError: the current directory is needed and is gone.
    """
    if 'working_directory' not in daemon:
        daemon['working_directory'] = '/' if as_root else os.getcwd()
    if 'pidfile' not in daemon:
        own = program.current.default_pidfile
        daemon['pidfile'] = own(appname) if own else _default_pidfile(appname, as_root)
    elif daemon['pidfile'] is not None:
        daemon['pidfile'] = expand_pidfile(daemon['pidfile'], appname)
    if 'state_directory' not in daemon:
        daemon['state_directory'] = _first_directory('STATE_DIRECTORY')
    if 'logs_directory' not in daemon:
        daemon['logs_directory'] = _first_directory('LOGS_DIRECTORY')
    daemon['logs_directory'] = daemon['logs_directory'] or daemon['working_directory']
    for key in ('pidfile', 'state_directory', 'logs_directory'):
        if daemon[key] is not None:
            daemon[key] = os.path.join(daemon['working_directory'], daemon[key])


def _complete_queues(queues: dict[str, dict[str, Any]]) -> None:
    """Fill in what depends on who names a queue: the broker's go with their connection."""
    for label, queue in queues.items():
        name = queue.setdefault('name', label)
        queue.setdefault('durable', name != '')
        queue.setdefault('exclusive', name == '')


def _complete_tls(tls: dict[str, Any], working_directory: str) -> None:
    """Make paths absolute."""
    for key in ('ca', 'certificate', 'key'):
        if tls[key] is not None:
            tls[key] = os.path.join(working_directory, tls[key])


def _default_pidfile(appname: str, as_root: bool) -> str | None:
    folder = (_first_directory('RUNTIME_DIRECTORY') or (as_root and '/run')
              or os.environ.get('XDG_RUNTIME_DIR'))
    return os.path.join(folder, f'{appname}.pid') if folder else None


def _first_directory(variable: str) -> str | None:
    """The first of the directories that systemd made for a service, see systemd.exec(5)."""
    return os.environ.get(variable, '').partition(':')[0] or None
