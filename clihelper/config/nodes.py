"""Read YAML from an untrusted file: bytes -> nodes that know their line and column.

The language is YAML 1.1 as PyYAML's safe loader reads it, but stricter (a duplicate key is a
fault, and so is a tab) and bounded: no input, however hostile, takes more than :data:`MAX_BYTES`
of reading, :data:`MAX_DEPTH` of nesting and :data:`MAX_NODES` with aliases and merges expanded.
PyYAML's loaders recurse, so deep nesting crashes the C loader. Its stream of events does not
recurse, which is why the nodes are composed here. Two tags are added, ``!env`` and ``!file``.
"""

from __future__ import annotations

import errno
import os
import re
import stat

from clihelper.config.faults import Faults, dotted, position, printable, unquoted
from clihelper.errors import NotPermitted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, NoReturn

    import yaml

#: The largest configuration that is read, in bytes.
MAX_BYTES = 1024 * 1024
#: The largest file that ``!file`` reads, in bytes.
MAX_FILE_BYTES = 64 * 1024
#: The deepest nesting of collections.
MAX_DEPTH = 100
#: The most nodes, where each alias counts as many as the node that it stands for.
MAX_NODES = 50_000
#: The most characters of a number: Python takes quadratic time to read a long one.
MAX_DIGITS = 300

_YAML = 'tag:yaml.org,2002:'
_SCALAR_TAGS = {'bool', 'int', 'float', 'binary', 'timestamp'}
_TEXT_TAGS = {_YAML + 'str', _YAML + 'merge', _YAML + 'value'}
_SEQUENCE_TAGS = {None, '!', _YAML + 'seq', _YAML + 'omap', _YAML + 'pairs'}
_MAPPING_TAGS = {None, '!', _YAML + 'map', _YAML + 'set'}
_IN_PAIRS = (_YAML + 'omap', _YAML + 'pairs')

# Compiled only when needed: a valid file needs none of them.
_LINE_BREAK = '\r\n|[\r\n\x85\u2028\u2029]'
_COMMENT_OR_TAB = '#[^\r\n\x85\u2028\u2029]*|(\t)'
_PROPERTIES = r'(?:[&!]\S*\s+)+'


# Files

def open_regular(path: str) -> int:
    """Open a regular file for reading, without blocking if it is something else.

    :returns: a descriptor, which the caller closes.
    :raises OSError: as :manpage:`open(2)`.
    :raises ValueError: the path is not a regular file; says what it is.
    """
    if '\0' in path:
        raise ValueError('contains a null byte')  # Python's own wording differs by version
    # Without O_NONBLOCK, opening a FIFO would block until somebody opens it for writing.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    kind = {stat.S_IFDIR: 'a directory', stat.S_IFIFO: 'a FIFO'}.get(stat.S_IFMT(mode), 'a device')
    raise ValueError(f'is {kind}, not a regular file')


def read_bounded(descriptor: int, limit: int) -> bytes:
    """Read a file to its end.

    :raises ValueError: the file is larger than ``limit`` bytes.
    """
    data = b''
    while len(data) <= limit:
        piece = os.read(descriptor, limit + 1 - len(data))
        if not piece:
            return data
        data += piece
    raise ValueError(f'is larger than {limit // 1024} KiB')


# Nodes

class Node:
    """A part of the file.

    :ivar line: from 1.
    :ivar column: from 1, in characters.
    :ivar size: the number of nodes in it, including itself and the targets of its aliases.
    :ivar depth: how deeply collections are nested in it.
    """

    __slots__ = ('column', 'depth', 'line', 'size')

    def __init__(self, line: int, column: int) -> None:
        self.line = line
        self.column = column
        self.size = 1
        self.depth = 0

    def plain(self) -> Any:
        """Return the Python value, made anew at every call: aliases share nothing."""
        raise NotImplementedError


class Scalar(Node):
    """A single value.

    :ivar value: the value as YAML resolves it; :data:`FAULTY` if that failed.
    :ivar text: the text as written (``027`` where the value is 23), or as ``!env`` found it.
    :ivar bare: whether it is written without quotes and without a tag.
    :ivar origin: the source, in words, of a value that is not in the file; otherwise empty.
    """

    __slots__ = ('bare', 'origin', 'tag', 'text', 'value')

    def __init__(self, line: int, column: int, tag: str, text: str, bare: bool) -> None:
        super().__init__(line, column)
        self.tag = tag
        self.text = text
        self.bare = bare
        self.origin = ''
        self.value: Any = text

    def plain(self) -> Any:
        return self.value


