"""The addresses of ``Daemon.listen``: whether a daemon that is to be started can have them."""

from __future__ import annotations

import os
import socket

from clihelper.amqp.resolver import look_up
from clihelper.doctor.findings import fault, ok
from clihelper.doctor.folders import WRITE, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from clihelper.doctor.accounts import Account
    from clihelper.doctor.findings import Finding

NAME_TIMEOUT = 5.0
"""seconds for the name service"""

EVERYWHERE = '0.0.0.0'

FIRST_UNPRIVILEGED = '/proc/sys/net/ipv4/ip_unprivileged_port_start'


def check_addresses(
    addresses: Iterable[str], starter: Account, made: Collection[str] = ()
) -> Iterator[Finding]:
    """Whether each address is free, and may be bound by whoever starts the daemon.

    Nothing listens at an address while it is tried.

    :param made: folders that the service manager makes.
    """
    for address in addresses:
        where = f'Daemon.listen {address}'
        try:
            if address.startswith('unix:'):
                why, remedy = _fault_of_path(address.removeprefix('unix:'), starter, made)
            else:
                why, remedy = _fault_of_port(address, starter)
        except OSError as error:
            why, remedy = reason(error), 'find who listens there by ss -ltnp, or change it'
        yield fault('listen', where, why, remedy) if why else ok('listen', where, 'is free')


def _fault_of_port(address: str, starter: Account) -> tuple[str, str]:
    """Why a port cannot be had, and what to do; both are empty if it can.

    :raises OSError: it cannot be bound.
    """
    host, _, port = address.rpartition(':')
    if 0 < int(port) < _first_unprivileged() and starter.uid != 0:
        return (f'the {starter}, who starts the daemon, may not use a port below'
                f' {_first_unprivileged()}', 'use a socket unit of systemd, or another port')
    found = look_up(host.strip('[]') or EVERYWHERE, int(port), NAME_TIMEOUT)
    for family, kind, protocol, _, place in dict.fromkeys(found):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    return '', ''


def _fault_of_path(
    path: str, starter: Account, made: Collection[str]
) -> tuple[str, str]:
    """The same for a socket in the file system; raises OSError: its folder cannot be used."""
    folder = os.path.dirname(path)
    if folder in made and not os.path.exists(folder):
        return '', ''
    if not starter.may(folder, WRITE):
        return f'the {starter}, who starts the daemon, may not write in {folder}', 'chown it'
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return '', ''  # the daemon removes what a dead one has left
        except BlockingIOError:
            pass
    return 'another process listens there', 'end it, or use another path'


def _first_unprivileged() -> int:
    try:
        with open(FIRST_UNPRIVILEGED) as file:
            return int(file.read())
    except (OSError, ValueError):
        return 1024
