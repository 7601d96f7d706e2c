"""Metrics and probes by HTTP: true whatever the daemon does, and no burden to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from clihelper.operations import exposition, web
from clihelper.process.statistics import Statistics
from clihelper.testing import Daemon, Program
from tests.proxy import Proxy
from tests.test_control import ROOT, clihelper
from tests.test_workers import children, wait_gone
from tests.test_workers_amqp import Work, names

RETRY = 'retry: {attempts: 2, delay: 0}'
TICKER = """\
import clihelper


class Ticker(clihelper.Controller):
    def _process(self):
        pass


clihelper.setup('ticker', version='1.0')
clihelper.run(Ticker)
"""


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


def start(work, port, daemon='workers: 2', amqp='', **env):
    """Start the program as a daemon, with metrics."""
    pidfile = work.folder / 'gang.pid'
    work.configure(daemon=f"{daemon}, pidfile: {pidfile}, metrics: '127.0.0.1:{port}'", amqp=amqp)
    argv = [sys.executable, str(ROOT / 'tests/programs/gang.py'), '-c', str(work.file)]
    return Daemon(argv, pidfile, env={'PYTHONPATH': str(ROOT), **env})


def start_ticker(folder, address, more='', logging='', before=''):
    """Start one that works without a broker."""
    (folder / 'ticker.py').write_text(before + TICKER)
    pidfile = folder / 'ticker.pid'
    (folder / 'ticker.yml').write_text(
        f"Application: {{wake_interval: 0.2}}\n"
        f"Daemon: {{pidfile: {pidfile}, metrics: '{address}'{more}}}\n{logging}")
    argv = [sys.executable, str(folder / 'ticker.py'), '-c', str(folder / 'ticker.yml')]
    return Daemon(argv, pidfile, env={'PYTHONPATH': str(ROOT)})


def get(port, path='/metrics', method='GET', timeout=20, **headers):
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=timeout)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer


def samples(text):
    """Each sample by its name and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text) for sample in family.samples
    }


def scrape(port):
    status, text, _ = get(port)
    assert status == 200
    return samples(text)


def wait(condition, timeout=20):
    end = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def title(pid):
    with contextlib.suppress(OSError):
        return Path(f'/proc/{pid}/cmdline').read_bytes().replace(b'\0', b' ').decode().strip()
    return ''


def server_of(pid):
    """The pids of the keeper and of its server, once it serves."""
    def find():
        for keeper in children(pid):
            if title(keeper).endswith(': metrics keeper'):
                for server in children(keeper):
                    if title(server).endswith(': metrics'):
                        return keeper, server
        return None

    return wait(find)


def keeper_of(daemon):
    return server_of(daemon.pid)[0]


def check(text):
    """Have promtool check it."""
    done = subprocess.run(['promtool', 'check', 'metrics'], input=text, capture_output=True,
                          text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, '')


KINDS = {
    'one': ('', ''), 'threads': ('threads', 'threads: 5\n  '),
    'coroutines': ('coroutines', 'concurrency: 5\n  '),
}


@pytest.mark.parametrize('workers', [1, 2])
@pytest.mark.parametrize('kind', KINDS)
def test_what_became_of_messages_is_counted(work, port, kind, workers):
    name, section = KINDS[kind]
    with start(work, port, f'workers: {workers}', f'{section}{RETRY}', KIND=name) as daemon:
        queue = work.queue
        work.send(*names(20), 'fail bad')
        work.wait_dead(1)
        work.wait_done(names(20))
        found = wait(lambda: (found := scrape(port))[
            'clihelper_handler_seconds_count', queue] == 22 and found)
        messages = 'clihelper_messages_total', queue
        assert found[*messages, 'acknowledged'] == 20
        assert found[*messages, 'retried'] == 1
        assert found[*messages, 'dead_lettered'] == 1
        assert found[*messages, 'requeued'] == 0
        assert found['clihelper_message_failures_total', queue] == 2
        assert found['clihelper_handler_seconds_bucket', queue, '+Inf'] == 22
        assert 0 < found['clihelper_handler_seconds_sum', queue] < 20
        assert found['clihelper_broker_up',] == found['clihelper_ready',] == 1
        assert found['clihelper_info', 'gang', ''] == 1
        assert found['notes_total', 'run'] == 22
        assert found['notes_total', 'done'] == 20
        assert found['name_characters_count',] == 42
        pids = {found['pid', str(worker + 1)] for worker in range(workers)
                if ('pid', str(worker + 1)) in found}
        assert pids <= {daemon.pid, *children(daemon.pid)}
        memory = 'process_resident_memory_bytes'
        assert found[memory, '1'] > 5e6
        assert ((memory, 'supervisor') in found) == (workers > 1)
        text = get(port)[1]
        check(text)
        printed = clihelper('metrics', '--pidfile', work.folder / 'gang.pid')
        assert printed.returncode == 0
        assert samples(printed.stdout).keys() == samples(text).keys()
        check(printed.stdout)
        daemon.stop()


