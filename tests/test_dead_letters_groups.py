"""Dead letters by group, and replayed at a rate, on RabbitMQ."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time

import kombu
import pytest

from clihelper.amqp.properties import encode
from clihelper.commands import letter_groups
from clihelper.testing import Program
from tests.test_dead_letters import Desk


@pytest.fixture
def channel(broker):
    confirm = {'confirm_publish': True}
    connection = kombu.Connection(broker.url(), transport_options=confirm)
    with connection, connection.channel() as channel:
        yield channel


@pytest.fixture
def desk(tmp_path, broker, channel, queue_name):
    return Desk(tmp_path, broker.url(), channel, queue_name)


@pytest.fixture(params=['classic', 'quorum'])
def each_desk(request, tmp_path, broker, channel, queue_name):
    return Desk(tmp_path, broker.url(), channel, queue_name, request.param)


def groups(desk, *words):
    return json.loads(desk.run('list', '--json', *words))


def test_letters_are_listed_by_group(each_desk):
    desk = each_desk
    headers = {'x-clihelper-reason': 'exception', 'x-clihelper-exception': 'KeyError',
               'x-clihelper-queue': desk.queue, 'x-clihelper-message': 'later'}  # fmt: skip
    for day in (3, 1, 2):
        times = {'x-clihelper-time': f'2026-02-0{day}T00:00:00Z'}
        desk.die(f'{day}', headers={**headers, **times})
    desk.die('a', 'rejected', 'Reject')
    for number in range(4):
        desk.die(f'{number}')
    ids = desk.ids()
    first, second, third = groups(desk)
    assert second == {
        'group': second['group'],
        'count': 3,
        'queue': desk.queue,
        'reason': 'exception',
        'exception': 'KeyError',
        'first': '2026-02-01T00:00:00Z',
        'last': '2026-02-03T00:00:00Z',
        'example': ids[0],
        'message': 'later',
    }
    assert [each['count'] for each in (first, third)] == [4, 1]
    assert [each['example'] for each in (first, third)] == [ids[4], ids[3]]
    assert groups(desk, '--exception', 'KeyError') == [second]
    assert groups(desk, second['group']) == [second]
    head, *lines, last = desk.run('list').splitlines()
    assert head.split() == [
        'GROUP', 'COUNT', 'QUEUE', 'REASON', 'EXCEPTION', 'FIRST', 'LAST', 'EXAMPLE', 'MESSAGE',
    ]  # fmt: skip
    assert [each.split()[:2] for each in lines] == [
        [each['group'], f'{each["count"]}'] for each in (first, second, third)
    ]
    assert last == f'8 of 8 dead letters in {desk.dead}'
    assert desk.ids() == ids
    assert [row['id'] for row in desk.rows(second['group'])] == ids[:3]


def test_a_group_is_shown_with_its_first_letter(desk):
    for number in range(3):
        desk.die(f'{number}')
    desk.die('other', 'rejected')
    (name,) = [each['group'] for each in groups(desk) if each['count'] == 3]
    text = desk.run('show', name)
    assert text.startswith(f'group: {name}\ncount: 3\n')
    assert text.endswith('body:\n0\n')
    shown = json.loads(desk.run('show', name, '--json'))
    assert (shown['count'], shown['letter']['body']) == (3, '0')
    assert desk.run('show', name, '--raw') == '0'
    desk.run('show', 'gabcdef', status=2)


def test_a_group_is_replayed_or_dropped(each_desk):
    desk = each_desk
    for number in range(4):
        desk.die(f'{number}', *(('rejected', 'Reject') if number % 2 else ()))
    names = {each['reason']: each['group'] for each in groups(desk)}
    assert desk.run('replay', names['exception']) == f'replayed to {desk.queue}: 2\n'
    assert desk.bodies(desk.queue) == ['0', '2']
    desk.run('drop', names['exception'], '--yes', status=2)
    assert desk.run('drop', names['rejected'], '--yes') == 'dropped: 2\n'
    assert desk.count(desk.dead) == 0


def test_what_the_broker_has_dead_lettered_has_its_time(desk):
    death = [{'queue': desk.queue, 'reason': 'expired', 'time': 1767323045}]
    desk.die('old', headers={'x-death': death})
    (group,) = groups(desk)
    assert (group['reason'], group['first']) == ('expired', '1767323045')


def test_more_groups_than_are_kept_are_told(desk, monkeypatch, capsys):
    monkeypatch.setattr(letter_groups, 'MOST_GROUPS', 3)
    for number in range(5):
        desk.die(f'{number}', exception=f'Error{number}')
    assert desk.look('list') == 0
    said = capsys.readouterr()
    assert '2 letters of further groups are not shown' in said.err
    assert said.out.endswith(f'5 of 5 dead letters in {desk.dead}\n')


def test_many_are_listed_in_the_memory_of_a_few(desk):
    few, many = 2000, 20_000
    fill(desk, few)
    before = memory_of(desk.command('list'))
    fill(desk, many - few)
    after = memory_of(desk.command('list'))
    assert after < before + 3000
    desk.wait_for_letters(many)
    assert sum(each['count'] for each in groups(desk)) == many


def memory_of(command):
    """Run a command, and return the most memory that it had, in KiB."""
    with open(os.devnull, 'wb') as null:
        process = subprocess.Popen(command, stdout=null)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss


def fill(desk, number):
    """Put many letters among the dead ones."""
    from clihelper.amqp.publisher import Publisher

    packed = [
        encode(
            {
                'delivery_mode': 2,
                'application_headers': {
                    'x-clihelper-reason': 'exception',
                    'x-clihelper-exception': f'Error{kind}',
                    'x-clihelper-queue': desk.queue,
                    'x-clihelper-time': '2026-01-02T03:04:05Z',
                },
            }
        )
        for kind in range(7)
    ]
    with desk.connected() as connection:
        publisher = Publisher(connection)
        for each in range(number):
            if publisher.is_full:
                publisher.make_room()
            publisher.forward(b'%d' % each, '', desk.dead, packed[each % 7])
        publisher.wait_for_confirms()


# At a rate.

def test_a_replay_keeps_its_rate_and_the_order(each_desk):
    desk = each_desk
    for number in range(8):
        desk.die(f'{number}')
    began = time.monotonic()
    assert desk.run('replay', '--all', '--rate', '5/s') == f'replayed to {desk.queue}: 8\n'
    assert 1.4 <= time.monotonic() - began < 10
    assert desk.bodies(desk.queue) == [f'{number}' for number in range(8)]


@pytest.mark.parametrize('rate', ['1', '0/s', '-1/s', '1/d', 'x/s', '1.5/s', '/s', '1/', '²/s'])
def test_a_rate_that_is_none_is_told(desk, rate):
    desk.run('replay', '--all', f'--rate={rate}', status=2)
    assert 'expected a rate such as' in desk.stderr
    desk.run('list', '--rate', '1/s', status=2)
    desk.run('replay', '--all', '--each', status=2)


@pytest.mark.parametrize(('signum', 'status'), [('INT', 130), ('TERM', 143), ('HUP', 129)])
def test_a_signal_ends_a_replay_between_two_letters(each_desk, signum, status):
    desk = each_desk
    for number in range(5):
        desk.die(f'{number}')
    with Program(desk.command('replay', '--all', '--rate', '1/h'), notify=False) as program:
        deadline = time.monotonic() + 20
        while not desk.count(desk.queue):
            assert time.monotonic() < deadline
        program.signal(signum)
        assert program.wait() == status
        assert program.stdout == [f'replayed to {desk.queue}: 1']
        assert not program.stderr
    desk.wait_for_letters(4)
    assert desk.bodies(desk.queue) == ['0']
    assert desk.bodies(desk.dead) == ['1', '2', '3', '4']


# Progress.

@pytest.mark.parametrize('words', [('list',), ('replay', '--all', '--rate', '20/s')])
def test_progress_is_shown_on_a_terminal_alone(desk, words):
    fill(desk, 15 if 'replay' in words else 3000)
    pid, terminal = os.forkpty()
    if not pid:
        os.execv(sys.executable, desk.command(*words))
    text = b''
    while select.select([terminal], [], [], 20)[0]:
        try:
            text += os.read(terminal, 65536)
        except OSError:  # it has ended
            break
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert b'#' in text
    assert b' letters, ' in text
    last = text.rpartition(b'\x1b[K')[2]
    assert b' letters, ' not in last
    desk.run('list')
    assert desk.stderr == ''
