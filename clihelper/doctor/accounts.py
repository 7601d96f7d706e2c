"""Users: whether one exists, may become another, and may write a folder without our being it."""

from __future__ import annotations

import os
import stat

from clihelper.doctor.findings import fault, ok
from clihelper.errors import NotPermitted
from clihelper.process import privileges

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from typing import Any

    from clihelper.doctor.findings import Finding


class Account:
    """A user with groups, as the kernel sees a process of theirs.

    :ivar uid: the user's id.
    :ivar gids: the ids of all groups.
    """

    __slots__ = ('gids', 'uid')

    def __init__(self, uid: int, gids: Collection[int]) -> None:
        self.uid = uid
        self.gids = frozenset(gids)

    def __str__(self) -> str:
        return f'user {name_of(self.uid)}'

    @classmethod
    def current(cls) -> Account:
        """The account of this process."""
        return cls(os.geteuid(), {os.getegid(), *os.getgroups()})

    @classmethod
    def named(cls, user: str | int | None, group: str | int | None) -> Account:
        """The account that a user and a group stand for.

        :raises NotPermitted: there is no such user or group.
        """
        found = privileges.resolve(user, group)
        return cls(found.uid, {found.gid, *found.groups})

    def may(self, path: str, wanted: int) -> bool:
        """Whether this user may access a file or folder.

        By its mode: an access control list counts only for the user of this process.

        :param wanted: of ``os.R_OK``, ``os.W_OK`` and ``os.X_OK``.
        :raises OSError: it does not exist, or cannot be looked at.
        """
        status = os.stat(path)
        if self.uid == os.geteuid():
            return os.access(path, wanted, effective_ids=True)
        if wanted & os.W_OK and os.statvfs(path).f_flag & os.ST_RDONLY:
            return False
        return self.uid == 0 or permits(status, self, wanted)


def permits(status: os.stat_result, account: Account, wanted: int) -> bool:
    """Whether the mode of a file lets an ordinary user do what is wanted (path_resolution(7))."""
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid == account.uid:
        mode >>= 6
    elif status.st_gid in account.gids:
        mode >>= 3
    return mode & wanted == wanted


def name_of(uid: int) -> str:
    """The name of a user, or the number of one without a name."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def check_user(daemon: dict[str, Any], starter: Account, is_running: bool) -> Iterator[Finding]:
    """Whether ``Daemon.user`` and ``Daemon.group`` exist, and the starter may become them.

    :param daemon: the section ``Daemon``.
    :param starter: who starts the daemon.
    :param is_running: whether it runs, and so has become them.
    """
    user, group = daemon['user'], daemon['group']
    key = 'Daemon.group' if user is None else 'Daemon.user'
    try:
        found = privileges.resolve(user, group)
        wanted = Account(found.uid, {found.gid, *found.groups})
        if not is_running and starter.uid == os.geteuid():
            found.check()
    except NotPermitted as error:
        where, _, text = str(error).partition(': ')
        yield fault('user', where, text, _remedy(text))
        return
    if user is None and group is None:
        yield ok('user', 'Daemon.user', f'not set: it runs as the {starter} who starts it')
    elif not is_running and starter.uid not in (0, wanted.uid):
        yield fault('user', key, f'the {starter}, who starts it, cannot become {wanted}',
                    'start it as root, or as that user')
    else:
        yield ok('user', key, f'{wanted} exists, uid {wanted.uid}')


def _remedy(text: str) -> str:
    if 'no such user' in text:
        return 'create the user, as by sysusers.d(5) or adduser(8), or name another'
    if 'no such group' in text:
        return 'create the group, as by addgroup(8), or name another'
    if 'needs CAP_' in text:
        return 'start it as root, or as that user'
    return ''
