"""Messages whose effect happens once in a database, and programs that are killed meanwhile."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg

from benchmarks.programs import Workshop
from benchmarks.tables import Table
from clihelper.errors import counted
from tests.database import Database
from tests.once import Trial

MESSAGES, KILLS = 100_000, 200
QUICK_MESSAGES, QUICK_KILLS = 5000, 10

TIMED, QUICK_TIMED, ROUNDS = 10_000, 2000, 3
"""messages of a run that is timed, and runs of each kind, in turns"""

SEVERAL = 4
"""statements of a transaction as programs have them; ``once`` is one more"""

PATIENCE = 3600.0

TABLE = 'CREATE TABLE effects (number int)'


def measure(workshop: Workshop, quick: bool) -> Table:
    """Count the effects in PostgreSQL and in SQLite; time transactions with and without."""
    messages, kills = (QUICK_MESSAGES, QUICK_KILLS) if quick else (MESSAGES, KILLS)
    table = Table(f'{messages} messages with an effect in a transaction, {kills} kill -9',
                  ['effects', 'lost', 'repeated', 'dead'])
    path = os.path.join(workshop.directory, 'once.db')
    with Database(fsync=True) as server:
        with psycopg.connect(server.conninfo) as connection:
            connection.execute(TABLE)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(TABLE)
        for name, database in (('PostgreSQL', server.conninfo), ('SQLite', f'file:{path}')):
            trial = _trial(workshop, database, f'once-{name}', messages)
            trial.publish()
            trial.kill(kills, PATIENCE)
            trial.finish(PATIENCE)
            rows, numbers = trial.effects()
            table.row(name, rows, messages - numbers, rows - numbers, trial.dead())
            table.bar(f'{name}: effects lost or repeated', messages - numbers + rows - numbers, 0)
        for statements in (1, SEVERAL):
            ratio = _ratio(workshop, server.conninfo, QUICK_TIMED if quick else TIMED, statements)
            title = f'with once, to the transaction alone, of {counted(statements, "statement")}'
            if statements == SEVERAL:
                table.bar(title, ratio, 1.25)
            else:
                print(f'{title}: {ratio:.2f}', flush=True)
    return table


def _trial(workshop: Workshop, database: str, name: str, messages: int) -> Trial:
    folder = Path(workshop.directory, name)
    folder.mkdir()
    return Trial(folder, workshop.broker, database, name, messages)


def _ratio(workshop: Workshop, database: str, messages: int, statements: int) -> float:
    """The time of the fastest run with ``once``, to the fastest without."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(ROUNDS):
        for once in seconds:
            trial = _trial(workshop, database, f'timed-{statements}-{number}-{once}', messages)
            trial.configure(once, statements)
            trial.publish()
            seconds[once].append(trial.finish(PATIENCE))
    return min(seconds[True]) / min(seconds[False])
