"""Parse the words after a subcommand, without argparse: it takes as long as the interpreter."""

from __future__ import annotations

from clihelper.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence


class Arguments:
    """The parsed words.

    :ivar values: the values of options, by the option's name.
    :ivar flags: the given options that do not take a value.
    :ivar own: the first words, as far as they are the subcommand's own.
    :ivar names: the remaining words.
    """

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.flags: set[str] = set()
        self.own: list[str] = []
        self.names: list[str] = []


def parse(words: Sequence[str], *, command: str, values: Mapping[str, str],
          flags: Collection[str], max_names: int = 1,
          own: Callable[[list[str]], int] | None = None) -> Arguments:
    """Separate options and names: ``-c FILE``, ``--config FILE``, ``--config=FILE``, ``--json``.

    :param command: the subcommand, for errors.
    :param values: the options that take a value, each with the name that the result uses.
    :param flags: the options that do not take a value.
    :param max_names: how many other words there may be.
    :param own: returns how many of the first ones are the subcommand's own, besides these.
    :raises UsageError: the words are wrong.
    """
    found = Arguments()
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition('=')
        if name in values:
            given = value if equals else next(rest, '')
            if not given:
                raise _error(command, f'{name}: expected a value')
            if values[name] in found.values:
                raise _error(command, f'{name}: given twice')
            found.values[values[name]] = given
        elif word in flags:
            found.flags.add(word)
        elif word.startswith('-') or not word:
            raise _error(command, f'unknown option {word!r}')
        else:
            found.names.append(word)
    if own is not None:
        count = own(found.names)
        found.own, found.names = found.names[:count], found.names[count:]
    if len(found.names) > max_names:
        raise _error(command, f'one word too many: {found.names[max_names]!r}')
    return found


def seconds(text: str, *, command: str, option: str) -> float:
    """Parse a number of seconds, not negative, at most a year.

    :raises UsageError: the text is not such a number.
    """
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 365 * 24 * 3600:
        raise _error(command, f'{option}: expected seconds, got {text!r}')
    return number


def _error(command: str, fault: str) -> UsageError:
    return UsageError(f'{command}: {fault} (see clihelper {command} --help)')
