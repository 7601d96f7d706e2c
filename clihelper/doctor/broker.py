"""Each broker, stage by stage: name, TCP, TLS, handshake, credentials, vhost, queues, alarms.

Every wait has a deadline, so that a network that swallows packets costs seconds.
"""

from __future__ import annotations

import logging
import select
import socket
import ssl
import time

from clihelper.amqp import tls
from clihelper.amqp.alarms import alarm_of
from clihelper.amqp.connection import Connection, Lost, Unreachable, error_text
from clihelper.amqp.inspection import Report, connection_to, inspect_topology, urls_of
from clihelper.amqp.resolver import connect, look_up
from clihelper.amqp.url import masked, parameters
from clihelper.doctor.findings import fault, ok, warning
from clihelper.errors import Error, UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from clihelper.amqp.inspection import Line
    from clihelper.amqp.resolver import Address
    from clihelper.config import Config
    from clihelper.doctor.findings import Finding

NAME_TIMEOUT = 5.0
"""seconds for the name service"""

TCP_TIMEOUT = 3.0
"""seconds for all addresses of a broker together: they are tried at the same time"""

TLS_TIMEOUT = 5.0
"""seconds for a TLS handshake"""

EXPIRES_SOON = 30 * 24 * 3600.0
"""seconds before a certificate expires from which on that is worth a warning"""

SECTION_ONLY: tuple[tuple[Any, ...], tuple[Any, ...], str] = ((), (), '')
"""what a program declares itself is not known to its configuration"""

LOCAL = ('localhost', '127.0.0.1', '::1')

OVER_TCP = ('amqp', 'amqps', 'pyamqp')


def check_brokers(config: Config, name: str) -> Iterator[Finding]:
    """Check each broker of ``AMQP.url``.

    :param name: the name of the program.
    """
    logging.getLogger('clihelper').addHandler(logging.NullHandler())  # it is all in the findings
    if 'AMQP' not in config.written():
        yield ok('broker', 'AMQP', 'is absent: no broker is checked',
                 'a consumer needs AMQP.url, or a broker on this machine')
        return
    for _, url in urls_of(config):
        where = f'AMQP.url {masked(url)}'
        if url.startswith('memory:'):
            yield ok('broker', where, 'needs no broker: messages are lost with the process')
            continue
        if url.partition('://')[0] in OVER_TCP:
            host, port = host_and_port(url)
            addresses, findings = check_name(where, host, port)
            yield from findings
            reached = list(check_addresses(where, addresses))
            yield from reached
            if not any(finding.level == 'ok' for finding in reached):
                continue
            if url.startswith('amqps:'):
                findings = list(check_certificate(where, host, port, config.amqp['tls']))
                yield from findings
                if any(finding.level == 'fault' for finding in findings):
                    continue
        yield from check_service(config, where, url, name)


def host_and_port(url: str) -> tuple[str, int]:
    """The host and the port of a URL, which has been validated."""
    host, _, port = parameters(url)['host'].rpartition(':')
    return host.strip('[]'), int(port)


# Reaching it


def check_name(where: str, host: str, port: int) -> tuple[list[Address], list[Finding]]:
    """Look up the addresses of a host.

    :returns: the addresses, and what was found.
    """
    try:
        addresses = look_up(host, port, NAME_TIMEOUT)
    except TimeoutError:
        return [], [fault('broker.name', where, f'no answer to the look-up of {host} within'
                          f' {NAME_TIMEOUT:g} s', 'see /etc/resolv.conf')]
    except (OSError, UnicodeError) as error:
        is_unknown = getattr(error, 'errno', None) in (socket.EAI_NONAME, socket.EAI_NODATA)
        said = 'is not known' if is_unknown else f'cannot be looked up: {error_text(error)}'
        return [], [fault('broker.name', where, f'name {host} {said}', 'see /etc/hosts or DNS')]
    known = dict.fromkeys(str(address[4][0]) for address in addresses)
    if list(known) == [host]:
        return addresses, []
    return addresses, [ok('broker.name', where, f'{host} is {", ".join(known)}')]


