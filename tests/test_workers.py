"""Workers of an interval controller under their supervisor, as real processes."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clihelper.testing import Daemon, Program, WaitError

PROGRAMS = Path(__file__).parent / 'programs'
LOGGING = """
Logging:
  formatters: {plain: {format: '%(levelname)s %(process)d %(message)s'}}
  handlers: {console: {class: logging.StreamHandler, formatter: plain}}
  root: {level: DEBUG, handlers: [console]}
"""
PLAIN_USER = 54322  # that nobody else uses, so that the number of his processes is known


class Crew(Program):
    """The program, in the foreground, with its configuration."""

    def __init__(self, folder, *, before=(), program='crew.py', options=('-f',), **config):
        self.file = folder / 'crew.yml'
        self.configure(**config)
        program = [sys.executable, str(PROGRAMS / program), '-c', str(self.file), *options]
        super().__init__([*before, *program], watchdog=config.get('watchdog'))

    def configure(self, daemon='workers: 2', more='', watchdog=None):
        self.file.write_text(
            f'Application: {{wake_interval: 3600, {more}}}\nDaemon: {{{daemon}}}\n{LOGGING}'
        )

    def workers(self):
        """The pids of the workers, by their title's number."""
        found = {}
        for pid in children(self.pid):
            title = Path(f'/proc/{pid}/cmdline').read_bytes().rstrip(b'\0').decode()
            if match := re.fullmatch(r'crew: worker (\d+)', title):
                found[int(match[1])] = pid
        return found

    def count(self, words):
        return sum(words in line for line in self.lines)

    def change(self, **config):
        """Have all workers that are started from now on do something else."""
        self.configure(**config)
        self.signal('USR1')
        for _ in self.workers():
            self.wait_line(r'reloaded \d')

    def wait_status(self, words):
        while words not in self.wait_notified('STATUS')['STATUS']:
            pass


def children(pid):
    return [int(child) for child in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()]


def wait_gone(pids, timeout):
    """Wait for the end of processes that are not children."""
    end = time.monotonic() + timeout
    for pid in pids:
        try:
            gone = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([gone], [], [], max(end - time.monotonic(), 0))[0], pid
        finally:
            os.close(gone)


def test_workers_have_numbers_titles_and_no_signal_blocked_and_stop_together(tmp_path):
    with Crew(tmp_path, daemon='workers: 3') as crew:
        crew.wait_ready()
        assert sorted(crew.workers()) == [1, 2, 3]
        assert sorted(re.findall(r'setup (\d)', '\n'.join(crew.lines))) == ['1', '2', '3']
        assert Path(f'/proc/{crew.pid}/cmdline').read_bytes().startswith(b'crew: supervisor\0')
        for pid in (crew.pid, *crew.workers().values()):
            status = Path(f'/proc/{pid}/status').read_text()
            assert re.search(r'^SigBlk:\s*0+$', status, re.M)
            assert re.search(r'^Threads:\s*1$', status, re.M)
            assert re.search(r'^Name:\tcrew:\S+$', status, re.M)
        assert crew.stop() == 0, str(crew)
        assert crew.count('cleanup') == 3
        assert crew.count('after run') == 1
    assert [n for n in crew.notifications if 'READY' in n] == [{'READY': '1'}]
    assert any(n.get('STATUS') == '3 of 3 workers ready' for n in crew.notifications)


def test_a_worker_that_dies_is_replaced_and_its_end_told(tmp_path):
    with Crew(tmp_path) as crew:
        crew.wait_ready()
        pid = crew.workers()[2]
        os.kill(pid, signal.SIGKILL)
        crew.wait_line(rf'ERROR .*worker 2 \(pid {pid}\) ended .*: SIGKILL \(out of memory\?\)')
        crew.wait_line(r'worker 2 \(pid \d+\) is ready')
        os.kill(crew.workers()[1], signal.SIGSEGV)
        crew.wait_line('Segmentation fault')
        crew.wait_line(r'File .*crew.py", line \d+')
        crew.wait_line(r'worker 1 \(pid \d+\) ended .*: SIGSEGV;')
        crew.wait_line(r'worker 1 \(pid \d+\) is ready')
        os.kill(crew.workers()[1], signal.SIGTERM)
        crew.wait_line('cleanup 1')
        crew.wait_line(r'worker 1 \(pid \d+\) is ready')
        assert crew.stop() == 0, str(crew)


