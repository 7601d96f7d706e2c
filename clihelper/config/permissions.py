"""Who could change a configuration file: as root, a file is read only if nobody else could."""

from __future__ import annotations

import os
import stat

from clihelper.config.faults import printable
from clihelper.errors import NotPermitted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def refuse_foreign_writers(path: str, descriptor: int, shown: str) -> None:
    """Refuse a file that another than root could change: it names classes to be called.

    Looked at are the file and every folder and symbolic link that leads to it, since who writes
    to a folder can put another file in the place of the one that was looked at.

    :raises NotPermitted: somebody else can write one of them.
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


def _crossed(path: str) -> Iterator[str]:
    """Every folder and link that opening a path crosses, and the file; as path_resolution(7)."""
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
    """Why somebody who is not root could change a file, folder or link; empty if nobody could."""
    mode = status.st_mode
    if status.st_uid != 0:
        return f'is owned by user {status.st_uid}'
    if stat.S_ISLNK(mode) or (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
        # In a sticky folder only the owner replaces an entry, and each entry is looked at.
        return ''
    if mode & stat.S_IWOTH:
        return f'can be written by everybody (mode {stat.S_IMODE(mode):04o})'
    if mode & stat.S_IWGRP and (status.st_gid != 0 or _has_acl(entry)):
        return f'can be written by group {status.st_gid} (mode {stat.S_IMODE(mode):04o})'
    return ''


def _has_acl(entry: str) -> bool:
    """Whether the bits of the group are the mask of an access control list, see acl(5)."""
    try:
        return bool(os.getxattr(entry, 'system.posix_acl_access'))
    except OSError:
        return False
