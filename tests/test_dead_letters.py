"""``clihelper dead-letters`` as an operator uses it, on RabbitMQ."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time

import kombu
import pytest

from clihelper import config
from clihelper.amqp import rabbitmq
from clihelper.amqp.connection import Connection
from clihelper.amqp.dead_letters import RENEWED_AT, DeadLetterReader
from clihelper.commands import dead_letters
from clihelper.errors import Error
from clihelper.testing import Program
from tests.faults import consuming
from tests.forking import fork, status_of
from tests.proxy import Proxy


@pytest.fixture(params=['classic', 'quorum'])
def kind(request):
    return request.param


class Desk:
    """A queue, its dead letters, and the tool."""

    def __init__(self, folder, url, channel, queue, kind='classic', arguments=None):
        self.folder = folder
        self.channel = channel
        self.queue = queue
        self.dead = f'{queue}.dead'
        self.configure(url, f'{{{queue}: {{arguments: {{x-queue-type: {kind}}}}}}}')
        arguments = {'x-queue-type': kind, **(arguments or {})}
        for name in (self.queue, self.dead):
            channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)

    def configure(self, url, queues, more=''):
        path = self.folder / 'app.yml'
        path.write_text(f'AMQP:\n  url: {url}\n  queues: {queues}\n{more}')
        path.chmod(0o600)

    def die(self, body, reason='exception', exception='ValueError', queue=None, **properties):
        """Put a letter among the dead ones."""
        headers = {
            'x-clihelper-reason': reason,
            'x-clihelper-exception': exception,
            'x-clihelper-message': f'no {body}',
            'x-clihelper-queue': queue or self.queue,
            'x-clihelper-attempts': 5,
            'x-clihelper-time': '2026-01-02T03:04:05Z',
            'x-clihelper-host': 'web1',
            'x-clihelper-application': 'shop',
            'mine': 1,
        }
        given = {'headers': headers, 'delivery_mode': 2, **properties}
        kombu.Producer(self.channel).publish(body, routing_key=self.dead, **given)

    def command(self, *words):
        return [
            sys.executable, '-m', 'clihelper', 'dead-letters',
            '-c', str(self.folder / 'app.yml'), *words,
        ]  # fmt: skip

    def run(self, *words, status=0, text=True):
        """Run the tool; its standard output, or where it fails its standard error."""
        done = subprocess.run(
            self.command(*words), capture_output=True, text=text, timeout=60,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == status, (done.stdout, done.stderr)
        self.stderr = done.stderr
        for stream in (done.stdout, done.stderr):
            assert ('Traceback' if text else b'Traceback') not in stream
        return done.stdout

    def rows(self, *words):
        return json.loads(self.run('list', '--each', '--json', *words))

    def ids(self):
        return [row['id'] for row in self.rows()]

    def look(self, *words):
        """As :meth:`run`, in this process, which is quicker; the status."""
        try:
            return dead_letters.main(['-c', str(self.folder / 'app.yml'), *words])
        except Error as error:
            return error.status

    @property
    def section(self):
        path = str(self.folder / 'app.yml')
        return config.load(path, appname='clihelper', shown=path).amqp

    def letters(self):
        """What the tool reads by."""
        return DeadLetterReader(self.section, print)

    @contextlib.contextmanager
    def connected(self):
        """A connection that takes deliveries whose properties no library can decode."""
        connection = Connection.of(self.section, 'test')
        connection.open()
        try:
            yield connection
        finally:
            connection.close()

    def wait_for_letters(self, number):
        """Until so many are there: those of a connection that is gone come back."""
        deadline = time.monotonic() + 20
        while self.count(self.dead) < number:
            assert time.monotonic() < deadline

    def wear(self, number):
        """Bring so many letters near a delivery limit: who holds them is gone each time."""
        for _ in range(RENEWED_AT):
            with self.connected() as connection:
                channel = connection.channel()
                for _ in range(number):
                    connection.transport.get(channel, self.dead)
            self.wait_for_letters(number)

    def bodies(self, queue):
        """What is in a queue, and taken from it."""
        found = []
        while (message := self.channel.basic_get(queue, no_ack=True)) is not None:
            body = message.body
            found.append(body if isinstance(body, str) else bytes(body))
        return found

    def count(self, queue):
        return self.channel.queue_declare(queue, passive=True).message_count


@pytest.fixture
def channel(broker):
    confirm = {'confirm_publish': True}
    connection = kombu.Connection(broker.url(), transport_options=confirm)
    with connection, connection.channel() as channel:
        yield channel


@pytest.fixture
def desk(tmp_path, broker, channel, queue_name):
    return Desk(tmp_path, broker.url(), channel, queue_name)


@pytest.fixture
def each_desk(tmp_path, broker, channel, queue_name, kind):
    return Desk(tmp_path, broker.url(), channel, queue_name, kind)


def test_the_letters_are_listed_with_why_and_stay(each_desk):
    desk = each_desk
    desk.die('one')
    assert desk.run('list', '--each').endswith(f'\n1 of 1 dead letter in {desk.dead}\n')
    desk.die('two', 'rejected', 'Reject')
    first, second = desk.run('list', '--each'), desk.run('list', '--each')
    assert first == second
    head, one, two, last = first.splitlines()
    assert head.split() == [
        '#', 'ID', 'QUEUE', 'REASON', 'RUNS', 'TIME', 'HOST', 'EXCEPTION', 'MESSAGE',
    ]  # fmt: skip
    columns = one.split(maxsplit=8)
    assert columns[0] == '1'
    assert columns[2:] == [
        desk.queue, 'exception', '5', '2026-01-02T03:04:05Z', 'web1', 'ValueError', 'no one',
    ]  # fmt: skip
    assert two.endswith('no two')
    assert last == f'2 of 2 dead letters in {desk.dead}'
    assert desk.bodies(desk.dead) == ['one', 'two']


def test_a_list_as_json_has_it_all_but_the_bodies(desk):
    desk.die('one')
    (row,) = desk.rows()
    assert len(row.pop('id')) == 12
    assert row == {
        'position': 1,
        'dead_letter_queue': desk.dead,
        'queue': desk.queue,
        'reason': 'exception',
        'exception': 'ValueError',
        'message': 'no one',
        'attempts': 5,
        'time': '2026-01-02T03:04:05Z',
        'host': 'web1',
        'application': 'shop',
        'size': 3,
    }


def test_many_are_summed_up_and_limited(desk):
    for number in range(25):
        desk.die(f'{number}', *(('rejected', 'Reject') if number % 5 else ()))
    text = desk.run('list', '--each', '--limit', '22')
    assert f'\n17     {desk.queue}  rejected   Reject\n' in text
    assert f'\n5      {desk.queue}  exception  ValueError\n' in text
    assert text.endswith(f'22 of 25 dead letters in {desk.dead}\n')
    assert len(desk.rows('--reason', 'exception')) == 5


def test_one_is_shown_by_its_position_or_its_id(desk):
    desk.die('one')
    desk.die('two\n\x1b[31mred', correlation_id='7')
    identity = desk.ids()[1]
    text = desk.run('show', identity)
    assert text == desk.run('show', '2') == desk.run('show', identity[:7])
    assert '\x1b' not in text
    assert 'body:\ntwo\n\\x1b[31mred\n' in text
    assert '    correlation_id: 7\n' in text
    assert '    mine: 1\n' in text
    assert desk.run('show', '2', '--raw', text=False) == b'two\n\x1b[31mred'
    shown = json.loads(desk.run('show', '2', '--json'))
    assert shown['body'] == 'two\n\x1b[31mred'
    assert shown['headers']['mine'] == 1


def test_a_binary_body_is_not_printed_unless_asked_for(desk):
    desk.die(b'\xff\x00', content_type='application/octet-stream', content_encoding='binary')
    assert 'body: binary (--raw writes it)' in desk.run('show', '1')
    assert json.loads(desk.run('show', '1', '--json'))['body_base64'] == '/wA='
    assert desk.run('show', '1', '--raw', text=False) == b'\xff\x00'


def test_replayed_letters_are_as_they_were_in_the_queue_that_they_came_from(each_desk):
    desk = each_desk
    for number in range(3):
        desk.die(f'{number}', correlation_id=f'c{number}', priority=3, reply_to='me')
    assert desk.run('replay', '--all') == f'replayed to {desk.queue}: 3\n'
    assert desk.count(desk.dead) == 0
    for number in range(3):
        message = desk.channel.basic_get(desk.queue, no_ack=True)
        assert message.body == f'{number}'
        assert message.properties['correlation_id'] == f'c{number}'
        assert message.properties['reply_to'] == 'me'
        assert message.properties['delivery_mode'] == 2
        assert message.content_type == 'text/plain'
        message.headers.pop('x-delivery-count', None)  # a quorum queue's own
        assert message.headers == {'mine': 1}


def test_only_what_was_selected_is_replayed(desk):
    desk.die('a', 'rejected')
    desk.die('b')
    desk.die('c', exception='KeyError')
    desk.die('d')
    desk.die('e')
    identity = desk.ids()[3]
    desk.run('replay', '--reason', 'rejected')
    desk.run('replay', '--exception', 'KeyError')
    desk.run('replay', identity[:9])
    desk.run('replay', '--queue', 'other')
    assert desk.bodies(desk.queue) == ['a', 'c', 'd']
    desk.run('replay', '--all', '--limit', '1')
    assert desk.bodies(desk.queue) == ['b']
    assert desk.bodies(desk.dead) == ['e']


def test_letters_that_are_equal_in_everything_go_together(desk):
    for _ in range(3):
        desk.die('same')
    desk.die('other')
    (identity,) = set(desk.ids()[:3])
    assert desk.run('replay', identity) == f'replayed to {desk.queue}: 3\n'
    assert desk.bodies(desk.dead) == ['other']


def test_what_no_queue_takes_is_kept_and_the_rest_goes(desk):
    desk.die('a')
    desk.die('b', queue='gone')
    desk.die('c')
    identity = desk.ids()[1]
    assert desk.run('replay', '--all', status=69) == f'replayed to {desk.queue}: 2\n'
    assert f'{identity} is kept: ' in desk.stderr
    assert 'no queue gets it' in desk.stderr
    assert desk.bodies(desk.queue) == ['a', 'c']
    assert desk.bodies(desk.dead) == ['b']


def test_where_a_letter_came_from_the_broker_may_know(desk, channel):
    """Letters of an AMQP dead-letter exchange, without any header of clihelper's."""
    expire(desk, 'old')
    (row,) = desk.rows()
    assert (row['reason'], row['queue']) == ('expired', desk.queue)
    desk.run('replay', '--all')
    message = channel.basic_get(desk.queue, no_ack=True)
    assert (message.body, message.headers) == ('old', None)


