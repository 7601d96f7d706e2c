"""The user and the groups that a daemon runs as: ``Daemon.user`` and ``Daemon.group``.

A daemon changes to them once and for good, and verifies the result: the real, effective, saved
and filesystem ids and the supplementary groups are exactly those of the user, and root cannot be
regained. See credentials(7), setresuid(2), setgroups(2) and capabilities(7).

=====================  ==========  ====================  =====================================
given                  uid         gid                   supplementary groups
=====================  ==========  ====================  =====================================
user                   the user's  their primary group   those in the group database
user and group         the user's  that group            that group, and those in the database
group                  kept        that group            that group only
neither                kept        kept                  kept
=====================  ==========  ====================  =====================================
"""

from __future__ import annotations

import contextlib
import os

from clihelper.errors import NotPermitted

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pwd

CAPABILITIES = {'CAP_SETGID': 6, 'CAP_SETUID': 7}
"""The capabilities for changing ids, with their numbers in ``linux/capability.h``."""

_NO_ID = 2**32 - 1  # (uid_t) -1 means "unchanged" to setresuid(2), so it is not a valid id


class Identity:
    """The user and groups that a process should run as. Made by :func:`resolve`.

    :ivar name: the user's name, or the number of a user without one; empty if the user is kept.
    :ivar uid: the user's id.
    :ivar gid: the group's id.
    :ivar groups: the supplementary groups, sorted.
    :ivar home: the user's home folder; empty if the user is kept.
    """

    __slots__ = ('_key', '_keeps_gid', 'gid', 'groups', 'home', 'name', 'uid')

    def __init__(
        self,
        *,
        key: str,
        name: str,
        home: str,
        uid: int,
        gid: int,
        groups: list[int],
        keeps_gid: bool,
    ) -> None:
        self.name = name
        self.home = home
        self.uid = uid
        self.gid = gid
        self.groups = tuple(sorted(set(groups)))
        self._key = key
        self._keeps_gid = keeps_gid

    def __repr__(self) -> str:
        return f'<Identity {self.name!r} uid={self.uid} gid={self.gid} groups={self.groups}>'

    def is_current(self) -> bool:
        """Return whether the process has this identity already, so that no ids need changing.

        Users who may not change their groups and name themselves keep the groups that they have:
        these are the groups of their login, which may differ from the current group database.
        """
        if os.getresuid() != (self.uid,) * 3:
            return False
        if not _has_capability('CAP_SETGID'):
            return self._keeps_gid or os.getresgid() == (self.gid,) * 3
        return self._has_groups()

    def check(self) -> None:
        """Check, before detaching, that this process may assume the identity.

        :raises NotPermitted: a necessary capability is missing.
        """
        if self.is_current():
            return
        needed = []
        if not self._has_groups():
            needed.append('CAP_SETGID')
        if os.getresuid() != (self.uid,) * 3:
            needed.append('CAP_SETUID')
        missing = [name for name in needed if not _has_capability(name)]
        if missing:
            privileges = ' and '.join(missing)
            raise self._error(f'needs {privileges}, which uid {os.geteuid()} does not have here')

    def assume(self) -> None:
        """Assume the identity for good, and verify it; set HOME, USER and LOGNAME for the user.

        Call this when everything that requires privileges is done. If it raises, the process may
        be left in an intermediate state and must end.

        :raises NotPermitted: it was refused, or did not have exactly the expected effect.
        """
        if self.name:
            os.environ.update(HOME=self.home, USER=self.name, LOGNAME=self.name)
        if self.is_current():
            return
        try:
            # The user comes last, because the right to change the groups is lost with it.
            if _current_groups() != self.groups:
                os.setgroups(self.groups)
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
        except OSError as error:
            raise self._error(error.strerror or str(error)) from error
        self._prove()

    def _prove(self) -> None:
        if self.uid != 0:
            # This must fail. If it does not, the ids below show it.
            with contextlib.suppress(OSError):
                os.setresuid(0, 0, 0)
            if self.gid != 0:
                with contextlib.suppress(OSError):
                    os.setresgid(0, 0, 0)
        wanted = [self.uid] * 4, [self.gid] * 4, list(self.groups)
        actual = _actual_ids()
        if actual != wanted:
            uids, gids, groups = actual
            raise self._error(f'the change is not complete or not final: uids {uids}, '
                              f'gids {gids}, groups {groups}')
        if self.uid != 0 and _capability_sets():
            _clear_capabilities()
            if kept := _capability_sets():
                raise self._error(f'capabilities are left: {kept}')

    def _has_groups(self) -> bool:
        return os.getresgid() == (self.gid,) * 3 and _current_groups() == self.groups

    def _error(self, reason: str) -> NotPermitted:
        target = f'user {self.name!r}' if self.name else f'group {self.gid}'
        return NotPermitted(f'{self._key}: cannot become {target}: {reason}')


