"""The user's editor, as crontab(1) and git(1) start it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
from contextlib import contextmanager, suppress

from clihelper.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FALLBACK = 'vi'


class Draft:
    """A private file with a text to edit; a context manager that removes it.

    :param text: what it contains at first.
    :ivar str path: where it is.
    :ivar bool is_kept: whether it stays there when the context ends.
    """

    def __init__(self, text: bytes) -> None:
        self.is_kept = False
        descriptor, self.path = tempfile.mkstemp(prefix='dead-letter-', suffix='.yml')
        with open(descriptor, 'wb') as file:
            file.write(text)

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.is_kept:
            with suppress(FileNotFoundError):  # its editor may have removed it
                os.unlink(self.path)

    def edit(self) -> bytes:
        """Have the user edit it with ``$VISUAL``, ``$EDITOR`` or vi(1), and return the text.

        :raises UnavailableError: the editor cannot be started, or reports a failure.
        """
        words = os.environ.get('VISUAL') or os.environ.get('EDITOR') or FALLBACK
        try:
            command = [*shlex.split(words), self.path]
            with _signals_of_the_terminal_ignored():
                status = subprocess.run(command, check=False).returncode
            with open(self.path, 'rb') as file:
                text = file.read()
        except (OSError, ValueError) as error:
            raise UnavailableError(f'the editor {words!r}: {error}; nothing is changed') from error
        if status:
            how = f'ended with status {status}' if status > 0 else f'was ended by signal {-status}'
            raise UnavailableError(f'the editor {words!r} {how}; nothing is changed')
        return text


@contextmanager
def _signals_of_the_terminal_ignored() -> Iterator[None]:
    """Ctrl-C and Ctrl-\\ are the editor's: it inherits the default actions, not the handlers."""
    before = {
        signum: signal.signal(signum, lambda *_: None)
        for signum in (signal.SIGINT, signal.SIGQUIT)
    }
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