def test_when_the_supervisor_is_killed_no_worker_stays(tmp_path):
    with Crew(tmp_path) as crew:
        crew.wait_ready()
        pids = crew.workers().values()
        started = time.monotonic()
        crew.signal('KILL')
        wait_gone(pids, 2)
        assert time.monotonic() - started < 2
        crew.wait()
        assert crew.count('the supervisor has died') == 2
        assert crew.count('cleanup') == 2


def test_a_test_that_fails_leaves_no_worker_running(tmp_path):
    with Crew(tmp_path, more='busy: 60') as crew:
        crew.wait_ready()
        crew.wait_line('process')
        crew.wait_line('process')
        pids = crew.workers().values()
    wait_gone(pids, 1)


def test_a_busy_orphan_ends_at_its_deadline(tmp_path):
    with Crew(tmp_path, daemon='workers: 2, stop_timeout: 1', more='busy: 60') as crew:
        crew.wait_ready()
        crew.wait_line('process')
        crew.wait_line('process')
        pids = crew.workers().values()
        crew.signal('KILL')
        wait_gone(pids, 4)


def test_a_reload_replaces_one_after_the_other_and_each_is_ready_first(tmp_path):
    with Crew(tmp_path, more='word: old') as crew:
        crew.wait_ready()
        old = crew.workers()
        crew.configure(more='word: new')
        crew.signal('HUP')
        for number in (1, 2):
            crew.wait_line(f'setup {number} new')
            crew.wait_line(rf'worker {number} \(pid \d+\) is ready')
        crew.wait_ready()
        assert set(old.values()).isdisjoint(crew.workers().values())
        assert crew.stop() == 0, str(crew)

    def place(words):
        return next(n for n, line in enumerate(crew.lines) if words in line)

    for number in (1, 2):
        assert place(f'setup {number} new') < place(f'cleanup {number}')
    names = [next(iter(n)) for n in crew.notifications if 'STATUS' not in n or len(n) > 1]
    assert names.count('RELOADING') == 1
    assert crew.count('WARNING') == 0


def test_a_configuration_that_is_wrong_changes_nothing(tmp_path):
    with Crew(tmp_path) as crew:
        crew.wait_ready()
        old = crew.workers()
        crew.configure(daemon='workers: none')
        crew.signal('HUP')
        crew.wait_line(r'crew.yml:2:\d+: Daemon.workers: expected an integer')
        crew.wait_line('going on with the old one')
        assert crew.workers() == old
        assert crew.stop() == 0, str(crew)


@pytest.mark.parametrize('failing', ['all', '2'])
def test_a_generation_that_fails_leaves_the_old_one_in_place(tmp_path, failing):
    with Crew(tmp_path, more='word: old') as crew:
        crew.wait_ready()
        crew.configure(more=f'word: new, fail: {failing}')
        crew.signal('HUP')
        crew.wait_line('the reload is given up, the old workers go on: ValueError: no hands')
        crew.wait_ready()
        if failing == '2':
            assert crew.count('setup 1 old') == 2  # it was replaced, and went back
            assert crew.count('cleanup 2') == 0
        assert crew.count('setup 2 old') == 1
        os.kill(crew.workers()[2], signal.SIGKILL)
        crew.wait_line('setup 2 old')
        assert crew.stop() == 0, str(crew)


def test_a_generation_that_is_never_ready_is_given_up(tmp_path):
    with Crew(tmp_path, daemon='workers: 2, start_timeout: 0.5') as crew:
        crew.wait_ready()
        old = crew.workers()
        crew.configure(daemon='workers: 2, start_timeout: 0.5', more='hang: 600')
        crew.signal('HUP')
        crew.wait_line('is not ready after 0.5 s')
        crew.wait_line('the reload is given up')
        crew.wait_ready()
        crew.wait_line('has ended')
        assert crew.workers() == old
        assert crew.stop() == 0, str(crew)


