"""TLS to RabbitMQ, which asks for a certificate, too."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import kombu
import pytest

from clihelper.amqp import tls
from clihelper.amqp.rabbitmq import HEARTBEAT_FRAME, RabbitMQTransport
from clihelper.errors import ConfigurationError
from clihelper.testing import Program
from tests.broker import Broker, _free_ports
from tests.certificates import Authority, openssl
from tests.life import open_to_all
from tests.test_forks import in_child

PROGRAM = str(Path(__file__).parent / 'programs' / 'consumer.py')


@pytest.fixture(scope='module')
def secure(tmp_path_factory):
    """A broker with TLS, and the folder of all certificates."""
    folder = tmp_path_factory.mktemp('certificates')
    ours = Authority(folder)
    ours.certify('broker', 'DNS:broker.test,IP:127.0.0.1')
    ours.certify('expired', 'IP:127.0.0.1', days=-1)
    ours.certify('client')
    Authority(folder, 'stranger').certify('foreign')
    [port] = _free_ports(1)
    options = {
        'listeners.ssl.default': f'127.0.0.1:{port}',
        'ssl_options.cacertfile': ours.certificate,
        'ssl_options.certfile': folder / 'served.pem',
        'ssl_options.keyfile': folder / 'served.key',
        'ssl_options.verify': 'verify_peer',
        'ssl_options.fail_if_no_peer_cert': 'true',
    }
    serve(folder, 'broker')
    with Broker('\n'.join(f'{key} = {value}' for key, value in options.items())) as node:
        yield SimpleNamespace(
            node=node,
            folder=folder,
            port=port,
            url=f'amqps://guest:guest@127.0.0.1:{port}//',
            options=dict.fromkeys(tls.FILES)
            | {
                'ca': str(ours.certificate),
                'certificate': f'{folder}/client.pem',
                'key': f'{folder}/client.key',
                'verify': True,
                'strict': False,
                'server_name': None,
            },
        )


def serve(folder, name):
    for suffix in ('pem', 'key'):
        shutil.copy(folder / f'{name}.{suffix}', folder / f'served.{suffix}')


@contextlib.contextmanager
def serving(secure, name):
    """The broker shows another certificate meanwhile."""
    serve(secure.folder, name)
    secure.node.ctl('eval', 'ssl:clear_pem_cache().')
    try:
        yield
    finally:
        serve(secure.folder, 'broker')
        secure.node.ctl('eval', 'ssl:clear_pem_cache().')


@pytest.fixture
def configure(tmp_path, secure, queue_name):
    """Writes a configuration; its path."""

    def write(options='', *, url='', certificate='client', ca='authority', more=''):
        path = tmp_path / 'app.yml'
        lines = [f'    ca: {secure.folder}/{ca}.pem\n'] if ca else []
        if certificate:
            lines += [
                f'    certificate: {secure.folder}/{certificate}.pem\n',
                f'    key: {secure.folder}/{certificate}.key\n',
            ]
        lines += [f'    {options}\n']
        path.write_text(
            f'Application: {{wake_interval: 3600, go: {tmp_path}/go}}\n'
            f'AMQP:\n  url: {url or secure.url}\n  queues: {{{queue_name}: }}\n{more}'
            f'  tls:\n{"".join(lines)}'
        )
        return str(path)

    return write


@contextlib.contextmanager
def consuming(config):
    with Program([sys.executable, PROGRAM, '-c', config, '-f']) as program:
        program.wait_ready(30)
        yield program


def fails(config, status=69):
    """Run the consumer to its end; its one line."""
    with Program([sys.executable, PROGRAM, '-c', config, '-f']) as program:
        assert program.wait(30) == status
        [line] = [line for line in program.stderr
                  if line.startswith(('obedient: ', os.path.dirname(config)))]
        return line


def send(secure, queue, *bodies):
    with kombu.Connection(secure.node.url()) as connection:
        for body in bodies:
            connection.Producer().publish(body, routing_key=queue)


@pytest.mark.parametrize(
    'options', ['server_name: broker.test', 'server_name: ', 'verify: true']
)
def test_a_consumer_meets_a_broker_that_it_trusts_and_that_trusts_it(
    configure, secure, queue_name, options
):
    with consuming(configure(options)) as program:
        send(secure, queue_name, 'hello')
        program.wait_line("got 'hello'")
        assert program.stop() == 0
        assert not [line for line in program.lines if 'WARNING' in line]


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        ({'ca': 'stranger'}, "the broker's certificate is not accepted: self-signed certificate"),
        ({'ca': ''}, "the broker's certificate is not accepted: "),
        ({'options': 'server_name: other.test'},
         "the broker's certificate is not accepted: Hostname mismatch, certificate is not valid"
         " for 'other.test'"),
        ({'certificate': ''}, 'the broker asks for AMQP.tls.certificate, which is not set: '),
        ({'certificate': 'foreign'},
         'the broker does not accept AMQP.tls.certificate: unknown ca'),
    ],
)
def test_who_does_not_trust_the_other_is_told_in_one_line(configure, secure, given, said):
    line = fails(configure(**given))
    assert line.startswith(f'obedient: AMQP.url: amqps://guest:**@127.0.0.1:{secure.port}//: ')
    assert said in line


def test_what_the_broker_says_of_a_certificate_is_heard_each_time(secure):
    """It says so and closes while the client, which thinks that all is well, writes already."""
    options = {**secure.options, 'certificate': None, 'key': None}
    for _ in range(30):
        connection = RabbitMQTransport(secure.url, 0, 5, 'test', options)
        with pytest.raises(OSError, match='certificate required') as caught:
            connection.connect()
        connection.collect()
        assert 'which is not set' in tls.refusal(caught.value, options)


def test_an_expired_certificate_is_an_error_at_the_start(configure, secure):
    with serving(secure, 'expired'):
        assert 'certificate has expired' in fails(configure())


def test_later_on_it_is_tried_again_after_a_long_while(configure, secure, queue_name):
    with consuming(configure()) as program:
        with serving(secure, 'expired'):
            secure.node.ctl('close_all_connections', 'by the operator')
            program.wait_line('lost the broker')
            program.wait_line(r'certificate has expired; next attempt in 30\.00 s')
        program.signal('TERM')
        assert program.wait() == 0


def test_a_name_that_the_certificate_has_not_is_an_error(configure, secure):
    url = secure.url.replace('127.0.0.1', 'localhost')
    assert "certificate is not valid for 'localhost'" in fails(configure(url=url))


def test_where_nothing_is_verified_it_is_said(configure, secure, queue_name):
    with consuming(configure('verify: false', ca='')) as program:
        program.wait_line('WARNING .*anybody may pose as the broker .*: AMQP.tls.verify is false')
        send(secure, queue_name, 'hello')
        program.wait_line("got 'hello'")
        assert program.stop() == 0


def test_a_port_without_tls_is_an_error(configure, secure):
    url = secure.url.replace(str(secure.port), str(secure.node.port))
    assert 'it does not speak TLS 1.2 or later' in fails(configure(url=url))


@pytest.mark.parametrize('signum', ['TERM', 'INT'])
def test_a_handshake_that_stalls_is_ended_by_a_signal(configure, signum):
    with socket.create_server(('127.0.0.1', 0)) as server:
        config = configure(url=f'amqps://127.0.0.1:{server.getsockname()[1]}//')
        with Program([sys.executable, PROGRAM, '-c', config, '-f']) as program:
            silent, _ = server.accept()
            with silent:
                program.signal(signum)
                assert program.wait(3) == 75


def test_a_handshake_that_stalls_is_given_up(secure):
    with socket.create_server(('127.0.0.1', 0)) as server:
        wire = RabbitMQTransport(f'amqps://127.0.0.1:{server.getsockname()[1]}//', 0, 0.3, 'test')
        with pytest.raises(TimeoutError):
            wire.connect()


# The files.

@pytest.fixture(scope='module')
def odd(secure):
    """Files that are not what they should be."""
    folder = secure.folder
    openssl('rsa', '-in', folder / 'client.key', '-aes128', '-passout', 'pass:secret',
            '-out', folder / 'encrypted.key')
    (folder / 'empty.pem').touch()
    (folder / 'garbage.pem').write_text(
        '-----BEGIN CERTIFICATE-----\nxxxx\n-----END CERTIFICATE-----\n'
    )
    return folder


@pytest.mark.parametrize(
    ('key', 'file', 'status', 'said'),
    [
        ('ca', 'gone.pem', 78, 'cannot be read: No such file or directory'),
        ('ca', '.', 78, 'cannot be read: Is a directory'),
        ('ca', 'empty.pem', 78, 'does not contain a certificate in PEM'),
        ('ca', 'garbage.pem', 78, 'x509'),
        ('certificate', 'client.key', 78, 'does not contain a certificate in PEM'),
        ('certificate', 'garbage.pem', 78, 'cannot be used, or its key cannot'),
        ('key', 'client.pem', 78, 'does not contain a private key in PEM'),
        ('key', 'broker.key', 78, 'is not the key of the certificate'),
        ('key', 'encrypted.key', 78, 'the private key is encrypted'),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_of_the_configuration(
    odd, configure, key, file, status, said
):
    path = configure()
    text = Path(path).read_text()
    [line] = [line for line in text.splitlines() if line.startswith(f'    {key}: ')]
    Path(path).write_text(text.replace(line, f'    {key}: {odd}/{file}'))
    place = f'{path}:{text.splitlines().index(line) + 1}:5: AMQP.tls.{key}: {odd}/{file}: '
    for words in ([], ['--check']):
        done = run(path, '-f', *words)
        assert done.returncode == status
        assert done.stderr.startswith(place)
        assert said in done.stderr
        assert done.stderr.count('\n') == 1
        assert 'secret' not in done.stderr


def run(config, *words, python=(sys.executable,)):
    return subprocess.run(
        [*python, PROGRAM, '-c', config, *words],
        env={**os.environ, 'PYTHONPATH': str(Path(PROGRAM).parents[2])},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
    )


@pytest.mark.root
def test_a_key_that_the_daemon_may_not_read_is_an_error_before_its_command_returns(
    configure, secure, tmp_path
):
    """Root may, and then becomes who may not."""
    open_to_all(secure.folder)
    (secure.folder / 'client.key').chmod(0o600)
    path = configure()
    with open(path, 'a') as file:
        file.write(f'Daemon: {{user: nobody, pidfile: {tmp_path}/pid}}\n')
        file.write('Logging: {version: 1}\n')
    # He may not be able to read this Python's library either.
    code = (
        'import runpy, sys\n'
        'import logging.config, clihelper.loops.consumer\n'
        'import clihelper.amqp.rabbitmq, clihelper.amqp.tls\n'
        'sys.argv[:] = sys.argv[1:]\n'
        'runpy.run_path(sys.argv[0], run_name="__main__")\n'
    )
    done = run(path, python=[sys.executable, '-c', code])
    assert done.returncode == 77, done.stderr
    assert f'AMQP.tls.key: {secure.folder}/client.key: cannot be read: Permission' in done.stderr


# Its socket.

@contextlib.contextmanager
def wire(secure, heartbeat=0):
    connection = RabbitMQTransport(secure.url, heartbeat, 5, 'test', secure.options)
    connection.connect()
    try:
        yield connection
    finally:
        connection.end(5)


@pytest.mark.parametrize('size', [1, 16_384, 100_000, 131_064, 5_000_000])
def test_deliveries_of_any_size_come_through(secure, queue_name, size):
    """A record of TLS has 16 KiB, a frame of the broker's 128 KiB."""
    bodies = [os.urandom(size) for _ in range(3)]
    with wire(secure) as connection:
        channel = connection.channel()
        channel.queue_declare(queue_name, durable=True, auto_delete=False)
        got = []
        connection.consume(channel, queue_name, 'tag', lambda message: got.append(message.body))
        for body in bodies:
            connection.write(connection.encode_or_publish(channel, body, '', queue_name, {}))
        while len(got) < 3:
            if not connection.take():
                select_readable(connection)
        assert got == bodies
        channel.basic_cancel('tag')
        channel.queue_delete(queue_name)


