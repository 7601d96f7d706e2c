"""``myapp -c FILE --message FILE``: one captured message, in the terminal."""

from __future__ import annotations

import base64
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import textwrap

import kombu
import pytest

from clihelper.development import captured
from clihelper.testing import Program
from tests.test_dead_letters import Desk

KINDS = {
    'one': ('ConsumerController', '', 'def on_message(self, body, message)'),
    'threads': ('ConsumerController', 'threads: 3', 'def on_message(self, body, message)'),
    'coroutines': ('AsyncConsumerController', '', 'async def on_message(self, body, message)'),
    'batches': ('ConsumerController', 'batch: {size: 5}', 'def on_messages(self, messages)'),
}

PROGRAM = """\
import asyncio
import time

import clihelper


class Shop(clihelper.{base}):
    def _setup(self):
        if 'setup' in self.options:
            raise ValueError('no shop')

    {handler}:
{first}        body = message.body
        {publish}self.publish({{'seen': body}}, exchange='events', routing_key='seen')
        if body == 'wait':
            print('waiting', flush=True)
            time.sleep(600)
        if body == 'reject':
            raise clihelper.Reject('not ours')
        if body == 'later':
            raise clihelper.Retry(delay=7)
        if body == 'requeue':
            raise clihelper.Requeue
        price = 1 / len(body)
        return {{'price': price}}


if __name__ == '__main__':
    clihelper.setup('shop')
    clihelper.run(Shop)
"""


class Shop:
    """The program, with a configuration whose broker does not exist."""

    def __init__(self, folder, kind='one', queues='orders: '):
        base, keys, handler = KINDS[kind]
        publish = 'await ' if kind == 'coroutines' else ''
        first = '        message = messages[0]\n' if kind == 'batches' else ''
        program = PROGRAM.format(base=base, handler=handler, publish=publish, first=first)
        (folder / 'shop.py').write_text(program)
        (folder / 'shop.yml').write_text(textwrap.dedent(f"""\
            Daemon: {{workers: 2, listen: ['127.0.0.1:1']}}
            AMQP:
              url: amqp://broker.invalid
              {keys}
              retry: {{attempts: 3, delay: 2}}
              queues: {{{queues}}}
            """))
        self.folder = folder
        self.argv = [sys.executable, 'shop.py', '-c', 'shop.yml', '--message']

    def run(self, message, *options, **keywords):
        done = subprocess.run(
            [*self.argv, message, *options], cwd=self.folder, text=True, capture_output=True,
            timeout=60, **{'stdin': subprocess.DEVNULL} if 'input' not in keywords else {},
            **keywords)
        return done.returncode, done.stdout.splitlines(), done.stderr

    def captured(self, _text, **changes):
        whole = {'queue': 'orders', 'properties': {'content_type': 'text/plain'}, 'headers': {},
                 'body': _text, **changes}
        (self.folder / 'whole.json').write_text(json.dumps(whole))
        return 'whole.json'

    def body(self, data):
        (self.folder / 'body').write_bytes(data)
        return 'body'


@pytest.mark.parametrize('kind', KINDS)
def test_it_shows_what_would_have_become_of_it_and_does_nothing(kind, tmp_path):
    shop = Shop(tmp_path, kind)
    seen = "it would have published to exchange 'events', routing key 'seen': {'seen': 'tea'}"
    status, lines, errors = shop.run(shop.captured('tea'))
    assert (status, errors) == (0, '')
    assert lines == ['message from queue orders: 3 bytes, text/plain', seen,
                     'outcome: acknowledged']
    for body, outcome in {
        '': 'run again in 2 s, as run 1 of 3 has failed: ZeroDivisionError: division by zero',
        'later': 'run again in 7 s, as run 1 of 3 has failed: Retry: ',
        'reject': 'dead-lettered to orders.dead as rejected: Reject: not ours',
        'requeue': 'returned to its queue: Requeue: ',
    }.items():
        status, lines, _ = shop.run(shop.captured(body))
        assert (status, lines[-1].strip()) == (1, f'outcome: {outcome}'.strip())


def test_its_headers_say_which_run_it_is(tmp_path):
    shop = Shop(tmp_path)
    status, lines, _ = shop.run(shop.captured('', headers={'x-clihelper-attempts': 2}))
    assert status == 1
    assert lines[-1].startswith('outcome: dead-lettered to orders.dead as exception: ZeroDiv')
    # A dead letter is run as its replay would be.
    headers = {'x-clihelper-attempts': 3, 'x-clihelper-reason': 'exception'}
    status, lines, _ = shop.run(shop.captured('', headers=headers))
    assert lines[-1].startswith('outcome: run again in 2 s, as run 1 of 3')