def test_usr1_and_usr2_reach_all(tmp_path):
    with Crew(tmp_path) as crew:
        crew.wait_ready()
        old = crew.workers()
        crew.configure(more='word: new')
        crew.signal('USR1')
        crew.wait_line(r'reloaded \d new')
        crew.wait_line(r'reloaded \d new')
        crew.signal('USR2')
        crew.wait_line(r'worker 1 \(pid \d+\): ready')
        for _ in old:  # one may still be in the reload that it told of
            crew.wait_line(r'\d state [A-Z]+')
        assert crew.workers() == old
        os.kill(old[1], signal.SIGKILL)
        crew.wait_line('setup 1 new')
        assert crew.stop() == 0, str(crew)


def test_ttin_and_ttou_add_and_remove_one(tmp_path):
    with Crew(tmp_path) as crew:
        crew.wait_ready()
        crew.signal('TTIN')
        crew.wait_line(r'worker 3 \(pid \d+\) is ready')
        crew.signal('TTOU')
        crew.wait_line('cleanup 3')
        crew.wait_line('has ended')
        assert sorted(crew.workers()) == [1, 2]
        crew.signal('TTOU')
        crew.wait_line('cleanup 2')
        crew.signal('TTOU')
        crew.wait_line('1 worker')
        assert crew.stop() == 0, str(crew)


def test_a_bad_generation_does_not_end_the_service_where_a_worker_was_missing(tmp_path):
    with Crew(tmp_path, more='word: old') as crew:
        crew.wait_ready()
        for number in range(6):  # so that it is waited with the next one
            os.kill(crew.workers()[2], signal.SIGKILL)
            crew.wait_line(r'worker 2 .* ended .* starting another')
            if number < 5:
                crew.wait_line(r'worker 2 \(pid \d+\) is ready')
        crew.configure(more='word: new, fail: all')
        crew.signal('HUP')
        crew.wait_line('the reload is given up')
        crew.wait_line(r'worker 2 \(pid \d+\) is ready')
        assert crew.stop() == 0, str(crew)


def test_ctrl_c_reaches_all_of_them(tmp_path):
    with Crew(tmp_path) as crew:
        crew.wait_ready()
        os.killpg(crew.pid, signal.SIGINT)
        assert crew.wait() == 0, str(crew)
        assert crew.count('cleanup') == 2


@pytest.mark.parametrize(('signals', 'status'), [(('QUIT',), 131), (('INT', 'INT'), 130)])
def test_at_once_means_at_once(tmp_path, signals, status):
    with Crew(tmp_path, more='busy: 60') as crew:
        crew.wait_ready()
        crew.wait_line('process')
        crew.wait_line('process')
        for signum in signals:
            crew.signal(signum)
            crew.wait_line(signum)
        started = time.monotonic()
        assert crew.wait() == status
        assert time.monotonic() - started < 2


def test_stragglers_are_killed_at_the_deadline(tmp_path):
    with Crew(tmp_path, daemon='workers: 2, stop_timeout: 1', more='busy: 60') as crew:
        crew.wait_ready()
        crew.wait_line('process')
        crew.wait_line('process')
        for pid in crew.workers().values():
            os.kill(pid, signal.SIGSTOP)  # so that none can end by itself
        started = time.monotonic()
        assert crew.stop() == 143
        assert 1 <= time.monotonic() - started < 2.5


def test_workers_that_never_become_ready_end_the_service(tmp_path):
    started = time.monotonic()
    with Crew(tmp_path, more='fail: all') as crew:
        assert crew.wait() == 1
        assert 3 <= crew.count('before it was ready') <= 4
        assert crew.lines[-1] == 'crew: no worker becomes ready: ValueError: no hands'
    assert time.monotonic() - started < 5


