"""``-f --reload``: the program starts anew when its source or configuration changes."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clihelper.testing import Program
from tests.test_workers import wait_gone

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = """\
import os

import helper
import clihelper


class Mine(clihelper.Controller):
    def _process(self):
        word = self.application_config.get('word')
        os.write(1, f'word {helper.WORD} {word}\\n'.encode())

    def _cleanup(self):
        print('cleaned up', flush=True)


if __name__ == '__main__':
    clihelper.setup('mine')
    clihelper.run(Mine)
"""


class Source:
    """The program in a folder, and what runs it."""

    def __init__(self, folder):
        self.folder = folder
        self.write('mine.py', PROGRAM)
        self.write('helper.py', 'WORD = 1\n')
        self.write('mine.yml', 'Application: {word: a}\n')

    def write(self, name, text):
        """Save a file as editors do: under another name first."""
        (self.folder / f'.{name}.new').write_text(text)
        os.replace(self.folder / f'.{name}.new', self.folder / name)

    def run(self, **options):
        argv = [sys.executable, 'mine.py', '-c', 'mine.yml', '-f', '--reload']
        return Program(argv, cwd=self.folder, notify=False, **options)


@pytest.fixture
def source(tmp_path):
    return Source(tmp_path)


def children(pid):
    with open(f'/proc/{pid}/task/{pid}/children') as file:
        return [int(each) for each in file.read().split()]


def test_a_change_of_source_or_configuration_starts_it_anew(source):
    with source.run() as program:
        program.wait_line('word 1 a')
        source.write('helper.py', 'WORD = 22\n')
        program.wait_line('helper.py has changed: starts anew')
        program.wait_line('cleaned up')
        program.wait_line('word 22 a')
        source.write('mine.yml', 'Application: {word: bb}\n')
        program.wait_line('mine.yml has changed: starts anew')
        program.wait_line('word 22 bb')
        (source.folder / 'mine.py').write_text(PROGRAM.replace("f'word", "f'text"))  # in place
        program.wait_line('text 22 bb')
        (source.folder / 'notes.txt').write_text('nothing of it')
        assert program.stop('INT') == 0
    assert len([line for line in program.lines if 'starts anew' in line]) == 3
    assert program.lines[-1] == 'cleaned up' or 'cleaned up' in program.lines[-3:]


def test_it_runs_half_a_second_after_a_save(source):
    times = []
    with source.run() as program:
        program.wait_line('word 1 a')
        for number in range(5):
            began = time.monotonic()
            source.write('helper.py', f'WORD = {10 ** number * 5}\n')
            program.wait_line(f'word {10 ** number * 5} a')
            times.append(time.monotonic() - began)
        assert program.stop() == 0
    assert min(times) < 0.5, times  # the machine may have other things to do


def test_broken_source_is_shown_and_the_next_change_awaited(source):
    with source.run() as program:
        program.wait_line('word 1 a')
        source.write('helper.py', 'WORD = (\n')
        program.wait_line('SyntaxError')
        program.wait_line('mine: ended with status 1: waits for the next change')
        source.write('helper.py', 'WORD = 333\n')
        program.wait_line('word 333 a')
        source.write('mine.yml', 'Application: {word: [}\n')
        program.wait_line('mine.yml:1:')
        program.wait_line('ended with status 78: waits')
        assert program.stop('INT') == 78


def test_one_that_does_not_stop_is_ended_at_once(source):
    source.write('mine.py', PROGRAM.replace(
        'encode())\n\n', 'encode())\n        while helper.WORD == 1: pass\n\n', 1))
    with source.run() as program:
        program.wait_line('word 1 a')
        source.write('helper.py', 'WORD = 22\n')
        program.wait_line('word 22 a')
        assert program.stop() == 0


def test_ctrl_c_twice_ends_it_at_once(source):
    source.write('mine.py', PROGRAM.replace(
        'encode())\n\n', """encode())
        while not self._life.signals.arrived:
            pass
        os.write(1, b'told\\n')
        while True:
            pass

""", 1))
    with source.run() as program:
        program.wait_line('word 1 a')
        program.signal('INT')
        program.wait_line('told')
        assert program.stop('INT') == 128 + signal.SIGQUIT


def test_ctrl_c_in_a_terminal_stops_it_gracefully(source):
    # It takes so long to stop that what else it is sent reaches it.
    source.write('mine.py', PROGRAM.replace(
        'def _cleanup(self):', 'def _cleanup(self):\n        __import__("time").sleep(0.5)'))
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, '-c',
         'import fcntl, os, sys, termios\n'
         'fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n'
         'os.execv(sys.argv[1], sys.argv[1:])\n',
         sys.executable, 'mine.py', '-c', 'mine.yml', '-f', '--reload'],
        cwd=source.folder, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    output = b''
    while b'word 1 a' not in output:
        output += os.read(master, 4096)
    os.write(master, b'\x03')
    try:
        while chunk := os.read(master, 4096):
            output += chunk
    except OSError:  # EIO: the program has ended
        pass
    os.close(master)
    assert process.wait(30) == 0
    assert b'cleaned up' in output


def test_packages_elsewhere_are_watched(source):
    package = source.folder / 'src' / 'words'
    (package / 'further').mkdir(parents=True)
    (package.parent / 'plain.py').write_text('WORD = 1\n')
    (package / '__init__.py').write_text('from plain import WORD as WORD\n')
    (package / 'further' / 'others.py').write_text('')  # not imported, and may be at any time
    (source.folder / 'helper.py').unlink()
    program = PROGRAM.replace('import helper', 'import words').replace('helper.WORD', 'words.WORD')
    source.write('mine.py', program)
    with source.run(env={'PYTHONPATH': f'{ROOT}:{source.folder}/src'}) as program:
        program.wait_line('word 1 a')
        (package.parent / 'plain.py').write_text('WORD = 22\n')
        program.wait_line('src/plain.py has changed')
        program.wait_line('word 22 a')
        (package / 'further' / 'others.py').write_text('pass\n')
        program.wait_line('src/words/further/others.py has changed')
        program.wait_line('word 22 a')
        assert program.stop() == 0


def test_with_workers(source):
    source.write('mine.yml', 'Daemon: {workers: 2}\nApplication: {word: a}\n')
    with source.run() as program:
        program.wait_line('word 1 a')
        program.wait_line('word 1 a')
        source.write('helper.py', 'WORD = 22\n')
        program.wait_line('word 22 a')
        program.wait_line('word 22 a')
        assert program.stop() == 0


def test_it_ends_with_the_process_that_watches(source):
    with source.run() as program:
        program.wait_line('word 1 a')
        (child,) = children(program.pid)
        program.stop('KILL')
        wait_gone([child], 10)


def test_it_is_for_the_foreground_and_takes_watchdog(source):
    argv = [sys.executable, 'mine.py', '-c', 'mine.yml', '--reload']
    done = subprocess.run(argv, cwd=source.folder, text=True, capture_output=True, timeout=30)
    assert done.returncode == 2
    assert done.stderr == 'mine: argument --reload: only with -f (see mine --help)\n'
    (source.folder / 'watchdog.py').write_text("raise ImportError('not here')")
    done = subprocess.run(
        [*argv, '-f'], cwd=source.folder, text=True, capture_output=True, timeout=30)
    assert done.returncode == 2
    assert done.stderr == ('mine: --reload needs watchdog: install it with pip, or'
                           ' python3-watchdog of Debian\n')
