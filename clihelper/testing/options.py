"""The command line of a test: the options of the program, with or without its parser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clihelper.errors import UsageError, did_you_mean
from clihelper.options import UNUSUAL, Options
from clihelper.parser import Parser, make_parser, parse


def command_line(
    path: str,
    option_callback: Callable[[Parser], object] | None,
    given: Mapping[str, Any],
    arguments: Sequence[str],
    appname: str,
) -> tuple[Options, list[str]]:
    """Return the options and arguments that a controller gets.

    :param path: the configuration's file.
    :param option_callback: adds the program's options to a parser.
    :param given: values of options, by name.
    :param arguments: the remaining words, which the program's positional arguments take.
    :raises clihelper.errors.UsageError: the program has no such option, or requires another one.
    """
    options = Options(configuration=path, foreground=True, check=False, **UNUSUAL)
    arguments = list(arguments)
    if option_callback is not None:
        parser = make_parser(appname, None, None)
        option_callback(parser)
        for action in parser._actions:
            if action.dest in given:
                action.required = False
        parsed = Options()
        arguments = parse(parser, ['-c', path or 'config', '-f', *arguments], parsed)
        _check_names(given, parsed)
        options = Options(**{**vars(parsed), 'configuration': path})
    return Options(**{**vars(options), **given}), arguments


def _check_names(given: Mapping[str, Any], parsed: Options) -> None:
    for name in given:
        if name not in parsed:
            raise UsageError(f'there is no option {name}{did_you_mean(name, vars(parsed))}')
