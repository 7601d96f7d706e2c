"""clihelper status: what a running daemon does, whatever it does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clihelper.testing import Daemon
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
        found = wait_report(work, lambda found: not any(
            process['in_hand'] for process in found['processes']))
        queue = found['queues'][work.queue]
        assert queue['dead_lettered'] == 2
        assert queue['failed'] == 2
        assert queue['retried'] == 1
        assert queue['acknowledged'] >= 20
        assert queue['runs_last_minute'] >= 20
        assert queue['p99'] < 5
        assert 'ValueError: not today' in found['last_error']['error']
        assert {process['state'] for process in found['processes']} <= {'sleeping', 'active'}
        assert {process['broker']['consuming'] for process in found['processes']} == {True}
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
