"""Becomes another user: daemon_identity.py USER GROUP, as YAML would have them, in JSON.

Says on stdout, in JSON, what became of it.
"""

import json
import os
import sys

from clihelper.errors import Error
from clihelper.process.privileges import resolve


def ids():
    with open('/proc/self/status') as status:
        fields = dict(line.split(':', 1) for line in status)
    return {
        'uids': [int(number) for number in fields['Uid'].split()],
        'gids': [int(number) for number in fields['Gid'].split()],
        'groups': sorted(int(number) for number in fields['Groups'].split()),
        'capabilities': max(int(fields[name], 16) for name in ('CapEff', 'CapPrm', 'CapInh')),
        'environment': [os.environ.get(name) for name in ('HOME', 'USER', 'LOGNAME')],
    }


def way_back():
    """How to become root again."""
    for name, numbers in [('setresuid', 3), ('setuid', 1), ('seteuid', 1), ('setresgid', 3)]:
        try:
            getattr(os, name)(*[0] * numbers)
        except PermissionError:
            continue
        yield name


def main():
    user, group = map(json.loads, sys.argv[1:])
    if 'KEEP_CAPABILITIES' in os.environ:
        import ctypes

        ctypes.CDLL(None).prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
    facts = {'status': 0, 'errors': [], 'was_current': None}
    identity = None
    try:
        identity = resolve(user, group)
        facts['was_current'] = identity.is_current()
        identity.check()
    except Error as error:
        facts['status'] = error.status
        facts['errors'].append(str(error))
    if identity:
        facts['name'] = identity.name
        try:
            identity.assume()
        except Error as error:
            facts['status'] = error.status
            facts['errors'].append(str(error))
    facts |= ids()
    facts['is_current'] = identity and identity.is_current()
    facts['way_back'] = list(way_back())
    print(json.dumps(facts))


main()
