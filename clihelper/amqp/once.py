"""Effects that happen once, although messages are delivered at least once.

A row in the program's own database says that a message has had its effect. It is written in the
transaction of the effect, so both are there or neither is. The primary key makes a second
transaction for the same message wait for the first one.
"""

from __future__ import annotations

import logging
from itertools import count
from weakref import WeakSet

from clihelper.amqp.settlement import Reject
from clihelper.amqp.sql import POSTGRESQL, SQLITE, perform, perform_async

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from clihelper.amqp.message import Message
    from clihelper.amqp.sql import Access, Statement

    Steps = Generator[Statement, int, bool]

LOGGER = logging.getLogger('clihelper.amqp')

LONGEST_KEEP = 100 * 365 * 24 * 3600
"""the most seconds that it can be remembered"""

LONGEST_KEY = 255
"""the most characters of a key that is stored as it is"""

SWEPT_EVERY = 100
"""how many new rows a process writes between two removals of expired ones"""

MOST_SWEPT = 2 * SWEPT_EVERY
"""the most rows that are removed at a time: more than were written meanwhile"""

# The database's clock is the same for all who use it.
NOW = {
    SQLITE: "CAST(strftime('%s', 'now') AS INTEGER)",
    POSTGRESQL: 'CAST(EXTRACT(EPOCH FROM now()) AS BIGINT)',
}

DEFINITION = (
    """\
CREATE TABLE IF NOT EXISTS clihelper_once (
    application TEXT NOT NULL,
    queue TEXT NOT NULL,
    key TEXT NOT NULL,
    expires BIGINT NOT NULL,  -- seconds since 1970, UTC
    PRIMARY KEY (application, queue, key)
)""",
    'CREATE INDEX IF NOT EXISTS clihelper_once_expires ON clihelper_once (expires)',
)
"""What makes the table where it is missing, for both databases"""

CLAIM = """\
INSERT INTO clihelper_once (application, queue, key, expires) VALUES (?, ?, ?, {now} + ?)
ON CONFLICT (application, queue, key) DO UPDATE SET expires = excluded.expires
WHERE clihelper_once.expires <= {now}"""
"""A row is written unless there is one that has not expired"""

SWEEP = {
    SQLITE: """\
DELETE FROM clihelper_once WHERE rowid IN (
    SELECT rowid FROM clihelper_once WHERE expires <= {now} ORDER BY expires LIMIT {most})""",
    # What another transaction removes, or renews, is left to it.
    POSTGRESQL: """\
DELETE FROM clihelper_once WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM clihelper_once WHERE expires <= {now} ORDER BY expires LIMIT {most}
    FOR UPDATE SKIP LOCKED))""",
}
"""Removes the oldest of the expired rows"""

IS_THERE = """\
SELECT 1 WHERE to_regclass('clihelper_once') IS NOT NULL
AND current_setting('clihelper.once_made', true) IS DISTINCT FROM 'here'"""
"""One row if there is the table, and a rollback of this transaction would not remove it"""

LOCK = f'SELECT pg_advisory_xact_lock({0x636C6968656C7072})'
"""Waits for whoever else makes the table: two would get in each other's way, IF NOT EXISTS or not
(https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS)"""

MADE_HERE = "SELECT set_config('clihelper.once_made', 'here', true)"
"""Notes, until this transaction ends, that it has made the table"""

MISSING = 'no such table: clihelper_once'
"""SQLite's words"""


def definition() -> str:
    """Return the SQL that makes the table ``clihelper_once``, for SQLite and PostgreSQL alike.

    For whoever makes it before the program runs, since the program may not.
    """
    return ''.join(f'{statement};\n' for statement in DEFINITION)


class Ledger:
    """What an application notes in its databases of the messages that have had their effect.

    :param application: its name.
    """

    def __init__(self, application: str) -> None:
        self._application = application
        self._ready: WeakSet[Any] = WeakSet()  # the connections to databases that have the table
        self._written = count()

    def claim(self, message: Message, connection: Any, key: Any, keep: float) -> bool:
        """Note that a message has its effect; return whether it had none before."""
        row = self._row(message, key, keep)
        return perform(connection, lambda access: self._steps(access, row))

    async def claim_async(
        self, message: Message, connection: Any, key: Any, keep: float
    ) -> bool:
        """The same with a connection for coroutines."""
        row = self._row(message, key, keep)
        return await perform_async(connection, lambda access: self._steps(access, row))

    def _row(self, message: Message, key: Any, keep: float) -> tuple[Any, ...]:
        if not 0 < keep <= LONGEST_KEEP:
            raise ValueError(f'once: keep is from 0 to {LONGEST_KEEP} seconds, not {keep!r}')
        seconds = int(keep) + (keep > int(keep))
        return self._application, message.queue, _stored(_key(message, key)), seconds

    def _steps(self, access: Access, row: tuple[Any, ...]) -> Steps:
        """Write the row; now and then, remove others that have expired."""
        claim = self._claim_sqlite if access.database == SQLITE else self._claim_postgresql
        is_new = (yield from claim(access, row)) == 1
        if is_new and next(self._written) % SWEPT_EVERY == 0:
            yield from _sweep(access)
        return is_new

    def _claim_sqlite(
        self, access: Access, row: tuple[Any, ...]
    ) -> Generator[Statement, int, int]:
        sql = CLAIM.format(now=NOW[SQLITE])
        try:
            return (yield sql, row)
        except Exception as error:
            if MISSING not in str(error):
                raise
        for statement in DEFINITION:
            yield statement, ()
        return (yield sql, row)

    def _claim_postgresql(
        self, access: Access, row: tuple[Any, ...]
    ) -> Generator[Statement, int, int]:
        # After an error nothing but a rollback is possible: the table has to be there before.
        if access.driver not in self._ready:
            if (yield IS_THERE, ()) == 1:
                self._ready.add(access.driver)
            else:
                for statement in (LOCK, *DEFINITION, MADE_HERE):
                    yield statement, ()
        try:
            return (yield CLAIM.format(now=NOW[POSTGRESQL]), row)
        except Exception:
            self._ready.discard(access.driver)
            raise


def _sweep(access: Access) -> Generator[Statement, int, None]:
    """Remove rows that have expired; that it fails is no failure of the message."""
    sql = SWEEP[access.database].format(now=NOW[access.database], most=MOST_SWEPT)
    yield 'SAVEPOINT clihelper_once', ()
    try:
        yield sql, ()
    except Exception as error:
        yield 'ROLLBACK TO SAVEPOINT clihelper_once', ()
        LOGGER.warning('once: expired rows were not removed: %s', ' '.join(str(error).split()))
    yield 'RELEASE SAVEPOINT clihelper_once', ()


def _key(message: Message, key: Any) -> str:
    """The key, as text.

    :param key: an Ellipsis stands for the ``message_id``.
    :raises Reject: there is none.
    """
    if key is ...:
        if message_id := message.properties.get('message_id'):
            return str(message_id)
        raise Reject('once: the message has no message_id, and no key was given')
    if key is None or key == '':
        raise Reject(f'once: the key is {key!r}')
    return str(key)


def _stored(key: str) -> str:
    """A key as it is stored: hashed if too long for an index, or no text to a database."""
    if len(key) <= LONGEST_KEY and key.isprintable():
        return key
    from hashlib import sha256

    return f'sha256:{sha256(key.encode("utf-8", "surrogatepass")).hexdigest()}'
