"""YAML -> :class:`Config`: read, merge with the defaults, validate, locate each fault.

The valid sections and keys are declared in :mod:`clihelper.config.schema`.
"""

from __future__ import annotations

import errno
import os

from clihelper import program
from clihelper.config import nodes, schema
from clihelper.config.faults import Faults, position, printable
from clihelper.config.nodes import Mapping
from clihelper.config.permissions import refuse_foreign_writers
from clihelper.config.validation import (
    Validation,
    check_amqp,
    check_misspelt_sections,
    check_required_sections,
)
from clihelper.errors import ConfigurationError, NotPermitted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Mapping as _Mapping
    from typing import Any

    from clihelper.config.nodes import Node
    from clihelper.program import Parse

    _Base = dict[str, Any]
else:
    _Base = dict

Keys = tuple[object, ...]


class Config(_Base):
    """The whole configuration: a dictionary of sections, clihelper's four and the program's own.

    It consists of plain dictionaries and lists, with the defaults filled in, and may be modified.
    A section for which :func:`clihelper.add_config_key` was given a ``parse`` is what that has
    returned.

    :param sections: the contents.
    :param path: the file that it was read from, absolute; empty if there is none.
    """

    def __init__(self, sections: Any = (), path: str = '') -> None:
        super().__init__(sections)
        self.path = path
        self._shown = path
        self._root: Node | None = None
        self._wake_interval: float | None = None

    @classmethod
    def default(cls, appname: str = '') -> Config:
        """Return the configuration that an empty file would stand for."""
        config = cls(schema.SECTIONS.defaults())
        _complete(config.daemon, appname, os.geteuid() == 0)
        return config

    @property
    def application(self) -> Any:
        """The section ``Application``: a dictionary, or what the program's ``parse`` returned."""
        return self['Application']

    @property
    def wake_interval(self) -> float:
        """``Application.wake_interval``, in seconds."""
        if self._wake_interval is not None:
            return self._wake_interval
        return float(self['Application']['wake_interval'])

    @property
    def daemon(self) -> dict[str, Any]:
        """The section ``Daemon``. Its paths are absolute."""
        section: dict[str, Any] = self['Daemon']
        return section

    @property
    def logging(self) -> dict[str, Any] | None:
        """The section ``Logging``; None if it is absent, null or empty."""
        return self['Logging'] or None

    @property
    def amqp(self) -> dict[str, Any]:
        """The section ``AMQP``."""
        section: dict[str, Any] = self['AMQP']
        return section

    def written(self) -> dict[str, Any]:
        """Return the contents of the file without the defaults, made anew at every call."""
        written: dict[str, Any] = self._root.plain() if self._root is not None else dict(self)
        return written

    def shown(self) -> dict[str, Any]:
        """Return what anybody may see of the contents: without passwords and other secrets."""
        from clihelper.config.shown import shown

        return shown(self, self._root)

    def locate(self, *keys: object) -> str:
        """Return where a key is, as ``file:line:column``.

        For a key that is not in the file, it is the place of the nearest key that would contain
        it, or the file alone.

        :param keys: the path to it from the root: ``locate('Logging', 'handlers', 'file')``.
        """
        found = self._shown
        for key, _ in nodes.steps(self._root, keys):
            found = position(self._shown, key.line, key.column)
        return found


def load(path: str, required: Iterable[str] = (), *, appname: str, shown: str | None = None,
         as_root: bool | None = None, parsers: _Mapping[str, Parse] | None = None) -> Config:
    """Read and validate a configuration.

    :param path: the file, absolute.
    :param required: the sections that must be there.
    :param appname: the program's name, from which the default of ``pidfile`` is made.
    :param shown: the file as the user typed it, for errors; default: ``path``.
    :param as_root: whether the defaults are root's, as at a reload by a daemon that root started;
        default: whether the process runs as root.
    :param parsers: what turns a section into what the program wants, by the section's name.
    :raises ConfigurationError: the file is missing or faulty; lists all faults, in the order of
        the file.
    :raises NotPermitted: the file may not be read, or users other than root may write it.
    """
    shown = printable(shown or path)
    return parse(_read(path, shown), path, required, appname=appname, shown=shown,
                 as_root=as_root, parsers=parsers)


def parse(data: bytes, path: str, required: Iterable[str] = (), *, appname: str, shown: str,
          as_root: bool | None = None, parsers: _Mapping[str, Parse] | None = None) -> Config:
    """Parse and validate the bytes of a file, as :func:`load` does."""
    required = tuple(required)
    faults = Faults(shown)
    root = nodes.parse(data, os.path.dirname(path), faults)
    check_required_sections(root, required, appname, faults)
    validation = Validation(faults)
    config = Config(validation.table(schema.SECTIONS, root, ()), path)
    config._root, config._shown = root, shown
    check_misspelt_sections(root, required, faults)
    if config.amqp is not None:
        check_amqp(root, config.amqp, faults)
    _parse_sections(config, root, parsers or {}, faults)
    faults.raise_any()
    _complete_queues(config.amqp['queues'])
    try:
        _complete(config.daemon, appname, os.geteuid() == 0 if as_root is None else as_root)
        _complete_tls(config.amqp['tls'], config.daemon['working_directory'])
    except FileNotFoundError:
        where = 'Daemon.working_directory: the current directory is gone, and no other is named'
        raise ConfigurationError(f'{shown}: {where}') from None
    return config


