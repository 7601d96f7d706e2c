"""The documentation is true: its programs run, its terminals show what happens, its names exist.

How its code blocks are marked is in CONTRIBUTING.rst, "Rules of the documentation".
"""

from __future__ import annotations

import doctest
import importlib
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kombu
import pytest

import clihelper
import clihelper.errors
import clihelper.testing
from clihelper import config, logs
from clihelper.amqp.settlement import REASONS
from clihelper.config import schema
from clihelper.errors import StopNow
from clihelper.process.signals import HANDLED
from clihelper.testing import Program
from tests.broker import Broker

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / 'docs'
README = ROOT / 'README.rst'
PAGES = [README, *sorted(DOCS.glob('*.rst'))]

#: What the documentation has where a broker is, and where a server listens.
DOCUMENTED_URL = 'amqp://guest:guest@localhost:5672//'
DOCUMENTED_PORT = '8888'

#: Modules that have examples of their own: every one of the package with a ``>>>``.
EXEMPLARY = [
    path.relative_to(ROOT).with_suffix('').as_posix().replace('/', '.')
    for path in sorted((ROOT / 'clihelper').rglob('*.py'))
    if '>>> ' in path.read_text()
]


class Block:
    """A code block of a page.

    :ivar name: the name of the file that it is; empty if it is none.
    """

    def __init__(self, page: Path, line: int, language: str, options: str, text: str) -> None:
        named = re.search(r':(?:caption|name): (\S+)', options)
        self.name = named[1] if named else ''
        self.language = language
        self.text = textwrap.dedent(text).strip('\n') + '\n'
        self.id = f'{page.name}:{line}'


BLOCK = re.compile(
    r'^\.\. code-block:: (?P<language>\S+)\n'
    r'(?P<options>(?:   :.*\n)*)'
    r'(?P<text>(?:\n|   .*\n)*)',
    re.MULTILINE,
)

INCLUDED = re.compile(
    r'^\.\. literalinclude:: (?P<path>\S+)\n(?P<options>(?:   :.*\n)*)', re.MULTILINE
)


def blocks_of(page: Path) -> list[Block]:
    """The code blocks of a page; a file that it includes is one, too."""
    text = page.read_text()
    blocks = [
        Block(page, text.count('\n', 0, found.start()) + 1, *found.group(1, 2, 3))
        for found in BLOCK.finditer(text)
    ]
    for found in INCLUDED.finditer(text):
        language = re.search(r':language: (\S+)', found['options'])
        blocks.append(Block(
            page, text.count('\n', 0, found.start()) + 1, language[1] if language else '',
            found['options'], (page.parent / found['path']).read_text()))
    return blocks


BLOCKS = {page: blocks_of(page) for page in PAGES}


def files_of(page: Path) -> dict[str, str]:
    return {block.name: block.text for block in BLOCKS[page] if block.name}