def select_readable(connection):
    """As the loop does: what OpenSSL has decrypted already would not be seen here."""
    import select

    assert select.select([connection], [], [], 10)[0], 'nothing more came'


def test_one_thread_may_send_while_another_one_receives(secure, queue_name):
    """As the heartbeat's does; an object of OpenSSL's alone would not stand it."""
    ended = threading.Event()
    with wire(secure) as connection:
        channel = connection.channel()
        channel.queue_declare(queue_name, durable=True, auto_delete=False)
        failed = []

        def beat():
            try:
                while not ended.wait(0.0002):  # so that the other has its turn
                    connection.write(HEARTBEAT_FRAME)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=beat)
        thread.start()
        try:
            for number in range(300):
                body = os.urandom(1000 + number * 300)
                connection.write(connection.encode_or_publish(channel, body, '', queue_name, {}))
                assert connection.get(channel, queue_name).body == body
        finally:
            ended.set()
            thread.join(10)
        assert not failed
        channel.queue_delete(queue_name)


def test_a_dead_peer_is_dropped_at_once(secure):
    """Nobody waits for its good-bye."""
    connection = RabbitMQTransport(secure.url, 0, 5, 'test', secure.options)
    connection.connect()
    secure.node.pause()
    try:
        began = time.monotonic()
        connection.collect()
        assert time.monotonic() - began < 1
    finally:
        secure.node.resume()


