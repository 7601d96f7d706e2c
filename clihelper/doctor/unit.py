"""The service of systemd's that a daemon is: its files are read, systemd is not asked."""

from __future__ import annotations

import os
import re
import shlex
import stat

from clihelper.doctor.accounts import Account
from clihelper.doctor.findings import fault, ok, warning
from clihelper.doctor.running import configuration_in
from clihelper.errors import NotPermitted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from clihelper.doctor.findings import Finding

FOLDERS = (
    '/etc/systemd/system',
    '/run/systemd/system',
    '/usr/local/lib/systemd/system',
    '/usr/lib/systemd/system',
    '/lib/systemd/system',
)
"""where units are by default, the first one first: systemd.unit(5)"""

STOP_TIMEOUT = 90.0
"""seconds; systemd's ``DefaultTimeoutStopSec``"""

DIRECTORIES = {
    'RuntimeDirectory': ('RUNTIME_DIRECTORY', '/run'),
    'StateDirectory': ('STATE_DIRECTORY', '/var/lib'),
    'LogsDirectory': ('LOGS_DIRECTORY', '/var/log'),
}
"""The directories that systemd makes: the variable that names each, and where it is."""

_UNITS = {
    '': 1.0, 's': 1.0, 'sec': 1.0, 'second': 1.0, 'seconds': 1.0,
    'ms': 1e-3, 'msec': 1e-3, 'us': 1e-6, 'usec': 1e-6,
    'm': 60.0, 'min': 60.0, 'minute': 60.0, 'minutes': 60.0,
    'h': 3600.0, 'hr': 3600.0, 'hour': 3600.0, 'hours': 3600.0,
    'd': 86400.0, 'day': 86400.0, 'days': 86400.0,
    'w': 604800.0, 'week': 604800.0, 'weeks': 604800.0,
}  # fmt: skip

_VARIABLE = re.compile(r'\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?')

_LARGEST = 1024 * 1024  # bytes of a file of units
_PREFIXES = '@-:+!|'  # of a command in ExecStart


class Unit:
    """A service and its drop-ins.

    :ivar name: its name, as ``orders.service``.
    :ivar path: its file.
    """

    def __init__(self, name: str, path: str, texts: Iterable[str]) -> None:
        self.name = name
        self.path = path
        self._settings: dict[str, list[str]] = {}
        for text in texts:
            self._read(text)

    def get(self, key: str, default: str = '') -> str:
        """The last value of a key of ``[Service]``."""
        values = self._settings.get(key)
        return values[-1] if values else default

    @property
    def command(self) -> list[str]:
        """The words of ``ExecStart``, with specifiers and variables replaced."""
        line = self.get('ExecStart').lstrip(_PREFIXES)
        stem = self.name.removesuffix('.service')
        for specifier, value in {'%n': self.name, '%N': stem, '%p': stem.partition('@')[0],
                                 '%i': stem.partition('@')[2], '%%': '%'}.items():
            line = line.replace(specifier, value)
        environment = self.environment
        line = _VARIABLE.sub(lambda found: environment.get(found[1], found[0]), line)
        try:
            return shlex.split(line)
        except ValueError:  # unbalanced quotes
            return line.split()

    @property
    def environment(self) -> dict[str, str]:
        """What the unit puts in the environment: its directories, and ``Environment``."""
        found = {}
        for key, (variable, parent) in DIRECTORIES.items():
            names = [each.partition(':')[0] for each in self.get(key).split()]
            if names:
                found[variable] = ':'.join(f'{parent}/{each}' for each in names)
        for line in self._settings.get('EnvironmentFile', ()):
            found.update(_variables(_text(line.removeprefix('-')).splitlines()))
        for line in self._settings.get('Environment', ()):
            try:
                found.update(_variables(shlex.split(line)))
            except ValueError:
                pass
        return found

    @property
    def made_directories(self) -> list[str]:
        """The directories that systemd makes before it starts the daemon."""
        environment = self.environment
        paths = [environment.get(variable, '') for variable, _ in DIRECTORIES.values()]
        return [each for path in paths for each in path.split(':') if each]

    def _read(self, text: str) -> None:
        section = ''
        for line in re.sub(r'\\\n', ' ', text).splitlines():
            line = line.strip()
            if line.startswith('['):
                section = line
            elif section == '[Service]' and line[:1] not in ('', '#', ';'):
                key, _, value = (part.strip() for part in line.partition('='))
                if value:
                    self._settings.setdefault(key, []).append(value)
                else:  # an empty value forgets the ones before
                    self._settings.pop(key, None)


def folders_of_units() -> list[str]:
    """Where units are looked for: ``$SYSTEMD_UNIT_PATH`` is as for systemd.unit(5)."""
    path = os.environ.get('SYSTEMD_UNIT_PATH', ':')
    found = [folder for folder in path.split(':') if folder]
    return [*found, *FOLDERS] if path.endswith(':') else found


def find(names: Iterable[str], configuration: str | None = None) -> Unit | None:
    """Find the unit of a daemon.

    :param names: of units, the likeliest first.
    :param configuration: the daemon's configuration, absolute; if no name fits, it is the unit
        that starts a program with it.
    """
    folders = folders_of_units()
    for name in names:
        for folder in folders:
            if os.path.isfile(os.path.join(folder, name)):
                return _load(folder, name, folders)
    for folder in folders if configuration else ():
        for name in _services(folder):
            unit = _load(folder, name, folders)
            if configuration_in(unit.command) == configuration:
                return unit
    return None


def _load(folder: str, name: str, folders: Iterable[str]) -> Unit:
    path = os.path.join(folder, name)
    texts = [_text(path)]
    for each in folders:
        drop_ins = os.path.join(each, f'{name}.d')
        if os.path.isdir(drop_ins):
            texts += [_text(os.path.join(drop_ins, conf)) for conf in sorted(os.listdir(drop_ins))
                      if conf.endswith('.conf')]
    return Unit(name, path, texts)