def test_healthy_workers_go_on_while_another_cannot_be_started(tmp_path):
    with Crew(tmp_path, daemon='workers: 4') as crew:
        crew.wait_ready()
        old = crew.workers()
        crew.change(daemon='workers: 4', more='fail: all')
        os.kill(old.pop(2), signal.SIGKILL)
        for _ in range(5):
            crew.wait_line(r'worker 2 .*, before it was ready; 3 of 4 workers ready; starting')
        crew.wait_status('degraded: 3 of 4 workers ready; worker 2 cannot be started:'
                         ' ValueError: no hands')
        assert old.items() <= crew.workers().items()
        crew.change(daemon='workers: 4')
        crew.wait_line('all workers can be started again', timeout=5)
        crew.wait_status('4 of 4 workers ready')
        assert old.items() <= crew.workers().items()
        assert crew.stop() == 0, str(crew)


def test_a_reload_while_a_worker_is_missing_ends_either_way(tmp_path):
    with Crew(tmp_path) as crew:
        crew.wait_ready()
        crew.change(more='fail: all')
        os.kill(crew.workers()[2], signal.SIGKILL)
        crew.wait_line('1 of 2 workers ready')
        crew.signal('HUP')
        crew.wait_line('the reload is given up')
        crew.wait_status('the reload was given up: ValueError: no hands')
        crew.wait_ready()
        crew.configure()
        crew.signal('HUP')
        crew.wait_status('2 of 2 workers ready')
        crew.wait_ready()
        assert sorted(crew.workers()) == [1, 2]
        assert crew.stop() == 0, str(crew)


def test_without_a_healthy_worker_the_third_failure_ends_the_service(tmp_path):
    with Crew(tmp_path) as crew:
        crew.wait_ready()
        old = crew.workers()
        crew.change(more='fail: all')
        for pid in old.values():
            os.kill(pid, signal.SIGKILL)
        assert crew.wait() == 1
        assert crew.lines[-1] == 'crew: no worker becomes ready: ValueError: no hands'


def test_a_start_that_hangs_is_ended_and_tried_again(tmp_path):
    daemon = 'workers: 2, start_timeout: 0.7'
    with Crew(tmp_path, daemon=daemon) as crew:
        crew.wait_ready()
        crew.change(daemon=daemon, more='hang: 600')
        os.kill(crew.workers()[2], signal.SIGKILL)
        for _ in range(2):
            crew.wait_line(r'worker 2 .* is not ready after 0.7 s \(Daemon.start_timeout\): ended;'
                           ' 1 of 2 workers ready; starting another in')
            crew.wait_line(r'worker 2 .* died here')
            crew.wait_line(r'crew.py", line \d+ in _setup')
        crew.wait_status('degraded: 1 of 2 workers ready; worker 2 cannot be started: not ready')
        crew.change(daemon=daemon)
        crew.wait_line('all workers can be started again')
        assert crew.stop() == 0, str(crew)


def test_a_first_start_that_takes_longer_is_told_what_follows(tmp_path):
    daemon = 'workers: 1, max_age: 3600, start_timeout: 0.1'
    with Crew(tmp_path, daemon=daemon, more='hang: 0.3') as crew:
        crew.wait_ready()
        crew.wait_line(r'WARNING .* would be ended after 0.1 s \(Daemon.start_timeout\)')
        assert crew.stop() == 0, str(crew)


def test_the_number_of_workers_is_the_old_one_after_a_reload_that_is_given_up(tmp_path):
    with Crew(tmp_path) as crew:
        crew.wait_ready()
        crew.configure(daemon='workers: 3', more='fail: all')
        crew.signal('HUP')
        crew.wait_line('the reload is given up')
        crew.wait_status('2 of 2 workers ready; the reload was given up: ValueError: no hands')
        crew.wait_ready()
        assert crew.stop() == 0, str(crew)


@pytest.mark.parametrize('signum', ['TERM', 'KILL'])
def test_daemonic_children_of_a_worker_end_with_it(tmp_path, signum):
    with Crew(tmp_path, program='parents.py', daemon='workers: 1, max_age: 3600',
              more='leaves: [daemonic]') as crew:
        crew.wait_ready()
        child = int(crew.wait_line(r'daemonic (\d+)')[1])
        os.kill(crew.workers()[1], getattr(signal, f'SIG{signum}'))
        wait_gone([child], 5)
        child = int(crew.wait_line(r'daemonic (\d+)')[1])
        crew.wait_line('is ready')
        assert crew.stop() == 0, str(crew)
        wait_gone([child], 0)


