"""``clihelper publish``, on RabbitMQ."""

from __future__ import annotations

import subprocess
import sys

import kombu
import pytest

from clihelper.amqp import properties


class Desk:
    """A queue, and the command."""

    def __init__(self, folder, broker, channel, queue):
        self.folder, self.channel, self.queue = folder, channel, queue
        channel.queue_declare(queue, durable=True, auto_delete=False)
        self.configure(broker.url())

    def configure(self, url):
        file = self.folder / 'app.yml'
        file.write_text(f'AMQP:\n  url: {url}\n')
        file.chmod(0o600)

    def publish(self, *words, key=None, input=b''):
        done = subprocess.run(
            [sys.executable, '-m', 'clihelper', 'publish', '-c', 'app.yml',
             '--routing-key', key or self.queue, *words],
            cwd=self.folder, input=input, capture_output=True, timeout=60)
        return done.returncode, done.stderr.decode()

    def taken(self):
        message = self.channel.basic_get(self.queue, no_ack=True)
        assert message is not None
        return message


@pytest.fixture
def desk(tmp_path, broker, queue_name):
    with kombu.Connection(broker.url()) as connection:
        yield Desk(tmp_path, broker, connection.channel(), queue_name)


@pytest.mark.parametrize(('words', 'input', 'body', 'kind'), [
    (['tea'], b'', 'tea', 'text/plain'),
    (['-'], b'tea\n', 'tea\n', 'text/plain'),
    (['-'], b'\xff\xfe', b'\xff\xfe', 'application/octet-stream'),
    (['@body'], b'', 'from a file', 'text/plain'),
    (['--json', '{"a": [1, 2]}'], b'', '{"a": [1, 2]}', 'application/json'),
    (['{"a": 1}'], b'', '{"a": 1}', 'text/plain'),
    (['<a/>', '--property', 'content_type=text/xml'], b'', '<a/>', 'text/xml'),
])
def test_the_queue_has_it_when_it_returns(desk, words, input, body, kind):
    (desk.folder / 'body').write_text('from a file')
    assert desk.publish(*words, input=input) == (0, '')
    message = desk.taken()
    raw = message.body
    assert (raw if isinstance(raw, bytes) else raw.encode()) == (
        body if isinstance(body, bytes) else body.encode())
    assert message.properties['content_type'] == kind
    assert message.properties['delivery_mode'] == 2


def test_properties_and_headers(desk):
    assert desk.publish(
        'tea', '--property', 'type=order.created', '--property', 'priority=3', '--property',
        'expiration=60', '--header', 'a=1=2', '--header', 'b=') == (0, '')
    found = desk.taken().properties
    assert (found['type'], found['priority'], found['expiration']) == (
        'order.created', 3, '60000')
    assert found[properties.HEADERS] == {'a': '1=2', 'b': ''}


def test_exchange_compression_and_delay(desk):
    desk.channel.exchange_declare('shop.publish', 'topic', durable=False, auto_delete=True)
    desk.channel.queue_bind(desk.queue, 'shop.publish', 'order.*')
    assert desk.publish('tea', '--exchange', 'shop.publish', '--compress',
                        key='order.new') == (0, '')
    assert desk.taken().properties['content_encoding'] == 'gzip'
    assert desk.publish('tea', '--delay', '3600') == (0, '')
    assert desk.channel.basic_get(desk.queue, no_ack=True) is None


@pytest.mark.parametrize(('words', 'line'), [
    (['--json', '{'], '--json: the body is not JSON: '),
    (['--json', 'NaN'], '--json: the body is not JSON: NaN is not JSON'),
    (['@none'], '@none: No such file or directory'),
    (['x', '--property', 'priority'], "--property: expected NAME=VALUE, got 'priority'"),
    (['x', '--property', 'priority=high'], "--property: priority: expected a number, got 'high'"),
    (['x', '--property', 'priorty=1'], "'priorty' is not a property of a message that can be set;"
     " did you mean 'priority'?"),
    (['x', '--property', 'priority=1000'], 'priority: expected a number from 0 to 255, got 1000'),
    (['x', '--property', 'type=a', '--property', 'type=b'], '--property: type is given twice'),
    (['x', '--property', 'headers=a'], '--property: headers are given by --header'),
    (['x', '--delay', '-1'], 'delay: expected seconds from 0 up to '),
])
def test_wrong_usage_is_one_line(desk, words, line):
    status, errors = desk.publish(*words)
    assert status == 2
    assert errors.startswith(f'clihelper: {line}')
    assert errors.count('\n') == 1


def test_what_no_queue_gets_and_a_broker_that_is_away(desk):
    status, errors = desk.publish('x', key='no-such-queue')
    assert (status, errors.count('\n')) == (69, 1)
    assert 'no-such-queue' in errors
    desk.configure('amqp://127.0.0.1:1')
    status, errors = desk.publish('x')
    assert (status, errors.count('\n')) == (69, 1)
    desk.configure('memory://')
    status, errors = desk.publish('x')
    assert (status, errors) == (
        78, 'clihelper: app.yml:2:3: AMQP.url: memory:// is within one process\n')


def test_help_has_an_example():
    done = subprocess.run([sys.executable, '-m', 'clihelper', 'publish', '--help'], text=True,
                          capture_output=True, timeout=60)
    assert done.returncode == 0
    assert 'example: clihelper publish -c ' in done.stdout
