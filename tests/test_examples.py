"""The programs of ``examples/``, as users run them, on RabbitMQ and with clients of their kind."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kombu
import psycopg
import pytest

from clihelper.testing import Program
from tests.broker import Broker
from tests.database import Database
from tests.test_docs import DOCS, DOCUMENTED_PORT, DOCUMENTED_URL, ROOT, files_of, free_port

EXAMPLES = ROOT / 'examples'

TOKEN = (EXAMPLES / 'gateway.token').read_text().strip()

VHOST = 'examples'

QUEUES = ('orders', 'bills', 'tasks', 'tasks.dead', 'tasks.progress', 'urls', 'urls.dead',
          'readings', 'readings.dead')
"""What the programs, and the tests of them, declare"""


@pytest.fixture(scope='module')
def url(broker: Broker) -> str:
    broker.ctl('add_vhost', VHOST)
    broker.ctl('set_permissions', '-p', VHOST, 'guest', '.*', '.*', '.*')
    return broker.url(VHOST)


@pytest.fixture
def channel(url: str) -> Iterator[Any]:
    """A channel; what the programs have declared is deleted in the end."""
    with kombu.Connection(url) as connection:
        yield connection.channel()
    with kombu.Connection(url) as connection, connection.channel() as channel:
        for name in QUEUES:
            channel.queue_delete(name)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def run(tmp_path: Path, url: str, port: int) -> Callable[..., Any]:
    """Starts a program of the folder, see :func:`starter`."""
    return starter(tmp_path, url, port)


def starter(folder: Path, url: str, port: int) -> Callable[..., Any]:
    """Copy the programs, and return what starts one of them with its configuration.

    That takes the program's name, and changes: pairs of what is in its configuration, and what is
    there instead. It stops the program in the end, and looks at its exit status.
    """
    for path in EXAMPLES.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    for path in folder.glob('*.yml'):
        text = path.read_text().replace(DOCUMENTED_URL, url)
        path.write_text(text.replace(DOCUMENTED_PORT, str(port)))

    @contextlib.contextmanager
    def start(name: str, *changes: tuple[str, str], status: int = 0) -> Iterator[Program]:
        path = folder / f'{name}.yml'
        for old, new in changes:
            text = path.read_text()
            assert old in text
            path.write_text(text.replace(old, new))
        words = [f'{name}.py', '-c', f'{name}.yml', '-f']
        with Program(
            [sys.executable, *words], cwd=folder, env={'PYTHONPATH': str(ROOT)}
        ) as program:
            program.wait_ready(30)
            yield program
            assert program.stop() == status, str(program)

    return start


def wait_until(holds: Callable[[], bool], timeout: float = 30) -> None:
    end = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def declare(channel: Any, name: str, **arguments: Any) -> None:
    channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)


def count(channel: Any, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).message_count)


def held(broker: Broker, queue: str) -> int:
    """How many messages a queue has, those among them that a consumer has."""
    rows = broker.ctl('list_queues', '-p', VHOST, '--no-table-headers', 'name', 'messages')
    return next(int(number) for name, number in map(str.split, rows.splitlines()) if name == queue)


def taken(channel: Any, queue: str) -> list[Any]:
    """All messages of a queue."""
    found = []
    while (message := channel.basic_get(queue, no_ack=True)) is not None:
        found.append(channel.message_to_python(message))
    return found


def bodies(channel: Any, queue: str) -> list[Any]:
    return [message.decode() for message in taken(channel, queue)]


# What the page has to be typed in.

@pytest.fixture
def script(run: Any, tmp_path: Path, port: int) -> Callable[[str], Program]:
    """A script of the page, to be run in the folder of the programs."""

    def make(name: str) -> Program:
        text = files_of(DOCS / 'examples.rst')[name]
        site = free_port()
        for path, content in ((tmp_path / name, text), *(
            (path, path.read_text()) for path in tmp_path.glob('*.yml')
        )):
            content = content.replace(DOCUMENTED_PORT, str(port))
            path.write_text(content.replace('localhost:8889', f'localhost:{site}')
                            .replace('localhost 8889', f'localhost {site}'))
        path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
        env = {'PYTHONPATH': str(ROOT), 'PATH': path, 'no_proxy': 'localhost'}
        return Program(['bash', '-e', name], cwd=tmp_path, notify=False, env=env)

    return make


def test_the_script_for_the_gateway(script: Any, channel: Any) -> None:
    declare(channel, 'orders')
    with script('gateway.sh') as running:
        running.wait_line('"id": ')
        running.wait_line('"ids": .*"failed": ..')
        assert running.wait() == 0
    assert [body['quantity'] for body in bodies(channel, 'orders')] == [1, 2, 1]


@pytest.mark.usefixtures('channel')
def test_the_script_for_tasks(script: Any) -> None:
    with script('tasks.sh') as running:
        for state in ('queued', 'started', *['working'] * 3, 'done'):
            running.wait_line(f'data: .*"state": "{state}"', 30)
        assert running.wait() == 0


@pytest.mark.usefixtures('channel')
def test_the_script_for_the_crawler(script: Any) -> None:
    with script('crawler.sh') as running:
        running.wait_line('/crawler.py: .* bytes, 0 links')
        os.killpg(running.pid, signal.SIGINT)
        running.wait()


def test_the_script_for_the_bulk_writer(
    script: Any, server: Database, channel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_readings(channel, reading(1))
    monkeypatch.setenv('PGHOST', str(server.folder))
    monkeypatch.setenv('PGUSER', 'test')
    with script('bulk.sh') as running:
        running.wait_line('supervisor: .*ready', 30)
        conninfo = f'{server.conninfo} dbname=readings'
        with psycopg.connect(conninfo) as connection:
            wait_until(lambda: bool(connection.execute('TABLE readings').fetchall()))
        os.killpg(running.pid, signal.SIGINT)
        running.wait()


# The gateway.

class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def content(self) -> Any:
        return json.loads(self.body)


def post(port: int, path: str, content: Any, token: str | None = TOKEN, **headers: str) -> Answer:
    """POST something as JSON; ``bytes``, and an iterator of them in chunks, as they are."""
    body = content if isinstance(content, (bytes, Iterator)) else json.dumps(content).encode()
    if token is not None:
        headers['Authorization'] = f'Bearer {token}'
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30)
    with contextlib.closing(connection):
        # It may answer before it has all of the body, and take no more.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request('POST', path, body, headers)
        return Answer(connection.getresponse())


def test_what_is_posted_to_the_gateway_is_in_the_queue_when_it_answers(
    run: Any, channel: Any, port: int
) -> None:
    declare(channel, 'orders')
    with run('gateway'):
        answer = post(port, '/orders', {'item': 'tea'})
        assert answer.status == 202
        (message,) = taken(channel, 'orders')
        assert message.decode() == {'item': 'tea'}
        assert message.properties['message_id'] == answer.content['id']
        again = post(port, '/orders', {'item': 'tea'}, **{'Idempotency-Key': 'order-7'})
        assert again.content == {'id': 'order-7'}
        assert taken(channel, 'orders')[0].properties['message_id'] == 'order-7'


@pytest.fixture(scope='module')
def gateway(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a gateway for several tests."""
    port = free_port()
    with starter(tmp_path_factory.mktemp('gateway'), url, port)('gateway'):
        yield port