def check_addresses(where: str, addresses: list[Address]) -> Iterator[Finding]:
    """Connect to each address at the same time; those that fail do no harm if another answers."""
    results = list(_connect_to_all(addresses, TCP_TIMEOUT))
    is_reached = any(not why for _, why, _ in results)
    for shown, why, seconds in results:
        if not why:
            yield ok('broker.tcp', where, f'{shown} answers in {seconds * 1000:.1f} ms')
        elif is_reached:
            yield warning('broker.tcp', where, f'{shown}: {why}', 'another address answers')
        else:
            yield fault('broker.tcp', where, f'{shown}: {why}', _remedy_of_tcp(why))


def _remedy_of_tcp(why: str) -> str:
    if 'refused' in why:
        return 'start the broker, or correct the port'
    return 'see routes and firewalls between here and there'


def _connect_to_all(
    addresses: list[Address], timeout: float
) -> Iterator[tuple[str, str, float]]:
    """Yield each address, why it cannot be connected to (empty: it can), and the seconds."""
    poll = select.poll()
    pending: dict[int, tuple[str, socket.socket]] = {}
    began = time.monotonic()
    try:
        for family, kind, protocol, _, address in addresses:
            shown = f'[{address[0]}]:{address[1]}' if ':' in address[0] else (
                f'{address[0]}:{address[1]}')
            try:
                attempt = socket.socket(family, kind, protocol)
                pending[attempt.fileno()] = shown, attempt
                attempt.setblocking(False)
                attempt.connect(address)
            except BlockingIOError:
                pass
            except OSError as error:
                pending.popitem()[1][1].close()
                yield shown, error.strerror or str(error), 0.0
                continue
            poll.register(attempt, select.POLLOUT)
        while pending and (left := began + timeout - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left * 1000):
                poll.unregister(descriptor)
                shown, attempt = pending.pop(descriptor)
                code = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                attempt.close()
                yield shown, _strerror(code), time.monotonic() - began
        for shown, _ in pending.values():
            yield shown, f'no answer within {timeout:g} s', timeout
    finally:
        for _, attempt in pending.values():
            attempt.close()


def _strerror(code: int) -> str:
    import os

    return os.strerror(code) if code else ''


# TLS


def check_certificate(
    where: str, host: str, port: int, options: Mapping[str, Any]
) -> Iterator[Finding]:
    """Whether the broker's certificate is accepted, and for how much longer.

    :param options: the section ``AMQP.tls``.
    """
    try:
        with connect(host, port, TLS_TIMEOUT) as plain:
            plain.settimeout(TLS_TIMEOUT)
            secure = tls.wrap(plain, options, host)
            with secure:
                secure.do_handshake()
                yield from judge_certificate(where, secure, options)
    except Error as error:
        yield fault('broker.tls', where, str(error))
    except OSError as error:
        said = tls.refusal(error, options) or f'no TLS: {error_text(error)}'
        yield fault('broker.tls', where, said, remedy_of_tls(error))


def judge_certificate(
    where: str, secure: ssl.SSLSocket, options: Mapping[str, Any]
) -> Iterator[Finding]:
    """What a handshake has shown."""
    version = secure.version()
    if not options['verify']:
        yield warning('broker.tls', where, f'{version}; anybody may pose as the broker:'
                      ' AMQP.tls.verify is false', 'set AMQP.tls.ca instead')
        return
    certificate = secure.getpeercert() or {}
    yield judge_expiry(where, version or 'TLS', str(certificate.get('notAfter', '')), time.time())


def judge_expiry(where: str, version: str, until: str, now: float) -> Finding:
    """Whether a certificate that is accepted today expires soon.

    :param until: its time, as :meth:`ssl.SSLSocket.getpeercert` has it.
    :param now: the time, as by :func:`time.time`.
    """
    left = ssl.cert_time_to_seconds(until) - now
    said = f'{version}; the certificate expires in {left / 86400:.0f} days, {until}'
    if left < EXPIRES_SOON:
        return warning('broker.tls', where, said, "renew the broker's certificate")
    return ok('broker.tls', where, said)