@pytest.mark.parametrize('kind', ['one', 'coroutines'])
def test_what_the_program_publishes_is_counted(work, port, kind):
    with start(work, port, 'workers: 1', RETRY, KIND=kind) as daemon:
        work.send('publish it', 'misdirect it')
        work.wait_dead(1)
        work.wait_done(['it', 'told'])
        found = scrape(port)
        assert found['clihelper_published_total',] == 1
        assert found['clihelper_publish_failures_total',] == 2  # it is run twice
        daemon.stop()


def test_counters_never_decrease_while_workers_are_killed(work, port):
    with start(work, port, amqp=RETRY) as daemon:
        seen, stop = [], threading.Event()

        def watch():
            while not stop.is_set():
                seen.append(get(port)[1])

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            work.send(*names(100), 'exit crash', 'fail bad', *names(200)[100:])
            work.wait_dead(2)
            work.wait_done(names(200))
            wait(lambda: scrape(port)['clihelper_messages_total', work.queue, 'acknowledged']
                 >= 200)
        finally:
            stop.set()
            watcher.join()
        before = {}
        assert len(seen) > 5
        for text in seen:
            now = {
                (sample.name, *sample.labels.values()): sample.value
                for family in text_string_to_metric_families(text)
                if family.type != 'gauge' and not family.name.startswith('process_')
                for sample in family.samples
            }
            assert before.keys() <= now.keys()
            assert not [name for name, value in before.items() if now[name] < value]
            before = now
        found = scrape(port)
        assert found['clihelper_worker_restarts_total',] == 2
        assert found['clihelper_messages_total', work.queue, 'dead_lettered'] == 2
        daemon.stop()


def test_a_broker_outage_is_not_ready_but_live(work, port, broker):
    with Proxy(broker.port) as proxy:
        work._url = proxy.url
        with start(work, port) as daemon:
            assert get(port, '/ready')[:2] == (200, 'ok\n')
            proxy.swallow()
            proxy.cut()
            wait(lambda: get(port, '/ready')[0] == 503)
            assert get(port, '/ready')[1] == 'not ready\n'
            assert get(port, '/live')[:2] == (200, 'ok\n')
            assert scrape(port)['clihelper_broker_up',] == 0
            proxy.cut()
            proxy.resume()
            wait(lambda: get(port, '/ready')[0] == 200, 40)
            assert scrape(port)['clihelper_reconnects_total',] >= 1
            daemon.stop()


@pytest.mark.parametrize('workers', [1, 2])
def test_it_answers_while_a_handler_holds_the_interpreters_lock(work, port, workers, figure):
    with start(work, port, f'workers: {workers}') as daemon:
        work.send('seize it')
        work.wait_runs(1)
        get(port)
        began = time.monotonic()
        found = scrape(port)
        figure('/metrics while a handler holds the lock',
               f'{1000 * (time.monotonic() - began):.1f} ms')
        assert sum(found.get(('clihelper_in_hand', str(worker + 1)), 0)
                   for worker in range(workers)) == 1
        assert 0 < max(found['clihelper_in_hand_seconds', str(worker + 1)]
                       for worker in range(workers)) < 60
        assert get(port, '/live')[0] == 200
        daemon.stop('KILL' if workers == 1 else 'QUIT')


def test_a_daemon_that_is_stopped_is_not_live(tmp_path, port):
    with start_ticker(tmp_path, f'127.0.0.1:{port}') as daemon:
        assert get(port, '/live')[0] == 200
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            wait(lambda: get(port, '/live')[:2] == (503, 'not live: it hangs\n'))
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        wait(lambda: get(port, '/live')[0] == 200)
        daemon.stop()


