"""Child processes of programs of 1.x are forked, whatever Python's default is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.life import Life

CONFIG = 'Application: {wake_interval: 60, method: spawn}\nDaemon: {pidfile: FOLDER/pid}\n'


def start(folder: Path, name: str, *options: str) -> Life:
    return Life(folder, 'legacy_forking.py', name, options=options, config=CONFIG,
                env={'PYTHONWARNINGS': 'ignore'})


@pytest.mark.parametrize('options', [('-f',), ()], ids=['foreground', 'daemon'])
@pytest.mark.parametrize('name', ['Imports', 'ImportsLater', 'HasLock', 'NamesNothing'])
def test_a_child_has_what_its_parent_has(
    tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    with start(tmp_path, name, *options) as life:
        assert life.wait_report('child') == 'child [60] 60'
        life.wait_logged('ready')
        life.pid = life.program.pid if options else int((tmp_path / 'pid').read_text())
        life.signal('TERM')
        life.wait_report('cleanup 0')
        assert (life.wait() if options else life.wait_daemon()) == 0


@pytest.mark.parametrize('name', ['Chooses', 'ChoosesLater'])
def test_what_the_program_chooses_holds(tmp_path: Path, name: str) -> None:
    with start(tmp_path, name, '-f') as life:
        assert life.wait_report('method') == 'method spawn spawn'


def test_multiprocessing_is_not_imported_for_it(tmp_path: Path) -> None:
    with start(tmp_path, 'HasNone', '-f') as life:
        assert life.wait_report('imported') == 'imported None False'


def test_a_program_of_today_has_the_default_of_python(tmp_path: Path) -> None:
    ask = 'import multiprocessing; print(multiprocessing.get_start_method())'
    default = subprocess.check_output([sys.executable, '-c', ask], text=True).strip()
    with start(tmp_path, 'OfToday', '-f') as life:
        assert life.wait_report('method') == f'method {default}'
