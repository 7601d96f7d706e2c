"""The program's own connections to SQL databases: statements within its transactions.

A statement is executed by the connection's own driver and never committed here. Drivers are known
by the module of the connection's class, so that none of them has to be installed.
"""

from __future__ import annotations

import re
import sys
from itertools import count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from typing import Any

    Statement = tuple[str, tuple[Any, ...]]
    Work = Callable[['Access'], Generator[Statement, int, bool]]

SQLITE, POSTGRESQL = 'sqlite', 'postgresql'

IDLE = 0
"""libpq's PQTRANS_IDLE: connected, and not in a transaction"""

KNOWN = 'sqlite3, aiosqlite, psycopg, psycopg2 or SQLAlchemy'


class Access:
    """How the statements of one piece of work are executed on a connection.

    :param connection: what the program passed.
    :ivar str database: :data:`SQLITE` or :data:`POSTGRESQL`.
    :ivar driver: the driver's own connection, which is the same object until it is closed.
    :ivar str paramstyle: as in :pep:`249`; statements here have ``?``.
    """

    database = POSTGRESQL
    paramstyle = 'format'

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.driver = connection

    def execute(self, sql: str, parameters: tuple[Any, ...]) -> Any:
        """Execute a statement; return the number of rows, or an awaitable for it."""
        raise NotImplementedError

    def check_transaction(self) -> None:
        """Check that what is executed takes effect when the program commits, and not before.

        :raises RuntimeError: it would take effect at once.
        """
        check = _check_sqlite if self.database == SQLITE else _check_postgresql
        check(self.driver)

    def translated(self, sql: str) -> str:
        """*sql* with placeholders as the driver wants them."""
        if self.paramstyle == 'qmark':
            return sql
        if self.paramstyle in ('format', 'pyformat'):
            return sql.replace('?', '%s')
        numbers = count(1)
        return re.sub(r'\?', lambda _: f'${next(numbers)}', sql)


class SQLite(Access):
    """A connection of :mod:`sqlite3`."""

    database = SQLITE
    paramstyle = 'qmark'

    def execute(self, sql: str, parameters: tuple[Any, ...]) -> int:
        cursor = self.connection.execute(sql, parameters)
        rows: int = cursor.rowcount
        cursor.close()
        return rows


class AsyncSQLite(SQLite):
    """A connection of aiosqlite."""

    async def execute(self, sql: str, parameters: tuple[Any, ...]) -> int:  # type: ignore[override]
        cursor = await self.connection.execute(sql, parameters)
        rows: int = cursor.rowcount
        await cursor.close()
        return rows


class Psycopg(Access):
    """A connection of psycopg 3. The cursor is a plain one, whatever factory the program has."""

    def execute(self, sql: str, parameters: tuple[Any, ...]) -> int:
        with sys.modules['psycopg'].Cursor(self.connection) as cursor:
            cursor.execute(sql, parameters or None)
            rows: int = cursor.rowcount
        return rows

    def check_transaction(self) -> None:
        super().check_transaction()
        if self.driver.pgconn.pipeline_status:
            raise RuntimeError('once: the connection is in pipeline mode, which has no answer yet')


class AsyncPsycopg(Psycopg):
    """An AsyncConnection of psycopg 3."""

    async def execute(self, sql: str, parameters: tuple[Any, ...]) -> int:  # type: ignore[override]
        async with sys.modules['psycopg'].AsyncCursor(self.connection) as cursor:
            await cursor.execute(sql, parameters or None)
            rows: int = cursor.rowcount
        return rows


class Psycopg2(Access):
    """A connection of psycopg2."""

    def execute(self, sql: str, parameters: tuple[Any, ...]) -> int:
        factory = sys.modules['psycopg2.extensions'].cursor
        with self.connection.cursor(cursor_factory=factory) as cursor:
            cursor.execute(sql, parameters or None)
            rows: int = cursor.rowcount
        return rows


