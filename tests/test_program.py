"""Programs that are called like a module, or that have such a file beside them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clihelper import program
from clihelper.testing import Program

PROGRAM = """\
import clihelper


class Mine(clihelper.{base}):
    def {hook}:
        pass


def main():
    clihelper.setup('mine')
    clihelper.run(Mine)


{guard}
    main()
"""

GUARDS = ["if __name__ == '__main__':", 'if True:']

CONFIG = """\
Daemon: {pidfile: FOLDER/mine.pid}
Logging: {root: {level: INFO}}
AMQP: {url: 'memory://', queues: {q: {}}}
"""


@pytest.fixture
def command(tmp_path: Path):
    (tmp_path / 'mine.yml').write_text(CONFIG.replace('FOLDER', str(tmp_path)))

    def write(name: str, guard: str = GUARDS[0], base: str = 'Controller',
              hook: str = '_process(self)') -> list[str | Path]:
        (tmp_path / name).write_text(PROGRAM.format(guard=guard, base=base, hook=hook))
        return [sys.executable, tmp_path / name, '-c', tmp_path / 'mine.yml']

    return write


@pytest.mark.parametrize('guard', GUARDS)
@pytest.mark.parametrize('name', ['logging', 'yaml', 'signal', 'resource', 'socket'])
@pytest.mark.parametrize('options', [['-f'], []])
def test_a_program_called_like_a_module_is_told_so_in_one_line(
    command, tmp_path: Path, name: str, guard: str, options: list[str]
) -> None:
    done = subprocess.run([*command(f'{name}.py', guard), *options], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.partition(': ')[2] == (
        f'{tmp_path}/{name}.py is in the way of the module {name}, which clihelper needs:'
        ' rename it\n')
    assert not (tmp_path / 'mine.pid').exists()


@pytest.mark.parametrize('guard', GUARDS)
@pytest.mark.parametrize(('name', 'base', 'hook'), [
    ('kombu', 'ConsumerController', 'on_message(self, body, message)'),
    ('tornado', 'IOLoopController', '_process(self)'),
])
def test_so_is_one_that_is_called_like_a_library_of_its_loop(
    command, tmp_path: Path, name: str, base: str, hook: str, guard: str
) -> None:
    with Program([*command(f'{name}.py', guard, base, hook), '-f']) as running:
        assert running.wait() == 1
        assert f'{tmp_path}/{name}.py is in the way of the module {name}' in running.lines[-1]


@pytest.mark.parametrize('name', ['logging', 'yaml', 'socket'])
def test_so_is_a_file_beside_the_program(command, tmp_path: Path, name: str) -> None:
    (tmp_path / f'{name}.py').write_text('')
    done = subprocess.run(command('mine.py'), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count('\n')) == (1, 1), done.stderr
    assert f'{tmp_path}/{name}.py is in the way' in done.stderr


@pytest.mark.parametrize('guard', GUARDS)
@pytest.mark.parametrize('beside', [None, 'daemon.py', 'daemon/__init__.py'])
def test_a_program_may_be_called_daemon(
    command, tmp_path: Path, beside: str | None, guard: str
) -> None:
    if beside is not None:
        (tmp_path / beside).parent.mkdir(exist_ok=True)
        (tmp_path / beside).write_text('raise SystemExit("imported")')
    done = subprocess.run(command('mine.py' if beside else 'daemon.py', guard),
                          capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, '')
    pid = int((tmp_path / 'mine.pid').read_text())
    daemon = os.pidfd_open(pid)
    os.kill(pid, signal.SIGTERM)
    assert select.select([daemon], [], [], 30)[0]
    os.close(daemon)


def test_a_file_that_nothing_imports_is_not_in_the_way(command, tmp_path: Path) -> None:
    (tmp_path / 'mailbox.py').write_text('raise SystemExit("imported")')
    (tmp_path / 'kombu.py').write_text('raise SystemExit("imported")')
    with Program([*command('mine.py'), '-f']) as running:
        running.wait_ready()
        assert running.stop() == 0


def test_an_error_of_the_programs_own_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(AttributeError) as wrong:
        signal.NO_SUCH_SIGNAL  # type: ignore[attr-defined] # noqa: B018
    assert program.explain_hidden(wrong.value) is None
    with pytest.raises(ImportError) as missing:
        import no_such_module  # noqa: F401
    assert program.explain_hidden(missing.value) is None