def expire(desk, body):
    """Have the broker dead-letter a message."""
    desk.channel.queue_delete(desk.queue)
    desk.channel.queue_declare(
        desk.queue, durable=True, auto_delete=False,
        arguments={'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': desk.dead},
    )  # fmt: skip
    kombu.Producer(desk.channel).publish(body, routing_key=desk.queue, expiration=0)
    desk.wait_for_letters(1)


def test_a_letter_of_unknown_origin_is_kept(desk, broker):
    kombu.Producer(desk.channel).publish('whence', routing_key=desk.dead)
    queues = f'{{{desk.queue}: , other: }}'
    desk.configure(broker.url(), queues, f'  dead_letter: {desk.dead}\n')
    assert desk.run('replay', '--all', status=69) == 'replayed: 0\n'
    assert 'the queue that it came from is unknown' in desk.stderr
    assert desk.bodies(desk.dead) == ['whence']


def test_what_fails_again_meanwhile_is_not_replayed_for_ever(desk):
    for number in range(5):
        desk.die(f'{number}', queue=desk.dead)
    assert desk.run('replay', '--all') == f'replayed to {desk.dead}: 5\n'
    assert desk.count(desk.dead) == 5


def test_a_replayed_letter_is_run_with_attempts_anew(desk, broker):
    queues = f'{{{desk.queue}: {{arguments: {{x-queue-type: classic}}}}}}'
    more = f'  retry: {{attempts: 1}}\nApplication: {{go: {desk.folder}/go}}\n'
    desk.configure(broker.url(), queues, more)
    with consuming(str(desk.folder / 'app.yml')) as program:
        kombu.Producer(desk.channel).publish('fail', routing_key=desk.queue)
        program.wait_line('dead-lettered a message')
        assert desk.rows()[0]['attempts'] == 1
        desk.run('replay', '--all')
        program.wait_line('got fail')
        program.wait_line('dead-lettered a message')
        assert program.stop() == 0
    (row,) = desk.rows()
    assert (row['attempts'], row['reason']) == (1, 'exception')


