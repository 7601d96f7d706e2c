"""Which daemon is examined: how it is started, by whom, and from which configuration."""

from __future__ import annotations

import os
import re

from clihelper.doctor import unit as units
from clihelper.doctor.accounts import Account
from clihelper.doctor.running import Running, configuration_in, program_in
from clihelper.errors import NotPermitted, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from clihelper.doctor.unit import Unit

DIRECTORIES = ('RUNTIME_DIRECTORY', 'STATE_DIRECTORY', 'LOGS_DIRECTORY', 'XDG_RUNTIME_DIR')
"""the variables that defaults of the configuration depend on"""

_ENV = re.compile(r'!env\s+([A-Za-z_][A-Za-z0-9_]*)')

_LARGEST = 1024 * 1024  # bytes of a configuration that are searched for variables


class Subject:
    """The daemon that is examined.

    :param name: the name of the program; empty if it was not given.
    :param pidfile: its pidfile, if it was given or found.
    :param pid: the process whose ID is in the pidfile, if the daemon runs.
    :param configuration: the configuration as the user typed it; None: it is looked for.
    :ivar running: the process of the daemon; None if it does not run.
    :ivar unit: its service of systemd's; None if there is none.
    :ivar shown: the configuration, for people to read.
    :ivar path: the configuration, absolute.
    :raises UsageError: the configuration is not found.
    """

    def __init__(
        self,
        name: str,
        pidfile: str | None,
        pid: int | None,
        configuration: str | None,
    ) -> None:
        self.running = Running(pid) if pid else None
        self.pidfile = pidfile
        self._name = name
        given = os.path.abspath(configuration) if configuration else None
        self.unit = self._unit_of_process() or units.find(
            [f'{stem}.service' for stem in self._stems()], given)
        path = given or self._find_configuration()
        if path is None:
            raise UsageError(
                f'doctor: {name or pidfile}: its configuration is not known: give -c FILE')
        self.path = path
        self.shown = configuration or path

    @property
    def name(self) -> str:
        """The name of the program; if it was not given, that of the pidfile or configuration."""
        path = self.pidfile or self.path
        return self._name or os.path.splitext(os.path.basename(path))[0]

    @property
    def is_guessed(self) -> bool:
        """Whether the name is only that of the configuration."""
        return not self._name and self.pidfile is None

    @property
    def working_directory(self) -> str:
        """Where it was started, or will be: the default of ``Daemon.working_directory``."""
        if self.running is not None:
            return next(iter(self.running.folders[-1:]), '')
        return self.unit.get('WorkingDirectory', '/') if self.unit is not None else ''

    @property
    def made_directories(self) -> list[str]:
        """The directories that the service manager makes before it starts the daemon."""
        return self.unit.made_directories if self.unit is not None else []

    @property
    def has_socket_unit(self) -> bool:
        """Whether systemd listens for it."""
        return self.unit is not None and os.path.exists(
            f'{os.path.splitext(self.unit.path)[0]}.socket')

    @property
    def starter(self) -> Account:
        """Who starts the daemon: the user of its unit, or otherwise the user of this process."""
        user = self.unit.get('User') if self.unit is not None else ''
        try:
            if user:
                return Account.named(user, self.unit and self.unit.get('Group') or None)
        except NotPermitted:
            pass  # systemd would say so; DynamicUser makes it
        if self.unit is not None:
            return Account(0, {0})
        return Account.current()

    @property
    def starts_as_root(self) -> bool:
        """Whether the defaults of the configuration are those of root."""
        return self.starter.uid == 0

    @property
    def detaches(self) -> bool:
        """Whether it becomes a daemon by itself, not under a service manager or as process 1."""
        if self.unit is not None:
            return False
        running = self.running
        return running is None or (
            running.pid != 1 and 'NOTIFY_SOCKET' not in running.environment)

    @property
    def command(self) -> str:
        """The program, as it is started from a shell; ``PROGRAM`` if that is not known."""
        words = self.running.words if self.running is not None else []
        if configuration_in(words) is None:
            words = self.unit.command if self.unit is not None else []
        return program_in(words) or 'PROGRAM'

    def environment(self) -> dict[str, str]:
        """What of the daemon's environment its configuration depends on."""
        found = self.unit.environment if self.unit is not None else {}
        if self.running is not None:
            found = {**found, **self.running.environment}
        try:
            with open(self.path, encoding='utf-8', errors='replace') as file:
                named = _ENV.findall(file.read(_LARGEST))
        except OSError:
            named = []
        return {name: found[name] for name in (*DIRECTORIES, *named) if name in found}

    def _find_configuration(self) -> str | None:
        """The configuration that the process was started with, or else will be."""
        return next((path for path in self._configurations() if os.path.isfile(path)), None)

    def _configurations(self) -> Iterator[str]:
        if self.running is not None:
            # With workers the title of the supervisor hides the command line.
            if own := self.running.configuration:
                yield own
            given = configuration_in(self.running.words)
            if given is not None:
                for folder in self.running.folders:
                    yield os.path.join(folder, given)
        if self.unit is not None:
            given = configuration_in(self.unit.command)
            if given is not None and os.path.isabs(given):
                yield given
        for stem in self._stems():
            yield f'/etc/{stem}.yml'
            yield f'/etc/{stem}/{stem}.yml'

    def _unit_of_process(self) -> Unit | None:
        """The unit that the process belongs to, unless that is of a shell's server or the like."""
        if self.running is None or not self.running.unit:
            return None
        found = units.find([self.running.unit])
        return found if found is not None and configuration_in(found.command) else None

    def _stems(self) -> list[str]:
        """What the files of the daemon are called after, the likeliest first."""
        if self._name:
            return [self._name]
        if self.pidfile is None:
            return []
        folder, name = os.path.split(self.pidfile)
        # /run/orders/main.pid is of the service orders
        parent, above = os.path.basename(folder), os.path.dirname(folder)
        stems = [os.path.splitext(name)[0]]
        return [*stems, parent] if above == '/run' and parent else stems
