"""Where the log goes: syslog's socket, and the folders and owners of log files."""

from __future__ import annotations

import os
import stat

from clihelper import logs
from clihelper.doctor.findings import fault, ok, warning
from clihelper.doctor.folders import WRITE, check_space, reason
from clihelper.logs.defaults import LOST, SYSLOG_SOCKET
from clihelper.logs.section import complete
from clihelper.logs.validation import syslog_socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from clihelper.config import Config
    from clihelper.doctor.accounts import Account
    from clihelper.doctor.findings import Finding


def check_logging(
    config: Config, account: Account, detaches: bool, made: Collection[str] = ()
) -> Iterator[Finding]:
    """Whether the handlers of a daemon reach what they write to.

    :param account: the user that the daemon runs as, who opens its log files.
    :param detaches: whether it detaches, and so logs to syslog if there is no ``Logging``.
    :param made: folders that the service manager makes.
    """
    section = config.logging
    if section is None:
        if detaches:
            yield from check_syslog('Logging', SYSLOG_SOCKET)
        else:
            yield ok('logging', 'Logging', "is absent: the log is the service manager's")
        return
    if faults_of_logging(config, made):
        return  # these are faults of the configuration
    folder = config.daemon['logs_directory']
    handlers = complete(section, foreground=False, working_directory=folder).get('handlers', {})
    for name, body in handlers.items():
        path = syslog_socket(body)
        if path is not None:
            yield from check_syslog(f'Logging.handlers.{name}', path)
        filename = body.get('filename')
        if isinstance(filename, str) and '://' not in filename:
            yield from check_file(f'Logging.handlers.{name}', filename, account, made)


def faults_of_logging(config: Config, made: Collection[str] = ()) -> list[str]:
    """The faults of ``Logging``, but for folders that the service manager makes."""
    if config.logging is None:
        return []
    found = logs.check(config.logging, config.locate,
                       working_directory=config.daemon['logs_directory'])
    absent = tuple(f'there is no folder {folder!r}' for folder in made)
    return [line for line in found if not line.endswith(absent)]


def check_syslog(where: str, path: str) -> Iterator[Finding]:
    """Whether somebody reads syslog's socket."""
    import socket

    remedy = 'install a syslogd, or configure Logging'
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            yield fault('syslog', where, f'{path} is not a socket', remedy)
            return
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(socket.AF_UNIX, kind) as probe:
                probe.setblocking(False)
                try:
                    probe.connect(path)
                except BlockingIOError:
                    pass  # there is somebody, who is busy
                except OSError as error:
                    if kind == socket.SOCK_DGRAM and _is_of_wrong_type(error):
                        continue
                    raise
                break
        yield ok('syslog', where, f'{path} is read')
    except FileNotFoundError:
        yield warning('syslog', where, f'there is no {path}: {LOST}', remedy)
    except OSError as error:
        yield warning('syslog', where, f'{path} cannot be written: {reason(error)}: {LOST}',
                      'start the syslogd')


def _is_of_wrong_type(error: OSError) -> bool:
    import errno

    return error.errno == errno.EPROTOTYPE


def check_file(
    where: str, path: str, account: Account, made: Collection[str] = ()
) -> Iterator[Finding]:
    """Whether a user can open a log file, and write it."""
    where = f'{where} {path}'
    folder = os.path.dirname(path)
    try:
        if os.path.exists(path):
            may, whom = account.may(path, os.W_OK), path
        else:
            may, whom = account.may(folder, WRITE), folder
        if not may:
            yield fault('logging.file', where, f'the {account} may not write {whom}',
                        f'chown {account.uid} {whom}')
            return
        space = list(check_space('logging.file', where, folder))
        yield from space or [ok('logging.file', where, f'the {account} can write it')]
    except OSError as error:
        if folder in made:
            yield ok('logging.file', where, 'systemd makes its folder')
        else:
            yield fault('logging.file', where, f'{folder}: {reason(error)}',
                        f'mkdir {folder} and chown {account.uid} {folder}, or LogsDirectory= in'
                        ' the unit')