@pytest.mark.parametrize(('signum', 'status'), [('KILL', -9), ('INT', 130)])
def test_a_replay_that_is_broken_off_loses_nothing(each_desk, signum, status):
    desk, total = each_desk, 600
    for number in range(total):
        desk.die(f'{number}')
    with Program(desk.command('replay', '--all'), notify=False) as program:
        deadline = time.monotonic() + 20
        while desk.count(desk.queue) < 20:
            assert time.monotonic() < deadline
        program.signal(signum)
        assert program.wait() == status
        assert not [line for line in program.lines if 'Traceback' in line]
    replayed = desk.bodies(desk.queue)
    deadline = time.monotonic() + 20
    while desk.count(desk.dead) < total - len(replayed):  # those it held go back
        assert time.monotonic() < deadline
    left = desk.bodies(desk.dead)
    assert 20 <= len(replayed) < total
    assert {*replayed, *left} == {f'{number}' for number in range(total)}
    assert len(replayed) + len(left) <= total + 1


def test_a_replay_whose_broker_goes_loses_nothing(desk, broker):
    total = 600
    for number in range(total):
        desk.die(f'{number}')
    with Proxy(broker.port) as proxy:
        desk.configure(proxy.url, f'{{{desk.queue}: {{arguments: {{x-queue-type: classic}}}}}}')
        with Program(desk.command('replay', '--all'), notify=False) as program:
            deadline = time.monotonic() + 20
            while desk.count(desk.queue) < 20:
                assert time.monotonic() < deadline
            proxy.reset()
            assert program.wait() == 69
            assert not [line for line in program.lines if 'Traceback' in line]
            assert program.stderr[-1].startswith('clihelper: ')
    replayed = desk.bodies(desk.queue)
    deadline = time.monotonic() + 20
    while desk.count(desk.dead) < total - len(replayed):
        assert time.monotonic() < deadline
    left = desk.bodies(desk.dead)
    assert {*replayed, *left} == {f'{number}' for number in range(total)}
    assert len(replayed) + len(left) <= total + 1