def test_the_status_is_that_of_the_command(tmp_path, port):
    with start_ticker(tmp_path, f'127.0.0.1:{port}') as daemon:
        _, text, answer = get(port, '/status')
        assert answer.getheader('Content-Type') == 'application/json'
        found = json.loads(text)
        printed = json.loads(
            clihelper('status', '--json', '--pidfile', tmp_path / 'ticker.pid').stdout)
        assert found.keys() == printed.keys()
        assert found['pid'] == daemon.pid
        assert (found['state'], found['status'], found['pidfile']) == (
            'running', 0, str(tmp_path / 'ticker.pid'))
        assert 'href="metrics"' in get(port, '/')[1]
        daemon.stop()


def test_only_get_and_head_of_what_there_is(tmp_path, port):
    with start_ticker(tmp_path, f'127.0.0.1:{port}') as daemon:
        for method in ('POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH', 'BREW'):
            for path in ('/metrics', '/', '/nothing'):
                status, _, answer = get(port, path, method)
                assert status == 405
                assert answer.getheader('Allow') == 'GET, HEAD'
        for path in ('/nothing', '/../etc/passwd', '/metrics/', '//', '/%00'):
            assert get(port, path)[0] == 404
        for path in ('/metrics', '/live', '/ready', '/status', '/'):
            status, text, answer = get(port, path, 'HEAD')
            assert (status, text) == (200, '')
            assert int(answer.getheader('Content-Length')) > 0
            assert "default-src 'none'" in answer.getheader('Content-Security-Policy')
            assert answer.getheader('Server') is None
        daemon.stop()


def test_the_page_and_the_status_answer_to_names_of_their_own_only(tmp_path, port):
    with start_ticker(tmp_path, f'127.0.0.1:{port}') as daemon:
        for path in ('/', '/status'):
            for host in ('localhost', '10.1.2.3:80', '[::1]:9', 'LOCALHOST', socket.gethostname()):
                assert get(port, path, Host=host)[0] == 200
            for host in ('evil.example', 'localhost.evil.example', '', '[x', 'a b'):
                assert get(port, path, Host=host)[0] in (400, 403)
        for path in ('/metrics', '/ready', '/live'):  # who asks for them has a name of its own
            assert get(port, path, Host='orders.internal:80')[0] == 200
        daemon.stop()


def hostile_clients(port):
    """Connections that want nothing good."""
    def connect(data):
        connection = socket.create_connection(('127.0.0.1', port), 5)
        with contextlib.suppress(OSError):
            connection.sendall(data)
        return connection

    yield [connect(os.urandom(10000)) for _ in range(20)]
    yield [connect(b'GET /metrics HTTP/1.1\r\nX: ' + b'x' * 1_000_000) for _ in range(5)]
    yield [connect(b'GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n'
                   + b'x' * 100_000) for _ in range(5)]
    yield [connect(b'GET /live HTTP/1.1\r\nContent-Length: -1\r\n\r\n') for _ in range(5)]
    yield [connect(b'GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n' * 100) for _ in range(60)]
    yield [connect(b'') for _ in range(300)]
    yield [connect(b'GET /metrics HTTP/1.1\r\n') for _ in range(300)]


def test_hostile_clients_disturb_nobody(work, port):
    with start(work, port) as daemon:
        _, server = server_of(daemon.pid)
        before = scrape(port)['process_cpu_seconds_total', '1']
        for number, connections in enumerate(hostile_clients(port)):
            assert get(port, '/live')[0] == 200
            work.send(f'm{number}')
            work.wait_done([f'm{number}'])
            assert len(os.listdir(f'/proc/{server}/fd')) < web.MOST + 30
            for connection in connections:
                connection.close()
        assert server_of(daemon.pid)[1] == server
        resident = int(Path(f'/proc/{server}/statm').read_text().split()[1]) * 4096
        assert resident < 100e6
        assert scrape(port)['process_cpu_seconds_total', '1'] < before + 5
        daemon.stop()


def test_a_slow_client_is_cut_off(tmp_path, port):
    with start_ticker(tmp_path, f'127.0.0.1:{port}') as daemon:
        with socket.create_connection(('127.0.0.1', port), 3 * web.LIFETIME) as connection:
            connection.sendall(b'GET /metrics HTTP/1.1\r\n')
            began = time.monotonic()
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(4096):
                    pass
            assert time.monotonic() - began < 2 * web.LIFETIME
        daemon.stop()


