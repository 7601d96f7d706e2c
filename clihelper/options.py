"""The command line: from argv to :class:`Options`."""

from __future__ import annotations

import sys
from types import SimpleNamespace

from clihelper.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class Options(SimpleNamespace):
    """The options: ``configuration``, ``foreground``, ``check``, and the application's own.

    ``check_broker`` is clihelper's ``--broker``; an application may define another option of
    that name. With ``-v`` and ``--asyncapi``, where it does not, there are ``check_verbose`` and
    ``print_asyncapi``.
    """

    def __contains__(self, name: str) -> bool:
        return name in vars(self)


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
    :param option_callback: called with the :class:`~clihelper.parser.Parser`, to add the
        application's options.
    :returns: the options, and the remaining words.
    :raises clihelper.errors.UsageError: the command line is wrong.
    :raises SystemExit: ``--help`` or ``--version`` was asked for, and printed.
    """
    options = Options(configuration=None, foreground=False, check=False, check_broker=False)
    if option_callback is None and _is_plain(argv, options):
        return _checked(options, appname), []
    from clihelper import parser as by_argparse

    parser = by_argparse.make_parser(appname, description, version)
    if option_callback is not None:
        option_callback(parser)
    options = Options()
    arguments = by_argparse.parse(parser, argv, options)
    if not options.configuration:
        raise UsageError(f'argument -c/--config: expected a name (see {appname} --help)')
    return _checked(options, appname), arguments


def _checked(options: Options, appname: str) -> Options:
    if options.check_broker and not options.check:
        raise UsageError(f'argument --broker: only with --check (see {appname} --help)')
    if 'check_verbose' in options and not options.check:
        raise UsageError(f'argument -v/--verbose: only with --check (see {appname} --help)')
    return options


def _is_plain(argv: Sequence[str], options: Options) -> bool:
    """Return whether the command line has only a daemon's usual options; fill in *options*.

    This avoids argparse, which takes as long to import and set up as all of clihelper.
    """
    words = iter(argv)
    for word in words:
        if word in ('-f', '--foreground'):
            options.foreground = True
        elif word == '--check':
            options.check = True
        elif word == '--broker':
            options.check_broker = True
        elif word in ('-c', '--config'):
            options.configuration = next(words, None)
        else:
            return False
    return bool(options.configuration) and not options.configuration.startswith('-')


def program_name() -> str:
    """Return the name that the program was called by, for programs that did not set one."""
    return sys.argv[0].rpartition('/')[2] or 'clihelper'
