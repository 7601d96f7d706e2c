"""``clihelper upgrade-check``: which old names a program uses, where, and what they are now."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clihelper.commands import upgrade_check
from clihelper.legacy import tables

ROOT = Path(__file__).resolve().parent.parent


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-m', 'clihelper', 'upgrade-check', *words], cwd=folder,
        env={'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, timeout=30,
    )


def found(source: str) -> list[tuple[int, int, str, str]]:
    """Line, column, the old name and the new one of all that is found."""
    return [(each.line, each.column, each.row[0], each.row[1])
            for each in upgrade_check.check(source.encode())]


def test_a_program_is_listed_with_lines_columns_and_replacements(tmp_path: Path) -> None:
    (tmp_path / 'old.py').write_text(
        'import clihelper\n'
        '\n'
        'class Old(clihelper.Controller):\n'
        '    WAKE_INTERVAL = 5\n'
        '\n'
        '    def process(self):\n'
        "        return self._get_config('key')\n"
        '\n'
        "clihelper.set_appname('old')\n"
        'clihelper.WRITE_EXCEPTION_LOG = False\n'
    )
    done = run(tmp_path, 'old.py')
    assert done.returncode == 1
    assert done.stderr == ''
    assert done.stdout.splitlines() == [
        'old.py:4:5: WAKE_INTERVAL is a name of clihelper 1.6; now: Application.wake_interval',
        'old.py:6:9: process is a name of clihelper 1.6; now: _process',
        'old.py:7:21: _get_config is a name of clihelper 1.0; now: application_config.get',
        'old.py:9:11: set_appname is a name of clihelper 1.0; now: setup',
        'old.py:10:11: WRITE_EXCEPTION_LOG is a name of clihelper 1.6; now: the log',
    ]


def test_json(tmp_path: Path) -> None:
    (tmp_path / 'old.py').write_text('import clihelper\nprint(clihelper.PIDFILE)\n')
    done = run(tmp_path, '--json', 'old.py')
    assert done.returncode == 1
    assert json.loads(done.stdout) == [{
        'file': 'old.py', 'line': 2, 'column': 17, 'old': 'PIDFILE', 'new': 'Daemon.pidfile',
        'since': '1.6', 'note': 'An assignment is the default of ``Daemon.pidfile``.',
    }]


def test_nothing_is_found_in_a_program_of_today(tmp_path: Path) -> None:
    done = run(tmp_path, str(ROOT / 'example'))
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    assert json.loads(run(tmp_path, '--json', str(ROOT / 'example')).stdout) == []


@pytest.mark.parametrize(('content', 'reason'), [
    (None, 'cannot be read: No such file or directory'),
    (b'print "hello"\n', "is not valid Python 3: line 1: Missing parentheses in call to 'print'. "
                         'Did you mean print(...)?'),
    (b'\xff\xfe', 'is not valid Python 3: line 1: '),
    (b'\0', 'is not valid Python 3: source code string cannot contain null bytes'),
    (b'x = ' + 5000 * b'(' + 5000 * b')', 'is not valid Python 3: '),
])
def test_a_file_that_cannot_be_read_is_one_line_and_the_others_are_looked_at(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / 'bad.py').write_bytes(content)
    (tmp_path / 'old.py').write_text('import clihelper\nclihelper.PIDFILE\n')
    done = run(tmp_path, 'bad.py', 'old.py')
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith('clihelper: bad.py: ')
    assert reason in line
    assert done.stdout.startswith('old.py:2:11: PIDFILE ')


def test_without_a_file_it_is_wrong_use(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 2
    assert 'FILE' in done.stderr


@pytest.mark.parametrize('name', sorted(tables.OF_MODULE))
def test_each_name_of_the_module_is_found(name: str) -> None:
    new = tables.OF_MODULE[name][1]
    assert found(f'import clihelper\nclihelper.{name}\n') == [(2, 11, name, new)]
    assert found(f'import clihelper as c\nc.{name} = 1\n') == [(2, 3, name, new)]
    assert found(f'from clihelper import {name}\n') == [(1, 23, name, new)]


@pytest.mark.parametrize('name', sorted(tables.OF_CONTROLLER))
def test_each_name_of_a_controller_is_found(name: str) -> None:
    new = tables.OF_CONTROLLER[name][1]
    head = 'from clihelper import Controller as C\nclass A(C):\n    pass\nclass B(A):\n'
    assert found(f'{head}    def {name}(self): pass\n') == [(5, 9, name, new)]
    assert found(f'{head}    {name} = 1\n') == [(5, 5, name, new)]
    assert found(f'{head}    def f(itself): itself.{name}\n') == [(5, 27, name, new)]
    assert found(f'{head}    def f(self): super().{name}()\n') == [(5, 26, name, new)]
    assert found(f'{head}    pass\nprint(B.{name})\n') == [(6, 9, name, new)]


@pytest.mark.parametrize('source', [
    'class Other:\n    def process(self): self._get_config\n',
    'import clihelper\nclass A(clihelper.Controller):\n    def process(self, order): pass\n',
    'import clihelper\nclass A(clihelper.Controller):\n'
    '    def _process(self): self.run()\n    def run(self): pass\n',
    'import clihelper\nclass A(clihelper.Controller):\n'
    '    def _setup(self): self._options = 1\n    def f(self): self._options\n',
    'import clihelper\nclass A(clihelper.ConsumerController):\n    def process(self): pass\n',
    'import clihelper\nclass A(clihelper.Controller):\n    def f(self, job): job.run()\n',
    'from .clihelper import PIDFILE\nfrom other import clihelper\nclihelper.PIDFILE\n',
    'class A(B): pass\nclass B(A): pass\n',
])
def test_what_is_the_programs_own_is_not(source: str) -> None:
    assert found(source) == []


def test_the_command_is_listed() -> None:
    done = subprocess.run([sys.executable, '-m', 'clihelper', '--help'], cwd=ROOT,
                          capture_output=True, text=True, check=True, timeout=30)
    assert 'upgrade-check' in done.stdout