@pytest.mark.parametrize('workers', [1, 2])
def test_a_server_that_dies_is_replaced_and_told(tmp_path, port, workers):
    logging = ('Logging:\n  handlers: {file: {class: logging.FileHandler, mode: w, filename: '
               f'{tmp_path}/log}}}}\n  root: {{level: INFO, handlers: [file]}}\n')
    with start_ticker(tmp_path, f'127.0.0.1:{port}', f', workers: {workers}', logging) as daemon:
        for _ in range(2):
            keeper, server = server_of(daemon.pid)
            os.kill(server, signal.SIGKILL)
            wait(lambda server=server: server_of(daemon.pid)[1] != server)
            assert get(port, '/live')[0] == 200
        for pid in server_of(daemon.pid):
            files = [os.readlink(path) for path in Path(f'/proc/{pid}/fd').iterdir()]
            assert not [name for name in files if str(tmp_path) in name]  # it may be rotated
        daemon.stop()
    told = 'the process for metrics has ended: signal 9; another is started'
    log = (tmp_path / 'log').read_text()
    assert log.count(told) == 2, log
    assert '\0' not in log


@pytest.mark.parametrize('workers', [1, 2])
@pytest.mark.parametrize('how', ['TERM', 'KILL'])
def test_nothing_is_left_when_the_daemon_has_ended(tmp_path, port, how, workers):
    with start_ticker(tmp_path, f'127.0.0.1:{port}', f', workers: {workers}') as daemon:
        both = server_of(daemon.pid)
        os.kill(both[1], signal.SIGSTOP)  # it ends in spite of that
        if how == 'KILL':
            os.kill(daemon.pid, signal.SIGKILL)
            wait_gone(both, 10)
        else:
            daemon.stop()
            assert not [pid for pid in both if 'metrics' in title(pid)]
    with pytest.raises(ConnectionRefusedError):
        get(port)


def test_it_can_be_started_again_at_once(tmp_path, port):
    for _ in range(3):
        with start_ticker(tmp_path, f'127.0.0.1:{port}') as daemon:
            assert get(port, '/live')[0] == 200
            daemon.stop()


@pytest.mark.parametrize('workers', [1, 2])
def test_it_survives_a_reload_and_the_signals_of_a_stop(work, port, workers):
    with start(work, port, f'workers: {workers}') as daemon:
        both = server_of(daemon.pid)
        work.send(*names(5))
        work.wait_done(names(5))
        for pid in both:
            for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT,
                           signal.SIGUSR1, signal.SIGUSR2):
                os.kill(pid, signum)
        read = 'clihelper_config_read_timestamp_seconds',
        before = scrape(port)[read]
        os.kill(daemon.pid, signal.SIGHUP)
        wait(lambda: scrape(port)[read] > before)
        work.send('again')
        work.wait_done(['again'])
        assert server_of(daemon.pid) == both
        assert scrape(port)['clihelper_handler_seconds_count', work.queue] == 6
        daemon.stop()


def test_it_holds_nothing_of_the_daemons(tmp_path, port):
    with start_ticker(tmp_path, f'127.0.0.1:{port}', ", listen: '127.0.0.1:0'") as daemon:
        assert get(port, '/live')[0] == 200  # it has imported what it needs
        for pid in server_of(daemon.pid):
            files = {path.name: os.readlink(path) for path in Path(f'/proc/{pid}/fd').iterdir()}
            assert not [name for name in files.values() if str(tmp_path) in name]
            kinds = {name.partition(':')[0] for number, name in files.items() if int(number) > 2}
            assert kinds <= {'socket', 'anon_inode'}
        files = [os.readlink(path) for path in Path(f'/proc/{keeper_of(daemon)}/fd').iterdir()]
        assert len([name for name in files if name.startswith('socket:')]) == 1
        # The daemon itself does not serve.
        sockets = [path for path in Path(f'/proc/{daemon.pid}/fd').iterdir()
                   if os.readlink(path).startswith('socket:')]
        assert len(sockets) <= 3  # of the log, Daemon.listen and Daemon.control
        daemon.stop()