class SQLAlchemy(Access):
    """A Connection of SQLAlchemy, which begins its own transaction as it does for the program."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._use(connection)

    def _use(self, connection: Any) -> None:
        """Take what is needed from a Connection that is not asynchronous."""
        self.database = connection.dialect.name
        if self.database not in (SQLITE, POSTGRESQL):
            raise TypeError(f'once: the database is {self.database}, not SQLite or PostgreSQL')
        self.paramstyle = connection.dialect.paramstyle
        # SQLAlchemy 1.4 commits each statement unless told to be like 2.0, or in a transaction.
        if not getattr(connection, '_is_future', True) and not connection.in_transaction():
            raise _not_in_transaction()
        self.driver = connection.connection.driver_connection

    def execute(self, sql: str, parameters: tuple[Any, ...]) -> int:
        result = self.connection.exec_driver_sql(sql, parameters)
        rows: int = result.rowcount
        result.close()
        return rows


class AsyncSQLAlchemy(SQLAlchemy):
    """An AsyncConnection of SQLAlchemy."""

    def _use(self, connection: Any) -> None:
        super()._use(connection.sync_connection)

    async def execute(self, sql: str, parameters: tuple[Any, ...]) -> int:  # type: ignore[override]
        result = await self.connection.exec_driver_sql(sql, parameters)
        rows: int = result.rowcount
        result.close()
        return rows


def perform(connection: Any, work: Work) -> bool:
    """Do some work on a connection, a statement after the other.

    :param connection: the program's.
    :param work: a generator function. It yields statements, is sent the number of rows of each, or
        has what executing it raised thrown in, and returns the result.
    :raises TypeError: the connection is of another kind.
    :raises RuntimeError: the connection commits each statement at once.
    """
    access = _access(connection, SYNC)
    if access is None:  # a Session of SQLAlchemy's
        access = SQLAlchemy(connection.connection())
    access.check_transaction()
    steps = work(access)
    try:
        sql, parameters = next(steps)
        while True:
            try:
                rows = access.execute(access.translated(sql), parameters)
            except Exception as error:
                sql, parameters = steps.throw(error)
            else:
                sql, parameters = steps.send(rows)
    except StopIteration as end:
        return bool(end.value)


async def perform_async(connection: Any, work: Work) -> bool:
    """Do the same on a connection for coroutines."""
    access = _access(connection, ASYNC)
    if access is None:  # an AsyncSession of SQLAlchemy's
        access = AsyncSQLAlchemy(await connection.connection())
    access.check_transaction()
    steps = work(access)
    try:
        sql, parameters = next(steps)
        while True:
            try:
                rows = await access.execute(access.translated(sql), parameters)
            except Exception as error:
                sql, parameters = steps.throw(error)
            else:
                sql, parameters = steps.send(rows)
    except StopIteration as end:
        return bool(end.value)


SYNC: dict[str, type[Access]] = {
    'sqlite3': SQLite, 'psycopg': Psycopg, 'psycopg2': Psycopg2, 'sqlalchemy': SQLAlchemy,
}  # fmt: skip
"""The connections that are used by plain calls, by the package that defines them"""

ASYNC: dict[str, type[Access]] = {
    'aiosqlite': AsyncSQLite, 'psycopg': AsyncPsycopg, 'sqlalchemy': AsyncSQLAlchemy,
}  # fmt: skip
"""Those that are awaited"""


def _access(connection: Any, kinds: Mapping[str, type[Access]]) -> Access | None:
    """Choose the access to a connection; None if it is a session, which has one.

    :raises TypeError: there is none.
    """
    package, is_async = _origin(connection)
    if package not in SYNC and package not in ASYNC:
        kind = type(connection)
        raise TypeError(
            f'once: not a connection of {KNOWN}: {kind.__module__}.{kind.__qualname__}')
    if is_async and kinds is SYNC:
        raise TypeError('once: a connection for coroutines, which only controllers on the IOLoop'
                        ' can await')
    if not is_async and kinds is ASYNC:
        raise TypeError('once: a connection that is not for coroutines: waiting for it would hold'
                        ' up all others')
    if package == 'sqlalchemy' and not hasattr(connection, 'exec_driver_sql'):
        return None
    return kinds[package](connection)


def _origin(connection: Any) -> tuple[str, bool]:
    """The package that defines a connection, and whether it is for coroutines."""
    for cls in type(connection).__mro__:
        package = cls.__module__.partition('.')[0]
        if package in SYNC or package in ASYNC:
            name = f'{cls.__module__}.{cls.__qualname__}'
            return package, package == 'aiosqlite' or 'async' in name.lower()
    return '', False


def _check_sqlite(driver: Any) -> None:
    # From Python 3.12 on ``autocommit`` decides, unless it is -1.
    if driver.in_transaction or getattr(driver, 'autocommit', -1) is False:
        return
    if driver.isolation_level is None or getattr(driver, 'autocommit', -1) is True:
        raise _not_in_transaction()


def _check_postgresql(driver: Any) -> None:
    if getattr(driver, 'autocommit', False) and driver.info.transaction_status == IDLE:
        raise _not_in_transaction()


def _not_in_transaction() -> RuntimeError:
    return RuntimeError('once: the connection is in autocommit mode and no transaction is open:'
                        ' nothing could be undone')
