"""Users and groups, by real ones: tests/programs/daemon_identity.py becomes them.

It runs where the user and group databases have some entries more, for itself alone: in a mount
namespace of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clihelper.errors import NotPermitted
from clihelper.process.privileges import resolve

ROOT = Path(__file__).parent.parent
PROGRAM = str(ROOT / 'tests' / 'programs' / 'daemon_identity.py')

PASSWD = 'orders:x:4001:4002:Orders:/srv/orders:/bin/sh\n4004:x:4005:4005::/srv/odd:/bin/sh\n'
GROUP = 'orders:x:4002:\nmail2:x:4010:orders\nspool2:x:4011:orders,other\nsolo:x:4012:\n'


@pytest.fixture(scope='module')
def databases(tmp_path_factory):
    folder = tmp_path_factory.mktemp('etc')
    for name, more in (('passwd', PASSWD), ('group', GROUP)):
        (folder / name).write_text(Path('/etc', name).read_text() + more)
    return folder


@pytest.fixture
def become(databases):
    """Run the program as root, with groups that it is to lose."""

    def run(user, group, *, wrapper=(), groups=(0, 4, 4011, 4999), env=None, **how):
        mount = f'for f in passwd group; do mount --bind {databases}/$f /etc/$f; done; exec "$@"'
        argv = [
            'unshare', '-m', 'sh', '-c', mount, 'sh', *wrapper,
            sys.executable, PROGRAM, json.dumps(user), json.dumps(group),
        ]
        environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'HOME': '/root', 'USER': 'root',
                       'LOGNAME': 'root', **(env or {})}
        output = subprocess.check_output(argv, env=environment, extra_groups=groups, **how)
        return json.loads(output)

    return run


def assert_exactly(facts, uid, gid, groups):
    assert facts['errors'] == []
    assert facts['uids'] == [uid] * 4  # real, effective, saved, filesystem
    assert facts['gids'] == [gid] * 4
    assert facts['groups'] == groups
    assert facts['is_current']


@pytest.mark.root
def test_a_user_has_his_primary_group_and_those_of_the_database_and_no_way_back(become):
    facts = become('orders', None)
    assert_exactly(facts, 4001, 4002, [4002, 4010, 4011])
    assert facts['way_back'] == []
    assert facts['capabilities'] == 0
    assert facts['environment'] == ['/srv/orders', 'orders', 'orders']
    assert facts['was_current'] is False


@pytest.mark.root
def test_capabilities_that_were_to_be_kept_are_dropped(become):
    facts = become('orders', None, env={'KEEP_CAPABILITIES': '1'})
    assert facts['errors'] == []
    assert facts['capabilities'] == 0
    assert facts['way_back'] == []


@pytest.mark.root
def test_a_user_and_a_group(become):
    facts = become('orders', 'solo')
    assert_exactly(facts, 4001, 4012, [4010, 4011, 4012])
    assert facts['way_back'] == []


@pytest.mark.root
def test_a_group_only_keeps_the_user_and_drops_all_other_groups(become):
    facts = become(None, 'solo')
    assert_exactly(facts, 0, 4012, [4012])
    assert facts['environment'] == ['/root', 'root', 'root']


@pytest.mark.root
def test_neither_changes_nothing(become):
    facts = become(None, None)
    assert_exactly(facts, 0, 0, [0, 4, 4011, 4999])
    assert facts['was_current'] is True
    assert facts['environment'] == ['/root', 'root', 'root']


@pytest.mark.root
def test_root_by_name_has_only_the_groups_of_the_database(become):
    assert_exactly(become('root', None), 0, 0, [0])


@pytest.mark.root
@pytest.mark.parametrize('user', [4001, '4001'])
def test_a_number_stands_for_its_user(become, user):
    facts = become(user, None)
    assert_exactly(facts, 4001, 4002, [4002, 4010, 4011])
    assert facts['name'] == 'orders'


@pytest.mark.root
def test_a_name_of_digits_is_a_name_first_and_a_number_is_none(become):
    assert_exactly(become('4004', None), 4005, 4005, [4005])
    assert become(4004, None)['errors'] == [
        'Daemon.user: 4004 is not in the user database: give a Daemon.group too'
    ]


@pytest.mark.root
def test_a_number_that_is_not_in_the_database_needs_a_group(become):
    facts = become(54321, 54322)
    assert_exactly(facts, 54321, 54322, [54322])
    assert facts['environment'] == ['/', '54321', '54321']
    assert facts['way_back'] == []


@pytest.mark.parametrize(
    'user',
    ['nosuch', '', 'a\0b', '\udcff', '-1', '²', '4294967295', '9' * 5000, -1, 2**32 - 1, 2**64],
)
def test_an_unknown_user_is_told(user):
    with pytest.raises(NotPermitted) as caught:
        resolve(user, None)
    assert str(caught.value) == f'Daemon.user: no such user: {user!r}'
    assert caught.value.status == 77


@pytest.mark.parametrize('group', ['nosuch', '', '-1', -1, 2**32 - 1, '4294967295'])
def test_an_unknown_group_is_told(group):
    with pytest.raises(NotPermitted) as caught:
        resolve(None, group)
    assert str(caught.value) == f'Daemon.group: no such group: {group!r}'


# Who may not.


def as_user(uid, gid, groups):
    """Run the program as an ordinary user from here on, with the interpreter still readable."""
    ids = ['--reuid', str(uid), '--regid', str(gid)]
    groups = ['--groups', ','.join(map(str, groups))] if groups else ['--clear-groups']
    keep = ['--inh-caps', '+dac_read_search', '--ambient-caps', '+dac_read_search']
    return ['setpriv', *ids, *groups, *keep]


@pytest.mark.root
def test_an_ordinary_user_may_not_become_another_and_it_is_told_before_trying(become):
    facts = become('root', None, wrapper=as_user(4001, 4002, [4002]))
    assert facts['status'] == 77
    assert facts['errors'][0] == (
        "Daemon.user: cannot become user 'root': needs CAP_SETGID and CAP_SETUID, "
        'which uid 4001 does not have here'
    )
    assert facts['uids'] == [4001] * 4
    assert facts['way_back'] == []


@pytest.mark.root
@pytest.mark.parametrize('groups', [[], [4002], [4999]])
def test_an_ordinary_user_may_name_himself_whatever_the_groups_of_his_login(become, groups):
    facts = become('orders', None, wrapper=as_user(4001, 4002, groups))
    assert_exactly(facts, 4001, 4002, groups)
    assert facts['was_current'] is True
    assert facts['environment'] == ['/srv/orders', 'orders', 'orders']


@pytest.mark.root
def test_an_ordinary_user_may_name_his_group_and_no_other(become):
    himself = as_user(4001, 4002, [4010])
    assert_exactly(become('orders', 'orders', wrapper=himself), 4001, 4002, [4010])
    assert_exactly(become(None, 'orders', wrapper=himself), 4001, 4002, [4010])
    assert become(None, 'mail2', wrapper=himself)['errors'][0] == (
        'Daemon.group: cannot become group 4010: needs CAP_SETGID, '
        'which uid 4001 does not have here'
    )


@pytest.mark.root
@pytest.mark.parametrize('missing', ['setuid', 'setgid'])
def test_root_without_the_capability_is_told_which_one_it_is(become, missing):
    facts = become('orders', None, wrapper=['setpriv', '--bounding-set', f'-{missing}'])
    assert facts['status'] == 77
    assert facts['errors'][0] == (
        f"Daemon.user: cannot become user 'orders': needs CAP_{missing.upper()}, "
        'which uid 0 does not have here'
    )


@pytest.mark.root
def test_where_root_could_be_had_back_the_daemon_does_not_go_on(become):
    """The kernel is told to let a process keep its capabilities when it ceases to be root."""
    facts = become('orders', None, wrapper=['setpriv', '--securebits', '+no_setuid_fixup'])
    assert facts['status'] == 77
    [error] = facts['errors']
    assert error.startswith(
        "Daemon.user: cannot become user 'orders': the change is not complete or not final: "
        'uids [0, 0, 0, 0]'
    )


def test_where_the_kernel_does_not_know_the_user_it_is_told():
    """In a user namespace root is the only one there is."""
    script = (
        'from clihelper.process.privileges import resolve; identity = resolve("nobody", None);'
        'identity.check(); identity.assume()'
    )
    done = subprocess.run(
        ['unshare', '-Ur', sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True
    )
    error = done.stderr.splitlines()[-1]
    assert error.startswith(
        "clihelper.errors.NotPermitted: Daemon.user: cannot become user 'nobody': "
    )