def test_what_a_killed_worker_leaves_behind_is_ended_and_what_a_stopped_one_leaves_is_not(
    tmp_path,
):
    with Crew(tmp_path, program='parents.py', daemon='workers: 1, max_age: 3600',
              more='leaves: [job, stubborn]') as crew:
        crew.wait_ready()
        left = [int(crew.wait_line(rf'{kind} (\d+)')[1]) for kind in ('job', 'stubborn')]
        os.kill(crew.workers()[1], signal.SIGKILL)
        crew.wait_line(r'WARNING .*that worker 1 \(pid \d+\) has left behind, now ended: 2')
        wait_gone(left, 5)
        left = [int(crew.wait_line(rf'{kind} (\d+)')[1]) for kind in ('job', 'stubborn')]
        crew.wait_line('is ready')
        try:
            assert crew.stop() == 0, str(crew)
            for pid in left:
                os.kill(pid, 0)
        finally:
            for pid in left:
                os.kill(pid, signal.SIGKILL)


def test_a_thread_that_outlives_the_deadline_of_a_stop_is_143(tmp_path):
    with Crew(tmp_path, program='parents.py', daemon='workers: 2, stop_timeout: 0.5',
              more='leaves: [thread]') as crew:
        crew.wait_ready()
        started = time.monotonic()
        assert crew.stop() == 143
        assert 0.5 <= time.monotonic() - started < 3
        assert crew.count('died here') == 0


def test_a_worker_that_is_cut_off_at_its_end_releases_nothing_of_the_supervisors(tmp_path):
    pidfile = tmp_path / 'pid'
    daemon = f'workers: 2, stop_timeout: 0.5, pidfile: {pidfile}'
    with Crew(tmp_path, program='parents.py', daemon=daemon, more='leaves: [thread]',
              options=()) as crew:
        crew.wait_ready()
        assert pidfile.read_text().strip() == str(crew.pid)
        os.kill(crew.workers()[1], signal.SIGTERM)
        crew.wait_line(r'worker 1 .* ended after .*: status 143; starting another')
        assert pidfile.read_text().strip() == str(crew.pid)
        crew.wait_line(r'worker 1 .* is ready')
        assert crew.stop() == 143


def test_workers_that_are_killed_while_they_start_do_not_end_the_service(tmp_path):
    with Crew(tmp_path, more='word: quick') as crew:
        crew.wait_ready()
        crew.configure(more='word: slow, hang: 600')
        crew.signal('USR1')  # for those that are started from now on
        crew.wait_line(r'reloaded \d slow')
        crew.wait_line(r'reloaded \d slow')
        for _ in range(5):
            os.kill(crew.workers()[2], signal.SIGKILL)
            crew.wait_line('worker 2 .* ended .* SIGKILL')
            crew.wait_line('setup 2 slow')
        assert crew.stop() == 0, str(crew)


def test_workers_that_stop_of_their_own_accord_end_the_service(tmp_path):
    with Crew(tmp_path, more='done: true') as crew:
        assert crew.wait() == 0
        assert crew.count('setup') == 2
        assert crew.lines[-1] == 'after run'


def test_stopped_before_it_is_ready(tmp_path):
    with Crew(tmp_path, more='hang: 600', daemon='workers: 2, stop_timeout: 1') as crew:
        crew.wait_line('setup')
        crew.wait_line('setup')
        assert crew.stop() == 75


