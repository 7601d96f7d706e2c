"""What real programs of 1.x did, in the foreground and as daemons."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.life import LOGGING, Life

CONFIG = 'Application: {wake_interval: 60}\nDaemon: {pidfile: FOLDER/pid}\n'

Start = Callable[..., Life]


@pytest.fixture(params=['foreground', 'daemon'])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """Gives the life of one of the classes, in the foreground or as a daemon."""

    def begin(name: str, *words: str, **keywords: Any) -> Life:
        if request.param == 'foreground':
            keywords['options'] = (*words, '-f')
        elif words:
            raise ValueError('a daemon has no further words')
        else:
            keywords['options'] = ()
        env = {'PYTHONWARNINGS': 'ignore', **keywords.pop('env', {})}
        return Life(tmp_path, 'legacy_traps.py', name, env=env, **{'config': CONFIG, **keywords})

    return begin


def status(life: Life) -> int:
    """The exit status of whoever did the work."""
    return life.wait_daemon() if life._is_daemon else life.wait()


def reports(life: Life) -> list[str]:
    return list(life.take_reports())


def begin_again(life: Life) -> None:
    life.signal('HUP')
    life.wait_report('process')


@pytest.mark.parametrize(('name', 'hook'), [
    ('ShutdownAlone', 'shutdown'), ('StopAlone', 'stop'),
])
def test_a_hook_that_does_nothing_to_that_end_ends_it_all_the_same(
    start: Start, name: str, hook: str
) -> None:
    with start(name) as life:
        life.wait_report('process')
        begin_again(life)
        life.signal('TERM')
        assert status(life) == 0
        assert reports(life) == [
            'setup None', 'process', f'{hook} True', 'setup None', 'process', f'{hook} True',
        ]


@pytest.mark.parametrize('name', ['TERM', 'INT'])
def test_an_ioloop_in_a_run_of_its_own_is_stopped_by_shutdown(start: Start, name: str) -> None:
    with start('RunsIOLoop') as life:
        life.wait_report('process')
        begin_again(life)
        life.signal(name)
        assert status(life) == 0
        round_ = ['setup', 'process', 'shutdown']
        last = ['setup', 'process', 'interrupt', 'shutdown'] if name == 'INT' else round_
        assert reports(life) == [*round_, *last]


@pytest.mark.parametrize('name', ['TERM', 'INT'])
def test_an_ioloop_in_a_run_of_its_own_is_stopped_by_cleanup(start: Start, name: str) -> None:
    with start('RunsUntilCleanup') as life:
        life.wait_report('process')
        begin_again(life)
        life.signal(name)
        assert status(life) == 0
        assert reports(life) == 2 * ['setup', 'process', 'cleanup MainThread']


def test_a_main_loop_by_the_alarm(start: Start) -> None:
    with start('OwnAlarm', config='Daemon: {pidfile: FOLDER/pid}\n') as life:
        for _ in range(3):
            life.wait_report('process')
        life.signal('HUP')
        life.wait_report('cleanup')
        for _ in range(3):
            life.wait_report('process')
        life.signal('TERM')
        life.wait_report('cleanup')
        assert status(life) == 0
        assert reports(life).count('setup') == reports(life).count('cleanup') == 2


def test_a_main_loop_that_sleeps(start: Start) -> None:
    with start('OwnLoop', config='Daemon: {pidfile: FOLDER/pid}\n') as life:
        for _ in range(3):
            life.wait_report('process')
        life.signal('HUP')
        life.wait_report('complete')
        for _ in range(3):
            life.wait_report('process')
        life.signal('TERM')
        assert status(life) == 0
        assert [word for word in reports(life) if word != 'process'] == 2 * [
            'setup', 'shutdown', 'complete',
        ]


def test_a_sleep_of_its_own(start: Start) -> None:
    with start('SleepsItself') as life:
        for _ in range(3):
            life.wait_report('process True')
        life.signal('HUP')
        life.wait_report('setup')
        life.wait_report('process True')
        life.signal('TERM')
        assert status(life) == 0


def test_an_alarm_of_its_own(start: Start) -> None:
    with start('WakesItself') as life:
        for _ in range(3):
            life.wait_report('process')
        assert reports(life)[:5] == ['setup', 'process', 'wake 14', 'process', 'wake 14']
        life.signal('HUP')
        life.wait_report('setup')
        life.wait_report('wake')
        life.signal('TERM')
        assert status(life) == 0


def test_super_of_every_hook_in_any_order_of_inheritance(start: Start) -> None:
    with start('Supers') as life:
        life.wait_report('Second process')
        for name, hook in [('USR1', 'reload_configuration'), ('USR2', 'on_sigusr2')]:
            life.signal(name)
            life.wait_report(f'Second {hook}')
        life.signal('HUP')
        life.wait_report('Second process')
        life.signal('TERM')
        assert status(life) == 0
        one_round = ['run', 'setup', 'process']
        calls = [
            *one_round, 'on_sigusr1', 'reload_configuration', 'on_sigusr2', 'on_sighup', 'stop',
            'cleanup', 'reload_configuration', *one_round, 'on_sigterm', 'stop', 'cleanup',
        ]
        assert reports(life) == [f'{name} {call}' for call in calls for name in (
            'First', 'Second')]


def test_super_of_every_older_hook_in_any_order_of_inheritance(start: Start) -> None:
    with start('OldSupers') as life:
        life.wait_report('Second _process')
        for name, hook in [('USR1', '_reload_configuration'), ('USR2', '_on_sigusr2')]:
            life.signal(name)
            life.wait_report(f'Second {hook}')
        life.signal('HUP')
        life.wait_report('Second _process')
        life.signal('TERM')
        assert status(life) == 0
        end = ['_shutdown', '_cleanup', '_shutdown_complete']
        calls = [
            '_setup', '_process', '_on_sigusr1', '_reload_configuration', '_on_sigusr2',
            '_on_sighup', *end, '_reload_configuration', '_setup', '_process',
            '_on_sigterm', *end,
        ]
        assert reports(life) == [f'{name} {call}' for call in calls for name in (
            'First', 'Second')]


def test_states_are_numbers(start: Start) -> None:
    with start('States') as life:
        life.wait_report('error')
        life.signal('TERM')
        assert status(life) == 0
        assert reports(life) == [
            'process 4 Active True', 'idle 3 Idle True True', 'connecting True Connecting',
            'refused 4', 'error Invalid Runtime State: 99', 'cleanup 6 True False', 'still 6',
        ]
        assert life.logged('a program that is Active cannot become Initializing') == 1


def test_states_were_other_numbers_once(start: Start) -> None:
    with start('OldStates') as life:
        life.wait_report('sleeping')
        life.signal('TERM')
        assert status(life) == 0
        assert reports(life) == [
            'process 1 True False', 'running 1', 'sleeping 2 True', 'cleanup 3 True False',
        ]


def test_a_state_ends_it(start: Start) -> None:
    with start('EndsByState') as life:
        life.wait_report('cleanup')
        assert status(life) == 0
        assert reports(life) == ['process', 'cleanup']


def test_set_state_is_told_the_numbers(start: Start) -> None:
    with start('Told') as life:
        life.wait_report('process')
        life.wait_report('state False 2')
        life.signal('TERM')
        assert status(life) == 0
        assert reports(life) == [
            'state False 3', 'state True 4', 'process', 'state False 2', 'state False 5',
            'state False 6', 'state False 7',
        ]


def test_what_is_written_into_the_configuration_counts(start: Start) -> None:
    with start('Writes', config='Application:\nDaemon: {pidfile: FOLDER/pid}\n') as life:
        first = life.wait_report('process')
        rest = "None 5 app.yml ['Application', 'Daemon', 'Logging']"
        assert first == f'process 30.0 30.0 {rest}'
        assert life.wait_report('process') == f'process 0.05 0.05 {rest}'


def test_the_frame_is_an_argument_where_a_hook_takes_it(start: Start) -> None:
    with start('Frames') as life:
        life.wait_report('process')
        for name, word in [('USR2', 'usr2 True'), ('USR1', 'usr1'), ('HUP', 'hup')]:
            life.signal(name)
            life.wait_report(word)
        life.wait_report('process')
        life.signal('TERM')
        life.wait_report('term')
        assert status(life) == 0


def test_the_class_may_be_called_by_its_name(start: Start) -> None:
    with start('Explicit') as life:
        life.wait_report('process')
        life.signal('TERM')
        assert status(life) == 0
        assert reports(life) == [
            f'init [] {not life._is_daemon} high', 'setup', 'process', 'cleanup',
        ]


def test_options_and_leftover_arguments_reach_the_constructor(tmp_path: Path) -> None:
    with Life(tmp_path, 'legacy_traps.py', 'Explicit', config=CONFIG,
              options=('left', '-l', 'low', '-f', 'over')) as life:
        assert life.wait_report('init') == "init ['left', 'over'] True low"


@pytest.mark.parametrize(('name', 'expected'), [
    ('StopsInProcess', ['process', 'cleanup']),
    ('ShutsDownInProcess', ['process', 'shutdown', 'cleanup']),
    ('StopsInThread', ['process', 'cleanup MainThread']),
])
def test_it_ends_itself(start: Start, name: str, expected: list[str]) -> None:
    with start(name) as life:
        life.wait_report('cleanup')
        assert status(life) == 0
        assert reports(life) == expected


@pytest.mark.parametrize(('name', 'expected'), [
    ('OwnProcess', ['_process', 'process']),
    ('OwnUnderscore', ['process', '_process with arguments']),
    ('Helpers', ['setup argument', 'process', 'run']),
])
def test_a_method_of_its_own_is_no_hook(start: Start, name: str, expected: list[str]) -> None:
    with start(name) as life:
        life.wait_report(expected[-1])
        life.signal('TERM')
        assert status(life) == 0
        assert reports(life) == expected


def test_a_constant_that_is_no_interval_is_one_line(start: Start) -> None:
    with start('Ceaseless', config='Daemon: {pidfile: FOLDER/pid}\n') as life:
        life.wait_report('process')
        assert status(life) == 78
        assert life.logged('Traceback') == 0
        assert life.logged('the wake interval of Ceaseless is 0, not above 0') == 1


def test_stop_written_out_cleans_up_once(start: Start) -> None:
    with start('CleansUpInStop') as life:
        life.wait_report('process')
        begin_again(life)
        life.signal('TERM')
        assert status(life) == 0
        assert reports(life) == 2 * ['process', 'stop', 'cleanup']


def test_hup_written_out(start: Start) -> None:
    with start('CopiesHup') as life:
        life.wait_report('process')
        pid = life.pid
        begin_again(life)
        assert life.pid == pid
        life.signal('TERM')
        assert status(life) == 0
        assert reports(life) == 2 * ['setup', 'process', 'cleanup']


def test_no_process_hook_at_all(start: Start) -> None:
    with start('Nothing') as life:
        life.wait_report('setup')
        life.wait_logged('clihelper ready')
        life.signal('HUP')
        life.wait_report('setup')
        life.signal('TERM')
        assert status(life) == 0
        assert reports(life) == 2 * ['setup', 'cleanup']


def test_variables_of_the_module_are_assigned(start: Start) -> None:
    with start('Assigns', config=CONFIG + 'Own: {}\n') as life:
        assert life.wait_report('process') == (
            'process /var/log/traps.log False traps True Own True'
        )


def test_an_assigned_section_is_required(start: Start) -> None:
    with start('Assigns') as life:
        assert (life.wait_command() if life._is_daemon else life.wait()) == 78
        (line,) = life.program.stderr
        assert line.endswith('app.yml: Own: a section that traps requires is missing')


@pytest.mark.parametrize('name', ['TERM', 'INT', 'HUP'])
def test_a_signal_before_an_ioloop_in_process_is_served_on_it(start: Start, name: str) -> None:
    with start('LoopInProcess', held_at='process') as life:
        life.wait_report('process')
        life.signal(name)
        life.let_go()
        life.wait_report('returned')
        if name == 'HUP':
            life.wait_report('loop')
            life.signal('TERM')
            life.wait_report('returned')
        assert status(life) == 0
        assert [word for word in reports(life) if word != 'loop'] == [
            'process', 'cleanup', 'returned',
        ] * (2 if name == 'HUP' else 1)


def test_a_signal_in_process_brings_no_other(start: Start) -> None:
    config = CONFIG.replace('60', '0.1')
    with start('WorksBriefly', config=config, held_at='process') as life:
        life.wait_report('process')
        life.signal('USR1')
        life.let_go()
        life.wait_report('usr1')
        for _ in range(2):
            life.wait_report('process')
        life.signal('TERM')
        assert status(life) == 0
        assert [word for word in reports(life) if word != 'process'] == ['usr1']
        assert life.logged('SIGUSR2') == 0


def test_run_extended(start: Start) -> None:
    with start('Extended') as life:
        life.wait_report('process')
        life.signal('TERM')
        assert status(life) == 0
        assert reports(life) == ['run', 'setup', 'process', 'ran', 'cleanup']


def test_a_keyboard_interrupt_in_a_run_of_its_own(start: Start) -> None:
    with start('Interrupted') as life:
        life.wait_report('process')
        life.signal('INT')
        assert status(life) == 0
        assert reports(life) == ['process', 'interrupt']


NULLS = """\
%YAML 1.2
---
Application:
Daemon:
Logging:
  filters:
  handlers: {file: {class: logging.FileHandler, filename: FOLDER/log}}
  loggers: {clihelper: {level: DEBUG, handlers: [file]}, traps: , tornado: {level: INFO}}
  root: {level: DEBUG}
"""


def test_nulls_in_the_configuration(start: Start, tmp_path: Path) -> None:
    (tmp_path / 'run').mkdir()
    env = {'RUNTIME_DIRECTORY': str(tmp_path / 'run')}
    with start('Nothing', config=NULLS, log='', env=env) as life:
        life.wait_report('setup')
        life.wait_logged('ready')
        assert (tmp_path / 'run' / 'traps.pid').exists() == life._is_daemon
        life.signal('TERM')
        assert status(life) == 0


def test_messages_of_clihelper_are_in_its_logger(start: Start) -> None:
    with start('Nothing', log=LOGGING) as life:
        life.wait_report('setup')
        life.wait_logged('clihelper ready')
        life.signal('TERM')
        assert status(life) == 0
        assert life.logged('INFO clihelper SIGTERM') == 1


def test_ending_takes_no_time(start: Start) -> None:
    with start('ShutdownAlone') as life:
        life.wait_report('process')
        began = time.monotonic()
        life.signal('TERM')
        assert status(life) == 0
        assert time.monotonic() - began < 1
