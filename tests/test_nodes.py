"""YAML: what is read, what is refused, and what it may cost."""

import os
import resource
import subprocess
import sys
import tempfile
import textwrap

import pytest
import yaml

from clihelper.config import nodes
from clihelper.config.faults import Faults
from clihelper.errors import ConfigurationError, NotPermitted


def parse(text, folder='/'):
    """The value of a document without faults."""
    faults = Faults('a.yml')
    data = text if isinstance(text, bytes) else textwrap.dedent(text).encode()
    root = nodes.parse(data, str(folder), faults)
    faults.raise_any()
    return root.plain()


def faults_of(text, folder='/'):
    """The lines of what is wrong with a document."""
    with pytest.raises(ConfigurationError) as caught:
        parse(text, folder)
    return list(caught.value.faults)


@pytest.fixture(params=['libyaml', 'pure'])
def either_loader(request, monkeypatch):
    """A test that runs with PyYAML's parser in C and with the one in Python."""
    assert yaml.__with_libyaml__
    monkeypatch.setattr(yaml, '__with_libyaml__', request.param == 'libyaml')


# What is read

SCALARS = [
    '1', '-1', '0x1F', '0b11', '017', '1_000', '190:20:30', '1.5', '.5', '1e3', '1.0e+3', '.inf',
    'true', 'Yes', 'off', 'null', '~', '', 'text', '"1"', "'true'", '=', '2001-12-14',
    '2001-12-14 21:59:43.10 -5', '!!str 1', '!!int "3"', '!!float 1', '!!binary aGVsbG8=',
    '!!timestamp 2001-01-01', '! 12', '!!null x', '!!bool "yes"',
]


@pytest.mark.parametrize('scalar', SCALARS)
def test_scalars_are_what_pyyaml_makes_of_them(scalar, either_loader):
    text = f'key: {scalar}\n'
    expected = {'key': '='} if scalar == '=' else yaml.safe_load(text)
    assert parse(text) == expected
    assert [type(value) for value in parse(text).values()] == [
        type(value) for value in expected.values()]


@pytest.mark.parametrize('text', [
    'a: [1, {b: 2}, [3]]\nc:\n- d\n- e: f\n',
    'a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}\nc: *x\n',
    'a: &x {k: 1}\nb: &y {k: 2, m: 3}\nc: {<<: [*x, *y], n: 4}\n',
    'a: &x {k: 1}\nb: &y {<<: *x, l: 2}\nc: {<<: *y}\n',
    'a: !!omap [{x: 1}, {y: {z: 2}}]\nb: !!pairs [{x: 1}, {x: 2}]\nc: !!set {x, y}\n',
    '1: a\n2.5: b\n2001-01-01: c\n~: d\n"1": e\n',
    'a: |\n  two\n  lines\nb: >-\n  folded\n  text\n',
    '%YAML 1.1\n---\na: b\n...\n',
    '\ufeffa: \u00fc\u4e2d\U0001f600\n',
    '{}',
])
def test_collections_are_what_pyyaml_makes_of_them(text, either_loader):
    assert parse(text) == yaml.safe_load(text)
    assert list(parse(text)) == list(yaml.safe_load(text))


def test_utf_16_with_a_byte_order_mark_is_read():
    assert parse('a: \u00fc\n'.encode('utf-16')) == {'a': '\u00fc'}


def test_aliases_share_nothing():
    value = parse('a: &x {k: [1]}\nb: *x\n')
    value['a']['k'].append(2)
    assert value['b'] == {'k': [1]}


def test_tabs_in_scalars_and_comments_are_read(either_loader):
    text = 'a: "x\ty"  #\tcomment\nb: |\n  x\ty\n# \t\nc: \'#\'\n'
    assert parse(text) == {'a': 'x\ty', 'b': 'x\ty\n', 'c': '#'}
    if yaml.__with_libyaml__:
        # The parser in Python refuses them in a scalar without quotes.
        assert parse('a: x\ty\n') == {'a': 'x\ty'}


# What is refused