def _parse_sections(
    config: Config, root: Mapping, parsers: _Mapping[str, Parse], faults: Faults
) -> None:
    """Put what the program makes of its sections in their places."""
    if not parsers:
        return
    from clihelper.config import sections

    for name, function in parsers.items():
        section = config.get(name)
        if name == 'Application' and section is not None:
            # This key is clihelper's.
            config._wake_interval = section['wake_interval']
            section = {key: value for key, value in section.items() if key != 'wake_interval'}
        config[name] = sections.parse(name, function, root, section, faults)


def load_daemon(path: str, *, shown: str) -> dict[str, Any]:
    """Read what finds and stops a daemon: ``pidfile``, ``working_directory``, ``stop_timeout``.

    Faults elsewhere in the file are ignored: a running daemon may have been started before they
    were made, or by a user who has more variables in their environment.

    :param path: the file, absolute.
    :param shown: the file as the user typed it.
    :returns: the keys with defaults filled in, except for a missing pidfile or directory.
    :raises ConfigurationError: the file is missing or not YAML, or one of these keys is faulty.
    :raises NotPermitted: the file may not be read, or users other than root may write it.
    """
    shown = printable(shown)
    faults, others = Faults(shown), Faults(shown)
    root = nodes.parse(_read(path, shown), os.path.dirname(path), others)
    section = root.entries.get('Daemon', (root, root))[1]
    if isinstance(section, Mapping) and section is not root:
        for name in set(section.entries) - {'pidfile', 'working_directory', 'stop_timeout'}:
            del section.entries[name]
        if any(getattr(node, 'value', None) is nodes.FAULTY
               for _, node in section.entries.values()):
            others.raise_any()
    else:
        section = Mapping(section.line, section.column, None)
    daemon: dict[str, Any] = Validation(faults).table(schema.DAEMON, section, ('Daemon',))
    faults.raise_any()
    return daemon


def default_control(pidfile: str) -> str:
    """Return the default of ``Daemon.control``: it is beside the pidfile."""
    return pidfile.removesuffix('.pid') + '.sock'


def expand_pidfile(path: str, appname: str) -> str:
    """Return a ``Daemon.pidfile`` with the program's name filled in."""
    parts = path.split('%%')
    return '%'.join(part.replace('%(app)s', appname) for part in parts)


# Reading

def _read(path: str, shown: str) -> bytes:
    """Return the bytes of a file, if it is a regular file, may be read, and can be trusted."""
    try:
        descriptor = nodes.open_regular(path)
        try:
            if os.geteuid() == 0:
                refuse_foreign_writers(path, descriptor, shown)
            return nodes.read_bounded(descriptor, nodes.MAX_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        line = f'{shown}: cannot be read: {error.strerror}'
        if error.errno in (errno.EACCES, errno.EPERM):
            raise NotPermitted(line) from None
        raise ConfigurationError(line) from None
    except ValueError as error:
        raise ConfigurationError(f'{shown}: {error}') from None


# Defaults that depend on the environment

def _complete(daemon: dict[str, Any], appname: str, as_root: bool) -> None:
    """Fill in what depends on the user and the environment, and make paths absolute.

    :raises FileNotFoundError: the current directory is needed, but has been deleted.
    """
    if 'working_directory' not in daemon:
        daemon['working_directory'] = '/' if as_root else os.getcwd()
    if 'pidfile' not in daemon:
        own = program.current.default_pidfile
        daemon['pidfile'] = own(appname) if own else _default_pidfile(appname, as_root)
    elif daemon['pidfile'] is not None:
        daemon['pidfile'] = expand_pidfile(daemon['pidfile'], appname)
    if 'state_directory' not in daemon:
        daemon['state_directory'] = _first_directory('STATE_DIRECTORY')
    if 'logs_directory' not in daemon:
        daemon['logs_directory'] = _first_directory('LOGS_DIRECTORY')
    if daemon['logs_directory'] is None:
        default = program.current.default_logs_directory
        daemon['logs_directory'] = default or daemon['working_directory']
    if isinstance(daemon['control'], str):
        daemon['control'] = expand_pidfile(daemon['control'], appname)
    else:
        daemon['control'] = default_control(daemon['pidfile'] or '') if daemon['control'] else None
    if daemon['pidfile'] is None:
        daemon['control'] = None
    for key in ('pidfile', 'state_directory', 'logs_directory', 'control'):
        if daemon[key] is not None:
            daemon[key] = os.path.join(daemon['working_directory'], daemon[key])


def _complete_queues(queues: dict[str, dict[str, Any]]) -> None:
    """Fill in what depends on who names a queue: those that the broker names are exclusive."""
    for label, queue in queues.items():
        name = queue.setdefault('name', label)
        queue.setdefault('durable', name != '')
        queue.setdefault('exclusive', name == '')


def _complete_tls(tls: dict[str, Any], working_directory: str) -> None:
    """Make paths absolute."""
    for key in ('ca', 'certificate', 'key'):
        if tls[key] is not None:
            tls[key] = os.path.join(working_directory, tls[key])


def _default_pidfile(appname: str, as_root: bool) -> str | None:
    directories = program.pidfile_directories(as_root)
    return os.path.join(directories[0], f'{appname}.pid') if directories else None


def _first_directory(variable: str) -> str | None:
    """Return the first of the directories that systemd made for a service, see systemd.exec(5)."""
    return os.environ.get(variable, '').partition(':')[0] or None