def programs_of(page: Path) -> list[str]:
    return [
        name
        for name, text in files_of(page).items()
        if name.endswith('.py') and 'clihelper.run(' in text
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def unpack(tmp_path: Path) -> Callable[..., Path]:
    """Writes the files of a page into a folder.

    What stands in the documentation for something of this machine is replaced.
    """

    def write(page: Path, url: str = 'memory://', port: int | None = None) -> Path:
        tmp_path.chmod(0o755)
        for name, text in files_of(page).items():
            text = text.replace(DOCUMENTED_URL, url)
            text = text.replace(DOCUMENTED_PORT, str(port or free_port()))
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def start(folder: Path, *words: str) -> Program:
    return Program([sys.executable, *words], cwd=folder, env={'PYTHONPATH': str(ROOT)})


def configuration_of(program: str, page: Path) -> str:
    """The file of the same name, or else the first of the page."""
    names = [name for name in files_of(page) if name.endswith('.yml')]
    own = program.removesuffix('.py') + '.yml'
    return own if own in names else names[0]


PROGRAMS = [(page, name) for page in PAGES for name in programs_of(page)]


@pytest.mark.parametrize(('page', 'program'), PROGRAMS, ids=[f'{p.name}-{n}' for p, n in PROGRAMS])
def test_a_documented_program_starts_and_stops(
    page: Path, program: str, unpack: Callable[..., Path]
) -> None:
    folder = unpack(page)
    with start(folder, program, '-c', configuration_of(program, page), '-f') as running:
        running.wait_ready()
        assert running.stop('TERM') == 0, str(running)


# What the terminal shows.

SESSIONS = [
    (page, block)
    for page in PAGES
    if page.name != 'tutorial.rst'  # one session from its begin to its end: test_tutorial.py
    for block in BLOCKS[page]
    if block.language == 'console' and '$ python ' in block.text
]


@pytest.mark.parametrize(
    ('page', 'block'), SESSIONS, ids=[block.id.replace('.rst', '') for _, block in SESSIONS]
)
def test_a_documented_command_shows_what_is_documented(
    page: Path, block: Block, unpack: Callable[..., Path]
) -> None:
    folder = unpack(page)
    status = None
    for command, shown in commands_of(block.text):
        if command == 'echo $?':
            assert shown == [str(status)]
        else:
            status = type_in(folder, command, shown)


def commands_of(text: str) -> list[tuple[str, list[str]]]:
    """Each command after a ``$``, with the lines that follow it."""
    commands: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith('$ '):
            commands.append((line.removeprefix('$ '), []))
        elif line:
            commands[-1][1].append(line)
    return commands


def type_in(folder: Path, command: str, shown: list[str]) -> int:
    """Run a command as it stands there, hold its lines against those shown; its status."""
    python, *words = command.split()
    assert python == 'python'
    with start(folder, *words) as running:
        for line in shown:
            if line == '^C':
                running.wait_ready()
                running.signal('INT')
            else:
                running.wait_line(pattern(line))
        status = running.wait()
        if '^C' in shown:
            assert status == 0, str(running)
        else:
            assert len(running.lines) == len(shown), str(running)
    return status


TIME_AND_LEVEL = re.compile(r'^\d{4}-\d\d-\d\d [\d:.]+ [A-Z]+ +')


def pattern(line: str) -> str:
    """What a line that is shown has to look like: times, levels and numbers may differ."""
    expression = re.escape(TIME_AND_LEVEL.sub('', line))
    expression = re.sub(r'\d+', r'\\d+', expression)
    return expression.replace(r'\.\.\.', '.*') + '$'


def test_the_server_of_the_readme_says_hello(unpack: Callable[..., Path]) -> None:
    port = free_port()
    folder = unpack(README, port=port)
    with start(folder, 'hello.py', '-c', 'hello.yml', '-f') as server:
        server.wait_ready()
        with urllib.request.urlopen(f'http://127.0.0.1:{port}/', timeout=10) as answer:
            assert answer.read() == b'hello\n'
        assert server.stop() == 0


def test_the_consumer_of_the_readme_ships_and_rejects(
    broker: Broker, unpack: Callable[..., Path]
) -> None:
    broker.ctl('add_vhost', 'readme')
    broker.ctl('set_permissions', '-p', 'readme', 'guest', '.*', '.*', '.*')
    url = broker.url('readme')
    folder = unpack(README, url=url)
    ((_, shown),) = commands_of(files_of(README)['orders.log'])
    with start(folder, 'orders.py', '-c', 'orders.yml', '-f') as running:
        running.wait_ready()
        with kombu.Connection(url) as connection:
            for quantity in (2, 0):
                connection.Producer().publish(
                    {'item': 'tea', 'quantity': quantity},
                    exchange='shop',
                    routing_key='order.new',
                )
        for line in shown:
            if line == '^C':
                running.signal('INT')
            else:
                expected = pattern(line.replace('localhost:5672//', '...'))
                running.wait_line(expected)
        assert running.wait() == 0


def test_the_example_takes_orders_from_the_second_terminal_of_the_readme(
    broker: Broker, unpack: Callable[..., Path]
) -> None:
    broker.ctl('add_vhost', 'example')
    broker.ctl('set_permissions', '-p', 'example', 'guest', '.*', '.*', '.*')
    folder = unpack(README, url=broker.url('example'))
    text = (ROOT / 'example.yml').read_text()
    assert text.count('  url: memory://\n') == 1
    assert DOCUMENTED_URL in text
    configuration = folder / 'example.yml'
    configuration.write_text(text.replace('memory://', broker.url('example')))
    command = (folder / 'order.sh').read_text().replace('.venv/bin/python', sys.executable)
    with start(folder, str(ROOT / 'example'), '-c', str(configuration), '-f') as example:
        example.wait_ready()
        subprocess.run(['sh', '-e', '-c', command], check=True, timeout=30)
        example.wait_line('order 99 shipped: coffee')
        assert example.stop('INT') == 0


# Blocks that are no programs.

SNIPPETS = [
    block
    for blocks in BLOCKS.values()
    for block in blocks
    if block.language == 'python' and not block.name
]


@pytest.mark.parametrize('block', SNIPPETS, ids=[block.id for block in SNIPPETS])
def test_a_documented_snippet_executes(block: Block) -> None:
    code = compile(block.text, block.id, 'exec', dont_inherit=True)
    exec(code, {'__name__': 'snippet', 'clihelper': clihelper, 'Any': Any})


CONFIGURATIONS = [
    (page, block)
    for page, blocks in BLOCKS.items()
    for block in blocks
    if block.language == 'yaml' and not block.name.startswith('wrong')
]


@pytest.mark.parametrize(
    ('page', 'block'), CONFIGURATIONS, ids=[block.id for _, block in CONFIGURATIONS]
)
def test_a_documented_configuration_is_valid(
    page: Path, block: Block, unpack: Callable[..., Path]
) -> None:
    path = str(unpack(page) / 'fragment.yml')
    valid = config.parse(block.text.encode(), path, appname='docs', shown=block.id)
    assert not logs.check(valid.logging, valid.locate, working_directory='/')


TESTED = [page for page in PAGES if any(name.startswith('test_') for name in files_of(page))]


@pytest.mark.parametrize('page', TESTED, ids=[page.name for page in TESTED])
def test_the_documented_tests_pass(page: Path, unpack: Callable[..., Path]) -> None:
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider'],
        cwd=unpack(page),
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize('module', EXEMPLARY)
def test_the_examples_of_a_module_are_right(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted
    assert not result.failed


# What has to be mentioned.

EVERYTHING = '\n'.join(page.read_text() for page in PAGES)


def literals(text: str) -> set[str]:
    """The words within double backquotes."""
    return {word for each in re.findall('``(.+?)``', text) for word in re.findall(r'\w+', each)}


@pytest.mark.parametrize('name', clihelper.__all__)
def test_a_public_name_is_documented(name: str) -> None:
    assert re.search(rf'clihelper\.{name}\b', EVERYTHING)


@pytest.mark.parametrize('name', clihelper.testing.__all__)
def test_a_public_name_for_tests_is_documented(name: str) -> None:
    page = (DOCS / 'testing.rst').read_text()
    assert re.search(rf':: clihelper\.testing\.{name}$', page, re.MULTILINE)


@pytest.mark.parametrize(
    'name', [name for name in logs.__all__ if name.endswith(('Formatter', 'Handler'))]
)
def test_a_formatter_or_handler_is_documented(name: str) -> None:
    assert f':: clihelper.logs.{name}\n' in (DOCS / 'logging.rst').read_text()


def own_public_names(cls: type) -> list[str]:
    hooks = {'_setup', '_process', '_loop', '_shutdown', '_cleanup'}
    internal = {
        'attach', 'take_over', 'driven', 'make_loop', 'brings_loop', 'has_process',
        'has_order_key', 'overrides_wake_interval', 'overrides_sigusr2', 'further_attributes',
        'handles_batches', 'own_surroundings', 'is_consumer', 'handler_table',
    }
    return [
        name for name in vars(cls) if (name in hooks or name[0] != '_') and name not in internal
    ]


@pytest.mark.parametrize(
    'name',
    [
        name
        for cls in (
            clihelper.Controller,
            clihelper.IOLoopController,
            clihelper.ConsumerController,
        )
        for name in own_public_names(cls)
    ],
)
def test_what_a_controller_has_is_documented(name: str) -> None:
    assert re.search(rf'\b{name}\b', (DOCS / 'controllers.rst').read_text())


def test_every_exit_status_is_in_the_table() -> None:
    page = (DOCS / 'options.rst').read_text()
    table = page.partition('Exit statuses\n----')[2].partition('\n----')[0]
    rows = re.findall(r'^   \* - ([\d, ]+)$', table, re.MULTILINE)
    errors = {
        each.status
        for each in vars(clihelper.errors).values()
        if isinstance(each, type) and hasattr(each, 'status')
    }
    at_once = {StopNow(signum).code for signum in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)}
    assert {int(number) for row in rows for number in row.split(',')} == {0} | errors | at_once


def test_every_signal_is_in_the_table() -> None:
    page = (DOCS / 'signals.rst').read_text()
    table = page.partition('.. list-table::')[2].partition('\n\nOther')[0]
    first_cells = ' '.join(re.findall(r'^   \* - (.+)$', table, re.MULTILINE))
    for signum in HANDLED:
        assert re.search(rf'\b{signum.name.removeprefix("SIG")}\b', first_cells)


@pytest.mark.parametrize('reason', [*REASONS.values(), 'exception'])
def test_every_reason_of_a_dead_letter_is_documented(reason: str) -> None:
    assert reason in literals((DOCS / 'amqp.rst').read_text())


def test_every_header_of_a_dead_letter_is_documented() -> None:
    from clihelper.amqp.message import PROPERTIES
    from clihelper.amqp.settlement import (
        EXCHANGE,
        ROUTING_KEY,
        dead_letter_headers,
        run_headers,
    )

    page = (DOCS / 'amqp.rst').read_text()
    documented = set(re.findall(r'``(x-clihelper-[\w-]+)``', page))
    told = {
        **run_headers(1, {EXCHANGE: '', ROUTING_KEY: ''}),
        **dead_letter_headers(ValueError('x'), 'queue', 'app'),
    }
    assert documented == {PROPERTIES, *told}


def keys_of(section: schema.Key) -> list[str]:
    assert isinstance(section.type, schema.Table)
    return [f'{section.name}.{name}' for name in section.type.keys]


KEYS = [name for section in schema.SECTIONS.keys.values() for name in keys_of(section)]


@pytest.mark.parametrize('key', KEYS)
def test_a_key_of_the_configuration_is_explained_by_hand(key: str) -> None:
    section, _, name = key.partition('.')
    page = {'AMQP': 'amqp', 'Daemon': 'daemon', 'Logging': 'logging'}.get(section, 'configuration')
    text = (DOCS / f'{page}.rst').read_text()
    assert re.search(rf'\b{name}\b', text), f'{key} is not in docs/{page}.rst'


# The reference, which Sphinx makes from the schema.

@pytest.fixture(scope='module')
def reference() -> str:
    done = subprocess.run(
        [sys.executable, DOCS / 'reference.py'],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout


def tables_below(name: str, kind: object) -> list[tuple[str, schema.Table]]:
    """The table of each mapping, with its heading, as the reference is to have them."""
    if isinstance(kind, schema.Map):
        return tables_below(f'{name}.<{kind.name}>', kind.value)
    if isinstance(kind, schema.List):
        return tables_below(f'{name}[]', kind.item)
    if isinstance(kind, schema.Either):
        return [each for one in kind.types for each in tables_below(name, one)]
    if not isinstance(kind, schema.Table):
        return []
    inner = [
        each for key in kind.keys.values() for each in tables_below(f'{name}.{key.name}', key.type)
    ]
    return [(name, kind), *inner]


TABLES = [
    each for key in schema.SECTIONS.keys.values() for each in tables_below(key.name, key.type)
]


@pytest.mark.parametrize(('name', 'table'), TABLES, ids=[name for name, _ in TABLES])
def test_the_reference_has_every_key_of_the_schema_in_its_place(
    reference: str, name: str, table: schema.Table
) -> None:
    heading = re.search(rf'^{re.escape(name)}\n[-~]+\n', reference, re.MULTILINE)
    assert heading, f'{name} has no heading'
    following = re.split(r'^\S+\n[-~]+$', reference[heading.end() :], flags=re.MULTILINE)[0]
    assert re.findall(r'^   \* - ``(\w+)``$', following, re.MULTILINE) == list(table.keys)
    for key in table.keys.values():
        assert f'     - {key.meaning}\n' in following


def test_the_page_of_the_reference_is_the_one_that_is_replaced() -> None:
    conf = (DOCS / 'conf.py').read_text()
    assert "page == 'reference'" in conf
    assert 'reference.page()' in conf
    assert (DOCS / 'reference.rst').exists()
