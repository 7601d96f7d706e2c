"""Effects that happen once, in the program's own transactions in SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import psycopg
import pytest
import sqlalchemy
from sqlalchemy.orm import Session

import clihelper
from clihelper import testing
from clihelper.amqp import once
from clihelper.amqp.message import Message
from clihelper.testing import TIMEOUT, Outcome
from tests.broker import Broker
from tests.database import Database
from tests.once import Trial

QUEUES: dict[str, Any] = {
    'AMQP': {'queues': {'orders': {}, 'bills': {}}, 'retry': {'attempts': 1}},
}


class Consumer(clihelper.ConsumerController):
    def on_message(self, body: Any, message: Message) -> None:
        pass


class AsyncConsumer(clihelper.AsyncConsumerController):
    work: Any = None

    async def on_message(self, body: Any, message: Message) -> None:
        if self.work is not None:
            await self.work(message)


@pytest.fixture(scope='module')
def server() -> Iterator[Database]:
    with Database() as server:
        yield server


@pytest.fixture
def postgres(server: Database) -> str:
    """How libpq connects to a database without the table."""
    with psycopg.connect(server.conninfo) as connection:
        connection.execute('DROP TABLE IF EXISTS clihelper_once, effects')
        connection.execute('CREATE TABLE effects (number int)')
    return server.conninfo


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """The same as a file of SQLite's."""
    path = str(tmp_path / 'test.db')
    with closing(sqlite3.connect(path)) as connection:
        connection.execute('CREATE TABLE effects (number int)')
    return path


Connect = Callable[[], Any]


def alchemy(url: str, **options: Any) -> Any:
    pool = sqlalchemy.pool.NullPool
    return sqlalchemy.create_engine(url, poolclass=pool, future=True, **options)


def open_psycopg2(conninfo: str) -> Any:
    import psycopg2

    return psycopg2.connect(conninfo)


COMPILED = sys.version_info < (3, 15)
"""Whether psycopg2 and greenlet are there; see setup.cfg"""

KINDS = ('sqlite3', 'sqlite3 begun', 'psycopg', 'psycopg raw', 'sqlalchemy sqlite',
         *(('psycopg2', 'sqlalchemy psycopg2', 'session') if COMPILED else ()))


@pytest.fixture(params=KINDS)
def connect(request: pytest.FixtureRequest, postgres: str, sqlite: str) -> Iterator[Connect]:
    """Opens a connection, whatever kind it is."""
    opened: list[Any] = []

    def make(kind: str) -> Any:
        if kind == 'sqlite3':
            return sqlite3.connect(sqlite)
        if kind == 'sqlite3 begun':
            connection = sqlite3.connect(sqlite, isolation_level=None)
            connection.execute('BEGIN')
            return connection
        if kind == 'psycopg':
            return psycopg.connect(postgres, row_factory=psycopg.rows.class_row(dict))
        if kind == 'psycopg raw':
            return psycopg.connect(postgres, cursor_factory=psycopg.RawCursor)
        if kind == 'psycopg2':
            from psycopg2.extras import RealDictCursor

            connection = open_psycopg2(postgres)
            connection.cursor_factory = RealDictCursor
            return connection
        if kind == 'sqlalchemy sqlite':
            return alchemy(f'sqlite:///{sqlite}').connect()
        engine = alchemy('postgresql+psycopg2://', creator=lambda: open_psycopg2(postgres))
        return engine.connect() if kind == 'sqlalchemy psycopg2' else Session(engine)

    def opening() -> Any:
        opened.append(make(request.param))
        return opened[-1]

    yield opening
    for each in opened:
        each.close()


@pytest.fixture
def harness() -> Iterator[testing.Harness[Consumer]]:
    with testing.Harness(Consumer, QUEUES) as harness:
        yield harness


def message(harness: Any, queue: str = 'orders', **properties: Any) -> Message:
    return harness.deliver(1, queue=queue, **properties).message


def test_an_effect_happens_the_first_time_only(connect: Connect, harness: Any) -> None:
    with closing(connect()) as first:
        assert harness.controller.once(message(harness, message_id='a'), first)
        assert not harness.controller.once(message(harness, message_id='a'), first)
        first.commit()
    with closing(connect()) as second:
        assert not harness.controller.once(message(harness, message_id='a'), second)
        assert harness.controller.once(message(harness, message_id='b'), second)


def test_what_is_rolled_back_has_not_happened_nor_has_the_table(
    connect: Connect, harness: Any
) -> None:
    with closing(connect()) as connection:
        for _ in range(2):
            assert harness.controller.once(message(harness, message_id='a'), connection)
            assert harness.controller.once(message(harness, message_id='b'), connection)
            connection.rollback()
            if isinstance(connection, sqlite3.Connection) and connection.isolation_level is None:
                connection.execute('BEGIN')
        assert harness.controller.once(message(harness, message_id='a'), connection)
        connection.commit()
    with closing(connect()) as connection:
        assert not harness.controller.once(message(harness, message_id='a'), connection)