def test_the_command_waits_for_all_workers_and_the_pidfile_is_the_supervisors(tmp_path):
    pidfile = tmp_path / 'pid'
    file = tmp_path / 'crew.yml'
    handler = f'logging.FileHandler, filename: {tmp_path}/log'
    log = LOGGING.replace('logging.StreamHandler', handler)
    daemon = f'pidfile: {pidfile}, workers: 2'
    file.write_text(f'Application: {{wake_interval: 3600}}\nDaemon: {{{daemon}}}\n{log}')
    command = [sys.executable, str(PROGRAMS / 'crew.py'), '-c', str(file)]
    with Daemon(command, pidfile) as running:
        assert (tmp_path / 'log').read_text().count('is ready') == 2
        workers = children(running.pid)
        assert len(workers) == 2
        running.stop()
        wait_gone(workers, 0)
    assert not pidfile.exists()
    file.write_text(f'Application: {{fail: all}}\nDaemon: {{{daemon}}}\n{log}')
    with Program(command, notify=False) as failing:
        assert failing.wait() == 1
        assert failing.lines == ['crew: no worker becomes ready: ValueError: no hands']


@pytest.mark.root
def test_when_no_process_can_be_started_it_waits_and_recovers(tmp_path):
    keep = '-all,+dac_read_search'  # to read the modules of whoever runs the tests
    user = ['setpriv', f'--reuid={PLAIN_USER}', f'--regid={PLAIN_USER}', '--clear-groups',
            f'--inh-caps={keep}', f'--ambient-caps={keep}']
    with Crew(tmp_path, before=user) as crew:
        limit = [*user, 'prlimit', f'--pid={crew.pid}']
        crew.wait_ready()
        subprocess.run([*limit, '--nproc=1:'], check=True)
        os.kill(crew.workers()[2], signal.SIGKILL)
        crew.wait_line('worker 2 cannot be started: Resource temporarily unavailable')
        crew.wait_line('worker 2 cannot be started: Resource temporarily unavailable')
        subprocess.run([*limit, '--nproc=100:'], check=True)
        crew.wait_line(r'worker 2 \(pid \d+\) is ready')
        assert crew.stop() == 0, str(crew)


def test_workers_are_replaced_at_their_age(tmp_path):
    with Crew(tmp_path, daemon='workers: 2, max_age: 1') as crew:
        crew.wait_ready()
        started = time.monotonic()
        crew.wait_line(r'is replaced: Daemon.max_age')
        assert 0.5 < time.monotonic() - started < 1.2
        crew.wait_line(r'is ready')
        crew.wait_line('cleanup')
        assert crew.stop() == 0, str(crew)


def test_a_worker_that_has_too_much_memory_is_replaced(tmp_path):
    with Crew(tmp_path, daemon='max_memory: 100M', more='leak: 150') as crew:
        crew.wait_ready()
        crew.wait_line(r'worker 1 \(pid \d+\) is replaced: Daemon.max_memory: \d{9} bytes')
        crew.wait_line('is ready')
        crew.wait_line('cleanup 1')
        assert crew.stop() == 0, str(crew)


def test_a_fresh_worker_over_the_limit_is_told_and_not_replaced(tmp_path):
    with Crew(tmp_path, daemon='max_memory: 1M') as crew:
        crew.wait_ready()
        crew.wait_line('WARNING .* has no effect on it')
        old = crew.workers()
        with pytest.raises(WaitError):
            crew.wait_line('is replaced', timeout=1.2)
        assert crew.workers() == old
        assert crew.stop() == 0, str(crew)


def test_the_watchdog_is_fed_only_while_every_worker_makes_progress(tmp_path):
    with Crew(tmp_path, watchdog=0.8) as crew:
        crew.wait_ready()
        for _ in range(6):
            crew.wait_notified('WATCHDOG')
        os.kill(crew.workers()[2], signal.SIGSTOP)
        stopped = time.monotonic()
        last = 0.0
        with contextlib.suppress(WaitError):
            while last < 3:
                crew.wait_notified('WATCHDOG', timeout=1.5)
                last = time.monotonic() - stopped
        assert last < 0.8
        os.kill(crew.workers()[2], signal.SIGCONT)
        crew.wait_notified('WATCHDOG')
        assert crew.stop() == 0, str(crew)


def test_an_address_in_use_is_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        with Crew(tmp_path, daemon=f'listen: "127.0.0.1:{port}"') as crew:
            assert crew.wait() == 73
            assert crew.lines == [f'crew: Daemon.listen: 127.0.0.1:{port}: Address already in use']