LARGE = b'"' + b'x' * 1024 * 1024 + b'"'


@pytest.mark.parametrize(
    ('path', 'content', 'token', 'status'),
    [
        ('/orders', {}, None, 401),
        ('/orders', {}, 'wrong', 401),
        ('/orders', {}, 'w\xf6rong', 401),
        ('/orders', LARGE, 'wrong', 401),
        ('/secrets', {}, TOKEN, 404),
        ('/orders/', {}, TOKEN, 404),
        ('/orders', b'{"item": ', TOKEN, 400),
        ('/orders', b'\xff', TOKEN, 400),
        ('/orders', b'[' * 100_000, TOKEN, 400),
        ('/orders/batch', {}, TOKEN, 400),
        ('/orders', LARGE, TOKEN, 413),
        ('/orders', iter([LARGE]), TOKEN, 413),
        ('/orders/batch', [0] * 1001, TOKEN, 413),
    ],
    ids=lambda value: str(value)[:16],
)
@pytest.mark.usefixtures('channel')
def test_the_gateway_says_what_is_wrong_with_a_request(
    gateway: int, path: str, content: Any, token: str | None, status: int
) -> None:
    answer = post(gateway, path, content, token)
    assert answer.status == status
    assert status == 404 or answer.content['error']



def test_of_a_batch_each_item_is_accepted_or_named(run: Any, channel: Any, port: int) -> None:
    declare(channel, 'orders')
    declare(channel, 'bills', **{'x-max-length': 2, 'x-overflow': 'reject-publish'})
    with run('gateway'):
        answer = post(port, '/orders/batch', [*range(1000)])
        assert answer.status == 202
        assert answer.content['failed'] == []
        assert len(set(answer.content['ids'])) == 1000
        messages = taken(channel, 'orders')
        assert [message.decode() for message in messages] == [*range(1000)]
        assert [each.properties['message_id'] for each in messages] == answer.content['ids']

        declared = post(port, '/bills/batch', [*range(4)], **{'Idempotency-Key': 'b'})
        assert declared.status == 207
        failed = [(each['item'], each['id']) for each in declared.content['failed']]
        assert failed == [(2, 'b.2'), (3, 'b.3')]
        assert bodies(channel, 'bills') == [0, 1]
        assert post(port, '/orders/batch', []).status == 202


