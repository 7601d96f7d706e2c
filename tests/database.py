"""A PostgreSQL server of one's own, on a socket in a temporary folder.

Nothing of it is shared with the server that the Debian package runs as a service.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg

from clihelper.testing import Program

USER = 'nobody' if os.geteuid() == 0 else None
"""Who runs it: PostgreSQL refuses to be run by root."""


def programs() -> Path:
    """The folder of the newest version that is installed."""
    folders = Path('/usr/lib/postgresql').glob('*/bin')
    return max(folders, key=lambda folder: int(folder.parent.name))


class Database:
    """A server with the database ``test``; a context manager that starts and removes it.

    What it holds outlives :meth:`stop`.

    :param fsync: whether a commit waits for the disk, as on a server that is not for tests.
    """

    def __init__(self, *, fsync: bool = False) -> None:
        self._options = [] if fsync else ['-F']
        self.folder = Path(tempfile.mkdtemp(prefix='postgres-'))
        self._data = self.folder / 'data'
        self._server: Program | None = None
        if USER:
            shutil.chown(self.folder, USER, pwd.getpwnam(USER).pw_gid)

    @property
    def conninfo(self) -> str:
        """How libpq connects to it."""
        return f'host={self.folder} dbname=test user=test connect_timeout=5'

    def __enter__(self) -> Database:
        try:
            subprocess.run(
                [programs() / 'initdb', '-D', self._data, '--username=test', '--auth=trust',
                 '--encoding=UTF8', '--locale=C', '--no-sync'],
                user=USER, cwd='/', check=True, capture_output=True, timeout=60)
            self.start()
            with psycopg.connect(f'{self.conninfo} dbname=postgres', autocommit=True) as first:
                first.execute('CREATE DATABASE test')
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the server, and return when it accepts connections."""
        server = Program(
            [programs() / 'postgres', '-D', self._data, '-k', self.folder, '-h', '',
             *self._options],
            user=USER, cwd='/')
        self._server = server.__enter__()
        self._server.wait_ready(30)

    def stop(self) -> None:
        """End the server and all connections."""
        server, self._server = self._server, None
        if server is not None:
            try:
                server.stop('INT', 30)
            finally:
                server.__exit__()

    def close(self) -> None:
        """End it, and remove what it has stored."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
