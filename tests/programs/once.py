"""A consumer whose effect is a row in a database, once for each message."""

import sqlite3
import sys

import clihelper

EFFECT = 'INSERT INTO effects (number) VALUES (%s)'


class Booking(clihelper.ConsumerController):
    def _setup(self):
        self.database = connect(self.application_config['database'])

    def _cleanup(self):
        self.database.close()

    def on_message(self, body, message):
        with self.database:
            if self.application_config['once'] and not self.once(message, self.database):
                return
            for _ in range(self.application_config['statements']):
                if isinstance(self.database, sqlite3.Connection):
                    self.database.execute(EFFECT.replace('%s', '?'), (body,))
                else:
                    self.database.execute(EFFECT, (body,))


def connect(database):
    """By the URL of a file, or what libpq understands; psycopg's ``with`` would close it."""
    if database.startswith('file:'):
        connection = sqlite3.connect(database, uri=True, timeout=30)
        connection.execute('PRAGMA journal_mode = WAL')
        connection.execute('PRAGMA synchronous = OFF')  # processes are killed, not machines
        return connection
    import psycopg

    class Lasting(psycopg.Connection):
        def __exit__(self, kind, error, traceback):
            if kind is None:
                self.commit()
            else:
                self.rollback()

    return Lasting.connect(database)


if __name__ == '__main__':
    clihelper.setup('booking')
    sys.exit(clihelper.run(Booking))