def test_the_gateway_answers_503_while_there_is_no_broker_or_no_queue(
    run: Any, broker: Broker, channel: Any, port: int
) -> None:
    declare(channel, 'orders')
    with run('gateway'):
        assert post(port, '/orders', 1).status == 202
        lacking = post(port, '/bills', 1)
        assert (lacking.status, lacking.headers['Retry-After']) == (503, '5')
        broker.stop()
        try:
            for path in ('/orders', '/orders/batch'):
                refused = post(port, path, [2], **{'Idempotency-Key': 'k'})
                assert (refused.status, refused.headers['Retry-After']) == (503, '5')
                assert refused.content['id'] == 'k'
        finally:
            broker.start()
        assert post(port, '/orders', [2], **{'Idempotency-Key': 'k'}).status == 202
    with kombu.Connection(broker.url(VHOST)) as connection, connection.channel() as again:
        assert bodies(again, 'orders') == [1, [2]]


def test_the_gateway_waits_no_longer_than_its_patience_for_a_silent_broker(
    run: Any, broker: Broker, channel: Any, port: int
) -> None:
    declare(channel, 'orders')
    with run('gateway', ('Application:\n', 'Application:\n  patience: 0.5\n')):
        assert post(port, '/orders', 1).status == 202
        broker.pause()
        try:
            begun = time.monotonic()
            assert post(port, '/orders', 2).status == 503
            assert post(port, '/orders/batch', [3, 4]).status == 503
            assert time.monotonic() - begun < 15  # by itself it would wait for 30 s and more
        finally:
            broker.resume()
        wait_until(lambda: post(port, '/orders', 5).status == 202)
    assert bodies(channel, 'orders')[0] == 1


def test_a_hup_rotates_the_token_of_the_gateway(
    run: Any, channel: Any, port: int, tmp_path: Path
) -> None:
    declare(channel, 'orders')
    with run('gateway') as program:
        token = tmp_path / 'gateway.token'
        token.write_text('another\n')
        assert post(port, '/orders', 1, TOKEN).status == 202
        program.signal('HUP')
        program.wait_notified('READY')
        assert post(port, '/orders', 1, TOKEN).status == 401
        assert post(port, '/orders', 2, 'another').status == 202
        token.write_text('\n')
        program.signal('HUP')
        program.wait_line('gateway.yml:.*Application: ')
        assert post(port, '/orders', 1, '').status == 401
        assert post(port, '/orders', 3, 'another').status == 202
    assert bodies(channel, 'orders') == [1, 2, 3]


@pytest.mark.parametrize('signum', ['TERM', 'HUP'])
def test_an_upload_in_progress_is_published_before_the_gateway_stops(
    run: Any, channel: Any, port: int, signum: str
) -> None:
    declare(channel, 'orders')
    with run('gateway') as program, socket.create_connection(('127.0.0.1', port)) as client:
        client.settimeout(30)
        client.sendall(b'POST /orders HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n'
                       + f'Authorization: Bearer {TOKEN}\r\nContent-Length: 5'.encode()
                       + b'\r\n\r\n')
        assert b' 100 ' in client.recv(1000)
        client.sendall(b'"te')
        program.signal(signum)
        program.wait_line(f'SIG{signum}')
        client.sendall(b'a"')
        assert client.recv(1000).startswith(b'HTTP/1.1 202')
        if signum == 'TERM':
            assert program.wait() == 0
        else:
            program.wait_notified('READY')
            assert post(port, '/orders', 'more').status == 202
    assert bodies(channel, 'orders') == ['tea', 'more'][:1 if signum == 'TERM' else 2]