def remedy_of_tls(error: OSError) -> str:
    """What to do about a handshake that has failed."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return 'see that the port is the one for TLS, and the log of the broker'
    return {
        10: "renew the broker's certificate",  # X509_V_ERR_CERT_HAS_EXPIRED
        9: 'set the clock',  # X509_V_ERR_CERT_NOT_YET_VALID
        62: 'correct the host in the URL, or set AMQP.tls.server_name',  # HOSTNAME_MISMATCH
        64: 'correct the host in the URL, or set AMQP.tls.server_name',  # IP_ADDRESS_MISMATCH
    }.get(error.verify_code, 'set AMQP.tls.ca to the authority that has signed it')


# AMQP


def check_service(config: Config, where: str, url: str, name: str) -> Iterator[Finding]:
    """Whether a broker accepts the program, has its queues, and accepts messages."""
    connection = connection_to(config, url, name)
    try:
        connection.open()
        product = connection.product or 'the broker'
        yield ok('broker.login', where, f'{product} accepts the credentials and the vhost')
        if not connection.expires:
            return  # a transport of kombu's, which has no such queues and no alarms
        report = Report(config)
        lost = _inspect(config, connection, report)
        yield from check_topology(config, where, report)
        if lost is None:
            yield from check_alarm(where, connection)
        elif not report.faults:
            raise lost
    except UnavailableError as error:
        yield refused(where, url, error)
    except Lost as error:
        yield fault('broker.amqp', where, str(error), 'see the log of the broker')
    except Unreachable as error:
        said = str(error).removeprefix(f'{masked(url)}: ')
        yield fault('broker.amqp', where, f'does not answer like a broker: {said}',
                    'see that the port is that of AMQP, and the log of the broker')
    except Error as error:
        yield fault('broker.amqp', where, str(error))
    finally:
        connection.close()


def _inspect(config: Config, connection: Connection, report: Report) -> Lost | None:
    """Inspect what the section names; returns how the connection was lost, if it was."""
    try:
        inspect_topology(config, SECTION_ONLY, connection, report)
    except Lost as error:
        return error
    return None


def refused(where: str, url: str, error: UnavailableError) -> Finding:
    """What a broker that refuses the connection means."""
    said = str(error).removeprefix('AMQP.url: ').removeprefix(masked(url)).lstrip(': ')
    code = getattr(error.__cause__, 'reply_code', None)
    if code not in (403, 530):
        return fault('broker.tls' if 'certificate' in said else 'broker.login', where, said)
    user, vhost = parameters(url)['userid'], parameters(url)['virtual_host']
    if code == 403:
        remedy = f'correct user or password: rabbitmqctl authenticate_user {user}'
        if user == 'guest' and host_and_port(url)[0] not in LOCAL:
            remedy = "RabbitMQ lets guest in only from the broker's own machine: add another user"
        return fault('broker.credentials', where, said, remedy)
    if 'not found' in error_text(error.__cause__ or error):
        return fault('broker.vhost', where, f'there is no vhost {vhost}',
                     f'rabbitmqctl add_vhost {vhost}, or correct the URL')
    return fault('broker.vhost', where, f'user {user} has no permission for vhost {vhost}',
                 f'rabbitmqctl set_permissions -p {vhost} {user} ...')


def check_topology(config: Config, where: str, report: Report) -> Iterator[Finding]:
    """What was found of exchanges, queues and their limits."""
    for line in report.lines:
        yield of_line(line)
    queues = config.amqp['queues']
    if not queues:
        yield ok('broker.queues', where, 'AMQP.queues has none; those of the program itself are'
                 ' not checked', 'PROGRAM --check --broker')
    elif not report.lines:
        yield ok('broker.queues', where, f'as declared: {", ".join(map(str, queues))}')


def of_line(line: Line) -> Finding:
    """A finding for a line of the inspection."""
    if line.level == 'note':
        return ok('broker.queues', line.where, line.text)
    if line.level == 'warning':
        return warning('broker.limits', line.where, line.text)
    remedy = ''
    if ' here, but ' in line.text:
        remedy = 'declare what exists, or delete it when it is empty'
    elif line.code == 403:
        remedy = 'rabbitmqctl set_permissions'
    return fault('broker.queues', line.where, line.text, remedy)


def check_alarm(where: str, connection: Connection) -> Iterator[Finding]:
    """Whether the broker accepts messages."""
    try:
        why = alarm_of(connection)
    except Lost as error:
        if not connection.is_refusal(error):
            yield fault('broker.alarm', where, f'does not confirm a message: {error}',
                        'see the log of the broker')
        return  # the user may not publish, which is not a fault of a consumer's
    if why:
        yield fault('broker.alarm', where, f'accepts no messages: {why}',
                    'free memory or disk on the broker: rabbitmq-diagnostics alarms')
    else:
        yield ok('broker.alarm', where, 'accepts messages: no alarm')