def test_what_is_dropped_is_gone_and_the_rest_stays(each_desk):
    desk = each_desk
    desk.die('a', 'rejected')
    desk.die('b')
    desk.run('drop', '--all', status=2)
    assert 'there is no terminal to ask on' in desk.stderr
    assert desk.run('drop', '--reason', 'rejected', '--yes') == 'dropped: 1\n'
    assert desk.bodies(desk.dead) == ['b']
    assert desk.bodies(desk.queue) == []


@pytest.mark.parametrize(
    ('answer', 'status', 'said', 'left'),
    [
        (b'y\n', 0, 'dropped: 2', 0),
        (b'\n', 0, 'dropped: 0', 2),
        (b'nay\n', 0, 'dropped: 0', 2),
        (b'\x03', 130, None, 2),
        (b'\x04', 0, 'dropped: 0', 2),
    ],
)
def test_on_a_terminal_dropping_asks(desk, answer, status, said, left):
    desk.die('a')
    desk.die('b')
    pid, terminal = os.forkpty()
    if not pid:
        os.execv(sys.executable, desk.command('drop', '--all'))
    try:
        text = b''
        while b'[y/N] ' not in text:
            text += os.read(terminal, 4096)
        assert b'2      ' in text  # the summary
        time.sleep(0.3)  # until it reads: a signal just before that would not be seen
        os.write(terminal, answer)
        while select.select([terminal], [], [], 10)[0]:
            try:
                text += os.read(terminal, 4096)
            except OSError:  # it has ended
                break
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status
        pid = 0
    finally:
        os.close(terminal)
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert said is None or said.encode() in text
    assert b'Traceback' not in text
    assert len(desk.rows()) == left


@pytest.mark.parametrize(
    'words',
    [
        (), ('mend',), ('show',), ('show', '1', '2'), ('show', 'xyz'), ('show', 'abc'),
        ('show', '9'), ('show', 'abcdef0'), ('list', 'abcdef0'), ('replay',), ('drop',),
        ('replay', '1'), ('replay', '--all', 'abcdef0'), ('replay', 'abcdef0123'),
        ('drop', '--yes', 'abcdef0123'), ('list', '--limit', '0'), ('list', '--limit', 'x'),
    ],
)  # fmt: skip
def test_wrong_use_is_told_in_a_line(desk, words):
    desk.die('a')
    desk.run(*words, status=2)
    assert len(desk.stderr.splitlines()) == 1
    assert desk.count(desk.dead) == 1


