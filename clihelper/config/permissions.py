"""Who could change a configuration file: root reads it only if no other user could."""

from __future__ import annotations

import os
import stat

from clihelper.config.faults import printable
from clihelper.errors import NotPermitted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def refuse_foreign_writers(path: str, descriptor: int, shown: str) -> None:
    """Refuse a file that a user other than root could change: it names classes to be called.

    This checks the file and every folder and symbolic link that leads to it, since whoever can
    write to a folder can replace the file that was checked.

    :raises NotPermitted: another user can write to one of them.
    """
    opened = os.fstat(descriptor)
    found = opened
    for entry in _crossed(path):
        found = os.lstat(entry)
        reason = _foreign_writer(entry, found)
        if reason:
            raise NotPermitted(f'{shown}: refused, as root: {printable(entry)} {reason}')
    if not os.path.samestat(opened, found):
        raise NotPermitted(f'{shown}: refused, as root: it was replaced while it was read')


def foreign_writer(path: str) -> str:
    """Return who other than root could change a file, and by what; empty if nobody could.

    :raises OSError: a folder on the way to it may not be searched.
    """
    for entry in _crossed(path):
        reason = _foreign_writer(entry, os.lstat(entry))
        if reason:
            return f'{printable(entry)} {reason}'
    return ''


def _crossed(path: str) -> Iterator[str]:
    """Yield every folder and link that leads to a file, and the file; see path_resolution(7)."""
    folder = '/'
    pending = (path if os.path.isabs(path) else os.path.abspath(path)).split('/')[::-1]
    yield folder
    while pending:
        name = pending.pop()
        if name == '..':
            folder = os.path.dirname(folder)
        elif name not in ('', '.'):
            entry = os.path.join(folder, name)
            yield entry
            if os.path.islink(entry):
                target = os.readlink(entry)
                folder = '/' if target.startswith('/') else folder
                pending += target.split('/')[::-1]
            else:
                folder = entry


def _foreign_writer(entry: str, status: os.stat_result) -> str:
    """Return why a user other than root could change a file, folder or link; empty if none can."""
    mode = status.st_mode
    if status.st_uid != 0:
        return f'is owned by user {status.st_uid}'
    if stat.S_ISLNK(mode) or (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
        # In a sticky folder only the owner can replace an entry, and each entry is checked.
        return ''
    if mode & stat.S_IWOTH:
        return f'can be written by everybody (mode {stat.S_IMODE(mode):04o})'
    if mode & stat.S_IWGRP and (status.st_gid != 0 or _has_acl(entry)):
        return f'can be written by group {status.st_gid} (mode {stat.S_IMODE(mode):04o})'
    return ''


def _has_acl(entry: str) -> bool:
    """Whether the group's permission bits are the mask of an access control list, see acl(5)."""
    try:
        return bool(os.getxattr(entry, 'system.posix_acl_access'))
    except OSError:
        return False
