"""The page of ``Daemon.metrics``: what it tells, whom, and that it disturbs nobody."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from clihelper.config import parse
from clihelper.config.shown import HIDDEN
from clihelper.operations import history, page, web
from clihelper.operations.history import History
from clihelper.process.statistics import Statistics
from tests.picture import shop
from tests.test_metrics import get, hostile_clients, scrape, server_of, start, start_ticker, wait
from tests.test_workers_amqp import Work, names

STATIC = Path(page.FOLDER)
SECRET = 'hunter2'


@pytest.fixture
def work(tmp_path, broker, queue_name):
    work = Work(tmp_path, broker, queue_name)
    yield work
    work.close()


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


@pytest.fixture
def ticker(tmp_path, port):
    with start_ticker(tmp_path, f'127.0.0.1:{port}') as daemon:
        yield daemon
        daemon.stop()


class Events:
    """A client of /events."""

    def __init__(self, port, **headers):
        self._connection = http.client.HTTPConnection('127.0.0.1', port, timeout=20)
        self._connection.request('GET', '/events', headers=headers)
        self.answer = self._connection.getresponse()
        self.status = self.answer.status

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.answer.close()
        self._connection.close()

    def next(self):
        """The name and the data of the next event."""
        name = ''
        while line := self.answer.readline().decode():
            key, _, value = line.rstrip('\n').partition(': ')
            if key == 'event':
                name = value
            elif key == 'data':
                return name, json.loads(value)
        raise EOFError

    def wait(self, name, condition=lambda data: True):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            found, data = self.next()
            if found == name and condition(data):
                return data
        raise TimeoutError(name)


def shown(text, **options):
    return parse(text.encode(), '/x/app.yml', appname='app', shown='app.yml', **options).shown()


# What it is told

def test_the_events_are_what_the_page_begins_with_and_then_the_state(ticker, port):
    with Events(port) as events:
        assert events.status == 200
        assert events.answer.getheader('Content-Type') == 'text/event-stream'
        assert [events.next()[0] for _ in range(4)] == [
            'hour', 'configuration', 'state', 'state']
        state = events.wait('state', lambda data: data['counted']['ticks'] > 3)
        assert (state['pid'], state['program'], state['last_errors']) == (ticker.pid, 'ticker', [])


def test_samples_follow(ticker, port):
    with Events(port) as events:
        assert events.next()[0] == 'hour'
        sample = events.wait('sample')
        assert sample['number'] == 1
        assert sample['seconds'] == pytest.approx(history.INTERVAL, rel=0.2)
    with Events(port) as events:
        assert events.next() == ('hour', [sample])


def test_errors_and_what_was_dead_lettered_are_told(work, port):
    with start(work, port, amqp='retry: {attempts: 1}') as daemon, Events(port) as events:
        work.send('fail bad', 'reject it', *names(10))
        state = events.wait('state', lambda data: len(data['dead_letter_groups']) == 2)
        assert {(each['queue'], each['reason'], each['exception'], each['count'])
                for each in state['dead_letter_groups']} == {
            (work.queue, 'exception', 'ValueError', 1), (work.queue, 'rejected', '', 1)}
        state = events.wait('state', lambda data: data['last_errors'])
        assert {each['error'] for each in state['last_errors']} <= {
            'ValueError: not today', 'Reject: not ours'}
        events.wait('state', lambda data: data['queues'][work.queue]['ready'] == 0)
        daemon.stop()


@pytest.mark.parametrize('workers', [1, 2])
def test_the_configuration_in_force_is_told_again_after_a_reload(tmp_path, port, workers):
    with start_ticker(tmp_path, f'127.0.0.1:{port}', f', workers: {workers}') as daemon, \
            Events(port) as events:
        before = events.wait('configuration')
        assert before['Application'] == {'wake_interval': 0.2}
        assert before['Daemon']['workers'] == workers
        file = tmp_path / 'ticker.yml'
        file.write_text(file.read_text().replace(
            '{wake_interval: 0.2}', f'{{wake_interval: 0.3, password: {SECRET}}}'))
        os.kill(daemon.pid, signal.SIGHUP)
        after = events.wait('configuration')
        assert after['Application'] == {'wake_interval': 0.3, 'password': HIDDEN}
        daemon.stop()


def test_secrets_are_hidden(tmp_path, monkeypatch):
    monkeypatch.setenv('THE_SECRET', SECRET)
    (tmp_path / 'file').write_text(SECRET)
    found = shown(f"""
        Application:
          plain: !env THE_SECRET
          list: [1, !env THE_SECRET, "x"]
          read: !file {tmp_path}/file
          api_key: {SECRET}
          database: {{password: {SECRET}, host: db, nested: {{auth_token: [{SECRET}]}}}}
          urls: ["https://u:{SECRET}@h/x", "https://{SECRET}@sentry/1", "x?token={SECRET}&a=b"]
          seed: !!binary aHVudGVyMg==
          dsn_of: "host=db password={SECRET} dbname=x"
          author: me
          pass_through: true
        Mine: {{Secret: {{x: {SECRET}}}, colour: red}}
        AMQP:
          url: ["amqp://u:{SECRET}@h1/", "amqps://u:a{SECRET}%40b@h2/"]
          tls: {{key: /etc/key.pem, certificate: /etc/c.pem}}
          transport_options: {{password: {SECRET}}}
        """)
    assert SECRET not in json.dumps(found)
    own = found['Application']
    assert own['plain'] == '(the value of the environment variable THE_SECRET)'
    assert own['list'] == [1, own['plain'], 'x']
    assert own['read'] == '(the content of a file)'
    assert own['database'] == {'password': HIDDEN, 'host': 'db', 'nested': {'auth_token': HIDDEN}}
    assert own['urls'] == ['https://u:**@h/x', 'https://**@sentry/1', 'x?token=**&a=b']
    assert own['dsn_of'] == own['seed'] == HIDDEN
    assert (own['author'], own['pass_through']) == ('me', True)
    assert found['Mine'] == {'Secret': HIDDEN, 'colour': 'red'}
    assert found['AMQP']['url'] == ['amqp://u:**@h1/', 'amqps://u:**@h2/']
    assert found['AMQP']['tls']['key'] == '/etc/key.pem'
    assert found['AMQP']['heartbeat'] == 10
    assert found['Daemon']['umask'] == '027'


def test_what_a_program_has_made_of_a_section_is_not_shown():
    class Section:
        def __repr__(self):
            return SECRET

    found = shown('Mine: {a: 1}\n', parsers={'Mine': lambda section: Section()})
    assert found['Mine'] == {'a': 1}


def test_a_configuration_that_is_too_large_is_told_in_part():
    found = shown(f'Application: {{a: {["x" * 400] * 200}}}\nMine: {{a: 1}}\n')
    assert found['Application'] == 'too large to be shown'
    assert found['Mine'] == {'a': 1}
    statistics = Statistics.make()
    statistics.tell_configuration(found)
    assert statistics.read_configuration() == found


def test_an_hour_is_kept_and_no_more():
    statistics = Statistics.make(1)
    process = statistics.slot(0)
    process.begin(1)
    kept = History()
    for number in range(history.KEPT + 20):
        process.queues['orders'].run(0.001)
        if number % 2:
            process.queues['orders'].run(1.0)
            process.queues['orders'].count('failed')
        process.tell(last_error={'time': number, 'error': f'e{number}'})
        kept.note_errors([process.read()], process.read())
        kept.sample(process.read().queues)
    assert len(kept.samples) == history.KEPT
    assert kept.samples[-1]['number'] == kept.number == history.KEPT + 19
    runs, failed, p50, p99, ready = kept.samples[-1]['queues']['orders']
    assert (runs, failed, ready) == (2, 1, None)
    assert p50 < 0.002 < 1 < p99 < 1.5
    assert kept.samples[-2]['queues']['orders'][:2] == [1, 0]
    assert [each['time'] for each in kept.errors] == [
        *range(history.KEPT + 19, history.KEPT + 19 - history.MOST_ERRORS, -1)]


# Whom it is told

PATHS = [f'/{path}' for path in page.FILES]


def test_all_files_are_served_with_a_strict_policy(ticker, port):
    assert {name for name, _ in page.FILES.values()} == {each.name for each in STATIC.iterdir()}
    for path, (name, kind) in page.FILES.items():
        status, text, answer = get(port, f'/{path}')
        assert (status, text) == (200, (STATIC / name).read_text())
        assert answer.getheader('Content-Type') == kind
        policy = answer.getheader('Content-Security-Policy')
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert 'unsafe' not in policy
        assert answer.getheader('X-Content-Type-Options') == 'nosniff'
        assert answer.getheader('Referrer-Policy') == 'no-referrer'
        assert answer.getheader('Access-Control-Allow-Origin') is None


def test_nothing_inline_and_nothing_from_elsewhere():
    text = (STATIC / 'page.html').read_text()
    assert not re.search(r'<style|\sstyle=|\son\w+=|<script(?! src="page.js")', text)
    everything = ''.join(each.read_text() for each in STATIC.iterdir())
    assert set(re.findall(r'https?://[\w./]+', everything)) == {'http://www.w3.org/2000/svg'}
    assert not re.search(r'innerHTML|outerHTML|insertAdjacent|document\.write|eval|url\(',
                         everything)


def test_the_pictures_in_the_documentation_are_small():
    pictures = sorted((STATIC.parent.parent.parent / 'docs').glob('page-*.png'))
    assert [each.name for each in pictures] == ['page-dark.png', 'page-light.png']
    assert all(each.stat().st_size < 150_000 for each in pictures)


@pytest.mark.parametrize('path', [*PATHS, '/events', '/status'])
def test_pages_of_other_sites_are_refused(ticker, port, path):
    own = f'127.0.0.1:{port}'
    refused = [
        {'Host': 'evil.example'}, {'Host': f'evil.example:{port}'},
        {'Origin': 'https://evil.example'}, {'Origin': 'null'}, {'Origin': f'https://{own}.evil'},
        {'Origin': f'http://127.0.0.1:{port + 1}'},
        {'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'no-cors', 'Sec-Fetch-Dest': 'script'},
        {'Sec-Fetch-Site': 'same-site', 'Sec-Fetch-Mode': 'cors', 'Sec-Fetch-Dest': 'empty'},
        {'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'navigate', 'Sec-Fetch-Dest': 'iframe'},
    ]
    taken = [
        {}, {'Origin': f'http://{own}'}, {'Host': 'localhost'}, {'Host': f'[::1]:{port}'},
        {'Sec-Fetch-Site': 'same-origin', 'Sec-Fetch-Mode': 'cors', 'Sec-Fetch-Dest': 'empty'},
        {'Sec-Fetch-Site': 'cross-site', 'Sec-Fetch-Mode': 'navigate',
         'Sec-Fetch-Dest': 'document'},
        {'Sec-Fetch-Site': 'none'},
    ]
    for headers in refused:
        assert get(port, path, 'HEAD', **headers)[0] == 403, headers
    for headers in taken:
        assert get(port, path, 'HEAD', **headers)[0] == 200, headers
    for method in ('POST', 'PUT', 'DELETE', 'OPTIONS'):
        assert get(port, path, method)[0] == 405


def test_other_sites_are_refused_the_metrics_too(ticker, port):
    for path in ('/metrics', '/ready', '/live'):
        assert get(port, path, Origin='https://evil.example')[0] == 403
        assert get(port, path, Host='orders.internal')[0] == 200


# That it disturbs nobody

def test_there_are_so_many_clients_of_the_events_and_no_more(ticker, port):
    with contextlib.ExitStack() as held:
        events = [held.enter_context(Events(port)) for _ in range(web.MOST_STREAMS)]
        assert {each.status for each in events} == {200}
        with Events(port) as another:
            assert another.status == 503
            assert another.answer.getheader('Retry-After') == '5'
        assert get(port, '/live')[0] == 200
        for each in events:
            each.wait('state')
    for _ in range(3):  # those that have gone leave their places
        with contextlib.ExitStack() as held:
            for _ in range(web.MOST_STREAMS):
                events = wait(lambda: (found := Events(port)).status == 200 and found)
                held.enter_context(events)
                assert events.next()[0] == 'hour'


def test_the_events_go_on_while_others_fill_all_connections(ticker, port):
    with Events(port) as events:
        events.wait('state')
        idle = [socket.create_connection(('127.0.0.1', port)) for _ in range(2 * web.MOST)]
        for _ in range(3):
            events.wait('state')
        for each in idle:
            each.close()


def test_the_events_outlast_other_connections(ticker, port):
    with Events(port) as events:
        began = time.monotonic()
        while time.monotonic() < began + web.LIFETIME + 2:
            events.wait('state')


def test_a_client_that_hardly_reads_is_cut_off_and_delays_nobody():
    with shop(buffer=4096) as url:
        port = int(url.rpartition(':')[2].strip('/'))
        with Events(port) as events:
            _, hour = events.next()
            whole = len(json.dumps(hour, separators=(',', ':')))
            with socket.socket() as slow:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                slow.connect(('127.0.0.1', port))
                slow.settimeout(20)
                slow.sendall(b'GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n')
                received, began = 0, time.monotonic()
                while time.monotonic() < began + page.PATIENCE + 3:
                    events.wait('state')
                    received += len(slow.recv(10))
                with contextlib.suppress(ConnectionResetError):
                    while received < whole and (data := slow.recv(65536)):
                        received += len(data)
                assert received < whole
            for _ in range(3):
                events.wait('state')


def test_clients_that_read_nothing_delay_nobody(work, port):
    with start(work, port) as daemon:
        _, server = server_of(daemon.pid)
        silent = []
        for _ in range(web.MOST_STREAMS):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            connection.connect(('127.0.0.1', port))
            connection.sendall(b'GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n')
            silent.append(connection)
        before = resident(server)
        for number in range(3):
            work.send(f'm{number}')
            work.wait_done([f'm{number}'])
            began = time.monotonic()
            assert get(port, '/live')[0] == 200
            assert time.monotonic() - began < 1
        assert resident(server) < before + 50e6
        for each in silent:
            each.close()
        daemon.stop()


def resident(pid):
    return int(Path(f'/proc/{pid}/statm').read_text().split()[1]) * 4096


def hostile_to_the_page(port):
    """Connections that want nothing good of the page."""
    def connect(data):
        connection = socket.create_connection(('127.0.0.1', port), 5)
        with contextlib.suppress(OSError):
            connection.sendall(data)
        return connection

    ask = b'GET /events HTTP/1.1\r\nHost: localhost\r\n'
    yield [connect(ask + b'\r\n') for _ in range(100)]  # and never reads
    yield [connect(ask + b'\r\n' + os.urandom(100_000)) for _ in range(20)]
    yield [connect(ask) for _ in range(200)]  # never ends its request
    yield [connect(ask + b'Last-Event-ID: ' + b'9' * 5000 + b'\r\n\r\n') for _ in range(20)]
    yield [connect(ask.replace(b'1.1', b'1.0') + b'\r\n') for _ in range(20)]
    yield [connect(ask + b'Host: evil.example\r\nHost: x\r\n\r\n') for _ in range(20)]
    yield [connect(b'GET /page.js?' + b'x' * 4000 + b' HTTP/1.1\r\nHost: localhost\r\n\r\n')
           for _ in range(50)]
    yield [connect(b'GET //page.js HTTP/1.1\r\nHost: [\r\n\r\n') for _ in range(20)]
    yield [connect(b'GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n')
           for _ in range(20)]
    yield [connect(b'GET /events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n'
                   b'Connection: Upgrade\r\n\r\n') for _ in range(20)]
    yield from hostile_clients(port)


def test_hostile_clients_of_the_page_disturb_nobody(work, port, figure):
    with start(work, port) as daemon:
        _, server = server_of(daemon.pid)
        before = scrape(port)['process_cpu_seconds_total', '1']
        longest = 0.0
        for number, connections in enumerate(hostile_to_the_page(port)):
            for connection in connections[::2]:
                connection.close()
            began = time.monotonic()
            work.send(f'm{number}')
            work.wait_done([f'm{number}'])
            longest = max(longest, time.monotonic() - began)
            assert get(port, '/live')[0] == 200
            assert len(os.listdir(f'/proc/{server}/fd')) < web.MOST + 30
            for connection in connections:
                connection.close()
        figure('a message beside hostile clients of the page', f'{1000 * longest:.0f} ms at most')
        figure('the server after them', f'{resident(server) / 2**20:.0f} MiB')
        assert server_of(daemon.pid)[1] == server
        assert resident(server) < 100e6
        assert scrape(port)['process_cpu_seconds_total', '1'] < before + 5
        assert scrape(port)['clihelper_reconnects_total',] == 0
        with contextlib.closing(wait(lambda: (found := Events(port)).status == 200 and found
                                     ).answer):
            pass
        daemon.stop()