def test_what_is_not_connected_yet_can_be_dropped(secure):
    with socket.create_server(('127.0.0.1', 0)) as server:
        url = f'amqps://127.0.0.1:{server.getsockname()[1]}//'
        options = {**secure.options, 'ca': f'{secure.folder}/gone'}
        connection = RabbitMQTransport(url, 0, 5, 'test', options)
        with pytest.raises(ConfigurationError):
            connection.connect()
        connection.collect()


@pytest.mark.filterwarnings('ignore:.*fork')
def test_a_child_leaves_the_connection_without_a_goodbye(secure, queue_name):
    connection = RabbitMQTransport(secure.url, 1, 5, 'test', secure.options)
    connection.connect()
    try:
        channel = connection.channel()

        def child():
            with pytest.raises(RuntimeError, match='needs a connection of its own'):
                channel.queue_declare(queue_name)
            connection.collect()

        assert in_child(child) == 'None'
        assert channel.queue_declare(queue_name).queue == queue_name
    finally:
        connection.collect()


def test_an_authority_without_key_usage_is_good_enough(secure, monkeypatch):
    """``openssl req -x509`` makes such ones, and Python 3.13 and later refuse them by default."""
    made = ssl.create_default_context

    def strict(**options):
        context = made(**options)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, 'create_default_context', strict)
    connection = RabbitMQTransport(secure.url, 0, 5, 'test', secure.options)
    connection.connect()
    connection.collect()


def test_with_strict_the_extension_that_is_missing_is_named(configure):
    line = fails(configure('strict: true'))
    assert re.search(
        r"the broker's certificate is not accepted: (CA cert does not include key usage extension"
        r'|Missing Authority Key Identifier); AMQP.tls.strict is true$',
        line,
    )


def test_with_strict_a_complete_certificate_is_accepted(secure, configure, queue_name):
    strict = Authority(secure.folder, 'strict', usage='critical,keyCertSign,cRLSign')
    strict.certify('complete', 'IP:127.0.0.1', more='authorityKeyIdentifier=keyid\n')
    with serving(secure, 'complete'), consuming(configure('strict: true', ca='strict')) as program:
        send(secure, queue_name, 'hello')
        program.wait_line("got 'hello'")
        assert program.stop() == 0