def test_the_same_message_in_two_queues_or_with_two_keys_is_two_effects(
    postgres: str, harness: Any
) -> None:
    claim = harness.controller.once
    with psycopg.connect(postgres) as connection:
        assert claim(message(harness, 'orders', message_id='a'), connection)
        assert claim(message(harness, 'bills', message_id='a'), connection)
        assert claim(message(harness, 'orders'), connection, key=7)
        assert claim(message(harness, 'orders', message_id='a'), connection, key='mail')
        assert not claim(message(harness, 'orders'), connection, key='7')
        with testing.Harness(Consumer, QUEUES, appname='other') as other:
            assert other.controller.once(message(other, message_id='a'), connection)


def test_a_note_is_kept_for_its_time(connect: Connect, harness: Any) -> None:
    claim = harness.controller.once
    with closing(connect()) as connection:
        assert claim(message(harness), connection, key='short', keep=0.5)
        assert claim(message(harness), connection, key='long')
        let_expire(connection, "key = 'short'")
        assert not claim(message(harness), connection, key='long')
        assert claim(message(harness), connection, key='short')
        assert not claim(message(harness), connection, key='short')


def let_expire(connection: Any, where: str) -> None:
    execute(connection, f'UPDATE clihelper_once SET expires = expires - 604801 WHERE {where}')


def execute(connection: Any, sql: str) -> Any:
    if isinstance(connection, Session | sqlalchemy.Connection):
        return connection.execute(sqlalchemy.text(sql))
    cursor = connection.cursor()
    cursor.execute(sql)
    return cursor


@pytest.mark.parametrize('kind', ['sqlite', 'postgres'])
def test_expired_notes_are_removed_a_bounded_number_at_a_time(
    kind: str, postgres: str, sqlite: str, harness: Any, caplog: pytest.LogCaptureFixture
) -> None:
    database = sqlite3.connect(sqlite) if kind == 'sqlite' else psycopg.connect(postgres)
    with closing(database) as connection:
        for number in range(1000):
            harness.controller.once(message(harness), connection, key=number)
        let_expire(connection, 'true')
        for number in range(1000, 1000 + once.SWEPT_EVERY):
            assert harness.controller.once(message(harness), connection, key=number)
        left = execute(connection, 'SELECT count(*) FROM clihelper_once').fetchone()[0]
        assert left == 1000 + once.SWEPT_EVERY - once.MOST_SWEPT
    assert caplog.messages == []