@pytest.mark.parametrize(('text', 'fault'), [
    ('', 'a.yml:1:1: the file is empty: expected a mapping of sections'),
    ('# nothing\n', 'a.yml:1:1: the file is empty: expected a mapping of sections'),
    ('---\n', 'a.yml:1:1: the file is empty: expected a mapping of sections'),
    ('- a\n', 'a.yml:1:1: expected a mapping of sections, got a list'),
    ('# x\ntext\n', 'a.yml:2:1: expected a mapping of sections, got a single value'),
    ('!!set {a}\n', 'a.yml:1:1: expected a mapping of sections, got a set'),
    ('a: 1\n---\nb: 2\n', 'a.yml:2:1: a second document: expected only one'),
    ('a: 1\nb: 2\na: 3\n', 'a.yml:3:1: a: a duplicate key, first on line 1'),
    ('s:\n  1: a\n  0x1: b\n', 'a.yml:3:3: s.0x1: a duplicate key, first on line 2'),
    ('s: {a: 1, "a": 2}', 'a.yml:1:11: s.a: a duplicate key, first on line 1'),
    ('a: {<<: {b: 1}, <<: {c: 1}}',
     'a.yml:1:17: a.<<: a duplicate key: one << takes a list of mappings'),
    ('a: {<<: 3}', 'a.yml:1:9: a.<<: expected a mapping, or a list of them, to merge'),
    ('a: {<<: [{b: 1}, 3]}', 'a.yml:1:9: a.<<: expected a mapping, or a list of them, to merge'),
    ('a:\n  ? [x]\n  : 1\n', 'a.yml:2:5: a: expected a single value as a key'),
    ('a:\tb\n', 'a.yml:1:3: a tab: use spaces'),
    ('a: b\t\nc: d\n', 'a.yml:1:5: a tab: use spaces'),
    ('a:\n\tb: 1\n', 'a.yml:2:1: a tab: use spaces'),
    ('a: [b,\tc]\n', 'a.yml:1:7: a tab: use spaces'),
    ('a: !!str\tb\n', 'a.yml:1:9: a tab: use spaces'),
    ('a: &x\t"b"\n', 'a.yml:1:6: a tab: use spaces'),
    ('a: 2001-99-99\n', 'a.yml:1:4: a: not a valid timestamp (quotes would make it a string)'),
    ('a: 0b_\n', 'a.yml:1:4: a: not a valid int (quotes would make it a string)'),
    ('a: !!int x\n', 'a.yml:1:4: a: not a valid int (quotes would make it a string)'),
    ('a: !!bool x\n', 'a.yml:1:4: a: not a valid bool (quotes would make it a string)'),
    ('a: !!binary "\u00fc"', 'a.yml:1:4: a: not a valid binary (quotes would make it a string)'),
    ('a: !!omap [b]\n', 'a.yml:1:12: a: expected a mapping of one key'),
    ('a: !!python/object/apply:os.system [x]\n',
     'a.yml:1:4: a: unknown or misplaced tag !!python/object/apply:os.system'),
    ('a: !!python/name:os.system\n',
     'a.yml:1:4: a: unknown or misplaced tag !!python/name:os.system'),
    ('!env a: b\n',
     'a.yml:1:1: unknown or misplaced tag (quote a string that begins with !)'),
    ('a: !env [x]\n',
     'a.yml:1:4: a: unknown or misplaced tag (quote a string that begins with !)'),
    ('a: &x [*x]\n', 'a.yml:1:8: an alias of a collection that contains it'),
    ('a: {b: &x 1, c: &x 2}\n', 'a.yml:1:17: a.c: a duplicate anchor'),
    (b'a: b\n\xc3\xbc: \xff\n', 'a.yml:2:4: not UTF-8'),
    (b'\xef\xbb\xbfa: \xff', 'a.yml:1:4: not UTF-8'),
    ('a: b\x07\n', 'a.yml:1:5: a control character, U+0007'),
    ('a: b\0\n', 'a.yml:1:5: a control character, U+0000'),
])
def test_a_fault_is_one_line_with_its_position(text, fault, either_loader):
    data = text if isinstance(text, bytes) else text.encode()
    assert faults_of(data) == [fault]


@pytest.mark.parametrize(('text', 'position'), [
    ('a: [1, 2\n', 'a.yml:2:1: '), ('a: b: c\n', 'a.yml:1:5: '), ('a: "b\n', 'a.yml:2:1: '),
    ('%YAML 2.0\n---\na: b\n', 'a.yml:1:1: '), ('a: @b\n', 'a.yml:1:4: '),
    ('a: !x!y z\n', 'a.yml:1:4: '),
])
def test_a_syntax_error_is_one_line_with_its_position(text, position, either_loader):
    [line] = faults_of(text)
    assert line.startswith(position)
    assert '\n' not in line


