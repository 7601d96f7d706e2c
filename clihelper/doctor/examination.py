"""All checks of one daemon, in the order in which it would meet what they find."""

from __future__ import annotations

import time

from clihelper.config import expand_pidfile
from clihelper.doctor import (
    accounts,
    broker,
    clock,
    configuration,
    folders,
    limits,
    listening,
    logs,
    unit,
)
from clihelper.doctor.accounts import Account
from clihelper.doctor.findings import fault, ok, warning
from clihelper.errors import Error, NotPermitted, in_one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from clihelper.config import Config
    from clihelper.doctor.findings import Finding
    from clihelper.doctor.subject import Subject


def examine(subject: Subject, state: str, pid: int | None) -> Iterator[Finding]:
    """Check everything that would keep a daemon from running, or lose messages.

    A check that cannot be done is a finding, too; the others are done all the same.

    :param subject: the daemon.
    :param state: of its pidfile: ``running``, ``died``, ``stopped`` or ``unknown``.
    :param pid: the process ID in the pidfile.
    """
    config, findings = configuration.read(subject)
    yield from findings
    if config is not None:
        yield from _guarded('user', lambda: accounts.check_user(
            config.daemon, subject.starter, subject.running is not None))
        yield from _of_files(subject, config, state, pid)
    running = subject.running
    if running is not None:
        yield from _guarded('descriptors', lambda: limits.check_use(running))
    elif config is not None:
        yield from _guarded('descriptors', lambda: limits.check_need(
            config, limits.limit_at_start(subject.unit)))
    yield from _guarded('clock', lambda: clock.check_clock(clock.state_of_clock()))
    yield from _guarded('clock', lambda: clock.check_age(subject.path, time.time()))
    if config is not None:
        yield from _guarded('broker', lambda: broker.check_brokers(config, subject.name))


def _of_files(
    subject: Subject, config: Config, state: str, pid: int | None
) -> Iterator[Finding]:
    """Check folders, pidfile, log and unit."""
    daemon = config.daemon
    account = account_of(subject, config)
    made = subject.made_directories
    yield from _guarded('working_directory', lambda: folders.check_working_directory(
        daemon['working_directory'], account))
    yield from _guarded('umask', lambda: folders.check_umask(daemon['umask']))
    yield from _guarded('pidfile', lambda: check_pidfile(subject, config, state, pid, made))
    yield from _guarded('state_directory', lambda: folders.check_state_directory(
        daemon['state_directory'], subject.name, account, made))
    yield from _guarded('logging', lambda: logs.check_logging(
        config, account, subject.detaches, made))
    if subject.running is None and not subject.has_socket_unit:
        yield from _guarded('listen', lambda: listening.check_addresses(
            daemon['listen'], subject.starter, made))
    if subject.unit is not None:
        found = subject.unit
        yield from _guarded('unit', lambda: unit.check_unit(found, daemon, subject.path))


def check_pidfile(
    subject: Subject, config: Config, state: str, pid: int | None, made: Collection[str]
) -> Iterator[Finding]:
    """Check the pidfile that was found, and that the configuration has the same."""
    configured = config.daemon['pidfile']
    path = subject.pidfile or configured
    written = (config.written().get('Daemon') or {}).get('pidfile')
    if subject.is_guessed and path is not None and (
            not written or expand_pidfile(written, '') != expand_pidfile(written, 'x')):
        yield ok('pidfile', f'pidfile {path}', f'if the name of the program is {subject.name}',
                 'give its NAME if it is another')
    if written and configured is not None and path != configured:
        yield warning('pidfile', f'pidfile {subject.pidfile}', f'the configuration has another,'
                      f' {configured}', 'correct Daemon.pidfile, or what you have asked for')
    yield from folders.check_pidfile(path, state, pid, subject.starter, made)


def account_of(subject: Subject, config: Config) -> Account:
    """The user that the daemon runs as, or will."""
    found = subject.running.account if subject.running is not None else None
    if found is not None:
        return found
    user, group = config.daemon['user'], config.daemon['group']
    if user is None and group is None:
        return subject.starter
    try:
        return Account.named(user, group)
    except NotPermitted:
        return subject.starter  # that is a fault of its own


def _guarded(check: str, run: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of a check; that it failed is one itself."""
    try:
        yield from run()
    except (OSError, Error) as error:
        yield fault(check, check, f'cannot be checked: {in_one_line(error)}')