def test_notes_that_another_transaction_removes_are_left_to_it(
    postgres: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A process begins with a sweep, here each of two that have not committed yet."""
    with (
        psycopg.connect(postgres) as first, psycopg.connect(postgres) as second,
        testing.Harness(Consumer, QUEUES) as one, testing.Harness(Consumer, QUEUES) as other,
    ):
        found = message(one, message_id='a')
        with testing.Harness(Consumer, QUEUES) as before:
            before.controller.once(found, first, key='old')
        let_expire(first, 'true')
        first.commit()
        for each in (first, second):
            each.execute("SET lock_timeout = '2s'")
        assert one.controller.once(found, first, key='first')
        assert other.controller.once(found, second, key='second')
    assert caplog.messages == []


def test_that_expired_notes_may_not_be_removed_is_a_warning(
    postgres: str, harness: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with psycopg.connect(postgres) as connection:
        for statement in once.definition().split(';'):
            connection.execute(statement)  # type: ignore[arg-type]
        connection.execute('DROP ROLE IF EXISTS little')
        connection.execute('CREATE ROLE little')
        connection.execute('GRANT SELECT, INSERT, UPDATE ON clihelper_once TO little')
        connection.commit()
        connection.execute('SET ROLE little')
        assert harness.controller.once(message(harness), connection, key=1)
        assert not harness.controller.once(message(harness), connection, key=1)
        connection.rollback()
        connection.execute('RESET ROLE')
        connection.execute('DROP TABLE clihelper_once')
        connection.execute('DROP ROLE little')
    assert len(caplog.messages) == 1
    assert 'expired rows were not removed: permission denied' in caplog.text


def test_a_table_that_the_operator_has_made_is_used(connect: Connect, harness: Any) -> None:
    with closing(connect()) as connection:
        for statement in filter(str.strip, once.definition().split(';')):
            execute(connection, statement)
        connection.commit()
        if isinstance(connection, sqlite3.Connection) and connection.isolation_level is None:
            connection.execute('BEGIN')
        assert harness.controller.once(message(harness, message_id='a'), connection)


@pytest.mark.parametrize('kind', ['sqlite', 'postgres'])
def test_several_that_make_the_table_at_a_time_do_not_disturb_each_other(
    kind: str, postgres: str, sqlite: str, harness: Any
) -> None:
    together = threading.Barrier(8)
    results: list[Any] = []

    def claim(number: int) -> None:
        database = (sqlite3.connect(sqlite, timeout=TIMEOUT) if kind == 'sqlite'
                    else psycopg.connect(postgres))
        with closing(database) as connection:
            together.wait(TIMEOUT)
            try:
                results.append(harness.controller.once(found, connection, key=number))
                connection.commit()
            except Exception as error:
                results.append(error)

    found = message(harness)
    threads = [threading.Thread(target=claim, args=[number]) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(TIMEOUT)
    assert results == [True] * 8


@pytest.mark.parametrize('ending', ['commit', 'rollback'])
def test_the_second_waits_for_the_first(postgres: str, harness: Any, ending: str) -> None:
    found = message(harness, message_id='a')
    with psycopg.connect(postgres) as setting_up:
        harness.controller.once(found, setting_up, key='the table')
    results = []
    with psycopg.connect(postgres) as first, psycopg.connect(postgres) as second:
        assert harness.controller.once(found, first)
        waiter = threading.Thread(
            target=lambda: results.append(harness.controller.once(found, second)))
        waiter.start()
        wait_for_lock(postgres)
        assert results == []
        getattr(first, ending)()
        waiter.join(TIMEOUT)
    assert results == [ending == 'rollback']


def wait_for_lock(conninfo: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    with psycopg.connect(conninfo, autocommit=True) as connection:
        while not connection.execute('SELECT 1 FROM pg_locks WHERE NOT granted').fetchone():
            assert time.monotonic() < deadline


def test_a_serializable_transaction_fails_rather_than_repeats_an_effect(
    postgres: str, harness: Any
) -> None:
    found = message(harness, message_id='a')
    with psycopg.connect(postgres) as first, psycopg.connect(postgres) as second:
        harness.controller.once(found, first, key='the table')
        first.commit()
        second.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        second.execute('SELECT * FROM effects')
        assert harness.controller.once(found, first)
        first.commit()
        with pytest.raises(psycopg.errors.SerializationFailure):
            harness.controller.once(found, second)
        second.rollback()
        assert not harness.controller.once(found, second)


def test_a_locked_sqlite_is_a_failure_of_the_message(sqlite: str, harness: Any) -> None:
    found = message(harness, message_id='a')
    with closing(sqlite3.connect(sqlite)) as first, closing(
        sqlite3.connect(sqlite, timeout=0)
    ) as second:
        assert harness.controller.once(found, first)
        with pytest.raises(sqlite3.OperationalError, match='locked'):
            harness.controller.once(found, second)
        first.commit()
        assert not harness.controller.once(found, second)


# What is refused.

class Careless(clihelper.ConsumerController):
    claim: Any

    def on_message(self, body: Any, message: Message) -> None:
        self.claim(message)


@pytest.mark.parametrize(
    ('options', 'line'),
    [({}, 'once: the message has no message_id, and no key was given'),
     ({'key': None}, 'once: the key is None'), ({'key': ''}, "once: the key is ''")],
)  # fmt: skip
def test_a_message_that_nothing_identifies_is_rejected(
    sqlite: str, options: dict[str, Any], line: str
) -> None:
    with testing.Harness(Careless, QUEUES) as harness, closing(
        sqlite3.connect(sqlite)
    ) as connection:
        harness.controller.claim = lambda found: harness.controller.once(
            found, connection, **options)
        result = harness.deliver(1, queue='orders')
    assert result.outcome is Outcome.DEAD_LETTER
    assert result.reason == 'rejected'
    assert result.dead_letter is not None
    assert result.dead_letter.headers['x-clihelper-message'] == line


def test_a_connection_that_commits_each_statement_is_refused(
    postgres: str, sqlite: str, harness: Any
) -> None:
    found = message(harness, message_id='a')
    engine = alchemy(f'sqlite:///{sqlite}')
    connections = [
        sqlite3.connect(sqlite, isolation_level=None), psycopg.connect(postgres, autocommit=True),
        engine.connect().execution_options(isolation_level='AUTOCOMMIT'),
    ]
    if COMPILED:
        connections.append(open_psycopg2(postgres))
        connections[-1].autocommit = True
    if sys.version_info >= (3, 12):
        connections.append(sqlite3.connect(sqlite, autocommit=True))
    for each in connections:
        with closing(each), pytest.raises(RuntimeError, match='autocommit mode') as caught:
            harness.controller.once(found, each)
        assert '\n' not in str(caught.value)
    with psycopg.connect(postgres, autocommit=True) as connection, connection.transaction():
        assert harness.controller.once(found, connection)


def test_pipeline_mode_is_refused(postgres: str, harness: Any) -> None:
    with (
        psycopg.connect(postgres) as connection, connection.pipeline(),
        pytest.raises(RuntimeError, match='pipeline mode'),
    ):
        harness.controller.once(message(harness, message_id='a'), connection)


@pytest.mark.parametrize('keep', [0, -1, float('nan'), float('inf')])
def test_a_time_that_is_none_is_refused(sqlite: str, harness: Any, keep: float) -> None:
    with closing(sqlite3.connect(sqlite)) as connection, pytest.raises(ValueError, match='keep'):
        harness.controller.once(message(harness, message_id='a'), connection, keep=keep)


def test_what_is_no_connection_is_refused(postgres: str, harness: Any) -> None:
    found = message(harness, message_id='a')
    with pytest.raises(TypeError, match='not a connection of sqlite3, .*: builtins.object'):
        harness.controller.once(found, object())

    async def mix() -> None:
        async with await psycopg.AsyncConnection.connect(postgres) as connection:
            with pytest.raises(TypeError, match='for coroutines'):
                harness.controller.once(found, connection)

    asyncio.run(mix())


@pytest.mark.parametrize('key', ['x' * 5000, 'a\0b', '\ud800', 'zwei\nZeilen', 'ä' * 200])
def test_a_key_may_be_any_text(postgres: str, harness: Any, key: str) -> None:
    with psycopg.connect(postgres) as connection:
        assert harness.controller.once(message(harness), connection, key=key)
        assert not harness.controller.once(message(harness), connection, key=key)
        assert harness.controller.once(message(harness), connection, key=key + 'x')


# Coroutines.

def open_async(kind: str, postgres: str, sqlite: str) -> Any:
    """An asynchronous context manager of the connection."""
    if kind == 'aiosqlite':
        return aiosqlite.connect(sqlite)
    if kind == 'psycopg':
        return Opened(psycopg.AsyncConnection.connect(postgres))
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    pool = sqlalchemy.pool.NullPool
    engine = create_async_engine(f'sqlite+aiosqlite:///{sqlite}', poolclass=pool)
    return AsyncSession(engine) if kind == 'session' else engine.connect()


class Opened:
    def __init__(self, opening: Any) -> None:
        self.opening = opening

    async def __aenter__(self) -> Any:
        self.connection = await self.opening
        return self.connection

    async def __aexit__(self, *exception: object) -> None:
        await self.connection.close()


@pytest.mark.parametrize(
    'kind', ['aiosqlite', 'psycopg', *(('sqlalchemy', 'session') if COMPILED else ())])
def test_coroutines_have_it_as_well(kind: str, postgres: str, sqlite: str) -> None:
    with testing.Harness(AsyncConsumer, QUEUES) as harness:
        results = []

        async def work(found: Message) -> None:
            async with open_async(kind, postgres, sqlite) as connection:
                results.append(await harness.controller.once(found, connection))
                if found.body == 'undo':
                    await connection.rollback()
                else:
                    await connection.commit()

        harness.controller.work = work
        for body in ('undo', 'do', 'do'):
            result = harness.deliver(body, queue='orders', message_id='a')
            assert result.error is None
    assert results == [True, True, False]


def test_a_connection_that_would_hold_up_the_coroutines_is_refused(sqlite: str) -> None:
    with testing.Harness(AsyncConsumer, QUEUES) as harness, closing(
        sqlite3.connect(sqlite)
    ) as connection:
        harness.controller.work = lambda found: harness.controller.once(found, connection)
        result = harness.deliver(1, queue='orders', message_id='a')
    assert isinstance(result.error, TypeError)
    assert 'hold up all others' in str(result.error)


# Processes that are killed.

MESSAGES, KILLS = 2000, 8


@pytest.mark.parametrize('kind', ['sqlite', 'postgres'])
def test_each_effect_happens_once_though_programs_are_killed(
    kind: str, postgres: str, sqlite: str, broker: Broker, tmp_path: Path, queue_name: str,
    figure: Callable[[str, str], None],
) -> None:
    """The short form of ``make faults ARGS=once``."""
    database = f'file:{sqlite}' if kind == 'sqlite' else postgres
    trial = Trial(tmp_path, broker, database, queue_name, MESSAGES)
    trial.publish()
    trial.kill(KILLS, 60)
    trial.finish(60)
    figure(f'{kind}: effects of {MESSAGES} messages, {KILLS} kills', str(trial.effects()[0]))
    assert trial.effects() == (MESSAGES, MESSAGES)
    assert trial.left() == trial.dead() == 0
