"""The completion of the command: words are those that --help lists."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clihelper.commands import COMMANDS

ROOT = Path(__file__).resolve().parent.parent

COMPLETE = '''
source "$1"; shift
COMP_WORDS=(clihelper "$@"); COMP_CWORD=$#
compopt() { :; }
_clihelper clihelper "${@: -1}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
'''


@pytest.fixture
def complete(tmp_path):
    """Completes the last of the words of a command line, in bash."""
    command = tmp_path / 'bin' / 'clihelper'
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/bin/clihelper "$@"\n')
    command.chmod(0o755)
    env = {**os.environ, 'PYTHONPATH': str(ROOT),
           'PATH': f'{command.parent}:{os.environ["PATH"]}', 'RUNTIME_DIRECTORY': str(tmp_path)}

    def complete(*words):
        done = subprocess.run(
            ['bash', '--norc', '-c', COMPLETE, 'bash', str(ROOT / 'completion/clihelper'), *words],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=True)
        assert not done.stderr
        return done.stdout.split()

    return complete


def test_the_subcommands(complete):
    assert set(complete('')) == {*COMMANDS, '--help', '--version'}
    assert complete('sto') == ['stop']


@pytest.mark.parametrize('command', sorted(COMMANDS))
def test_the_options_of_each(complete, command):
    options = complete(command, '-')
    assert all(option.startswith('-') for option in options)
    assert len(options) == len(set(options))
    expected = {'status': '--json', 'stop': '--timeout', 'reload': '--in-place', 'new': '--loop',
                'dead-letters': '--exception', 'upgrade-check': '--json'}
    assert expected.get(command, options[0]) in options


def test_daemons_files_and_choices(complete, tmp_path):
    (tmp_path / 'orders-test.pid').touch()
    (tmp_path / 'orders-test.yml').touch()
    assert complete('status', 'orders-t') == ['orders-test']
    assert complete('status', '-c', 'orders-t') == ['orders-test.pid', 'orders-test.yml']
    assert complete('dead-letters', 're') == ['replay']