# The progress of tasks.

class Stream:
    """A client of server-sent events."""

    def __init__(self, port: int, path: str, last: int | None = None) -> None:
        self.connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30)
        headers = {} if last is None else {'Last-Event-ID': str(last)}
        self.connection.request('GET', path, headers=headers)
        self.response = self.connection.getresponse()
        self.status = self.response.status

    def close(self) -> None:
        self.response.close()
        self.connection.close()

    def lines(self) -> Iterator[str]:
        """The lines until the stream ends; one that is cut is an error."""
        while line := self.response.readline():
            yield line.decode().strip()

    def events(self) -> Iterator[dict[str, Any]]:
        number = None
        for line in self.lines():
            name, _, value = line.partition(': ')
            if name == 'id':
                number = int(value)
            elif name == 'data':
                event = json.loads(value)
                assert event['id'] == number
                yield event


@pytest.fixture
def follow(port: int) -> Iterator[Callable[..., Stream]]:
    with contextlib.ExitStack() as stack:

        def start(path: str, last: int | None = None) -> Stream:
            return stack.enter_context(contextlib.closing(Stream(port, path, last)))

        yield start


def submit(port: int, steps: Any, seconds: float = 0.0) -> str:
    """Submit a task; the path of its events."""
    answer = post(port, '/tasks', {'steps': steps, 'seconds': seconds})
    assert answer.status == 202
    assert answer.headers['Location'] == answer.content['events']
    return str(answer.content['events'])


def states(stream: Stream) -> list[str]:
    return [event['state'] for event in stream.events()]


def test_a_submitter_follows_its_task_to_the_end(
    run: Any, channel: Any, port: int, follow: Any
) -> None:
    with run('tasks_worker'), run('tasks'):
        path = submit(port, 3)
        events = [*follow(path).events()]
        assert [event['state'] for event in events] == [
            'queued', 'started', 'working', 'working', 'working', 'done']
        numbers = [event['id'] for event in events]
        assert numbers == sorted(set(numbers))
        # It is kept for those who come later, and who had seen some of it.
        assert states(follow(path, numbers[3])) == ['working', 'done']
        assert follow(path, numbers[-1]).status == 204
        assert follow(path, 'soon').status == 400
        assert follow('/tasks/none-such/events').status == 404


def test_a_task_that_fails_is_followed_through_its_runs(
    run: Any, channel: Any, port: int, follow: Any
) -> None:
    with run('tasks_worker', ('delay: 5', 'delay: 0.1')), run('tasks'):
        found = states(follow(submit(port, 'many')))
    assert found == ['queued', *['started', 'waiting for its next run'] * 2, 'started', 'failed']
    assert count(channel, 'tasks.dead') == 1


def test_many_follow_a_task_and_one_that_leaves_disturbs_nobody(
    run: Any, channel: Any, port: int, follow: Any
) -> None:
    with run('tasks') as server:
        path = submit(port, 5, 0.01)
        with ThreadPoolExecutor(50) as pool:
            streams = list(pool.map(follow, [path] * 50))
            streams[0].close()
            server.wait_line('200 GET .*/events')  # at once, and not with the next comment
            with run('tasks_worker'):
                found = list(pool.map(states, streams[1:]))
        assert found == [['queued', 'started', *['working'] * 5, 'done']] * 49
        assert not [line for line in server.lines if 'Traceback' in line]


def test_a_stream_ends_at_a_reload_and_goes_on_where_it_was(
    run: Any, channel: Any, port: int, follow: Any
) -> None:
    with run('tasks') as server:
        path = submit(port, 2)
        first = follow(path)
        events = first.events()
        last = next(events)['id']
        server.signal('HUP')
        assert [*events] == []  # ended, and not cut
        again = follow(path, last)  # waits for the next round
        server.wait_notified('READY')
        with run('tasks_worker'):
            assert states(again) == ['started', 'working', 'working', 'done']


def test_an_open_stream_does_not_hold_up_a_stop(
    run: Any, channel: Any, port: int, follow: Any
) -> None:
    with run('tasks') as server:
        stream = follow(submit(port, 2))
        events = stream.events()
        assert next(events)['state'] == 'queued'
        begun = time.monotonic()
        assert server.stop() == 0
        assert [*events] == []
        assert time.monotonic() - begun < 10  # stop_timeout is 60 s, and the next comment in 15