def test_a_broker_or_a_configuration_that_is_wrong_has_its_status(desk, broker):
    queues = '{orders: }'
    for url, said in (
        ('amqp://guest:secret@127.0.0.1:1//', 'refused'),
        (broker.url().replace(':guest', ':secret'), 'refuses the credentials'),
        (broker.url('nowhere').replace(':guest', ':guest'), 'no such vhost'),
    ):
        desk.configure(url, queues)
        desk.run('list', status=69)
        assert said in desk.stderr
        assert 'secret' not in desk.stderr
    desk.configure(broker.url(), queues, '  dead_letter: false\n')
    desk.run('list', status=78)
    assert 'app.yml:4:3: AMQP.dead_letter is false' in desk.stderr
    desk.configure('memory://', queues)
    desk.run('list', status=78)
    assert 'memory:// does not keep dead letters' in desk.stderr
    desk.configure(broker.url(), '[')
    desk.run('list', status=78)
    desk.configure(broker.url(), queues)
    (desk.folder / 'app.yml').chmod(0o666)
    if os.geteuid() == 0:
        desk.run('list', status=77)
    (desk.folder / 'app.yml').unlink()
    desk.run('list', status=78)


def test_a_queue_that_does_not_exist_has_no_letters(desk, broker):
    desk.configure(broker.url(), '{nix: }')
    assert desk.run('list') == '0 of 0 dead letters in nix.dead\n'
    assert desk.run('replay', '--all') == 'replayed: 0\n'
    assert desk.run('drop', '--all', '--yes') == 'dropped: 0\n'


def test_the_reader_of_a_list_may_have_had_enough(desk):
    for number in range(30):
        desk.die(f'{number}')
    done = subprocess.run(
        f'{" ".join(desk.command("list"))} | head -n 1', shell=True, capture_output=True,
        text=True, timeout=30,
    )  # fmt: skip
    assert done.stderr == ''
    assert desk.count(desk.dead) == 30


# Looking.

KINDS = {
    'classic': ('classic', {}),
    'quorum': ('quorum', {}),
    'limit 20': ('quorum', {'x-delivery-limit': 20}),
    'limit 3': ('quorum', {'x-delivery-limit': 3}),
}


@pytest.fixture
def limited_desk(tmp_path, broker, channel, queue_name):
    return Desk(tmp_path, broker.url(), channel, queue_name, *KINDS['limit 20'])


@pytest.fixture
def small_messages(broker):
    """A context in which new channels of the broker take no larger messages."""

    def set_most(size):
        # RabbitMQ 3 looks into the one, RabbitMQ 4 into the other.
        broker.ctl(
            'eval',
            f'application:set_env(rabbit, max_message_size, {size}),'
            f' persistent_term:put(max_message_size, {size}).',
        )

    @contextlib.contextmanager
    def limiting(size):
        before = broker.ctl('eval', '{ok, M} = application:get_env(rabbit, max_message_size), M.')
        set_most(size)
        try:
            yield
        finally:
            set_most(before.strip())

    return limiting


@pytest.fixture(params=KINDS)
def looked_at(request, tmp_path, broker, channel, queue_name):
    """A desk with eleven letters, in a queue of each kind."""
    kind, arguments = KINDS[request.param]
    desk = Desk(tmp_path, broker.url(), channel, queue_name, kind, arguments)
    for number in range(11):
        desk.die(f'{number}')
    return desk


def test_looking_changes_neither_the_letters_nor_their_order(looked_at):
    desk = looked_at
    ids = desk.ids()
    for _ in range(4):  # 24 looks
        assert desk.look('list') == 0
        assert desk.look('list', '--limit', '1') == 0
        assert desk.look('show', '3') == 0
        assert desk.look('show', 'abcdef0123') == 2
        assert desk.look('replay', 'abcdef0123') == 2
        assert desk.look('drop', '--exception', 'KeyError', '--yes') == 0
    assert desk.ids() == ids
    desk.run('replay', '--all', '--limit', '1')
    assert desk.bodies(desk.queue) == ['0']
    assert desk.ids() == ids[1:]
    desk.run('replay', ids[2])
    assert desk.bodies(desk.dead) == ['1', *(f'{number}' for number in range(3, 11))]


def interrupt_at(desk, number):
    """Read so many letters, until Ctrl-C."""
    with desk.letters() as letters:
        for letter in letters.read(desk.dead, desk.queue):
            if letter.position == number:
                raise KeyboardInterrupt