def test_a_dead_letter_has_the_headers_that_its_replay_would_have(tmp_path):
    headers = {'x-clihelper-reason': 'exception', 'x-clihelper-exception': 'ValueError',
               'x-clihelper-routing-key': 'order.new', 'mine': 1}
    path = str(tmp_path / Shop(tmp_path).captured('tea', headers=headers))
    found = captured.read(path, ['json']).properties['headers']
    assert found == {'x-clihelper-routing-key': 'order.new', 'mine': 1}


def test_it_runs_beside_the_daemon(tmp_path):
    shop = Shop(tmp_path)
    with socket.create_server(('127.0.0.1', 0)) as taken:
        text = (tmp_path / 'shop.yml').read_text()
        (tmp_path / 'shop.yml').write_text(
            text.replace('127.0.0.1:1', f'127.0.0.1:{taken.getsockname()[1]}'))
        assert shop.run(shop.captured('tea'))[0] == 0


@pytest.mark.parametrize('kind', ['one', 'coroutines'])
def test_a_call_is_shown_and_has_no_reply(kind, tmp_path):
    shop = Shop(tmp_path, kind)
    program = (tmp_path / 'shop.py').read_text()
    wait = 'await ' if kind == 'coroutines' else ''
    (tmp_path / 'shop.py').write_text(program.replace(
        'price = ', f"price = {wait}self.call(body, routing_key='prices') or "))
    status, lines, _ = shop.run(shop.captured('tea'))
    assert status == 1
    assert lines[2] == "it would have published to routing key 'prices': 'tea'"
    assert lines[3].startswith('outcome: run again in 2 s, as run 1 of 3 has failed: ')


def test_a_reply_is_shown(tmp_path):
    shop = Shop(tmp_path)
    properties = {'content_type': 'text/plain', 'reply_to': 'answers'}
    status, lines, _ = shop.run(shop.captured('four', properties=properties))
    assert status == 0
    assert lines[-1] == "the reply would have gone to routing key 'answers': {'price': 0.25}"


@pytest.mark.parametrize(('data', 'kind'), [
    (b'[1, 2]', 'application/json'), (b'tea', 'text/plain'), (b'\xff', 'application/octet-stream'),
    (b'null', 'application/json'),
])
def test_a_body_alone_is_taken_for_what_it_looks_like(tmp_path, data, kind):
    shop = Shop(tmp_path)
    status, lines, _ = shop.run(shop.body(data))
    assert lines[0].endswith(f'{kind}, as it seems')
    status, lines, _ = shop.run('-', input=data.decode('latin-1') if data != b'\xff' else 'é')
    assert lines[0].startswith('message from queue orders: ')


def test_a_binary_body_is_in_base64(tmp_path):
    shop = Shop(tmp_path)
    file = shop.captured('', body_base64=base64.b64encode(b'\xff\xfe').decode(),
                         properties={})
    whole = json.loads((tmp_path / file).read_text())
    del whole['body']
    (tmp_path / file).write_text(json.dumps(whole))
    status, lines, _ = shop.run(file)
    assert status == 0
    assert lines[0] == 'message from queue orders: 2 bytes, no content type'


@pytest.mark.parametrize(('change', 'line'), [
    ({'properties': 5}, 'whole.json: expected properties and headers by name'),
    ({'queue': 5}, 'whole.json: queue: expected a name'),
    ({'body': 5}, 'whole.json: expected a text as body, or Base64 as body_base64'),
    ({'queue': 'others'}, "no queue 'others' is consumed; AMQP.queues contains 'orders'"),
])
def test_a_wrong_file_is_one_line(tmp_path, change, line):
    shop = Shop(tmp_path)
    status, lines, errors = shop.run(shop.captured('tea', **change))
    assert (status, lines, errors) == (2, [], f'shop: --message: {line}\n')