class Sequence(Node):
    """A list; of pairs, if the tag says so."""

    __slots__ = ('items', 'tag')

    def __init__(self, line: int, column: int, tag: str | None) -> None:
        super().__init__(line, column)
        self.tag = tag
        self.items: list[Node] = []

    def plain(self) -> list[Any]:
        if self.tag in _IN_PAIRS:
            return [(key, value.plain()) for item in self.items if isinstance(item, Mapping)
                    for key, (_, value) in item.entries.items()]
        return [item.plain() for item in self.items]


class Mapping(Node):
    """A mapping with its merge keys resolved: for each key, the node of the key and its value."""

    __slots__ = ('entries', 'tag')

    def __init__(self, line: int, column: int, tag: str | None) -> None:
        super().__init__(line, column)
        self.tag = tag
        self.entries: dict[Any, tuple[Node, Node]] = {}

    def plain(self) -> dict[Any, Any] | set[Any]:
        if self.tag == _YAML + 'set':
            return set(self.entries)
        return {key: value.plain() for key, (_, value) in self.entries.items()}


#: The value of a scalar whose own fault has already been noted.
FAULTY = object()


def resolve(text: str) -> Any:
    """Return the value of a scalar that is written without quotes.

    :raises ValueError: what is wrong with it.
    """
    return _construct(_implicit_tag(text), text)


def _implicit_tag(text: str) -> str:
    """Return YAML's type of a scalar without quotes and without a tag."""
    from yaml.resolver import Resolver
    for tag, pattern in Resolver.yaml_implicit_resolvers.get(text[:1], ()):
        if pattern.match(text):
            return str(tag)
    return _YAML + 'str'


def _construct(tag: str, text: str) -> Any:
    """Return the Python value of a scalar.

    :raises ValueError: what is wrong with it.
    """
    if tag in _TEXT_TAGS:
        return text
    if tag == _YAML + 'null':
        return None
    kind = tag.removeprefix(_YAML)
    if kind not in _SCALAR_TAGS:
        raise ValueError(_unknown_tag(tag))
    if kind in ('int', 'float') and len(text) > MAX_DIGITS:
        raise ValueError(f'a number of more than {MAX_DIGITS} digits')
    from yaml import ScalarNode, YAMLError
    from yaml.constructor import SafeConstructor
    try:
        return SafeConstructor.yaml_constructors[tag](SafeConstructor(), ScalarNode(tag, text))
    except (ValueError, LookupError, AttributeError, OverflowError, YAMLError):
        # PyYAML lets through whatever int(), datetime() and its own lookups raise.
        raise ValueError(f'not a valid {kind} (quotes would make it a string)') from None


def _unknown_tag(tag: str) -> str:
    if tag.startswith(_YAML):
        return f'unknown or misplaced tag {unquoted("!!" + tag.removeprefix(_YAML))}'
    # What looks like a custom tag may be a password: it is not repeated.
    return 'unknown or misplaced tag (quote a string that begins with !)'


# Bytes to nodes

def parse(data: bytes, folder: str, faults: Faults) -> Mapping:
    """Read a document whose root is a mapping.

    :param folder: the folder that a relative path of ``!file`` is relative to.
    :param faults: collects the faults of single values and keys.
    :raises ConfigurationError: the file is not YAML at all, exceeds a limit, or is not a mapping.
    :raises NotPermitted: the file of a ``!file`` may not be read.
    """
    root = _Composer(_decode(data, faults), folder, faults).compose()
    if root is None or (isinstance(root, Scalar) and root.value is None):
        faults.fatal(1, 1, 'the file is empty: expected a mapping of sections')
    if not isinstance(root, Mapping) or root.tag == _YAML + 'set':
        kind = 'a list' if isinstance(root, Sequence) else 'a single value'
        kind = 'a set' if isinstance(root, Mapping) else kind
        faults.fatal(root.line, root.column, f'expected a mapping of sections, got {kind}')
    return root


