"""TLS to a broker: the context that ``AMQP.tls`` describes, and explanations of failures.

Files are read again for each connection, so that a renewed certificate needs no restart.
"""

from __future__ import annotations

import errno
import ssl

from clihelper.amqp.escaping import escaped
from clihelper.errors import ConfigurationError, NotPermitted

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from typing import Any

    from clihelper.config import Config
    from clihelper.errors import Error

FILES = ('ca', 'certificate', 'key')

_PEM = {
    'ca': ('CERTIFICATE-----', 'certificate'),
    'certificate': ('CERTIFICATE-----', 'certificate'),
    'key': ('PRIVATE KEY-----', 'private key'),
}

#: OpenSSL's words for the answer of a broker that does not accept the program's certificate.
_ABOUT_CERTIFICATES = ('CERTIFICATE', 'UNKNOWN_CA', 'ACCESS_DENIED', 'HANDSHAKE_FAILURE')

#: OpenSSL's words if the other side does not speak TLS, or no version that this side speaks.
_ABOUT_PROTOCOLS = (
    'WRONG_VERSION_NUMBER',
    'RECORD_LAYER_FAILURE',
    'UNSUPPORTED_PROTOCOL',
    'ALERT_PROTOCOL_VERSION',
    'NO_PROTOCOLS_AVAILABLE',
)


def wrap(sock: socket.socket, options: Mapping[str, Any], host: str) -> ssl.SSLSocket:
    """Wrap a connected socket as a TLS client; the handshake is still to be done.

    :param options: the section ``AMQP.tls``.
    :param host: the host whose certificate is expected, unless the options name another.
    :raises clihelper.errors.Error: a file named in the options cannot be used.
    """
    return context(options).wrap_socket(
        sock, do_handshake_on_connect=False, server_hostname=options['server_name'] or host
    )


def context(
    options: Mapping[str, Any], locate: Callable[..., str] | None = None
) -> ssl.SSLContext:
    """The context that the options describe; their files are read.

    :param locate: returns ``file:line:column`` of a key, for errors.
    :raises clihelper.errors.ConfigurationError: a file is missing, or does not contain what it
        should.
    :raises clihelper.errors.NotPermitted: a file may not be read.
    """

    def fault(key: str, text: str, kind: type[Error] = ConfigurationError) -> Error:
        where = f'{locate("AMQP", "tls", key)}: ' if locate else ''
        return kind(f'{where}AMQP.tls.{key}: {text}')

    for key in FILES:
        if options[key]:
            _check_file(key, options[key], fault)
    try:
        made = ssl.create_default_context(cafile=options['ca'])
    except ssl.SSLError as error:
        raise fault('ca', f'{options["ca"]}: {_reason(error)}') from error
    # Python sets this flag from 3.13 on; all versions should accept the same certificates.
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if options['strict']:
        made.verify_flags |= ssl.VERIFY_X509_STRICT
    if not options['verify']:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if options['certificate']:
        _load_certificate(made, options, fault)
    return made


def hear_last_words(sock: ssl.SSLSocket) -> None:
    """Raise the reason, if any, that the peer gave for closing the connection.

    In TLS 1.3 a broker that does not accept the client's certificate says so only when the client
    has finished the handshake and is already writing.

    :raises ssl.SSLError: the reason.
    """
    try:
        sock.read(1)
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError):
        pass


def check(config: Config) -> None:
    """Check, before anything starts, that the files of ``AMQP.tls`` can be used.

    :raises clihelper.errors.Error: as :func:`context` does, with the place in the configuration.
    """
    context(config.amqp['tls'], config.locate)


def refusal(error: BaseException, options: Mapping[str, Any]) -> str | None:
    """Explain why TLS failed; None if *error* has another reason.

    :param error: what connecting raised.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = escaped(error.verify_message).rstrip('.')
        strictness = '; AMQP.tls.strict is true' if options['strict'] else ''
        return f"the broker's certificate is not accepted: {reason}{strictness}"
    if not isinstance(error, ssl.SSLError) or not error.reason:
        return None
    reason = error.reason.upper()
    if 'ALERT' in reason and any(word in reason for word in _ABOUT_CERTIFICATES):
        alert = _reason(error).partition('alert ')[2]
        if options['certificate']:
            return f'the broker does not accept AMQP.tls.certificate: {alert}'
        return f'the broker asks for AMQP.tls.certificate, which is not set: {alert}'
    if any(word in reason for word in _ABOUT_PROTOCOLS):
        return f'it does not speak TLS 1.2 or later: {_reason(error)}'
    return None


def _check_file(key: str, path: str, fault: Callable[..., Error]) -> None:
    """Check that the file can be read, and contains what it should."""
    mark, noun = _PEM[key]
    try:
        with open(path, encoding='latin-1') as file:
            if mark in file.read():
                return
    except OSError as error:
        kind = NotPermitted if error.errno in (errno.EACCES, errno.EPERM) else ConfigurationError
        raise fault(key, f'{path}: cannot be read: {error.strerror}', kind) from error
    raise fault(key, f'{path}: does not contain a {noun} in PEM format')


def _load_certificate(
    made: ssl.SSLContext, options: Mapping[str, Any], fault: Callable[..., Error]
) -> None:
    key = 'key' if options['key'] else 'certificate'

    def ask() -> str:
        # Otherwise OpenSSL would prompt on the terminal.
        raise fault(key, f'{options[key]}: the private key is encrypted')

    try:
        made.load_cert_chain(options['certificate'], options['key'], ask)
    except ssl.SSLError as error:
        if error.reason == 'KEY_VALUES_MISMATCH':
            raise fault(key, f'{options[key]}: is not the key of the certificate') from error
        text = f'{options["certificate"]}: cannot be used, or its key cannot: {_reason(error)}'
        raise fault('certificate', text) from error


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's words: ``tlsv1 alert unknown ca``."""
    return escaped(error.reason or str(error)).replace('_', ' ').lower()
