"""The programs of ``tests/legacy`` start, work, reload, begin again and stop."""

from __future__ import annotations

import re
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.life import Life
from tests.test_docs import free_port

FOLDER = Path(__file__).parent / 'legacy'

#: What each program logs when it works, and when it has cleaned up.
PROGRAMS = {
    'poller': ('total 7', 'cleanup with 0 threads'),
    'webfarm': ('listening on', 'cleanup of 2 children'),
    'supervisor': ('manager started 2', 'stopped after'),
    'server': ('loop runs', 'finish'),
}


class Running:
    """One of the programs, at work.

    :param life: its process, or the command that started it.
    """

    def __init__(self, life: Life, name: str, ports: list[int]) -> None:
        self.life = life
        self.ports = ports
        self.words, self.last_words = PROGRAMS[name]
        self.rounds = 0
        self._pidfile = life.folder / f'{name}.pid'

    def wait_at_work(self) -> None:
        """Wait until it works, in this round."""
        self.rounds += 1
        self.life.wait_logged(self.words, self.rounds * self.times)
        if self.life._is_daemon:
            assert self.life.wait_command() == 0
            self.life.pid = int(self._pidfile.read_text())
        else:
            self.life.pid = self.life.program.pid

    @property
    def times(self) -> int:
        """How often it says so."""
        return 2 if self.words == PROGRAMS['webfarm'][0] else 1

    def answers(self) -> list[str]:
        """What its servers say."""
        said = []
        for port in self.ports:
            with urllib.request.urlopen(f'http://127.0.0.1:{port}/', timeout=10) as answer:
                said.append(answer.read().decode())
        return said

    def status(self) -> int:
        """Its exit status."""
        return self.life.wait_daemon() if self.life._is_daemon else self.life.wait()


Start = Callable[[str], Running]


@pytest.fixture(params=['foreground', 'daemon'])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    lives: list[Life] = []

    def begin(name: str) -> Running:
        config = (FOLDER / f'{name}.yml').read_text()
        ports = [free_port() for _ in range(2 if 'PORT2' in config else 'PORT' in config)]
        for number, port in reversed(list(enumerate(ports, 1))):
            config = config.replace('PORT2' if number == 2 else 'PORT', str(port))
        options = ('-f',) if request.param == 'foreground' else ()
        life = Life(tmp_path, f'../legacy/{name}_program.py', options=options, config=config,
                    log='', env={'PYTHONWARNINGS': 'ignore'})
        lives.append(life.__enter__())
        running = Running(life, name, ports)
        running.wait_at_work()
        return running

    yield begin
    for life in lives:
        life.__exit__(None, None, None)


@pytest.mark.parametrize('name', PROGRAMS)
def test_term_stops_it(start: Start, name: str) -> None:
    running = start(name)
    running.life.signal('TERM')
    assert running.status() == 0
    assert running.life.logged(running.last_words) == 1
    assert not (running.life.folder / f'{name}.pid').exists()


@pytest.mark.parametrize('name', PROGRAMS)
def test_int_stops_it(start: Start, name: str) -> None:
    running = start(name)
    running.life.signal('INT')
    assert running.status() == 0
    assert running.life.logged(running.last_words) == 1


@pytest.mark.parametrize('name', PROGRAMS)
def test_hup_begins_again_in_the_same_process(start: Start, name: str) -> None:
    running = start(name)
    pid = running.life.pid
    for rounds in (1, 2):
        running.life.signal('HUP')
        running.wait_at_work()
        assert running.life.pid == pid
        assert running.life.logged(running.last_words) == rounds
    assert len(running.answers()) == len(running.ports)
    assert len(running.answers()) == len(running.ports)
    running.life.signal('TERM')
    assert running.status() == 0
    assert running.life.logged(running.last_words) == 3


@pytest.mark.parametrize('name', PROGRAMS)
def test_usr1_reloads_and_the_work_goes_on(start: Start, name: str) -> None:
    running = start(name)
    config = running.life.folder / 'app.yml'
    new = running.life.folder / 'new'
    config.write_text(config.read_text().replace(f'{running.life.folder}/log', str(new)))
    running.life.signal('USR1')
    end = time.monotonic() + 10
    while not new.exists():
        assert time.monotonic() < end
        time.sleep(0.005)
    assert len(running.answers()) == len(running.ports)
    assert len(running.answers()) == len(running.ports)
    running.life.signal('TERM')
    assert running.status() == 0
    assert running.last_words in new.read_text()
    assert running.life.logged(running.last_words) == 0


def test_the_servers_answer_each_from_its_own_process(start: Start) -> None:
    running = start('webfarm')
    pids = {re.fullmatch(r'hello from (\d+)\n', said)[1]  # type: ignore[index]
            for said in running.answers()}
    assert len(pids) == 2
    assert str(running.life.pid) not in pids
    running.life.signal('TERM')
    assert running.status() == 0


def test_the_server_answers_from_the_loop_that_process_started(start: Start) -> None:
    assert start('server').answers() == ['pong\n']


def test_the_poller_sleeps_as_long_as_it_has_computed(start: Start) -> None:
    running = start('poller')
    (line,) = [line for line in running.life.log if 'total 7' in line]
    assert 29 < float(line.rpartition(' ')[2]) < 30


def test_the_supervisor_keeps_its_alarm(start: Start) -> None:
    running = start('supervisor')
    time.sleep(0.5)  # in which its own alarm rings each 0.2 s
    running.life.signal(signal.SIGTERM)
    assert running.status() == 0
    (line,) = [line for line in running.life.log if 'stopped after' in line]
    assert int(re.search(r'after (\d+) polls', line)[1]) >= 3  # type: ignore[index]
