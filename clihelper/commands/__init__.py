"""The ``clihelper`` command, with one module for each subcommand.

Each module contains ``main(arguments)``, which returns the exit status and raises
:class:`~clihelper.errors.Error` for what the user can fix. It is imported only when it is needed.
"""

from __future__ import annotations

import os
import sys

from clihelper.errors import Error

COMMANDS: dict[str, tuple[str, str]] = {
    'dead-letters': (
        'clihelper.commands.dead_letters',
        'list, show, replay, edit or drop messages that could not be handled',
    ),
    'publish': ('clihelper.commands.publish', 'publish a message, and wait for its confirmation'),
    'status': ('clihelper.commands.status', 'print whether a daemon is running'),
    'stop': ('clihelper.commands.stop', 'stop a daemon, and wait until it has ended'),
    'reload': (
        'clihelper.commands.reload', 'make a daemon reload its configuration, and wait for that',
    ),
    'pause': ('clihelper.commands.pause', 'have a daemon consume queues no more'),
    'resume': ('clihelper.commands.resume', 'have a daemon consume queues again'),
    'log-level': (
        'clihelper.commands.log_level', 'change the level of a logger of a daemon for a while',
    ),
    'stacks': ('clihelper.commands.stacks', 'print where every thread and task of a daemon is'),
    'workers': ('clihelper.commands.workers', 'print or change how many workers a daemon has'),
    'doctor': (
        'clihelper.commands.doctor',
        'check what would keep a daemon from running, or lose messages',
    ),
    'metrics': ('clihelper.commands.metrics', "print a daemon's metrics for Prometheus"),
    'new': ('clihelper.commands.new', 'generate a starter project'),
    'upgrade-check': (
        'clihelper.commands.upgrade_check', 'list the names of clihelper 1.x that programs use',
    ),
}
"""The module of each subcommand, and what it does in a few words."""


def main() -> None:
    """Run ``clihelper SUBCOMMAND ...``, and end with its exit status."""
    _escape_output()
    try:
        status = _run(sys.argv[1:])
        sys.stdout.flush()
    except Error as error:
        print('\n'.join(f'clihelper: {line}' for line in str(error).splitlines()), file=sys.stderr)
        status = error.status
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        # The reader has closed the pipe. Python's own flush at exit must not fail on it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)


def _escape_output() -> None:
    """Have names printed with escapes where the terminal does not have a character."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')


def _run(words: list[str]) -> int:
    name, arguments = (words[0], words[1:]) if words else ('--help', [])
    if name in ('-h', '--help'):
        print(_usage())
        return 0
    if name == '--version':
        print(f'clihelper {sys.modules["clihelper"].__version__}')
        return 0
    if name not in COMMANDS:
        print(f'clihelper: unknown command {name!r}\n{_usage()}', file=sys.stderr)
        return 2
    module = COMMANDS[name][0]
    __import__(module)  # importlib costs a millisecond
    return sys.modules[module].main(arguments)  # type: ignore[no-any-return]


def _usage() -> str:
    lines = ['usage: clihelper COMMAND ...   (clihelper COMMAND --help says more)', '']
    lines += [f'  {name:<16}{words}' for name, (_, words) in COMMANDS.items()]
    return '\n'.join(lines)
