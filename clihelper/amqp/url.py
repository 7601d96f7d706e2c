"""Parses the URL of a broker, and masks its password."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PORT, TLS_PORT = 5672, 5671


def masked(url: str) -> str:
    """*url* without its password, for people to read.

    >>> masked('amqp://orders:secret@broker//')
    'amqp://orders:**@broker//'
    """
    scheme, separator, rest = url.partition('://')
    credentials, at, host = rest.rpartition('@')
    user, colon, _ = credentials.partition(':')
    return f'{scheme}{separator}{user}{colon and ":**"}{at}{host}'


def parameters(url: str) -> dict[str, Any]:
    """The arguments of py-amqp's connection for a URL, which has been validated.

    ``urllib.parse`` could parse it, but takes longer to import than the broker takes to answer.
    """
    scheme, _, rest = url.partition('://')
    authority, _, path = rest.partition('?')[0].partition('/')
    credentials, _, host_and_port = authority.rpartition('@')
    user, _, password = credentials.partition(':')
    pattern = r'\[(?P<v6>.*)\]:?(?P<v6port>\d*)|(?P<host>[^:]*):?(?P<port>\d*)'
    found = re.fullmatch(pattern, host_and_port)
    assert found is not None
    host = found['v6'] or found['host'] or 'localhost'
    port = found['v6port'] or found['port'] or (TLS_PORT if scheme == 'amqps' else PORT)
    return {
        'host': f'[{host}]:{port}' if found['v6'] else f'{host}:{port}',
        'userid': _unquoted(user) or 'guest',
        'password': _unquoted(password) or 'guest',
        # "//" and "/%2F" mean the default vhost, and so does an empty path.
        'virtual_host': _unquoted(path) or '/',
        'ssl': scheme == 'amqps',
    }


def _unquoted(text: str) -> str:
    """Decode the percent-encoding in *text*: :rfc:`3986`, section 2.1."""
    return re.sub(
        rb'%([0-9A-Fa-f]{2})', lambda found: bytes([int(found[1], 16)]), text.encode()
    ).decode(errors='replace')