def _decode(data: bytes, faults: Faults) -> str:
    """Return the text of the file, all of it printable in YAML's sense (YAML 1.1, section 5.1)."""
    from yaml.reader import Reader
    encoding = 'utf-16' if data[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8'
    data = data.removeprefix(b'\xef\xbb\xbf')
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        before = data[:error.start].decode(encoding, 'replace')
        faults.fatal(*_line_and_column(before, len(before)), f'not {error.encoding.upper()}')
    unprintable = Reader.NON_PRINTABLE.search(text)
    if unprintable:
        code = ord(unprintable.group())
        position = _line_and_column(text, unprintable.start())
        faults.fatal(*position, f'a control character, U+{code:04X}')
    return text


def _line_and_column(text: str, index: int) -> tuple[int, int]:
    """Return the line and column of a character, from 1."""
    line, start = 1, 0
    for found in re.compile(_LINE_BREAK).finditer(text, 0, index):
        line, start = line + 1, found.end()
    return line, index - start + 1


class _Open:
    """A collection whose end event has not come yet."""

    __slots__ = ('anchor', 'key', 'merged', 'node', 'start')

    def __init__(self, node: Sequence | Mapping, anchor: str | None, start: int) -> None:
        self.node = node
        self.anchor = anchor
        self.start = start
        self.key: Node | None = None
        self.merged: list[Mapping] | None = None


class _Composer:
    """Composes nodes from PyYAML's events: one document, within the limits.

    A node is complete when its last event has come. Everything that it contains or refers to is
    complete by then, so nothing here recurses, and a merge key can be resolved at once.
    """

    def __init__(self, text: str, folder: str, faults: Faults) -> None:
        self._text = text
        self._folder = folder
        self._faults = faults
        self._root: Node | None = None
        self._stack: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}
        self._nodes = 0
        self._documents = 0
        self._gap = 0 if '\t' in text else len(text)

    def compose(self) -> Node | None:
        import yaml
        # PyYAML's wheels and Debian's package include libyaml. Without it, parsing gives the same
        # result, 10 times slower.
        loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
        handlers: dict[type, Callable[[Any], None]] = {
            yaml.ScalarEvent: self._on_scalar,
            yaml.AliasEvent: self._on_alias,
            yaml.SequenceStartEvent: self._on_sequence,
            yaml.MappingStartEvent: self._on_mapping,
            yaml.SequenceEndEvent: self._on_end,
            yaml.MappingEndEvent: self._on_end,
            yaml.DocumentStartEvent: self._on_document,
        }
        try:
            event: Any
            for event in yaml.parse(self._text, Loader=loader):
                if self._gap < event.start_mark.index:
                    self._find_tabs(event)
                handler = handlers.get(type(event))
                if handler:
                    handler(event)
        except yaml.MarkedYAMLError as error:
            self._syntax_error(error)
        return self._root

    def _syntax_error(self, error: yaml.MarkedYAMLError) -> NoReturn:
        mark: Any = error.problem_mark or error.context_mark
        text = f'{error.problem} ({error.context})' if error.context else str(error.problem)
        if self._text[mark.index:mark.index + 1] == '\t':
            text = 'a tab: use spaces'
        self._faults.fatal(mark.line + 1, mark.column + 1, text)

    def _find_tabs(self, event: Any) -> None:
        """Note a tab between the end of the last event and the value of this one."""
        start, end = event.start_mark.index, event.end_mark.index
        if getattr(event, 'anchor', None) or getattr(event, 'tag', None):
            properties = re.compile(_PROPERTIES).match(self._text, start, end)
            start = properties.end() if properties else start
        for found in re.compile(_COMMENT_OR_TAB).finditer(self._text, self._gap, start):
            if found.group(1):
                position = _line_and_column(self._text, found.start())
                self._faults.add(*position, (), 'a tab: use spaces')
                # One fault is enough: a file that is indented with tabs contains hundreds.
                end = len(self._text)
                break
        self._gap = max(self._gap, end)

    # Events

    def _on_document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            self._fatal(event, 'a second document: expected only one')

    def _on_scalar(self, event: Any) -> None:
        self._count(event, 1)
        tag, bare = event.tag, event.implicit[0]
        if tag is None or tag == '!':
            tag = _implicit_tag(event.value) if bare else _YAML + 'str'
        mark = event.start_mark
        node = Scalar(mark.line + 1, mark.column + 1, tag, event.value, bare)
        try:
            if tag in ('!env', '!file') and not self._awaits_key():
                self._substitute(node, quoted=bool(event.style))
            else:
                node.value = _construct(tag, event.value)
        except ValueError as error:
            node.value = FAULTY
            self._faults.at(node, self._path(), str(error))
        self._complete(node, event, event.anchor)

    def _on_alias(self, event: Any) -> None:
        # The name of an alias is not repeated: it may be a password that begins with *.
        if event.anchor not in self._anchors:
            self._fatal(event, 'an alias without an anchor (quote a string that begins with *)')
        node = self._anchors[event.anchor]
        if node is None:
            self._fatal(event, 'an alias of a collection that contains it')
        self._count(event, node.size)
        self._check_depth(event, node.depth)
        self._put(node)

    def _on_sequence(self, event: Any) -> None:
        node = Sequence(event.start_mark.line + 1, event.start_mark.column + 1, event.tag)
        self._open(node, event, _SEQUENCE_TAGS)

    def _on_mapping(self, event: Any) -> None:
        node = Mapping(event.start_mark.line + 1, event.start_mark.column + 1, event.tag)
        self._open(node, event, _MAPPING_TAGS)

    def _open(self, node: Sequence | Mapping, event: Any, tags: set[str | None]) -> None:
        self._count(event, 1)
        self._check_depth(event, 1)
        if node.tag not in tags:
            self._faults.at(node, self._path(), _unknown_tag(str(node.tag)))
        if event.anchor:
            self._anchor(node, event, event.anchor, None)
        self._stack.append(_Open(node, event.anchor, self._nodes - 1))

    def _on_end(self, event: Any) -> None:
        done = self._stack.pop()
        node = done.node
        node.size = self._nodes - done.start
        if isinstance(node, Mapping) and done.merged:
            own = node.entries
            node.entries = {}
            for mapping in reversed(done.merged):
                node.entries.update(mapping.entries)
            node.entries.update(own)
        if isinstance(node, Sequence) and node.tag in _IN_PAIRS:
            self._check_pairs(node)
        if done.anchor:
            self._anchors[done.anchor] = node
        self._put(node)

    # Nodes

    def _complete(self, node: Node, event: Any, anchor: str | None) -> None:
        if anchor:
            self._anchor(node, event, anchor, node)
        self._put(node)

    def _anchor(self, node: Node, event: Any, anchor: str, target: Node | None) -> None:
        if anchor in self._anchors:
            self._faults.at(node, self._path(), 'a duplicate anchor')
        self._anchors[anchor] = target

    def _count(self, event: Any, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            self._fatal(event, f'more than {MAX_NODES:,} values, aliases written out')

    def _check_depth(self, event: Any, depth: int) -> None:
        if len(self._stack) + depth > MAX_DEPTH:
            self._fatal(event, f'nested more than {MAX_DEPTH} deep')

    def _put(self, node: Node) -> None:
        """Hand a complete node to the collection that contains it."""
        if not self._stack:
            self._root = node
            return
        parent = self._stack[-1]
        parent.node.depth = max(parent.node.depth, node.depth + 1)
        if isinstance(parent.node, Sequence):
            parent.node.items.append(node)
        elif parent.key is None:
            parent.key = node
        else:
            self._enter(parent, parent.node, parent.key, node)
            parent.key = None

    def _enter(self, parent: _Open, mapping: Mapping, key: Node, value: Node) -> None:
        """Enter a key and its value into a mapping."""
        if not isinstance(key, Scalar):
            self._faults.at(key, self._path()[:-1], 'expected a single value as a key')
        elif key.tag == _YAML + 'merge':
            self._merge(parent, key, value)
        elif isinstance(key.value, int) and abs(key.value) >= 2**60:
            # Such numbers can be chosen for their hashes to collide: a dict of them takes minutes.
            self._faults.at(key, self._path()[:-1], 'too large a number for a key (quote it)')
        elif key.value in mapping.entries:
            first = mapping.entries[key.value][0].line
            self._faults.at(key, self._path(), f'a duplicate key, first on line {first}')
        elif key.value is not FAULTY:
            mapping.entries[key.value] = key, value

    def _merge(self, parent: _Open, key: Node, value: Node) -> None:
        """Note the mappings that a merge key names (https://yaml.org/type/merge.html)."""
        if parent.merged is not None:
            self._faults.at(key, self._path(), 'a duplicate key: one << takes a list of mappings')
            return
        nodes = value.items if isinstance(value, Sequence) else [value]
        parent.merged = [node for node in nodes if isinstance(node, Mapping)]
        if len(parent.merged) < len(nodes):
            self._faults.at(value, self._path(), 'expected a mapping, or a list of them, to merge')

    def _check_pairs(self, sequence: Sequence) -> None:
        for node in sequence.items:
            if not isinstance(node, Mapping) or len(node.entries) != 1:
                self._faults.at(node, self._path(), 'expected a mapping of one key')

    # Places

    def _awaits_key(self) -> bool:
        return bool(self._stack and self._stack[-1].key is None
                    and isinstance(self._stack[-1].node, Mapping))

    def _path(self) -> tuple[object, ...]:
        """Return the keys that lead from the root to the current node."""
        keys: list[object] = []
        for parent in self._stack:
            if isinstance(parent.node, Sequence):
                keys.append(len(parent.node.items))
            elif isinstance(parent.key, Scalar):
                keys.append(parent.key.text)
            elif parent.key is not None:
                keys.append('?')
        return tuple(keys)

    def _fatal(self, event: Any, text: str) -> NoReturn:
        mark = event.start_mark
        self._faults.fatal(mark.line + 1, mark.column + 1, text)

    # Tags

    def _substitute(self, node: Scalar, quoted: bool) -> None:
        """Take the value of a scalar from the place that its tag names.

        :param quoted: whether the text after ``!env`` is in quotes: then the value is a string.
        :raises ValueError: the variable is not set, or the file cannot be read; says which.
        """
        if node.tag == '!env':
            name, colon, default = node.text.partition(':')
            found = os.environ.get(name, default if colon else None)
            if found is None:
                raise ValueError(f'the environment variable {unquoted(name)} is not set')
            node.origin = f'the value of the environment variable {unquoted(name)}'
            node.text = found
            node.value = found if quoted else resolve(found)
        else:
            node.origin = 'the content of a file'
            node.value = node.text = self._content(node)

    def _content(self, node: Scalar) -> str:
        """Return the text of the file that ``!file`` names, without its last newline."""
        path, shown = os.path.join(self._folder, node.text), printable(node.text)
        try:
            descriptor = open_regular(path)
            try:
                text = read_bounded(descriptor, MAX_FILE_BYTES).decode()
            finally:
                os.close(descriptor)
        except UnicodeDecodeError:
            raise ValueError(f'{shown} is not UTF-8') from None
        except OSError as error:
            message = f'cannot read {shown}: {error.strerror}'
            if error.errno in (errno.EACCES, errno.EPERM):
                where = position(self._faults.shown, node.line, node.column)
                raise NotPermitted(f'{where}: {dotted(self._path())}: {message}') from None
            raise ValueError(message) from None
        except ValueError as error:
            raise ValueError(f'{shown} {error}') from None
        return text[:-2] if text.endswith('\r\n') else text.removesuffix('\n')


# The nodes of a key

def steps(root: Node | None, keys: Iterable[object]) -> Iterator[tuple[Node, Node]]:
    """Yield the nodes of each key and its value along a path from the root, while it exists."""
    node = root
    for key in keys:
        if isinstance(node, Mapping) and _hashable(key) and key in node.entries:
            where, node = node.entries[key]
        elif isinstance(node, Sequence) and key in range(len(node.items)):
            where = node = node.items[int(str(key))]
        else:
            return
        yield where, node


def value_at(root: Mapping, keys: Iterable[object]) -> Node:
    """Return the node of a value; if the value is a default, of the nearest that contains it."""
    return [root, *(value for _, value in steps(root, keys))][-1]


def key_at(root: Mapping, keys: Iterable[object]) -> Node:
    """Return the node of a key; if it is not there, of the nearest that would contain it."""
    return [root, *(key for key, _ in steps(root, keys))][-1]


def _hashable(key: object) -> bool:
    return isinstance(key, (str, int, float, bool, bytes, type(None)))
