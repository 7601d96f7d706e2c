"""The page on the architecture says what is there, and how a message goes through it."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import kombu

from clihelper.testing import Program

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / 'docs/architecture.rst').read_text()

MOST_CONCEPTS = 14
"""names that one has to know to follow a message that is acknowledged"""

MOST_WORDS = 20
"""words of the glossary"""


def between(start: str, end: str) -> str:
    begin = PAGE.index(start)
    return PAGE[begin:PAGE.index(end, begin)]


WAY = between('One message\n', 'Not on that way')
BESIDE = between('Not on that way', '\n\n')


def test_the_way_of_a_message_has_few_names() -> None:
    assert len(re.findall(r'^\d+\. ', WAY, re.MULTILINE)) <= MOST_CONCEPTS


def test_the_glossary_is_short() -> None:
    words = re.findall(r'^   (\w.*)$', PAGE[PAGE.index('.. glossary::'):], re.MULTILINE)
    assert 0 < len(words) <= MOST_WORDS
    assert words == sorted(words)


def test_what_runs_for_a_message_is_on_the_page(tmp_path, broker, queue_name) -> None:
    with kombu.Connection(broker.url()) as connection, connection.channel() as channel:
        channel.queue_declare(queue_name, durable=True, auto_delete=False)
        message = channel.prepare_message(b'{"a": 1}', content_type='application/json')
        for _ in range(200):
            channel.basic_publish(message, exchange='', routing_key=queue_name)
        config = tmp_path / 'traced.yml'
        config.write_text(
            f'Daemon: {{state_directory: {tmp_path}}}\n'
            f'AMQP: {{url: {broker.url()}, queues: {{{queue_name}: }}}}\n'
        )
        program = str(ROOT / 'tests/programs/traced.py')
        with Program([sys.executable, program, '-c', str(config), '-f']) as traced:
            called = traced.wait_line('called (.*)')[1].split()
            assert traced.stop() == 0
    named = set(re.findall(r'``(\w+)', WAY + BESIDE))
    names = {name.rpartition('.')[2] for name in called}
    assert {name for name in names if not name.startswith('_')} <= named


def test_each_name_on_the_page_is_in_the_package() -> None:
    paths = sorted((ROOT / 'clihelper').rglob('*.py'))
    files = {str(path.relative_to(ROOT / 'clihelper')) for path in paths}
    defined = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                defined.add(node.name)
    prose = PAGE[:PAGE.index('What nothing else says')]
    for name in re.findall(r'``([\w./]+)``', prose):
        if name.endswith('.py'):
            assert name in files, name
        elif name[0].isupper() or '.' in name:
            assert name.rpartition('.')[2] in defined or name == 'CONTRIBUTING.rst', name
