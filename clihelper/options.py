"""The command line: argv to :class:`Options`."""

from __future__ import annotations

import argparse
import os
import sys

from clihelper.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

Options = argparse.Namespace
"""What the user chose: ``configuration``, ``foreground``, ``check``, and the application's own."""

OPTPARSE_TYPES: dict[str, Callable[[str], Any]] = {
    'string': str,
    'str': str,
    'int': int,
    'long': int,
    'float': float,
    'complex': complex,
}


class Formatter(argparse.HelpFormatter):
    """argparse's formatter, told the width of the terminal.

    To find it itself, it would import :mod:`shutil`, at each start of the program: argparse makes
    a formatter for each option, to check it.
    """

    def __init__(self, prog: str, **keywords: Any) -> None:
        keywords.setdefault('width', _columns() - 2)
        super().__init__(prog, **keywords)


class Parser(argparse.ArgumentParser):
    """An argparse parser that also understands optparse's ``add_option``.

    A wrong command line raises :class:`~clihelper.errors.UsageError`, status 2.
    """

    def add_option(self, *flags: str, **keywords: Any) -> argparse.Action:
        """Add an option in the words of :mod:`optparse`.

        Types are named by strings, and ``%default`` in a help text is the default. optparse's
        ``action="callback"`` has no counterpart.

        :raises TypeError: the option is none that argparse could take.
        """
        if keywords.get('action') == 'callback':
            raise TypeError(f'{"/".join(flags)}: an option cannot have a callback; use a type')
        kind = keywords.pop('type', None)
        if kind is not None and kind != 'choice':
            keywords['type'] = OPTPARSE_TYPES.get(kind, kind)
        if isinstance(keywords.get('help'), str):
            text = keywords['help'].replace('%', '%%')
            keywords['help'] = text.replace('%%default', '%(default)s')
        if keywords.get('nargs') == 1:
            del keywords['nargs']
        return self.add_argument(*flags, **keywords)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f'{message} (see {self.prog} --help)')


def parse(
    argv: Sequence[str],
    *,
    appname: str,
    description: str | None,
    version: str | None,
    option_callback: Callable[[Any], Any] | None = None,
) -> tuple[Options, list[str]]:
    """Read the command line.

    :param argv: the words after the program's name.
    :param option_callback: called with the :class:`Parser`, to add the application's options.
    :returns: the options, and the words that belong to none.
    :raises clihelper.errors.UsageError: it is wrong.
    :raises SystemExit: ``--help`` or ``--version`` was asked for, and printed.
    """
    parser = Parser(prog=appname, description=description, formatter_class=Formatter)
    parser.add_argument(
        '-c',
        '--config',
        dest='configuration',
        metavar='FILE',
        required=True,
        help='the configuration, a YAML file',
    )
    parser.add_argument(
        '-f', '--foreground', action='store_true', help='stay in the terminal, as who you are'
    )
    parser.add_argument(
        '--check', action='store_true', help='say what is wrong with the configuration, and exit'
    )
    parser.add_argument('--version', action='version', version=f'{appname} {version or "unknown"}')
    if option_callback is not None:
        option_callback(parser)
    return _parse(parser, argv)


def _parse(parser: Parser, argv: Sequence[str]) -> tuple[Options, list[str]]:
    if any(not action.option_strings for action in parser._actions):
        return parser.parse_args(argv), []  # the application has positional arguments of its own
    parser.add_argument('_arguments', nargs='*', help=argparse.SUPPRESS)
    options = parser.parse_intermixed_args(argv)
    arguments: list[str] = vars(options).pop('_arguments')
    return options, arguments


def program_name() -> str:
    """The name by which the program was called, for one that did not give its own."""
    return sys.argv[0].rpartition('/')[2] or 'clihelper'


def _columns() -> int:
    """The width of the terminal; see :func:`shutil.get_terminal_size`."""
    columns = os.environ.get('COLUMNS', '')
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size().columns or 80
    except OSError:  # standard output is no terminal
        return 80