def test_all_faults_are_told_in_the_order_of_the_file():
    lines = faults_of('a: !env NOT_SET\nb: 2001-99-99\nb: 1\nc:\td\n')
    assert [line.split(': ')[0] for line in lines] == [
        'a.yml:1:4', 'a.yml:2:4', 'a.yml:3:1', 'a.yml:4:3']


def test_of_thousands_of_faults_the_first_hundred_are_told():
    lines = faults_of('a: 1\n' * 5000)
    assert len(lines) == 101
    assert lines[-1] == 'a.yml: and 4899 more faults'


@pytest.mark.parametrize('text', [
    'password: *hunter2\n', 'password: !hunter2\n', 'password: !hunter2 x\n',
    'a: amqp://u:hunter2@host\na: 1\namqp://u:hunter2@host: 1\namqp://u:hunter2@host: 1\n',
])
def test_no_fault_repeats_what_may_be_a_password(text):
    assert 'hunter2' not in '\n'.join(faults_of(text))


def test_a_name_that_is_no_text_for_a_terminal_is_escaped():
    [line] = faults_of('"x\\n\\e[1m": 1\n"x\\n\\e[1m": 2\n')
    assert line == r"a.yml:2:1: 'x\n\x1b[1m': a duplicate key, first on line 1"


# Hostile input

def alias_bomb(merge):
    inner = '{{<<: [{}]}}' if merge else '[{}]'
    lines = ['a0: &a0 {k: v}'] + [
        f'a{n}: &a{n} ' + inner.format(', '.join([f'*a{n - 1}'] * 9)) for n in range(1, 10)]
    return '\n'.join(lines)


HOSTILE = {
    'alias bomb': alias_bomb(merge=False),
    'merge bomb': alias_bomb(merge=True),
    'brackets': '[' * 100_000,
    'braces': '{' * 100_000,
    'dashes': '- ' * 100_000,
    'question marks': '? ' * 100_000,
    'nesting by aliases': 'a0: &a0 x\n' + '\n'.join(
        f'a{n}: &a{n} ' + '[' * 90 + f'*a{n - 1}' + ']' * 90 for n in range(1, 14)),
    'long integer': 'a: ' + '1' * 5000,
    'long hexadecimal integer': 'a: 0x' + 'f' * 5000,
    'sexagesimal integer': 'a: 1' + ':1' * 500_000,
    'long float': 'a: 1.' + '1' * 500_000,
    'colliding keys': 'a:\n' + '\n'.join(f' {n * (2**61 - 1)}: 1' for n in range(1, 24_000)),
    'many values': 'a:\n' + '- a\n' * 260_000,
    'large file': 'a: ' + 'x' * 2 * 1024 * 1024,
}
#: Of these each key is a fault.
OF_MANY_FAULTS = {'colliding keys'}


def test_hostile_input_takes_a_second_and_64_mib_at_most():
    """In a process of its own each, whose memory has not been used before."""
    program = textwrap.dedent('''
        import resource, sys, time
        import yaml
        from clihelper.config import nodes
        from clihelper.config.faults import Faults
        from clihelper.errors import ConfigurationError
        def memory():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        faults = Faults('a.yml')
        nodes.parse(b'a: {b: [1]}', '/', faults)
        with open(sys.argv[1], 'rb') as file:
            before, start = memory(), time.process_time()
            try:
                data = nodes.read_bounded(file.fileno(), nodes.MAX_BYTES)
                nodes.parse(data, '/', faults)
                faults.raise_any()
            except (ConfigurationError, ValueError) as error:
                print(len(str(error).splitlines()), time.process_time() - start, memory() - before)
    ''')
    for name, text in HOSTILE.items():
        seen = subprocess.run([sys.executable, '-c', program, '/dev/stdin'], input=text.encode(),
                              capture_output=True, check=True).stdout.split()
        lines, seconds, mebibytes = int(seen[0]), float(seen[1]), int(seen[2])
        assert lines == (101 if name in OF_MANY_FAULTS else 1), name
        assert seconds < 1, name
        assert mebibytes < 64, name


