"""Log files that were rotated under the daemon."""

from __future__ import annotations

import logging
import os
from contextlib import suppress

from clihelper.logs.handlers import all_handlers


def reopen() -> None:
    """Open the log files anew that were renamed or removed; see logrotate(8).

    Every open :class:`logging.FileHandler` is looked at, wherever it is attached. A file that
    is still at its path stays open: appending goes on at its end even if it was truncated
    (``copytruncate``). No record is lost: other threads wait meanwhile. A file that cannot be
    opened is told to the logger ``clihelper``, and the old one stays in use.
    """
    failures = []
    for handler in all_handlers():
        if isinstance(handler, logging.FileHandler):
            try:
                _reopen(handler)
            except (OSError, ValueError) as error:
                failures.append((handler.baseFilename, error))
    for path, failure in failures:
        logging.getLogger('clihelper').error(
            'Cannot reopen the log file %s, the old one stays in use: %s', path, failure)


def _reopen(handler: logging.FileHandler) -> None:
    handler.acquire()
    try:
        old = handler.stream
        if old is None or old.closed or _is_current(handler, old.fileno()):
            return
        handler.mode = handler.mode.replace('w', 'a').replace('x', 'a')
        handler.stream = handler._open()
        with suppress(OSError):  # a full disk: the loss was counted when it happened
            old.close()
    finally:
        handler.release()


def _is_current(handler: logging.FileHandler, descriptor: int) -> bool:
    """Say whether the open file is one to append to, and the one that is at the path now."""
    try:
        there = os.stat(handler.baseFilename)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there) and 'a' in handler.mode