def _services(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith('.service'))
    except OSError:
        return []


def _text(path: str) -> str:
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            return file.read(_LARGEST)
    except OSError:
        return ''


def _variables(assignments: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in assignments:
        name, equals, value = line.strip().partition('=')
        if equals and not name.startswith(('#', ';')):
            yield name, value.strip('\'"')


def seconds(text: str) -> float | None:
    """A span of time in seconds, see systemd.time(7); None if it is not one.

    >>> seconds('1min 30s'), seconds('90'), seconds('infinity')
    (90.0, 90.0, inf)
    """
    if text == 'infinity':
        return float('inf')
    parts = re.findall(r'([0-9.]+)\s*([a-z]*)\s*', text)
    if not parts or re.sub(r'[0-9.]+\s*[a-z]*\s*', '', text):
        return None
    try:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    except (KeyError, ValueError):
        return None


# The checks


def check_unit(unit: Unit, daemon: dict[str, Any], path: str) -> Iterator[Finding]:
    """Whether the unit suits the daemon.

    :param daemon: the section ``Daemon``.
    :param path: the configuration that is examined, absolute.
    """
    findings = [
        *check_type(unit),
        *check_command(unit, path),
        *check_user(unit, daemon),
        *check_stop(unit, daemon['stop_timeout']),
    ]
    yield from findings
    if not findings:
        yield ok('unit', unit.path, f'{unit.name} suits the configuration')


def check_type(unit: Unit) -> Iterator[Finding]:
    """Whether systemd learns when the daemon is ready, and does not take it for ended."""
    kind = unit.get('Type', 'simple')
    words = unit.command
    foreground = '-f' in words or '--foreground' in words or '-fc' in words
    if kind in ('notify', 'notify-reload'):
        if unit.get('NotifyAccess', 'main') == 'none':
            yield fault('unit.type', unit.path, 'NotifyAccess=none: systemd does not learn that'
                        ' the daemon is ready, and stops it', 'write NotifyAccess=main')
    elif kind == 'forking':
        yield warning('unit.type', unit.path, 'Type=forking: systemd has to guess which process is'
                      ' the daemon, and has no watchdog for it', 'write Type=notify')
    elif foreground:
        yield warning('unit.type', unit.path, f'Type={kind}: systemd does not learn when the'
                      ' daemon is ready, or reloads', 'write Type=notify, without -f')
    else:
        yield fault('unit.type', unit.path, f'Type={kind}: the daemon detaches, and systemd ends'
                    ' it with the command that started it', 'write Type=notify')


def check_command(unit: Unit, path: str) -> Iterator[Finding]:
    """Whether the program exists, and is started with this configuration."""
    words = unit.command
    if not words:
        yield fault('unit.command', unit.path, 'there is no ExecStart',
                    f'write ExecStart=/usr/bin/PROGRAM -c {path}')
        return
    if os.path.isabs(words[0]) and not _is_program(words[0]):
        yield fault('unit.command', unit.path, f'ExecStart: {words[0]} cannot be executed',
                    'install the program, or correct its path')
    started = configuration_in(words)
    if started is not None and os.path.isabs(started) and not _same(started, path):
        yield warning('unit.command', unit.path, f'ExecStart has another configuration, {started}',
                      f'check that one, or write -c {path}')


def check_user(unit: Unit, daemon: dict[str, Any]) -> Iterator[Finding]:
    """Whether ``User=`` and ``Daemon.user`` agree."""
    user, wanted = unit.get('User') or 'root', daemon['user']
    is_dynamic = unit.get('DynamicUser') in ('yes', 'true', '1', 'on')
    try:
        Account.named(user, unit.get('Group') or None)
    except NotPermitted as error:
        if not is_dynamic:
            said = str(error).partition(': ')[2]
            yield fault('unit.user', unit.path, f'{said}: systemd does not start the daemon',
                        'create it, as by sysusers.d(5), or correct User= and Group=')
            return
    if wanted is None:
        if user == 'root' and not is_dynamic:
            yield warning('unit.user', unit.path, 'neither User= nor Daemon.user is set: the'
                          ' daemon runs as root', 'write User=')
    elif user not in ('root', '0', str(wanted)):
        yield fault('unit.user', unit.path, f'User={user}, but Daemon.user is {wanted}, which'
                    ' only root can become', 'remove Daemon.user')


def check_stop(unit: Unit, stop_timeout: float) -> Iterator[Finding]:
    """Whether systemd waits for a graceful stop."""
    text = unit.get('TimeoutStopSec') or unit.get('TimeoutSec')
    wait = seconds(text) if text else STOP_TIMEOUT
    if wait is None:
        yield fault('unit.stop', unit.path, f'TimeoutStopSec={text}: not a span of time',
                    'see systemd.time(7)')
    elif 0 < wait <= stop_timeout:
        said = f'TimeoutStopSec={text}' if text else f"TimeoutStopSec is systemd's {wait:g} s"
        yield warning('unit.stop', unit.path, f'{said}, not more than Daemon.stop_timeout'
                      f' ({stop_timeout:g} s): systemd kills the daemon before it ends itself',
                      f'write TimeoutStopSec={stop_timeout + 10:g}')


def most_descriptors(unit: Unit) -> int | None:
    """The soft limit of ``LimitNOFILE``, if it is set."""
    soft = unit.get('LimitNOFILE').partition(':')[0]
    return int(soft) if soft.isdigit() else None


def _is_program(path: str) -> bool:
    """Whether a file can be executed, as far as this user may look."""
    try:
        status = os.stat(path)
    except PermissionError:
        return True
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o111)


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