@pytest.mark.parametrize('name', sorted(set(HOSTILE) - {'many values', 'large file'}))
def test_hostile_input_is_refused_by_the_python_parser_too(name, monkeypatch):
    monkeypatch.setattr(yaml, '__with_libyaml__', False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert all(line.startswith('a.yml') for line in faults_of(HOSTILE[name]))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_what_is_within_the_limits_is_read():
    depth = nodes.MAX_DEPTH - 1
    parse('a: ' + '[' * depth + ']' * depth)
    assert faults_of('a: ' + '[' * (depth + 1) + ']' * (depth + 1)) == [
        f'a.yml:1:{4 + depth}: nested more than 100 deep']
    size = nodes.MAX_NODES - 3
    assert parse('a:\n' + '- x\n' * size) == {'a': ['x'] * size}
    [line] = faults_of('a:\n' + '- x\n' * (size + 1))
    assert 'more than 50,000 values' in line
    assert parse('a: ' + '1' * 300) == {'a': int('1' * 300)}


# !env

def test_a_variable_is_resolved_as_if_its_value_stood_there(monkeypatch):
    monkeypatch.setenv('PORT', '5672')
    monkeypatch.setenv('NAME', 'x: [y]')
    monkeypatch.setenv('EMPTY', '')
    text = '''
        a: !env PORT
        b: !env NAME
        c: !env EMPTY
        d: !env 'PORT'
        e: !env UNSET:yes
        f: !env UNSET:http://host:80/
        g: !env "UNSET:yes"
        h: !env "UNSET:"
        i: [!env PORT]
    '''
    assert parse(text) == {'a': 5672, 'b': 'x: [y]', 'c': None, 'd': '5672', 'e': True,
                           'f': 'http://host:80/', 'g': 'yes', 'h': '', 'i': [5672]}


def test_a_variable_that_is_not_set_is_a_fault_where_it_is_named():
    assert faults_of('s:\n  - {a: !env NOT_SET}\n') == [
        'a.yml:2:9: s[0].a: the environment variable NOT_SET is not set']


@pytest.mark.parametrize('value', ['2001-99-99', '1' * 5000])
def test_a_variable_that_is_no_value_is_a_fault_that_does_not_repeat_it(value, monkeypatch):
    monkeypatch.setenv('VALUE', value)
    [line] = faults_of('a: !env VALUE\n')
    assert line.startswith('a.yml:1:4: a: ')
    assert value not in line


# !file

@pytest.mark.parametrize(('content', 'value'), [
    (b'secret\n', 'secret'), (b'secret', 'secret'), (b'two\n\n', 'two\n'), (b'x\r\n', 'x'),
    (b'', ''), (b'123\n', '123'), ('\u00fc\n'.encode(), '\u00fc'),
    (b'x' * nodes.MAX_FILE_BYTES, 'x' * nodes.MAX_FILE_BYTES),
])
def test_a_file_is_a_string_without_its_last_newline(tmp_path, content, value):
    (tmp_path / 'secret').write_bytes(content)
    assert parse('a: !file secret\n', tmp_path) == {'a': value}
    assert parse(f'a: !file {tmp_path}/secret\n') == {'a': value}


def test_what_is_no_small_file_of_text_is_a_fault_where_it_is_named(tmp_path):
    os.mkfifo(tmp_path / 'fifo')
    (tmp_path / 'large').write_bytes(b'x' * (nodes.MAX_FILE_BYTES + 1))
    (tmp_path / 'binary').write_bytes(b'\xff')
    names = ['fifo', 'large', 'binary', '.', 'absent', '/dev/null', '"a\\0b"']
    lines = faults_of('\n'.join(f'k{n}: !file {name}' for n, name in enumerate(names)), tmp_path)
    assert lines == [
        'a.yml:1:5: k0: fifo is a FIFO, not a regular file',
        'a.yml:2:5: k1: large is larger than 64 KiB',
        'a.yml:3:5: k2: binary is not UTF-8',
        'a.yml:4:5: k3: . is a directory, not a regular file',
        'a.yml:5:5: k4: cannot read absent: No such file or directory',
        'a.yml:6:5: k5: /dev/null is a device, not a regular file',
        "a.yml:7:5: k6: 'a\\x00b' contains a null byte",
    ]


@pytest.mark.root
def test_a_file_that_may_not_be_read_is_not_permitted():
    with tempfile.TemporaryDirectory(dir='/tmp') as folder:
        os.chmod(folder, 0o755)
        os.close(os.open(f'{folder}/secret', os.O_CREAT, 0o600))
        os.seteuid(65534)
        try:
            with pytest.raises(NotPermitted) as caught:
                parse('s: {a: !file secret}\n', folder)
        finally:
            os.seteuid(0)
    assert str(caught.value) == 'a.yml:1:8: s.a: cannot read secret: Permission denied'
    assert caught.value.status == 77