def test_a_comment_keeps_a_silent_stream_alive(
    run: Any, channel: Any, port: int, follow: Any
) -> None:
    with run('tasks', ('keepalive: 15', 'keepalive: 0.1')):
        stream = follow(submit(port, 2))
        comments = 0
        for line in stream.lines():
            comments += line == ': nothing new'
            if comments == 3:
                break


def test_streams_outlive_the_broker(
    run: Any, broker: Broker, channel: Any, port: int, follow: Any
) -> None:
    """The task in hand is run again, since it was not settled; its stream goes on with that."""
    with run('tasks_worker') as worker, run('tasks') as server:
        events = follow(submit(port, 2, 1)).events()
        assert [next(events)['state'] for _ in range(3)] == ['queued', 'started', 'working']
        broker.stop()
        try:
            refused = post(port, '/tasks', {'steps': 1})
            assert (refused.status, refused.headers['Retry-After']) == (503, '5')
            worker.wait_line('task .* is done: ')
        finally:
            broker.start()
        server.wait_line('lost the broker')
        server.wait_line('consuming progress')
        found = [event['state'] for event in events]
        assert found[-1] == 'done'


def test_a_stream_goes_on_with_the_next_run_of_a_task(
    run: Any, channel: Any, port: int, follow: Any
) -> None:
    with run('tasks'):
        with run('tasks_worker', status=-signal.SIGKILL) as worker:
            events = follow(submit(port, 2, 1)).events()
            assert [next(events)['state'] for _ in range(3)] == ['queued', 'started', 'working']
            worker.signal('KILL')
            worker.wait()
        with run('tasks_worker'):
            assert [event['state'] for event in events][-4:] == [
                'started', 'working', 'working', 'done']


STREAM = (" {name: '', exchange: progress, routing_keys: '#'}\n",
          '\n' + files_of(DOCS / 'examples.rst')['stream.yml'].partition(' progress:\n')[2])


def test_a_stream_in_the_broker_tells_a_new_process_what_there_was(
    run: Any, channel: Any, port: int, follow: Any
) -> None:
    with run('tasks_worker'):
        with run('tasks', STREAM):
            path = submit(port, 1)
            found = states(follow(path))
            assert found == ['queued', 'started', 'working', 'done']
        with run('tasks'):
            assert states(follow(path)) == found


def test_each_process_that_serves_knows_of_each_task(
    run: Any, channel: Any, port: int, follow: Any
) -> None:
    with run('tasks_worker'), run('tasks', ('Daemon:\n', 'Daemon:\n  workers: 2\n')):
        paths = [submit(port, 2) for _ in range(4)]
        for path in paths * 4:
            found = states(follow(path))
            assert found[-3:] == ['working', 'working', 'done']


# The crawler.

class Site(ThreadingHTTPServer):
    """Pages that link to each other.

    :ivar asked: the paths that were asked for, in that order.
    :ivar most: how many were asked for at the same time.
    """

    daemon_threads = True

    def __init__(self, pages: dict[str, str]) -> None:
        super().__init__(('127.0.0.1', 0), Page)
        self.pages = pages
        self.asked: list[str] = []
        self.at_once = self.most = 0
        self.lock = threading.Lock()
        self.held = threading.Event()

    @property
    def host(self) -> str:
        return f'127.0.0.1:{self.server_port}'


