"""What type checkers say: nothing of all that is documented, and what is wrong of wrong programs.

mypy, in its strict mode, and pyright see the same programs, each in one run. What an editor
proposes is what pyright's language server does.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import clihelper
from clihelper.amqp.property_types import Properties
from clihelper.commands import new
from tests.editor import Editor
from tests.test_docs import BLOCKS, ROOT

#: What a block that is no program has without saying so: see CONTRIBUTING.rst.
AROUND_A_SNIPPET = 'from typing import Any; import clihelper\n'

#: Programs of 1.x are shown as they were.
OF_1_X = 'upgrading.rst'

NEW = {loop: f'new-{loop}' for loop in new.LOOPS}

TYPED = ROOT / 'tests/typed'


def documented() -> dict[str, str]:
    """The programs of the documentation, by file: those of a page are in a folder."""
    found = {}
    for page, blocks in BLOCKS.items():
        for block in blocks:
            if block.language != 'python' or page.name == OF_1_X:
                continue
            name = block.name or f'at_{block.id.partition(":")[2]}.py'
            text = block.text if block.name else AROUND_A_SNIPPET + block.text
            found[f'{page.stem.replace("-", "_")}/{name}'] = text
    return found


def written() -> dict[str, str]:
    """The programs that ``clihelper new`` writes. One run takes no two modules of one name."""
    return {
        f'{name}/{path}'.replace('/tests/', f'/tests_of_{loop}/'): file.text
        for loop, name in NEW.items()
        for path, file in new.project(name, loop).items()
        if path.endswith('.py')
    }


def typed() -> dict[str, str]:
    return {
        'example.py': (ROOT / 'example').read_text(),
        **{f'typed/{path.name}': path.read_text() for path in TYPED.glob('*.py')},
    }


PROGRAMS = {**documented(), **written(), **typed()}

#: Folders whose modules import each other by name.
ROOTS = [*NEW.values(), 'testing']

Messages = dict[str, list[tuple[int, str]]]


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('types')
    for name, text in PROGRAMS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def run(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, '-m', *words], cwd=folder, capture_output=True, text=True, timeout=300,
        env={**os.environ, 'MYPYPATH': ':'.join(ROOTS), 'PYRIGHT_PYTHON_IGNORE_WARNINGS': '1'})
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy(folder: Path) -> Messages:
    # kombu has types, but most of its functions have none, which the strict mode is told of here.
    (folder / 'mypy.ini').write_text('[mypy]\nuntyped_calls_exclude = kombu\n')
    found: Messages = {}
    for line in run(folder, 'mypy', '--strict', '--explicit-package-bases', '--no-pretty',
                    '--cache-dir', str(folder / 'cache'), '.').splitlines():
        if said := re.match(r'(?:\./)?([^:]+):(\d+): error: (.*)', line):
            found.setdefault(said[1], []).append((int(said[2]), said[3]))
    return found


def pyright(folder: Path) -> Messages:
    (folder / 'pyrightconfig.json').write_text(json.dumps({'extraPaths': ROOTS}))
    found: Messages = {}
    said = json.loads(run(folder, 'pyright', '--outputjson', '--pythonpath', sys.executable, '.'))
    assert said['summary']['filesAnalyzed'] == len(PROGRAMS)
    for each in said['generalDiagnostics']:
        if each['severity'] == 'error':
            name = Path(each['file']).relative_to(folder.resolve()).as_posix()
            found.setdefault(name, []).append(
                (each['range']['start']['line'] + 1, each['message']))
    return found


@pytest.fixture(scope='module', params=[mypy, pyright], ids=['mypy', 'pyright'])
def messages(request: pytest.FixtureRequest, folder: Path) -> Messages:
    found: Messages = request.param(folder)
    return found


def test_nothing_is_said_of_what_is_documented_and_written(messages: Messages) -> None:
    assert not [
        f'{name}:{line}: {text}'
        for name, said in messages.items() if name != 'typed/wrong.py'
        for line, text in said
    ]


def test_what_is_wrong_is_found(messages: Messages) -> None:
    lines = PROGRAMS['typed/wrong.py'].splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if '# wrong' in line}
    assert {line for line, _ in messages['typed/wrong.py']} == wrong


CLASS = 'import clihelper\nclass Orders(clihelper.ConsumerController):\n    '

HANDLER = CLASS + 'def on_message(self, body, message):\n        '


@pytest.mark.parametrize(('text', 'proposed'), [
    ('import clihelper\nclihelper.|', clihelper.__all__),
    (CLASS + 'def on_|', ['on_message', 'on_messages', 'on_configuration_reloaded', 'on_sigterm']),
    (CLASS + 'def _|', ['_setup', '_process', '_loop', '_shutdown', '_cleanup']),
    # By the types of the hook that it overrides.
    (HANDLER + 'message.|', ['attempts', 'headers', 'correlation_id', 'ack']),
    (HANDLER + 'self.options.|', ['configuration', 'foreground', 'check']),
    (HANDLER + 'self.publish(body, |)', ['headers=', 'expiration=', 'delay=', 'mandatory=']),
    (HANDLER + 'self.config.|', ['daemon', 'amqp', 'path']),
], ids=['module', 'on_', '_', 'message', 'options', 'publish', 'config'])
def test_an_editor_completes(tmp_path: Path, text: str, proposed: list[str]) -> None:
    with Editor(tmp_path) as editor:
        assert set(proposed) <= set(editor.completions(text))


def test_every_property_of_a_message_is_among_them() -> None:
    names = get_type_hints(Properties)
    for name, any_is_right in ((each, each == 'partition_key') for each in names):
        assert f' {name}=' in PROGRAMS['typed/right.py']
        assert any_is_right or f'publish({{}}, {name}=' in PROGRAMS['typed/wrong.py']


def test_the_types_are_shipped() -> None:
    """Without py.typed in the package that is installed, a type checker takes all for Any."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    assert 'py.typed' in setup['options.package_data']['clihelper'].split()
    assert (ROOT / 'clihelper/py.typed').exists()