def test_ctrl_c_changes_neither_the_letters_nor_their_order(looked_at):
    desk = looked_at
    for number in (2, 11) * 12:
        with pytest.raises(KeyboardInterrupt):
            interrupt_at(desk, number)
    assert desk.bodies(desk.dead) == [f'{number}' for number in range(11)]


def test_letters_that_come_while_others_are_looked_at_are_behind_them(looked_at):
    desk = looked_at
    with desk.letters() as letters:
        read = letters.read(desk.dead, desk.queue)
        next(read)
        desk.die('11')
    desk.die('12')
    assert desk.bodies(desk.dead) == [f'{number}' for number in range(13)]


def test_a_letter_whose_looker_is_killed_each_time_stays(limited_desk):
    desk = limited_desk
    desk.die('a')
    desk.die('b')

    def look_and_die():
        read = desk.letters().__enter__().read(desk.dead, desk.queue)
        next(read), next(read)
        os.kill(os.getpid(), signal.SIGKILL)

    for _ in range(25):
        assert status_of(fork(look_and_die)) == -signal.SIGKILL
        desk.wait_for_letters(2)
    assert sorted(desk.bodies(desk.dead)) == ['a', 'b']


@pytest.mark.parametrize('method', [b'\x00\x3c\x00\x28', b'\x00\x3c\x00\x50'])
def test_a_renewal_that_is_killed_loses_nothing(limited_desk, broker, method):
    """At the third message that it publishes, or acknowledges."""
    desk = limited_desk
    for number in range(5):
        desk.die(f'{number}')
    ids = desk.ids()
    desk.wear(5)
    with Proxy(broker.port) as proxy:
        desk.configure(proxy.url, f'{{{desk.queue}: }}')
        seen = []

        def see(data):
            if method in data:
                seen.append(data)
                if len(seen) == 3:
                    proxy.swallow()
                    program.signal('KILL')

        with Program(desk.command('list'), notify=False) as program:
            proxy.see = see
            assert program.wait() == -9
    desk.configure(broker.url(), f'{{{desk.queue}: }}')
    desk.wait_for_letters(5)
    found = desk.ids()
    assert set(found) == set(ids)
    assert len(found) <= 6


def test_what_the_broker_takes_no_longer_is_kept_and_the_rest_goes(limited_desk, small_messages):
    """Larger than its max_message_size, which was raised when the letter came."""
    desk = limited_desk
    desk.die('a')
    desk.die('x' * 5000)
    desk.die('b')
    identity = desk.ids()[1]
    desk.wear(3)
    with small_messages(4000):
        desk.run('list')
        assert f'{identity} cannot be published anew: ' in desk.stderr
        assert len(desk.stderr.splitlines()) == 1
        assert desk.run('replay', '--all', status=69) == f'replayed to {desk.queue}: 2\n'
        assert f'{identity} is kept: ' in desk.stderr
    assert desk.bodies(desk.queue) == ['a', 'b']
    assert desk.bodies(desk.dead) == ['x' * 5000]


def test_where_a_renewed_letter_came_from_the_broker_still_knows(limited_desk):
    desk = limited_desk
    expire(desk, 'old')
    (before,) = desk.rows()
    desk.wear(1)
    (after,) = desk.rows()
    assert before == after
    assert (after['reason'], after['queue']) == ('expired', desk.queue)
    with desk.letters() as letters:
        (letter,) = letters.read(desk.dead, '')
        assert letter.headers.get('x-delivery-count', 0) < RENEWED_AT


def test_what_was_dropped_does_not_come_back(limited_desk):
    """A quorum queue takes a few acknowledgements at a time, and forgets those of a channel."""
    desk, total = limited_desk, 600
    for number in range(total):
        desk.die(f'{number}')
    assert desk.run('drop', '--all', '--yes') == f'dropped: {total}\n'
    deadline = time.monotonic() + 20
    while desk.channel.queue_declare(desk.dead, passive=True).consumer_count:
        assert time.monotonic() < deadline
    assert desk.count(desk.dead) == 0


def test_a_letter_larger_than_a_consumer_takes_is_replayed_whole(desk, broker, monkeypatch):
    monkeypatch.setattr(rabbitmq, 'LEAST_KEPT', 1000)
    desk.configure(broker.url(), f'{{{desk.queue}: }}', '  max_body: 100\n')
    desk.die('x' * 5000)
    assert desk.look('replay', '--all') == 0
    assert desk.bodies(desk.queue) == ['x' * 5000]