class Page(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:  # noqa: N802 (so http.server calls it)
        site = self.server
        with site.lock:
            site.asked.append(self.path)
            site.at_once += 1
            site.most = max(site.most, site.at_once)
        first = site.asked.count(self.path) == 1
        if self.path.startswith('/held') and first:
            site.held.wait(30)
        with site.lock:
            site.at_once -= 1
        text = site.pages.get(self.path, '')
        self.send_response(200 if text else 503 if self.path == '/busy' and first else 404)
        self.send_header('Content-Type', 'text/html')
        self.send_header('Content-Length', str(len(text)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Be silent."""


@contextlib.contextmanager
def site_of(pages: dict[str, str]) -> Iterator[Site]:
    with Site(pages) as site:
        thread = threading.Thread(target=site.serve_forever, daemon=True)
        thread.start()
        try:
            yield site
        finally:
            site.held.set()
            site.shutdown()
            thread.join()


def linking(*paths: str) -> str:
    return ''.join(f'<a href="{path}">x</a>' for path in paths)


def test_the_crawler_fetches_each_page_of_its_site_once(run: Any, channel: Any) -> None:
    deep = {f'/{number}': linking('/', *(f'/{n}' for n in range(60))) for number in range(60)}
    with site_of({'/': 'x'}) as other, site_of(deep) as site:
        site.pages['/'] = linking(
            '0', '1#part', '/1', 'mailto:x', 'http://[', 'ftp://x/y', f'http://{other.host}/')
        with run('crawler', ('localhost:8889', site.host)):
            wait_until(lambda: len(site.asked) == 61)
            wait_until(lambda: count(channel, 'urls') == 0)
        assert sorted(site.asked) == sorted(site.pages)
        assert other.asked == []
    assert taken(channel, 'urls.dead') == []


def test_the_crawler_tries_again_what_may_be_there_later(run: Any, channel: Any) -> None:
    pages = {'/': linking('held', 'missing', 'busy', 'a'), '/held': 'h', '/a': 'a', '/busy': ''}
    changes = ('timeout: 20', 'timeout: 1'), ('delay: 30', 'delay: 0.1')
    with site_of(pages) as site, run(
        'crawler', ('localhost:8889', site.host), *changes
    ) as crawler:
        site.pages['/busy'] = ''
        wait_until(lambda: site.asked.count('/busy') >= 1)
        site.pages['/busy'] = 'b'
        crawler.wait_line('/a: 1 bytes')
        wait_until(lambda: len([line for line in crawler.lines if ': 1 bytes' in line]) == 3)
        assert site.asked.count('/missing') == 1
        assert site.asked.count('/held') == 2
        wait_until(lambda: count(channel, 'urls.dead') == 1)
    (letter,) = taken(channel, 'urls.dead')
    assert letter.decode().endswith('/missing')
    assert letter.headers['x-clihelper-reason'] == 'rejected'
    assert '404' in letter.headers['x-clihelper-message']


def test_a_crawler_is_polite_and_when_it_is_stopped_leaves_the_rest_to_the_next(
    run: Any, channel: Any
) -> None:
    pages = {f'/held{number}': 'x' for number in range(20)}
    with site_of({'/': linking(*pages), **pages}) as site:
        changes = ('localhost:8889', site.host), ('concurrency: 50', 'concurrency: 6')
        with run('crawler', *changes) as crawler:
            wait_until(lambda: len(site.asked) == 5)
            crawler.signal('TERM')
            crawler.wait_line('SIGTERM')
            site.held.set()
            assert crawler.wait() == 0
        done = len(site.asked) - 1
        assert 4 <= done <= 7
        assert site.most == 4
        wait_until(lambda: count(channel, 'urls') == 20 - done)
        with run('crawler'):
            wait_until(lambda: {*site.asked} == {'/', *pages})
            wait_until(lambda: count(channel, 'urls') == 0)


def test_a_broker_that_comes_back_finds_the_crawler_where_it_was(
    run: Any, broker: Broker, channel: Any
) -> None:
    pages = {f'/held{number}': 'x' for number in range(20)}
    with site_of({'/': linking(*pages), **pages}) as site, run(
        'crawler', ('localhost:8889', site.host)
    ) as crawler:
        wait_until(lambda: len(site.asked) == 5)
        broker.stop()
        broker.start()
        crawler.wait_line('lost the broker')
        crawler.wait_line('consuming urls')
        site.held.set()
        wait_until(lambda: {*site.asked} == {'/', *pages})


# The bulk writer.

@pytest.fixture(scope='module')
def server() -> Iterator[Database]:
    with Database() as database:
        yield database


@pytest.fixture
def database(server: Database) -> Iterator[Database]:
    """A server whose database has the table, and nothing in it."""
    with psycopg.connect(server.conninfo) as connection:
        connection.execute('DROP TABLE IF EXISTS readings')
        connection.execute((EXAMPLES / 'bulk.sql').read_text())
    return server


@pytest.fixture
def write(run: Any, database: Database, tmp_path: Path) -> Callable[[], Any]:
    """Starts the writer."""
    path = tmp_path / 'bulk.yml'
    text = path.read_text().replace('dbname=readings connect_timeout=5', database.conninfo)
    path.write_text(text.replace('pause: 1 ', 'pause: 0.1 '))
    return lambda: run('bulk')


def select(database: Database, query: str = 'SELECT id FROM readings') -> list[Any]:
    with psycopg.connect(database.conninfo) as connection:
        return [row[0] for row in connection.execute(query).fetchall()]


def reading(number: int, **other: Any) -> dict[str, Any]:
    return {'id': f'r{number}', 'sensor': 's', 'taken': '2026-05-01 09:00Z', 'value': 1.5, **other}


def send_readings(channel: Any, *readings: Any) -> None:
    declare(channel, 'readings', **{'x-queue-type': 'quorum'})
    producer = kombu.Producer(channel)
    for each in readings:
        producer.publish(each, routing_key='readings')


def test_readings_are_written_many_in_a_transaction(
    write: Any, database: Database, broker: Broker, channel: Any
) -> None:
    send_readings(channel, *(reading(number) for number in range(3000)), reading(7, value=2))
    with write():
        wait_until(lambda: len(select(database)) == 3000)
        wait_until(lambda: held(broker, 'readings') == 0)
    assert select(database, "SELECT value FROM readings WHERE id = 'r7'") in ([1.5], [2])
    assert select(database, 'SELECT count(DISTINCT xmin::text) FROM readings')[0] <= 60
    assert count(channel, 'readings') == count(channel, 'readings.dead') == 0


BAD = [
    reading(0, sensor=''), reading(0, taken='soon'), reading(0, value='much'),
    reading(0, sensor='\0'), {'id': 'r0'}, 'r0', reading(0, taken=None),
]


def test_a_bad_row_is_dead_lettered_alone(write: Any, database: Database, channel: Any) -> None:
    good = [reading(number) for number in range(1, 200)]
    mixed = [*good]
    for place, bad in enumerate(BAD):
        mixed.insert(place * 20, bad)
    send_readings(channel, *mixed)
    with write():
        wait_until(lambda: len(select(database)) == len(good))
        wait_until(lambda: count(channel, 'readings.dead') == len(BAD))
    letters = taken(channel, 'readings.dead')
    assert sorted(str(each.decode()) for each in letters) == sorted(map(str, BAD))
    assert {each.headers['x-clihelper-reason'] for each in letters} == {'rejected'}
    assert any('timestamp' in each.headers['x-clihelper-message'] for each in letters)


def test_while_the_database_is_away_its_batch_waits(
    write: Any, database: Database, broker: Broker, channel: Any
) -> None:
    with write() as program:
        send_readings(channel, *(reading(number) for number in range(100)))
        wait_until(lambda: len(select(database)) == 100)
        database.stop()
        try:
            send_readings(channel, *(reading(number) for number in range(100, 300)))
            for _ in range(7):  # more often than AMQP.retry.attempts
                program.wait_line('rows wait for the database')
        finally:
            database.start()
        wait_until(lambda: len(select(database)) == 300)
        wait_until(lambda: held(broker, 'readings') == 0)
    assert count(channel, 'readings.dead') == 0


@pytest.mark.parametrize('signum', ['TERM', 'HUP'])
def test_a_stop_while_the_database_is_away_loses_nothing(
    write: Any, database: Database, channel: Any, signum: str
) -> None:
    send_readings(channel, *(reading(number) for number in range(100)))
    database.stop()
    try:
        with write() as program:
            program.wait_line('rows wait for the database')
            if signum == 'HUP':
                program.signal('HUP')
                program.wait_notified('RELOADING')
                program.wait_notified('READY', 30)
            assert program.stop() == 0
    finally:
        database.start()
    wait_until(lambda: count(channel, 'readings') == 100)
    with write():
        wait_until(lambda: len(select(database)) == 100)


def test_readings_outlive_the_broker_and_a_worker(
    write: Any, database: Database, broker: Broker, channel: Any
) -> None:
    send_readings(channel, *(reading(number) for number in range(2000)))
    with write() as program:
        wait_until(lambda: bool(select(database)))
        worker = Path(f'/proc/{program.pid}/task/{program.pid}/children').read_text().split()[0]
        os.kill(int(worker), signal.SIGKILL)
        broker.stop()
        broker.start()
        wait_until(lambda: len(select(database)) == 2000)
        with kombu.Connection(broker.url(VHOST)) as connection:
            again = connection.channel()
            send_readings(again, reading(2000))
            wait_until(lambda: len(select(database)) == 2001)
            assert count(again, 'readings.dead') == 0