def resolve(user: str | int | None, group: str | int | None) -> Identity:
    """Look up ``Daemon.user`` and ``Daemon.group``.

    :param user: a name, or a number, which need not be in the user database if *group* is given;
        None: the current user.
    :param group: a name, or a number, which need not be in the group database; None: the user's.
    :raises NotPermitted: there is no such user or group.
    """
    gid = None if group is None else _find_gid(group)
    if user is None:
        return Identity(
            key='Daemon.group',
            name='',
            home='',
            uid=os.geteuid(),
            gid=os.getegid() if gid is None else gid,
            groups=os.getgroups() if gid is None else [gid],
            keeps_gid=gid is None,
        )
    entry = _find_user(user)
    if entry is not None:
        primary = entry.pw_gid if gid is None else gid
        return Identity(
            key='Daemon.user',
            name=entry.pw_name,
            home=entry.pw_dir,
            uid=entry.pw_uid,
            gid=primary,
            groups=os.getgrouplist(entry.pw_name, primary),
            keeps_gid=gid is None,
        )
    if gid is None:
        raise NotPermitted(
            f'Daemon.user: {user} is not in the user database: give a Daemon.group too'
        )
    return Identity(
        key='Daemon.user',
        name=str(int(user)),
        home='/',
        uid=int(user),
        gid=gid,
        groups=[gid],
        keeps_gid=False,
    )


def _find_user(user: str | int) -> pwd.struct_passwd | None:
    """Return the user's entry in the user database; None for a number that is not in it."""
    import pwd

    with contextlib.suppress(KeyError, ValueError):
        if isinstance(user, str):
            return pwd.getpwnam(user)
    number = _as_id(user)
    if number is None:
        raise NotPermitted(f'Daemon.user: no such user: {user!r}')
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(number)
    return None


def _find_gid(group: str | int) -> int:
    import grp

    with contextlib.suppress(KeyError, ValueError):
        if isinstance(group, str):
            return grp.getgrnam(group).gr_gid
    number = _as_id(group)
    if number is None:
        raise NotPermitted(f'Daemon.group: no such group: {group!r}')
    return number


def _as_id(value: str | int) -> int | None:
    """Return *value* as a number, if it can be the id of a user or group; otherwise None."""
    if isinstance(value, str) and not (value.isascii() and value.isdigit()):
        return None
    if len(str(value)) > len(str(_NO_ID)):
        return None
    number = int(value)
    return number if 0 <= number < _NO_ID else None


def _has_capability(name: str) -> bool:
    """Return whether the capability is in the effective set; without /proc, if it is root."""
    effective = _proc_status().get('CapEff')
    if effective is None:
        return os.geteuid() == 0
    return bool(int(effective, 16) >> CAPABILITIES[name] & 1)


def _capability_sets() -> str:
    """The sets of capabilities(7) that are not empty, in words; without /proc, none is known."""
    status = _proc_status()
    names = ('CapInh', 'CapPrm', 'CapEff', 'CapAmb')
    return ', '.join(f'{name} {status[name]}' for name in names if int(status.get(name, '0'), 16))


def _clear_capabilities() -> None:
    """Empty all sets of this process: capset(2).

    Giving root up does that for most of them, unless PR_SET_KEEPCAPS was set before: prctl(2).
    """
    import ctypes

    version_3 = 0x20080522
    header = (ctypes.c_uint32 * 2)(version_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None, use_errno=True).capset(header, sets)


def _current_groups() -> tuple[int, ...]:
    return tuple(sorted(set(os.getgroups())))


def _actual_ids() -> tuple[list[int], list[int], list[int]]:
    """Return the real, effective, saved and filesystem uids, the same gids, and the groups."""
    status = _proc_status()
    if 'Uid' in status:
        uids, gids, groups = (
            [int(number) for number in status[key].split()] for key in ('Uid', 'Gid', 'Groups')
        )
        return uids, gids, sorted(set(groups))
    # The filesystem ids change together with the effective ones.
    uids, gids = list(os.getresuid()), list(os.getresgid())
    return [*uids, uids[1]], [*gids, gids[1]], list(_current_groups())


def _proc_status() -> dict[str, str]:
    """Return the fields of proc_pid_status(5) for this process; empty without /proc."""
    try:
        with open('/proc/self/status', encoding='utf-8', errors='replace') as lines:
            pairs = (line.partition(':') for line in lines)
            return {key: value.strip() for key, _, value in pairs}
    except OSError:
        return {}
