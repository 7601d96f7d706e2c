"""``clihelper publish``: publish a message from the shell, by a program's configuration."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext

from clihelper.errors import ConfigurationError, UnavailableError, UsageError, one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Sequence
    from typing import Any

    from clihelper.amqp.client import Client
    from clihelper.config import Config

COMMAND = 'clihelper publish'

DESCRIPTION = """\
Publish a message to the broker of a program's configuration, and wait until the broker
confirms that a queue has it.

BODY is the body as text, "-" reads it from standard input, and "@FILE" from a file. Its
content type is text/plain, or application/octet-stream if it is not UTF-8; with --json it
is application/json, and it has to be JSON.
"""

EPILOG = """\
exit status: 0: confirmed; 2: wrong usage, or a body or property that cannot be; 69: the
broker cannot be used, has refused it, or no queue gets it; 77, 78: the configuration

example: clihelper publish -c orders.yml --routing-key orders --json '{"order_id": 1}'
"""

NUMBERS: dict[str, Callable[[str], int | float]] = {
    'priority': int, 'delivery_mode': int, 'timestamp': float, 'expiration': float,
}
"""The properties that are numbers"""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand, and return the exit status."""
    options = _parse(arguments)
    given = _pairs('--property', options.property)
    properties = {name: _value(name, text) for name, text in given}
    headers = dict(_pairs('--header', options.header))
    if headers:
        properties['headers'] = headers
    body = _body(options, properties)
    from clihelper import config

    path = options.configuration
    loaded = config.load(os.path.abspath(path), appname='clihelper', shown=path)
    _publish(loaded, options, body, properties)
    return 0


def _parse(arguments: Sequence[str]) -> Namespace:
    import argparse

    from clihelper.parser import Parser

    parser = Parser(
        prog=COMMAND,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('-c', '--config', dest='configuration', metavar='FILE', required=True,
        help="the program's configuration; its section AMQP names the broker")  # fmt: skip
    add('body', metavar='BODY|-|@FILE')
    add('--exchange', default='', metavar='NAME', help='default: the default exchange')
    add('--routing-key', default='', metavar='KEY', help='of the default exchange, a queue')
    add('--property', action='append', default=[], metavar='NAME=VALUE',
        help='such as type=order.created, expiration=60 (seconds)')  # fmt: skip
    add('--header', action='append', default=[], metavar='NAME=VALUE', help='a text')
    add('--json', action='store_true', help='the body is JSON')
    add('--delay', type=float, default=0, metavar='SECONDS',
        help='until it is in its queue')  # fmt: skip
    add('--compress', action='store_true', help='with gzip')
    return parser.parse_args(arguments)


def _pairs(option: str, words: Sequence[str]) -> list[tuple[str, str]]:
    """Return names and values.

    :raises UsageError: a word is no such pair, or a name is given twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition('=')
        if not name or not equals:
            raise misused(f'{option}: expected NAME=VALUE, got {word!r}')
        if name in found:
            raise misused(f'{option}: {name} is given twice')
        found[name] = value
    return list(found.items())


def _value(name: str, text: str) -> Any:
    """Return the value of a property.

    :raises UsageError: it is to be a number, and is none.
    """
    if name == 'headers':
        raise misused('--property: headers are given by --header')
    try:
        return NUMBERS.get(name, str)(text)
    except ValueError:
        raise misused(f'--property: {name}: expected a number, got {text!r}') from None


def _body(options: Namespace, properties: dict[str, Any]) -> bytes | str:
    """Return the body; *properties* get its content type.

    :raises UsageError: it cannot be read, or is not JSON.
    """
    data = _read(options.body)
    if options.json:
        import json

        try:
            json.loads(data, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise misused(f'--json: the body is not JSON: {one_line(str(error))}') from None
        properties.setdefault('content_type', 'application/json')
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _read(word: str) -> bytes:
    try:
        if word == '-':
            return sys.stdin.buffer.read()
        if word.startswith('@'):
            with open(word[1:], 'rb') as file:
                return file.read()
    except OSError as error:
        raise misused(f'{word}: {error.strerror}') from None
    return os.fsencode(word)


def _refuse(constant: str) -> None:
    raise ValueError(f'{constant} is not JSON')


def _publish(
    config: Config, options: Namespace, body: bytes | str, properties: dict[str, Any]
) -> None:
    """Publish it, and wait for the confirmation.

    :raises UnavailableError: it is not confirmed.
    """
    from clihelper.amqp.publisher import PublishError

    client = _client(config)
    try:
        client.publish(
            body, options.exchange, options.routing_key, properties,
            delay=options.delay, compress=options.compress,
        )  # fmt: skip
    except (TypeError, ValueError) as error:
        raise misused(one_line(str(error))) from None
    except PublishError as error:
        raise UnavailableError(one_line(str(error))) from None
    finally:
        client.close()


def _client(config: Config) -> Client:
    """Return what publishes to the broker of the configuration.

    :raises ConfigurationError: no other process could get what is published.
    """
    from clihelper.amqp.client import Client
    from clihelper.amqp.connection import Connection
    from clihelper.amqp.partitions import Partitions

    url = config.amqp['url']
    if (url if isinstance(url, str) else url[0]).startswith('memory:'):
        where = config.locate('AMQP', 'url')
        raise ConfigurationError(f'{where}: AMQP.url: memory:// is within one process')

    def connect() -> Connection:
        return Connection.of(config.amqp, COMMAND, heartbeat=False)

    client = Client(connect(), nullcontext, connect)
    client.declares = config.amqp['declare']
    client.partitions = Partitions(config.amqp['queues'])
    return client


def misused(text: str) -> UsageError:
    """The error for a wrong command line."""
    return UsageError(f'{text} (see {COMMAND} --help)')
