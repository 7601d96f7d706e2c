"""What programs of 1.x saw, and what they see now, in the foreground and as daemons."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.life import LOGGING, Life

CONFIG = """\
Application: {wake_interval: 60, word: first}
Daemon: {pidfile: FOLDER/pid}
"""

Start = Callable[..., Life]


@pytest.fixture(params=['foreground-earlier', 'daemon-later'])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """Gives the life of the program, with the names of 1.4 or of 1.6."""
    where, style = request.param.split('-')
    options = ('-f',) if where == 'foreground' else ()

    def begin(way: str = 'works', **keywords: Any) -> Life:
        keywords = {'config': CONFIG, 'options': options, **keywords}
        return Life(tmp_path, 'legacy_interval.py', style, way, **keywords)

    return begin


def is_daemon(life: Life) -> bool:
    return life._is_daemon


def status(life: Life) -> int:
    """The exit status of whoever did the work."""
    return life.wait_daemon() if is_daemon(life) else life.wait()


def command_status(life: Life) -> int:
    """The exit status of what was typed."""
    return life.wait_command() if is_daemon(life) else life.wait()


def told(life: Life) -> list[str]:
    """The lines on the terminal, but for the warnings of old names."""
    return [
        line for line in life.program.stderr
        if 'DeprecationWarning' not in line and not line.startswith('  ')
    ]


def times(life: Life, word: str) -> list[float]:
    return [
        float(report.split()[1]) for report in life.take_reports() if report.split()[0] == word
    ]


def asleep(life: Life) -> None:
    """Wait until its process hook is done: the loop serves signals from then on."""
    life.wait_report('processed')


def test_the_first_process_runs_at_once_and_the_next_on_a_grid(start: Start) -> None:
    config = 'Application: {wake_interval: 0.6, takes: 0.5}\nDaemon: {pidfile: FOLDER/pid}\n'
    with start(config=config) as life:
        for _ in range(4):
            life.wait_report('processed')
        setup, began = times(life, 'setup'), times(life, 'process')
        assert began[0] - setup[0] < 0.6  # at once, not after an interval
        for number, moment in enumerate(began):
            assert moment - setup[0] >= number * 0.6
        # Counted from the end of each, it would be 3.3 s at the least.
        assert began[3] - began[0] < 3 * (0.6 + 0.5)


def test_an_interval_of_its_own_is_counted_from_the_end(start: Start) -> None:
    config = 'Application: {computed: 0.2, takes: 0.15}\nDaemon: {pidfile: FOLDER/pid}\n'
    with start('computes', config=config) as life:
        for _ in range(3):
            life.wait_report('processed')
        began, ended = times(life, 'process'), times(life, 'processed')
        assert began[1] - ended[0] >= 0.2
        assert began[2] - ended[1] >= 0.2


@pytest.mark.parametrize('interval', ['0', "'1'"])
def test_an_interval_that_is_none_is_one_line(start: Start, interval: str) -> None:
    config = f'Application: {{wake_interval: {interval}}}\nDaemon: {{pidfile: FOLDER/pid}}\n'
    with start(config=config) as life:
        assert command_status(life) == os.EX_CONFIG
        (line,) = told(life)
        assert 'app.yml:1:30: Application.wake_interval: expected a number' in line


def test_term_while_asleep_cleans_up_and_ends(start: Start) -> None:
    with start() as life:
        asleep(life)
        life.signal('TERM')
        assert status(life) == 0  # long before its interval is over
        assert life.take_reports()[-1] == 'cleanup'


def test_term_inside_process_waits_for_its_end(start: Start) -> None:
    with start(held_at='working') as life:
        life.wait_report('working')
        life.signal('TERM')
        life.let_go()
        assert status(life) == 0
        reports = [report.split()[0] for report in life.take_reports()]
        assert reports[-2:] == ['processed', 'cleanup']


def test_int_ends_it_after_cleanup(start: Start) -> None:
    with start() as life:
        asleep(life)
        life.signal('INT')
        assert status(life) == 0
        assert life.take_reports()[-1] == 'cleanup'


def test_hup_begins_again_in_the_same_process(start: Start) -> None:
    with start() as life:
        asleep(life)
        pid = life.pid
        life.configure(CONFIG.replace('first', 'second') + LOGGING)
        life.signal('HUP')
        life.wait_report('cleanup')
        assert life.wait_report('setup').endswith(' second')
        life.wait_report('processed')
        assert life.pid == pid
        life.signal('TERM')
        assert status(life) == 0


def test_usr1_reloads_and_keeps_the_running_timer(start: Start) -> None:
    with start(config=CONFIG.replace('60', '1')) as life:
        asleep(life)
        life.configure(CONFIG.replace('60', '0.05') + LOGGING)
        life.signal('USR1')
        life.wait_report('processed')
        life.wait_report('processed')
        setup, began = times(life, 'setup'), times(life, 'process')
        assert began[1] - setup[0] >= 1
        assert began[2] - began[1] < 0.9


def test_usr2_calls_the_hook_and_does_not_wake_it(start: Start) -> None:
    with start() as life:
        asleep(life)
        life.signal('USR2')
        life.wait_report('usr2')
        life.signal('TERM')
        assert status(life) == 0
        assert len(times(life, 'process')) == 1


@pytest.mark.parametrize('name', ['HUP', 'USR1'])
@pytest.mark.parametrize('fault', ['broken', 'gone'])
def test_a_faulty_configuration_is_logged_and_the_old_one_kept(
    start: Start, tmp_path: Path, name: str, fault: str
) -> None:
    with start(config=CONFIG.replace('60', '0.2')) as life:
        asleep(life)
        if fault == 'broken':
            (tmp_path / 'app.yml').write_text('Application: [')
        else:
            (tmp_path / 'app.yml').unlink()
        life.signal(name)
        life.wait_logged('the configuration was not read; going on with the old one')
        assert life.logged('app.yml') == 1
        life.wait_report('processed')
        life.signal('TERM')
        assert status(life) == 0


def test_what_process_raises_is_in_the_log_and_the_status_is_1(
    start: Start, tmp_path: Path
) -> None:
    exceptions = Path('/tmp/clihelper-exceptions.log')
    before = exceptions.stat().st_size if exceptions.exists() else None
    with start('raises') as life:
        life.wait_report('cleanup')
        assert status(life) == 1
        assert life.logged('Traceback') == 1
        assert life.logged('ValueError: it is broken') == 1
        assert not (tmp_path / 'pid').exists()
    assert (exceptions.stat().st_size if exceptions.exists() else None) == before


def test_exiting_in_process_gives_the_status_and_releases_the_pidfile(
    start: Start, tmp_path: Path
) -> None:
    with start('exits') as life:
        life.wait_report('process')
        assert status(life) == 3
        assert not (tmp_path / 'pid').exists()


@pytest.mark.root
def test_where_it_runs(start: Start, tmp_path: Path) -> None:
    with start() as life:
        if is_daemon(life):
            assert life.wait_command() == 0
            directory, umask, parent = life.wait_report('place').split()[1:]
            assert (directory, int(umask)) == ('/', 0o027)
            assert int(parent) == life.program.pid  # the subreaper, in the place of init
            assert int((tmp_path / 'pid').read_text()) == life.pid
        else:
            assert life.wait_report('place').split()[1] == str(tmp_path)


def test_the_command_returns_when_it_is_ready(start: Start) -> None:
    with start(held_at='working') as life:
        if is_daemon(life):
            assert life.wait_command() == 0
        life.wait_report('working')
        life.let_go()
        life.wait_report('processed')


def test_a_relative_configuration_holds_for_a_reload_too(tmp_path: Path, start: Start) -> None:
    life = start()
    words = life.program._argv
    words[words.index(str(tmp_path / 'app.yml'))] = 'app.yml'
    with life:
        asleep(life)
        life.configure(CONFIG.replace('first', 'second') + LOGGING)
        life.signal('HUP')
        life.wait_report('cleanup')
        assert life.wait_report('setup').endswith(' second')


def test_a_second_start_is_refused(start: Start, tmp_path: Path) -> None:
    with start() as life:
        asleep(life)
        (tmp_path / 'second').mkdir()
        config = CONFIG.replace('FOLDER/pid', str(tmp_path / 'pid'))
        second = Life(
            tmp_path / 'second', 'legacy_interval.py', 'later', 'works', config=config,
            options=() if is_daemon(life) else ('-f',),
        )
        with second:
            if is_daemon(life):
                assert second.wait_command() == os.EX_CANTCREAT
                (line,) = told(second)
                assert line.endswith(f'already running, pid {life.pid}')
            else:
                asleep(second)  # in the foreground, it may run beside


def test_it_starts_after_kill_9(start: Start, tmp_path: Path) -> None:
    with start() as life:
        asleep(life)
        life.signal('KILL')
        assert status(life) == -signal.SIGKILL
    for name in ('reports', 'gate'):
        (tmp_path / name).unlink()
    with start() as again:
        asleep(again)
        again.signal('TERM')
        assert status(again) == 0


@pytest.mark.parametrize('key', ['user', 'group'])
def test_an_unknown_user_or_group_is_one_line(start: Start, key: str) -> None:
    config = CONFIG.replace('{pidfile', f'{{{key}: nobody-of-that-name, pidfile')
    with start(config=config) as life:
        if is_daemon(life) or key == 'user':
            assert command_status(life) == os.EX_NOPERM
            (line,) = told(life)
            assert 'nobody-of-that-name' in line
        else:
            asleep(life)  # in the foreground it changes nobody's group


def test_a_missing_folder_of_the_pidfile_is_one_line(start: Start) -> None:
    with start(config=CONFIG.replace('FOLDER/pid', 'FOLDER/missing/pid')) as life:
        if is_daemon(life):
            assert life.wait_command() == os.EX_CANTCREAT
            (line,) = told(life)
            assert 'missing/pid' in line
            assert life.take_reports() == []
        else:
            asleep(life)  # in the foreground it has none


def test_a_missing_required_section_is_one_line_that_names_it(start: Start) -> None:
    with start(env={'REQUIRED': 'HTTPServer'}) as life:
        assert command_status(life) == os.EX_CONFIG
        (line,) = told(life)
        assert line.endswith('app.yml: HTTPServer: a section that legacy requires is missing')
