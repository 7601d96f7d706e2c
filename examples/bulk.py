"""Writes readings into PostgreSQL: those that have come meanwhile in one transaction."""

from typing import Any

import psycopg

import clihelper

INSERT = """
    INSERT INTO readings (id, sensor, taken, value) VALUES (%s, %s, %s, %s)
    ON CONFLICT (id) DO NOTHING  -- a message may be delivered again
"""

BAD_ROW = (psycopg.DataError, psycopg.IntegrityError, KeyError, TypeError, ValueError)

Row = tuple[str, str, str, float]


class Writer(clihelper.ConsumerController):
    def _setup(self) -> None:
        self.database: psycopg.Connection[Any] | None = None

    def _cleanup(self) -> None:
        self.disconnect()

    def on_messages(self, messages: list[clihelper.Message]) -> None:
        try:
            rows = [row_of(message.body) for message in messages]
            while not self.is_written(rows):
                if not self.wait(self.application_config['pause']):
                    raise clihelper.Requeue('stopped')  # all of them are for the next process
        except BAD_ROW as error:
            # clihelper halves the batch until it is alone, and rejects that.
            raise clihelper.Reject(str(error)) from error

    def is_written(self, rows: list[Row]) -> bool:
        """Write the rows; False: the database is away, or not as it has to be."""
        try:
            if self.database is None:
                self.database = psycopg.connect(
                    self.application_config['database'], autocommit=True)
            with self.database.transaction(), self.database.cursor() as cursor:
                cursor.executemany(INSERT, rows)
        except BAD_ROW:
            raise
        except psycopg.Error as error:
            self.logger.warning('%d rows wait for the database: %s', len(rows), error)
            self.disconnect()
            return False
        return True

    def disconnect(self) -> None:
        if self.database is not None:
            self.database.close()
            self.database = None


def row_of(body: Any) -> Row:
    return str(body['id']), str(body['sensor']), str(body['taken']), float(body['value'])


if __name__ == '__main__':
    clihelper.setup('bulk', 'Writes readings into PostgreSQL.', '1.0.0')
    clihelper.run(Writer)