@pytest.mark.root
def test_it_runs_as_the_daemons_user(tmp_path, port):
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == 0 and path != Path('/'):
            path.chmod(path.stat().st_mode | 0o055)
    shutil.copytree(ROOT / 'clihelper', tmp_path / 'clihelper')
    # That user may not be allowed to read this Python.
    early = 'import asyncio, ctypes, concurrent.futures.thread, encodings.idna\n' \
            'import ipaddress, syslog, tornado.httpserver, tornado.web\n'
    with start_ticker(tmp_path, f'127.0.0.1:{port}', ', user: nobody', '', early) as daemon:
        for pid in server_of(daemon.pid):
            assert Path(f'/proc/{pid}').stat().st_uid in (65534, 0)
            uids = re.search(r'Uid:\s(.*)', Path(f'/proc/{pid}/status').read_text())[1].split()
            assert set(uids) == {'65534'}
        assert ('process_resident_memory_bytes', '1') in scrape(port)
        daemon.stop()


def test_a_socket_in_the_file_system(tmp_path):
    path = tmp_path / 'metrics.sock'
    with start_ticker(tmp_path, f'unix:{path}') as daemon:
        for target in ('/live', '/status'):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                connection.sendall(f'GET {target} HTTP/1.0\r\nHost: any.thing\r\n\r\n'.encode())
                answer = b''.join(iter(lambda: connection.recv(65536), b''))
                assert answer.startswith(b'HTTP/1.1 200 ')
        daemon.stop()
    assert not path.exists()


def test_an_address_in_use_is_told_on_the_terminal(tmp_path, port):
    (tmp_path / 'ticker.py').write_text(TICKER)
    (tmp_path / 'c.yml').write_text(f"Daemon: {{metrics: '127.0.0.1:{port}'}}\n")
    with socket.create_server(('127.0.0.1', port)):
        argv = [sys.executable, str(tmp_path / 'ticker.py'), '-c', str(tmp_path / 'c.yml'), '-f']
        with Program(argv, env={'PYTHONPATH': str(ROOT)}) as program:
            assert program.wait() == os.EX_CANTCREAT
            program.wait_line(rf'Daemon.metrics: 127.0.0.1:{port}: Address already in use')


def test_the_command_says_when_there_is_nothing_to_print(tmp_path):
    done = clihelper('metrics', '--pidfile', tmp_path / 'none.pid')
    assert done.returncode == 7
    assert done.stderr.endswith(': stopped\n')
    assert 'Example:' in clihelper('metrics', '--help').stdout


def test_sixteen_workers_with_fifty_queues(figure):
    statistics = Statistics.make(34)
    statistics.tell(program='x', pid=os.getpid())
    for worker in range(16):
        process = statistics.slot(worker)
        process.begin(worker + 1)
        for number in range(50):
            queue = process.queues[f'queue {number}']
            for exponent in range(20):
                queue.run(2**exponent / 1e5)
    expo, took = exposition.Exposition(), []
    for _ in range(5):
        began = time.process_time()
        text = expo.render(*statistics.read())
        took.append(time.process_time() - began)
    figure('/metrics of 16 workers with 50 queues, CPU', f'{1000 * min(took):.1f} ms')
    found = samples(text)
    assert found['clihelper_handler_seconds_count', 'queue 49'] == 320
    # Exact: of the runs of 10 us, 20 us, ... those below the bound.
    bounds = [name[2] for name in found if name[:2] == (
        'clihelper_handler_seconds_bucket', 'queue 7')]
    assert len(bounds) == 26
    for bound in bounds:
        below = sum(2**exponent / 1e5 < float(bound) for exponent in range(20))
        assert found['clihelper_handler_seconds_bucket', 'queue 7', bound] == 16 * below
    check(text)


def test_a_reading_between_two_counts_does_not_make_a_counter_decrease():
    statistics = Statistics.make(1)
    process = statistics.slot(0)
    process.begin(1)
    queue = process.queues['orders']
    queue.run(0.001)
    expo = exposition.Exposition()
    sample = 'clihelper_messages_total', 'orders', 'acknowledged'
    assert samples(expo.render(*statistics.read()))[sample] == 1  # nobody has said otherwise yet
    queue.count('retry')
    assert samples(expo.render(*statistics.read()))[sample] == 1
    queue.run(0.001)
    assert samples(expo.render(*statistics.read()))[sample] == 1


def test_the_page_of_the_documentation_has_each_metric():
    text = (ROOT / 'docs/metrics.rst').read_text()
    row = r'^   \* - ``([a-z_]+)(?:\{[a-z,]*\})?``\n     - ([a-z]+)$'
    rows = re.findall(row, text, re.MULTILINE)
    assert dict(rows) == {name: kind for name, (kind, _) in exposition.FAMILIES.items()}