def test_other_mistakes_are_one_line(tmp_path):
    shop = Shop(tmp_path, queues='orders: , others: ')
    assert shop.run('none')[0::2] == (2, 'shop: --message: none: No such file or directory\n')
    status, _, errors = shop.run(shop.body(b'tea'))
    assert status == 2
    assert errors == ('shop: --message: which queue is it from? AMQP.queues contains'
                      " 'orders', 'others'\n")
    for options, line in {
        ('-c', 'shop.yml', '--pdb'): 'argument --pdb: only with --message',
        ('-c', 'shop.yml', '--check', '--message', 'body'): 'argument --message: not with --check',
    }.items():
        done = subprocess.run([sys.executable, 'shop.py', *options], cwd=tmp_path, text=True,
                              capture_output=True, timeout=30)
        assert done.returncode == 2
        assert done.stderr.startswith(f'shop: {line}')
        assert done.stderr.count('\n') == 1


def test_a_program_without_a_handler_is_told_so(tmp_path):
    (tmp_path / 'tick.py').write_text(
        'import clihelper\n'
        'class Tick(clihelper.Controller):\n'
        '    def _process(self):\n'
        '        pass\n'
        "clihelper.setup('tick')\n"
        'clihelper.run(Tick)\n'
    )
    (tmp_path / 'tick.yml').write_text('Logging: {root: {level: INFO}}')
    done = subprocess.run(
        [sys.executable, 'tick.py', '-c', 'tick.yml', '--message', 'x'], cwd=tmp_path, text=True,
        capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (
        2, 'tick: --message: Tick is not a ConsumerController\n')


@pytest.mark.parametrize('kind', KINDS)
def test_pdb_is_entered_where_it_was_raised(kind, tmp_path):
    shop = Shop(tmp_path, kind)
    status, lines, _ = shop.run(shop.captured(''), '--pdb', input='p "local", body\nq\n')
    assert status == 1
    assert "(Pdb) ('local', '')" in lines
    assert any('price = 1 / len(body)' in line for line in lines)


def test_pdb_reads_the_terminal_if_the_message_was_on_standard_input(tmp_path):
    shop = Shop(tmp_path)
    master, slave = pty.openpty()
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, '-c', TERMINAL, str(read), *shop.argv, '-', '--pdb'],
        cwd=tmp_path, stdin=slave, stdout=slave, stderr=slave, pass_fds=[read],
        start_new_session=True)
    os.close(slave)
    os.close(read)
    os.close(write)  # an empty body
    os.write(master, b'p "local", body\nq\n')
    output = b''
    try:
        while chunk := os.read(master, 4096):
            output += chunk
    except OSError:  # EIO: the program has ended
        pass
    os.close(master)
    assert process.wait(30) == 1
    assert b"('local', '')" in output


TERMINAL = """\
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.dup2(int(sys.argv[1]), 0)
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize('kind', ['one', 'coroutines'])
def test_ctrl_c_ends_it_at_once(kind, tmp_path):
    shop = Shop(tmp_path, kind)
    with Program([*shop.argv, shop.captured('wait')], cwd=tmp_path, notify=False) as program:
        program.wait_line('waiting')
        assert program.stop('INT') == 128 + signal.SIGINT


def test_what_setup_raises_has_a_traceback(tmp_path):
    shop = Shop(tmp_path)
    program = (tmp_path / 'shop.py').read_text().replace("if 'setup' in self.options", 'if True')
    (tmp_path / 'shop.py').write_text(program)
    status, _, errors = shop.run(shop.captured('tea'))
    assert status == 1
    assert errors.endswith('ValueError: no shop\n')
    status, lines, _ = shop.run(shop.captured('tea'), '--pdb', input='q\n')
    assert status == 1
    assert any("raise ValueError('no shop')" in line for line in lines)


@pytest.mark.parametrize('option', ['--json', '--raw'])
def test_it_takes_what_dead_letters_shows(option, tmp_path, broker, queue_name):
    shop = Shop(tmp_path, queues=f'{queue_name}: ')
    with kombu.Connection(broker.url()) as connection:
        desk = Desk(tmp_path, broker.url(), connection.channel(), queue_name)
        desk.die('four', correlation_id='7', timestamp=1750000000, content_type='text/plain')
        (letter,) = desk.ids()
        (tmp_path / 'letter').write_bytes(desk.run('show', letter, option, text=False))
        status, lines, _ = shop.run('letter')
        assert status == 0
        assert lines[0].startswith(f'message from queue {queue_name}: 4 bytes, text/plain')
        assert lines[-1] == 'outcome: acknowledged'
        assert desk.ids() == [letter]  # nothing was settled
