"""The command line: from argv to :class:`Options`."""

from __future__ import annotations

import sys
from types import SimpleNamespace

from clihelper.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clihelper.parser import Parser


UNUSUAL = {
    'check_broker': False, 'check_verbose': False, 'message_file': None, 'post_mortem': False,
    'print_asyncapi': False, 'restarts': False,
}
"""the values of the options that an application may define itself, if they are not given"""


class Options(SimpleNamespace):
    """The options: ``configuration``, ``foreground``, ``check``, and the application's own.

    ``check_broker`` is clihelper's ``--broker``, ``check_verbose`` its ``-v``, ``message_file``
    its ``--message``, ``post_mortem`` its ``--pdb``, ``restarts`` its ``--reload`` and
    ``print_asyncapi`` its ``--asyncapi``; an application may define other options of those names.
    """

    def __contains__(self, name: str) -> bool:
        return name in vars(self)


def parse(
    argv: Sequence[str],
    *,
    appname: str,
    description: str | None,
    version: str | None,
    option_callback: Callable[[Parser], object] | None = None,
) -> tuple[Options, list[str]]:
    """Read the command line.

    :param argv: the words after the program's name.
    :param option_callback: called with the :class:`~clihelper.parser.Parser`, to add the
        application's options.
    :returns: the options, and the remaining words.
    :raises clihelper.errors.UsageError: the command line is wrong.
    :raises SystemExit: ``--help`` or ``--version`` was asked for, and printed.
    """
    options = Options(configuration=None, foreground=False, check=False, **UNUSUAL)
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
    if options.check_verbose and not options.check:
        raise UsageError(f'argument -v/--verbose: only with --check (see {appname} --help)')
    if options.post_mortem and options.message_file is None:
        raise UsageError(f'argument --pdb: only with --message (see {appname} --help)')
    if options.restarts and not options.foreground:
        raise UsageError(f'argument --reload: only with -f (see {appname} --help)')
    if options.message_file is not None:
        if options.check or options.restarts:
            raise UsageError(
                f'argument --message: not with --check or --reload (see {appname} --help)')
        options.foreground = True
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
        elif word == '--reload':
            options.restarts = True
        elif word in ('-c', '--config'):
            options.configuration = next(words, None)
        else:
            return False
    return bool(options.configuration) and not options.configuration.startswith('-')


def program_name() -> str:
    """Return the name that the program was called by, for programs that did not set one."""
    return sys.argv[0].rpartition('/')[2] or 'clihelper'
