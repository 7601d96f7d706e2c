"""Every name of every version of 1.x is there, and says what it is called now."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import clihelper
from clihelper import legacy, testing
from clihelper.legacy import tables
from tests.life import LOGGING, Life

ROOT = Path(__file__).resolve().parent.parent

ALL = {row[0]: row for table in (*tables.MODULE, *tables.CONTROLLER) for row in table}

SECTIONS = {'Application': {'wake_interval': 5}, 'Daemon': {}, 'Own': {'key': 1}}

#: What reading a name gives in ``tests/programs/legacy_names.py``.
VALUES: dict[str, Any] = {
    'setup': None, 'run': None, 'add_config_key': None, 'set_appname': None,
    'set_description': None, 'set_version': None, 'set_controller': None,
    'set_configuration_file': None, 'get_configuration': {'key': 1},
    '_get_configuration': {'key': 1}, 'setup_logging': None, '_setup_logging': None,
    'get_logging_config': ['console', 'file'], 'Logging': [[], 0, 1],
    'APPNAME': 'named', 'DESCRIPTION': 'Named', 'VERSION': '3.2.1',
    'APPLICATION': 'Application', 'DAEMON': 'Daemon', 'LOGGING': 'Logging',
    'CONFIG_KEYS': ['Application', 'Daemon', 'Logging', 'Own'], 'CONFIG_FILE': 'app.yml',
    'CONTROLLER': True, 'PIDFILE': '/var/run/%(app)s.pid',
    'EXCEPTION_LOG': '/tmp/clihelper-exceptions.log', 'WRITE_EXCEPTION_LOG': True,
    'LOGGING_DEFAULT': ['disable_existing_loggers', 'filters', 'formatters', 'handlers',
                        'incremental', 'loggers', 'root', 'version'],
    'LOGGING_OBJ': None, 'LOGGER': '<Logger clihelper (DEBUG)>',
    '_options': "Options(configuration='app.yml', foreground=True, check=False,"
                ' check_broker=False, message_file=None,'
                 ' post_mortem=False, restarts=False)',
    '_arguments': [], '_debug': True, '_state': 4, 'is_running': True, 'is_idle': False,
    'is_sleeping': False, 'is_active': True, 'is_initializing': False, 'is_stopped': False,
    'is_stopping': False, 'is_waiting_to_stop': False, 'is_shutting_down': False,
    'is_connecting': False, 'current_state': 'Active', 'state_description': 'Active',
    'wake_interval': 5, '_get_wake_interval': 5, '_get_config': 5,
    'application_config': SECTIONS['Application'],
    '_get_application_config': SECTIONS['Application'],
    '_logger': '<Logger named (WARNING)>', '_set_state': None, 'set_state': None,
    'logging_config': {'handlers': ['console'], 'level': 'INFO', 'propagate': True},
    'WAKE_INTERVAL': 60, '_WAKE_INTERVAL': 60, 'SLEEP_UNIT': 0.5, '_SLEEP_UNIT': 0.5,
    'STATE_INITIALIZING': 1, 'STATE_SLEEPING': 2, 'STATE_IDLE': 3, 'STATE_ACTIVE': 4,
    'STATE_STOP_REQUESTED': 5, 'STATE_STOPPING': 6, 'STATE_STOPPED': 7, 'STATE_CONNECTING': 8,
    '_STATE_IDLE': 0, '_STATE_RUNNING': 1, '_STATE_SLEEPING': 2, '_STATE_SHUTTING_DOWN': 3,
}
VALUES |= {f'_{name}': VALUES[name] for name in (
    'APPNAME', 'DESCRIPTION', 'VERSION', 'APPLICATION', 'DAEMON', 'LOGGING', 'CONFIG_KEYS',
    'CONFIG_FILE', 'CONTROLLER', 'PIDFILE',
)}

#: Read, and looked at otherwise.
BESIDES = {'DEFAULT_FORMAT', 'config', '_config'}

#: Hooks: ``tests/test_legacy_traps.py`` and ``tests/test_legacy_rows.py`` have them called.
CALLED = {row[0] for row in tables.HOOKS} - set(VALUES) | {'setup', 'run'}


@pytest.fixture(scope='module')
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the program has read, and what it was warned of."""
    folder = tmp_path_factory.mktemp('names')
    config = 'Application: {wake_interval: 5}\nDaemon: {}\nOwn: {key: 1}\n'
    (folder / 'app.yml').write_text((config + LOGGING).replace('FOLDER', str(folder)))
    done = subprocess.run(
        [sys.executable, ROOT / 'tests/programs/legacy_names.py', '-c', 'app.yml', '-f'],
        cwd=folder, env={'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, timeout=30,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_name_is_read_or_called() -> None:
    assert set(VALUES) | BESIDES | CALLED == set(ALL)


@pytest.mark.parametrize('name', VALUES)
def test_a_name_is_there(read: dict[str, Any], name: str) -> None:
    assert read['seen'][name] == VALUES[name]


def test_other_names_are_there(read: dict[str, Any]) -> None:
    seen = read['seen']
    assert '%(message)s' in seen['DEFAULT_FORMAT']
    assert {name: seen['config'][name] for name in SECTIONS} == SECTIONS
    assert seen['config'] == seen['_config']
    path, controller, logging = seen['set']
    assert (path, controller, logging) == ('/other', 'another', 'Logging')


WARNED = [name for name, row in ALL.items() if row[0] != row[1] and name in {*VALUES, *BESIDES}]


@pytest.mark.parametrize('name', sorted(WARNED))
def test_a_name_says_at_the_users_line_what_it_is_called_now(
    read: dict[str, Any], name: str
) -> None:
    if name in ('setup', 'run'):
        return  # of the module, they are today's; as hooks, see below
    message, is_the_users = read['warned'][name]
    row = ALL[name]
    assert message == f'{name} is a name of clihelper {row[2]}; now: {row[1]}'
    assert is_the_users


def test_todays_names_warn_of_nothing(read: dict[str, Any]) -> None:
    assert not {name for name, row in ALL.items() if row[0] == row[1]} & set(read['warned'])


# Hooks.

HOOKS = sorted({row[0] for row in tables.HOOKS if row[0] != row[1]} - {
    '_set_state', '_sleep', '_wake', 'sleep', 'wake', '_get_wake_interval', 'run',
})

PROGRAM = """\
import clihelper
from reports import report

class Program(clihelper.Controller):
    def {name}(self):
        report('hook')

clihelper.setup('hooks', '', '1')
clihelper.run(Program)
"""

#: What has a hook called.
CAUSES = {
    'reload_configuration': 'USR1', '_reload_configuration': 'USR1', '_on_sighup': 'HUP',
    '_on_sigusr1': 'USR1', '_on_sigusr2': 'USR2', '_on_sigterm': 'TERM',
}


@pytest.mark.parametrize('name', HOOKS)
def test_a_hook_is_called_and_says_at_its_line_what_it_is_called_now(
    tmp_path: Path, name: str
) -> None:
    program = tmp_path / 'program.py'
    program.write_text(PROGRAM.format(name=name))
    with Life(tmp_path, str(program), config='Application: {}\n') as life:
        life.wait_logged('ready')
        life.pid = life.program.pid
        life.signal(CAUSES.get(name, 'TERM'))
        life.wait_report('hook')
        row = ALL[name]
        warning = f'{name} is a name of clihelper {row[2]}; now: {row[1]}'
        life.program.wait_line('DeprecationWarning')
        assert f'{program}:5: DeprecationWarning: {warning}' in life.program.stderr
        assert str(life.program.stderr).count('DeprecationWarning') == 1


ALARMS = """\
import signal
import clihelper
from reports import report

class Program(clihelper.Controller):
    def {sleep}(self):
        report('sleep')
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0)

    def {wake}(self, signum, frame):
        report('wake')
        self.{sleep}()

clihelper.setup('hooks', '', '1')
clihelper.run(Program)
"""


@pytest.mark.parametrize(('sleep', 'wake'), [('_sleep', '_wake'), ('sleep', 'wake')])
def test_the_hooks_of_the_alarm_are_called(tmp_path: Path, sleep: str, wake: str) -> None:
    program = tmp_path / 'program.py'
    program.write_text(ALARMS.format(sleep=sleep, wake=wake))
    with Life(tmp_path, str(program), config='Application: {}\n') as life:
        for word in ('sleep', 'wake', 'sleep', 'wake'):
            life.wait_report(word)
        for line, name in [(6, sleep), (10, wake)]:
            (warning,) = [each for each in life.program.stderr if f'{program}:{line}: ' in each]
            assert f'{name} is a name of' in warning


def test_set_state_of_1_5_is_told_the_numbers(tmp_path: Path) -> None:
    program = tmp_path / 'program.py'
    program.write_text(PROGRAM.format(name='_set_state').replace(
        '(self)', '(self, state)').replace("report('hook')", "report('state', '%i' % state)"))
    with Life(tmp_path, str(program), config='Application: {}\n') as life:
        life.wait_report('state 2')
        assert life.take_reports() == ['state 1', 'state 1', 'state 2']


# What it costs others.

NEW = """\
import sys
import clihelper

class Program(clihelper.Controller):
    def _setup(self):
        self.helper = 1
        print(hasattr(self, 'absent'), flush=True)

    def _process(self):
        loaded = {name for name in sys.modules if name.startswith('clihelper.legacy')}
        print(*sorted(loaded), flush=True)
        sys.exit()

assert not any(name.startswith('clihelper.legacy') for name in sys.modules)
clihelper.setup('new', '', '1')
clihelper.run(Program)
"""


def test_a_program_of_today_loads_names_and_classes_alone(tmp_path: Path) -> None:
    (tmp_path / 'new.py').write_text(NEW)
    (tmp_path / 'new.yml').write_text('Application: {}\n')
    done = subprocess.run(
        [sys.executable, 'new.py', '-c', 'new.yml', '-f'], cwd=tmp_path,
        env={'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, timeout=30,
    )
    first, loaded = done.stdout.splitlines()
    assert first == 'False'
    assert loaded.split() == [
        'clihelper.legacy', 'clihelper.legacy.running', 'clihelper.legacy.tables']


HARNESS = """\
import clihelper
from clihelper.testing import Harness

class First(clihelper.Controller):
    def setup(self):
        print('setup', self._get_config('word'))

    def process(self):
        print('process')

class Second(First):
    def cleanup(self):
        print('cleanup', self.is_stopping)

for cls in (First, Second):
    with Harness(cls, {'Application': {'word': 'hello'}}) as harness:
        assert type(harness.controller) is cls
        harness.tick()
        harness.configure({'Application': {'word': 'again'}})
        harness.signal('HUP')
    print(harness.controller.is_stopped)
"""


def test_a_test_of_its_author_runs_it(tmp_path: Path) -> None:
    (tmp_path / 'harness.py').write_text(HARNESS)
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', 'harness.py'], cwd=tmp_path,
        env={'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, timeout=30,
    )
    assert done.stderr == ''
    assert done.stdout.splitlines() == [
        'setup hello', 'process', 'setup again', 'True',
        'setup hello', 'process', 'cleanup False', 'setup again', 'cleanup True', 'True',
    ]


def test_a_name_that_never_was_is_no_attribute(tmp_path: Path) -> None:
    code = (
        'import clihelper\n'
        'for read in (lambda: clihelper.Absent, lambda: clihelper.Controller(None, []).absent):\n'
        '    try:\n'
        '        read()\n'
        '    except AttributeError as error:\n'
        '        print(error)\n'
        'clihelper.mine = 1\n'
        'print(clihelper.mine)\n'
        'print(clihelper.Controller("options", [])._options)\n'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'error::DeprecationWarning:clihelper', '-c', code],
        env={'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, check=True, timeout=30,
    )
    assert done.stdout.splitlines() == [
        "module 'clihelper' has no attribute 'Absent'",
        "'Controller' object has no attribute 'absent'", '1', 'options',
    ]


def test_the_assigned_pidfile_is_the_default(tmp_path: Path) -> None:
    program = tmp_path / 'program.py'
    program.write_text(PROGRAM.format(name='process').replace(
        'clihelper.setup(', f"clihelper.PIDFILE = '{tmp_path}/%(app)s.number'\nclihelper.setup("))
    with Life(tmp_path, str(program), options=(), config='Application: {}\n',
              env={'PYTHONWARNINGS': 'ignore'}) as life:
        life.wait_report('hook')
        assert life.wait_command() == 0
        assert int((tmp_path / 'hooks.number').read_text()) == life.pid


def read_or_call(controller: clihelper.Controller, name: str) -> Any:
    value = getattr(controller, name)
    if not callable(value):
        return value
    return value('key') if name == '_get_config' else value()


@pytest.mark.parametrize('name', sorted(legacy.READABLE))
def test_it_can_be_read_on_a_controller_of_today(name: str) -> None:
    class Today(clihelper.Controller):
        pass

    log = {'root': {'level': 'INFO'}}
    with testing.Harness(Today, {'Application': {'key': 1}, 'Logging': log}) as harness:
        with pytest.warns(DeprecationWarning, match=name):
            value = read_or_call(harness.controller, name)
        if name == 'logging_config':
            assert value == log
        assert value is not None
