"""clihelper status: what a running daemon does, whatever it does."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from clihelper.testing import Daemon, Program
from tests.proxy import Proxy
from tests.test_control import ROOT, clihelper
from tests.test_workers import children
from tests.test_workers_amqp import Work, names

RETRY = 'retry: {attempts: 2, delay: 0}'


@pytest.fixture
def work(tmp_path, broker, queue_name):
    work = Work(tmp_path, broker, queue_name)
    yield work
    work.close()


def start(work, daemon='workers: 2', amqp='', **env):
    """Start the program as a daemon, with a pidfile."""
    pidfile = work.folder / 'gang.pid'
    work.configure(daemon=f'{daemon}, pidfile: {pidfile}', amqp=amqp)
    argv = [sys.executable, str(ROOT / 'tests/programs/gang.py'), '-c', str(work.file)]
    return Daemon(argv, pidfile, env={'PYTHONPATH': str(ROOT), **env})


def ask(work, *options):
    return clihelper('status', *options, '--pidfile', work.folder / 'gang.pid')


def report(work):
    done = ask(work, '--json')
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def wait_report(work, accepts, timeout=15):
    end = time.monotonic() + timeout
    while not accepts(found := report(work)):
        assert time.monotonic() < end, found
        time.sleep(0.05)
    return found


KINDS = {
    'one': ('', ''), 'threads': ('threads', 'threads: 5\n  '),
    'coroutines': ('coroutines', 'concurrency: 5\n  '),
}


@pytest.mark.parametrize('kind', KINDS)
def test_what_became_of_messages_is_counted(work, kind):
    name, section = KINDS[kind]
    with start(work, amqp=f'{section}{RETRY}', KIND=name) as daemon:
        work.send(*names(20), 'fail bad', 'exit crash')
        work.wait_dead(2)
        work.wait_done(names(20))
        found = wait_report(work, lambda found: all(
            not process['in_hand'] and process['broker'] and process['broker']['consuming']
            for process in found['processes']))
        queue = found['queues'][work.queue]
        assert queue['dead_lettered'] == 2
        assert queue['failed'] == 2
        assert queue['retried'] == 1
        assert queue['acknowledged'] >= 20
        assert queue['runs_last_minute'] >= 20
        assert queue['p99'] < 5
        assert 'ValueError: not today' in found['last_error']['error']
        assert {each['state'] for each in found['processes']} <= {'sleeping', 'active', 'idle'}
        assert found['pid'] == daemon.pid
        assert '**' in found['processes'][0]['broker']['url']
        text = ask(work).stdout
        assert work.queue in text
        assert 'ValueError: not today' in text
        daemon.stop()
    assert ask(work).stdout.endswith(': stopped\n')


@pytest.mark.parametrize('workers', [1, 2])
def test_it_is_true_while_a_handler_holds_the_interpreters_lock(work, workers, figure):
    with start(work, daemon=f'workers: {workers}') as daemon:
        work.send('seize it')
        work.wait_runs(1)
        began = time.monotonic()
        found = report(work)
        took = time.monotonic() - began
        bare = time.monotonic()
        subprocess.run([sys.executable, '-c', ''], check=True)
        bare = time.monotonic() - bare
        (process,) = [each for each in found['processes'] if each['in_hand']]
        assert process['in_hand_queue'] == work.queue
        assert 0 <= process['in_hand_since'] < 30
        assert f'1, {work.queue} for ' in ask(work).stdout
        figure('status while a handler holds the lock, over the bare interpreter',
               f'{1000 * (took - bare):.0f} ms')
        daemon.stop('KILL' if workers == 1 else 'QUIT')


def test_it_is_true_while_the_daemon_is_stopped(work):
    with start(work) as daemon:
        assert ask(work, '--live').returncode == 0
        pids = [daemon.pid, *children(daemon.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            assert len(report(work)['processes']) == 2
            assert ask(work, '--live').returncode == 1
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        assert ask(work, '--live').returncode == 0
        daemon.stop()


def test_a_handler_beyond_its_time_is_not_live(work):
    # A single process: nobody ends it.
    with start(work, daemon='workers: 1') as daemon:
        work.send('hang it')
        work.wait_runs(1)
        assert ask(work, '--live').returncode == 0
        assert ask(work, '--ready').returncode == 0
        daemon.stop('QUIT')


def test_the_figures_of_a_worker_that_was_killed_remain(work):
    with start(work) as daemon:
        work.send(*names(30))
        work.wait_done(names(30))
        wait_report(work, lambda found: found['queues'][work.queue]['runs'] == 30)
        old = children(daemon.pid)
        os.kill(old[0], signal.SIGKILL)
        found = wait_report(work, lambda found: len(
            {process['pid'] for process in found['processes']} - set(old)) == 1)
        assert found['queues'][work.queue]['runs'] == 30
        daemon.stop()


def test_readiness_follows_the_broker_and_liveness_does_not(work, broker):
    with Proxy(broker.port) as proxy:
        work._url = proxy.url
        with start(work) as daemon:
            assert ask(work, '--ready').returncode == 0
            proxy.swallow()
            proxy.cut()
            wait_report(work, lambda found: not found['ready'])
            assert ask(work, '--ready').returncode == 1
            assert ask(work, '--live').returncode == 0
            assert '127.0.0.1' in ask(work).stdout
            proxy.cut()
            proxy.resume()
            wait_report(work, lambda found: found['ready'], 30)
            assert report(work)['counted']['reconnects'] >= 1
            daemon.stop()


@pytest.mark.root
def test_another_user_sees_that_it_runs_and_no_more(work):
    with start(work) as daemon:
        done = as_nobody(work.folder, 'status', '--pidfile', str(work.folder / 'gang.pid'))
        assert done.stdout.count('\n') == 1
        assert f'running, pid {daemon.pid}' in done.stdout
        assert done.returncode == 0
        daemon.stop()


def as_nobody(folder, *words):
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and path != Path('/'):
            path.chmod(path.stat().st_mode | 0o055)
    shutil.copytree(ROOT / 'clihelper', folder / 'clihelper')
    return subprocess.run(
        ['/usr/bin/python3', '-c',
         'import sys; sys.path[:0] = sys.argv[1:2]; del sys.argv[1]\n'
         'from clihelper.commands import main; main()', str(folder), *words],
        user='nobody', capture_output=True, text=True, timeout=60, cwd='/',
    )


def test_what_a_hostile_daemon_has_written_is_shown_with_escapes(tmp_path):
    program = tmp_path / 'hostile.py'
    program.write_text('''\
import clihelper

class Hostile(clihelper.Controller):
    def _setup(self):
        self._life.statistics.tell(
            last_error={'time': 0, 'error': '\\x1b[2Jgone', 'message': '', 'outcome': ''})

clihelper.setup('hostile')
clihelper.run(Hostile)
''')
    pidfile = tmp_path / 'hostile.pid'
    (tmp_path / 'c.yml').write_text(f'Daemon: {{pidfile: {pidfile}}}\n')
    with Daemon([sys.executable, str(program), '-c', str(tmp_path / 'c.yml')], pidfile,
                env={'PYTHONPATH': str(ROOT)}) as daemon:
        text = clihelper('status', '--pidfile', pidfile).stdout
        assert 'gone' in text
        assert '\x1b' not in text
        daemon.stop()


TICKING = '''\
import time
import clihelper

class Ticking(clihelper.%s):
    def _process(self):
        time.sleep(0.02)

    def on_message(self, body, message):
        pass

clihelper.setup('ticking')
clihelper.run(Ticking)
'''


@pytest.mark.parametrize('workers', [1, 2])
@pytest.mark.parametrize('kind', ['Controller', 'IOLoopController', 'ConsumerController',
                                  'AsyncConsumerController'])
def test_how_long_process_takes_is_in_the_status_and_the_metrics(tmp_path, kind, workers):
    (tmp_path / 'ticking.py').write_text(TICKING % kind)
    pidfile = tmp_path / 'ticking.pid'
    (tmp_path / 'c.yml').write_text(
        f'Application: {{wake_interval: 0.05}}\n'
        f'Daemon: {{pidfile: {pidfile}, workers: {workers}}}\n'
        f'AMQP: {{url: "memory://"{", queues: {q: }" if "Consumer" in kind else ""}}}\n')
    argv = [sys.executable, str(tmp_path / 'ticking.py'), '-c', str(tmp_path / 'c.yml')]
    with Daemon(argv, pidfile, env={'PYTHONPATH': str(ROOT)}) as daemon:
        end = time.monotonic() + 15
        while (found := json.loads(clihelper('status', '--json', '--pidfile', pidfile).stdout))[
                'ticks']['runs'] < 5:
            assert time.monotonic() < end, found
        assert 0 <= found['counted']['ticks'] - found['ticks']['runs'] <= workers
        assert 0.015 < found['ticks']['p50'] < 0.5
        assert found['ticks']['seconds'] >= 0.02 * found['ticks']['runs']
        text = clihelper('status', '--pidfile', pidfile).stdout
        assert re.search(r'_process was called \d+ times; p50 [\d.]+ ms, p99 ', text)
        metrics = clihelper('metrics', '--pidfile', pidfile).stdout
        count = re.search(r'^clihelper_tick_seconds_count (\d+)$', metrics, re.M)
        assert int(count[1]) >= 5
        assert '# TYPE clihelper_tick_seconds histogram' in metrics
        daemon.stop()


@pytest.fixture
def ticker(tmp_path):
    """A daemon that does something now and then."""
    program = tmp_path / 'ticker.py'
    program.write_text('import clihelper\n\n\nclass Ticker(clihelper.Controller):\n'
                       '    def _process(self):\n        pass\n\n\n'
                       "clihelper.setup('ticker')\nclihelper.run(Ticker)\n")
    pidfile = tmp_path / 'ticker.pid'
    (tmp_path / 'c.yml').write_text(
        f'Application: {{wake_interval: 0.2}}\nDaemon: {{pidfile: {pidfile}}}\n')
    argv = [sys.executable, str(program), '-c', str(tmp_path / 'c.yml')]
    with Daemon(argv, pidfile, env={'PYTHONPATH': str(ROOT)}) as daemon:
        yield pidfile
        daemon.stop()


WATCH = [sys.executable, str(ROOT / 'bin/clihelper'), 'status', '--watch', '--pidfile']


def test_watching_in_a_pipe_prints_it_plainly(ticker):
    with Program([*WATCH, str(ticker)], env={'PYTHONPATH': str(ROOT)}) as program:
        program.wait_line(r'_process was called \d+ times')
        program.wait_line(r'_process was called \d+ times')
        program.signal('INT')
        assert program.wait() == 0
        assert not any('\x1b' in line for line in program.stdout)


@pytest.mark.parametrize('key', [b'q', b'\x03'])
def test_watching_on_a_terminal_of_80_columns_has_the_screen_and_gives_it_back(ticker, key):
    pid, terminal = pty.fork()
    if not pid:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
        os.execve(WATCH[0], [*WATCH, str(ticker)], {**os.environ, 'PYTHONPATH': str(ROOT)})
    try:
        seen = b''
        while seen.count(b'quit') < 2:
            assert select.select([terminal], (), (), 20)[0], seen
            seen += os.read(terminal, 65536)
        os.write(terminal, key)
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while part := os.read(terminal, 65536):
                seen += part
    finally:
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert seen.startswith(b'\x1b[?1049h')
    assert seen.rstrip().endswith(b'\x1b[?1049l')
    screens = seen.decode().split('\x1b[H')[1:]
    for screen in screens:
        lines = re.sub(r'\x1b\[[?0-9]*[A-Za-z]', '', screen).split('\r\n')
        assert len(lines) == 24
        assert all(len(line) <= 80 for line in lines[:-1])


@pytest.mark.parametrize('options', [('--json', '--watch'), ('--ready', '--live')])
def test_options_that_exclude_each_other(tmp_path, options):
    done = clihelper('status', *options, '--pidfile', tmp_path / 'x')
    assert done.returncode == 4
    assert 'exclude each other' in done.stderr
