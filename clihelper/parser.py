"""The command line with argparse: for help, for errors, and for the application's own options."""

from __future__ import annotations

import argparse
import os
import sys

from clihelper.errors import UsageError, encodable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

OPTPARSE_TYPES: dict[str, Callable[[str], Any]] = {
    'string': str,
    'str': str,
    'int': int,
    'long': int,
    'float': float,
    'complex': complex,
}


UNUSUAL: dict[tuple[str, ...], dict[str, Any]] = {
    ('--broker',): {
        'dest': 'check_broker', 'action': 'store_true',
        'help': 'with --check: also check the broker',
    },
    ('-v', '--verbose'): {
        'dest': 'check_verbose', 'action': 'store_true',
        'help': 'with --check: list the handlers of messages',
    },
    ('--asyncapi',): {
        'dest': 'print_asyncapi', 'action': 'store_true',
        'help': 'print what it receives, as an AsyncAPI document',
    },
    ('--reload',): {
        'dest': 'restarts', 'action': 'store_true',
        'help': 'with -f: start anew when the source or the configuration changes',
    },
    ('--message',): {
        'dest': 'message_file', 'metavar': 'FILE', 'default': None,
        'help': 'run the handler on the message in FILE (-: standard input), show what would'
                ' become of it, and exit',
    },
    ('--pdb',): {
        'dest': 'post_mortem', 'action': 'store_true',
        'help': 'with --message: debug what the handler raises',
    },
}
"""The options that an application may define itself, by their names"""


class Formatter(argparse.HelpFormatter):
    """argparse's formatter, with the width of the terminal passed in.

    To find the width itself, it would import :mod:`shutil` at each start of the program, since
    argparse makes a formatter for each option to check it.
    """

    def __init__(self, prog: str, **keywords: Any) -> None:
        keywords.setdefault('width', _columns() - 2)
        super().__init__(prog, **keywords)


class Parser(argparse.ArgumentParser):
    """An argparse parser that also understands optparse's ``add_option``.

    A wrong command line raises :class:`~clihelper.errors.UsageError`, status 2.
    """

    def add_option(self, *flags: str, **keywords: Any) -> argparse.Action:
        """Add an option, with the signature of :mod:`optparse`.

        Types may be named by strings, and ``%default`` in a help text stands for the default.
        optparse's ``action="callback"`` is not supported.

        :raises TypeError: argparse cannot handle the option.
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

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print a help text or a version, whatever characters the terminal has."""
        file = file or sys.stderr
        super()._print_message(encodable(message, getattr(file, 'encoding', None)), file)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f'{message} (see {self.prog} --help)')


def make_parser(appname: str, description: str | None, version: str | None) -> Parser:
    """Make the parser of clihelper's own options."""
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
        '-f', '--foreground', action='store_true', help='stay in the terminal, as the current user'
    )
    parser.add_argument(
        '--check', action='store_true', help='say what is wrong with the configuration, and exit'
    )
    parser.add_argument('--version', action='version', version=f'{appname} {version or "unknown"}')
    return parser


def parse(parser: Parser, argv: Sequence[str], options: object) -> list[str]:
    """Read the command line into the attributes of *options*.

    :param parser: with the options of the application, which may include its own ``--broker``,
        or others of :data:`UNUSUAL`.
    :returns: the remaining words.
    :raises clihelper.errors.UsageError: the command line is wrong.
    :raises SystemExit: ``--help`` or ``--version`` was asked for, and printed.
    """
    parser.set_defaults(**{each['dest']: each.get('default', False) for each in UNUSUAL.values()})
    taken = {flag for action in parser._actions for flag in action.option_strings}
    for flags, keywords in UNUSUAL.items():
        if free := [flag for flag in flags if flag not in taken]:
            parser.add_argument(*free, **keywords)
    if any(not action.option_strings for action in parser._actions):
        parser.parse_args(argv, options)  # the application has its own positional arguments
        return []
    parser.add_argument('_arguments', nargs='*', help=argparse.SUPPRESS)
    parser.parse_intermixed_args(argv, options)
    arguments: list[str] = vars(options).pop('_arguments')
    return arguments


def _columns() -> int:
    """Return the width of the terminal; see :func:`shutil.get_terminal_size`."""
    columns = os.environ.get('COLUMNS', '')
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size().columns or 80
    except OSError:  # standard output is not a terminal
        return 80
