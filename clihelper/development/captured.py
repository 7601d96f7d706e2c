"""A message in a file, as ``clihelper dead-letters show`` writes it."""

from __future__ import annotations

import base64
import json
import sys

from clihelper.amqp.message import OWN
from clihelper.amqp.settlement import EXCHANGE, REASON, ROUTING_KEY
from clihelper.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

STDIN = '-'
"""the name of a file that stands for standard input"""

WHOLE = frozenset({'queue', 'properties', 'headers'})
"""what a file contains that has more than a body, besides the body itself"""

BODY, BODY_BASE64 = 'body', 'body_base64'


class Captured:
    """A message that was written to a file.

    :ivar bytes body: its body.
    :ivar queue: the queue that it came from; None if the file does not say.
    :ivar properties: its properties by AMQP's names, and its headers as ``headers``.
    :ivar bool is_whole: whether the file had its properties; otherwise they are made up.
    """

    def __init__(
        self, body: bytes, queue: str | None, properties: dict[str, Any], *, is_whole: bool
    ) -> None:
        self.body = body
        self.queue = queue
        self.properties = properties
        self.is_whole = is_whole


def read(path: str, accept: Collection[str]) -> Captured:
    """Read a message from the file *path*, or from standard input.

    :param accept: ``AMQP.accept``, for the type of a body without properties.
    :raises clihelper.errors.UsageError: it cannot be read, or is wrong.
    """
    try:
        if path == STDIN:
            data = sys.stdin.buffer.read()
        else:
            with open(path, 'rb') as file:
                data = file.read()
    except OSError as error:
        raise UsageError(f'--message: {path}: {error.strerror}') from None
    try:
        found = json.loads(data)
        kind = 'application/json' if 'json' in accept else _plain_type(data)
    except (ValueError, RecursionError):
        found, kind = None, _plain_type(data)
    if isinstance(found, dict) and found.keys() >= WHOLE and found.keys() & {BODY, BODY_BASE64}:
        return _whole(path, found)
    return Captured(data, None, {'content_type': kind}, is_whole=False)


def _plain_type(data: bytes) -> str:
    try:
        data.decode()
    except UnicodeDecodeError:
        return 'application/octet-stream'
    return 'text/plain'


def _whole(path: str, found: dict[str, Any]) -> Captured:
    """What ``show --json`` has written.

    A dead letter becomes what its replay would be: it has not been run.
    """
    properties, headers = found['properties'], found['headers']
    if not isinstance(properties, dict) or not isinstance(headers, dict):
        raise UsageError(f'--message: {path}: expected properties and headers by name')
    if REASON in headers:
        headers = {
            name: value for name, value in headers.items()
            if name in (EXCHANGE, ROUTING_KEY) or not name.startswith(OWN.decode())
        }
    queue = found['queue']
    if not isinstance(queue, str):
        raise UsageError(f'--message: {path}: queue: expected a name')
    body = _body(path, found)
    return Captured(body, queue or None, {**properties, 'headers': headers}, is_whole=True)


def _body(path: str, found: dict[str, Any]) -> bytes:
    if isinstance(text := found.get(BODY), str):
        return text.encode('utf-8', 'surrogatepass')
    try:
        return base64.b64decode(found[BODY_BASE64], validate=True)
    except (KeyError, TypeError, ValueError):
        raise UsageError(
            f'--message: {path}: expected a text as {BODY}, or Base64 as {BODY_BASE64}') from None
