"""A daemon that runs, as /proc shows it: its command, environment, user and descriptors."""

from __future__ import annotations

import os

from clihelper.doctor.accounts import Account

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Running:
    """A process, see :manpage:`proc(5)`. What may not be looked at is empty, or None.

    :ivar pid: the process ID.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @property
    def words(self) -> list[str]:
        """The words of its command line; with workers, the title that the supervisor has set."""
        return _strings(f'/proc/{self.pid}/cmdline')

    @property
    def environment(self) -> dict[str, str]:
        """The environment that it was started with."""
        pairs = (each.partition('=') for each in _strings(f'/proc/{self.pid}/environ'))
        return {name: value for name, _, value in pairs}

    @property
    def folders(self) -> list[str]:
        """Where it was started, if its environment says so, and where it is now."""
        found = [self.environment.get('PWD', '')]
        try:
            found.append(os.readlink(f'/proc/{self.pid}/cwd'))
        except OSError:
            pass
        return [folder for folder in found if os.path.isabs(folder)]

    @property
    def configuration(self) -> str | None:
        """The configuration that it says it has, in the memory that ``status`` reads."""
        from clihelper.operations import report

        try:
            found = report.read(self.pid).get('config')
        except (LookupError, OSError):
            return None
        return found if isinstance(found, str) and os.path.isabs(found) else None

    @property
    def account(self) -> Account | None:
        """The user and the groups that it runs as."""
        fields = _status(self.pid)
        try:
            uid, gid = (int(fields[key].split()[1]) for key in ('Uid', 'Gid'))
            return Account(uid, {gid, *map(int, fields['Groups'].split())})
        except (KeyError, ValueError, IndexError):
            return None

    @property
    def unit(self) -> str:
        """The name of the service of systemd's that it belongs to; empty if there is none."""
        return unit_in(_lines(f'/proc/{self.pid}/cgroup'))

    @property
    def descriptors(self) -> int | None:
        """How many descriptors it has open."""
        try:
            return len(os.listdir(f'/proc/{self.pid}/fd'))
        except OSError:
            return None

    @property
    def most_descriptors(self) -> int | None:
        """How many it may have open: the soft ``RLIMIT_NOFILE``."""
        for line in _lines(f'/proc/{self.pid}/limits'):
            if line.startswith('Max open files'):
                soft = line.split()[3]
                return int(soft) if soft.isdigit() else None
        return None

    @property
    def children(self) -> list[Running]:
        """Its child processes: the workers, if it is a supervisor."""
        lines = _lines(f'/proc/{self.pid}/task/{self.pid}/children')
        return [Running(int(word)) for line in lines for word in line.split()]


def unit_in(lines: Iterable[str]) -> str:
    """The service in the lines of proc_pid_cgroup(5); empty if there is none."""
    for line in lines:
        for part in reversed(line.split('/')):
            if part.endswith('.service') and not part.startswith('user@'):
                return part
    return ''


def configuration_in(words: Sequence[str]) -> str | None:
    """The value of ``-c`` or ``--config`` in a command line, as argparse would find it."""
    rest = iter(words[1:])
    for word in rest:
        name, equals, value = word.partition('=')
        if len(name) > len('--') and '--config'.startswith(name):
            return value if equals else next(rest, None)
        if word.startswith('--'):
            continue
        if word in ('-c', '-fc'):
            return next(rest, None)
        if word.startswith(('-c', '-fc')):
            return word.partition('c')[2]
    return None


def program_in(words: Sequence[str]) -> str:
    """The program of a command line, with its interpreter, but without its arguments.

    These may contain what nobody else should see.
    """
    if not words:
        return ''
    found = [words[0]]
    if not os.path.basename(words[0]).startswith(('python', 'pypy')):
        return words[0]
    rest = iter(words[1:])
    for word in rest:
        if word == '-m':
            return ' '.join([*found, word, next(rest, '')])
        if word == '-c':
            return ''  # the code of the program
        found.append(word)
        if not word.startswith('-'):
            return ' '.join(found)
        if word in ('-W', '-X'):
            found.append(next(rest, ''))
    return ''


def _strings(path: str) -> list[str]:
    """The strings of a file that are ended by NUL; none if it may not be read."""
    try:
        with open(path, 'rb') as file:
            data = file.read()
    except OSError:
        return []
    return [os.fsdecode(each) for each in data.rstrip(b'\0').split(b'\0')] if data else []


def _lines(path: str) -> Iterator[str]:
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            yield from map(str.rstrip, file)
    except OSError:
        pass


def _status(pid: int) -> dict[str, str]:
    pairs = (line.partition(':') for line in _lines(f'/proc/{pid}/status'))
    return {key: value.strip() for key, _, value in pairs}
