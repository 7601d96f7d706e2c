"""The configuration: its faults, who could write it, and what only the program can check."""

from __future__ import annotations

import contextlib
import os
import stat

from clihelper import config as configurations
from clihelper.config import schema
from clihelper.config.permissions import foreign_writer
from clihelper.doctor.accounts import name_of
from clihelper.doctor.findings import fault, ok, warning
from clihelper.doctor.logs import faults_of_logging
from clihelper.errors import ConfigurationError, Error, NotPermitted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from clihelper.config import Config
    from clihelper.doctor.findings import Finding
    from clihelper.doctor.subject import Subject

NOT_IMPORTED = 'cannot be imported'
"""in a fault of ``Logging`` whose class may be the program's own"""


def read(subject: Subject) -> tuple[Config | None, list[Finding]]:
    """Read the configuration as the daemon would, and check it.

    :returns: the configuration, or None if it cannot be read; and what was found.
    """
    try:
        with _surroundings(subject):
            config = configurations.load(
                subject.path, appname=subject.name, shown=subject.shown,
                as_root=subject.starts_as_root,
            )
        return config, [
            *check_further(config, subject.made_directories),
            *check_writers(subject.path, subject.shown, subject.starts_as_root),
            *point_to_program(config, subject),
        ]
    except Error as error:
        return None, list(of_error(error, subject.shown))
    except OSError as error:  # it was removed meanwhile
        return None, [fault('configuration', subject.shown, f'cannot be read: {error.strerror}')]


@contextlib.contextmanager
def _surroundings(subject: Subject) -> Iterator[None]:
    """Have the variables, and be in the directory, that defaults of the daemon depend on."""
    variables = subject.environment()
    previous = {name: os.environ.get(name) for name in variables}
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(contextlib.chdir(subject.working_directory or '.'))
        except OSError:
            pass  # that of this process has to do
        os.environ.update(variables)
        try:
            yield
        finally:
            for name, value in previous.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def of_error(error: Error, shown: str) -> Iterator[Finding]:
    """A finding for each fault of the configuration, or for why it cannot be read."""
    if isinstance(error, ConfigurationError):
        for line in error.faults:
            where, text = split(line, shown)
            yield fault('configuration', where, text)
        return
    where, text = split(str(error), shown)
    remedy = ''
    if isinstance(error, NotPermitted) and 'refused, as root' in text:
        remedy = ('let nobody but root write it (chown root, chmod go-w); or, where another user'
                  ' starts the daemon, run this command as that user')
    elif isinstance(error, NotPermitted):
        remedy = 'run this command as root, or as the user who starts the daemon'
    yield fault('configuration', where, text, remedy)


def split(line: str, shown: str) -> tuple[str, str]:
    """The place, and the rest, of ``file:line:column: text``; the file may contain colons."""
    if not line.startswith(shown):
        return '', line
    position, _, text = line[len(shown):].partition(': ')
    return shown + position, text


def check_further(config: Config, made: Collection[str] = ()) -> Iterator[Finding]:
    """The faults of ``Logging``, and of the files of ``AMQP.tls``; or that there are none.

    :param made: folders that the service manager makes.
    """
    shown = config.locate()
    found = [of_logging(line, shown) for line in faults_of_logging(config, made)]
    if config.amqp['tls']['ca'] or config.amqp['tls']['certificate']:
        from clihelper.amqp import tls

        try:
            tls.check(config)
        except Error as error:
            where, text = split(str(error), shown)
            found.append(fault('configuration.tls', where, text))
    yield from found
    if not found:
        yield ok('configuration', shown, 'is valid')


def of_logging(line: str, shown: str) -> Finding:
    """A finding for a fault of ``Logging``: a class that is missing here may be the program's."""
    where, text = split(line, shown)
    if NOT_IMPORTED in text:
        return warning('configuration.logging', where, f'{text}, here',
                       "if it is the program's own, PROGRAM --check knows")
    return fault('configuration.logging', where, text)


def check_writers(path: str, shown: str, as_root: bool) -> Iterator[Finding]:
    """Whether others could write the file.

    :param as_root: whether root starts the daemon, which then refuses such a file.
    """
    status = os.stat(path)
    if as_root:
        if why := foreign_writer(path):
            yield fault('configuration.writers', shown, f'root refuses it: {why}',
                        'let nobody but root write it: chown root, chmod go-w')
    elif status.st_mode & stat.S_IWOTH:
        yield warning('configuration.writers', shown, 'everybody can write it, and it names'
                      ' classes that the daemon calls', f'chmod o-w {path}')
    elif status.st_uid not in (0, os.geteuid()):
        yield warning('configuration.writers', shown, f'user {name_of(status.st_uid)} owns it, and'
                      ' it names classes that the daemon calls', f'chown root {path}')


def point_to_program(config: Config, subject: Subject) -> Iterator[Finding]:
    """Name the sections that are the program's own, which only the program can check."""
    own = sorted(str(name) for name in set(config.written()) - set(schema.SECTIONS.keys))
    said = ', '.join(own) or 'what it requires'
    yield ok('configuration.program', subject.shown, f'only the program can check {said}',
             f'run {subject.command} -c {subject.path} --check')

