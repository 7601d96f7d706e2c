"""Logging: the section, the formatters, rotation, redirected output, handlers that fail."""

import builtins
import contextlib
import errno
import fcntl
import json
import logging
import os
import pathlib
import pty
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest

from clihelper import logs
from clihelper.commands import new
from clihelper.errors import ConfigurationError, NotPermitted, UnavailableForNow
from clihelper.logs import failures, validation
from clihelper.logs.section import complete
from clihelper.testing import Program
from tests.life import PROGRAMS, Life

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
PREAMBLE = '''
import logging, os, sys
from clihelper import logs

def configure(section, foreground=True, detached=False):
    logs.configure(section, foreground=foreground, detached=detached, appname='orders',
                   locate=lambda *keys: 'x.yml:1:1')
'''


def environment(**changes):
    kept = {name: value for name, value in os.environ.items()
            if name not in ('NO_COLOR', 'TERM', 'JOURNAL_STREAM', 'PYTHONUNBUFFERED')}
    return {**kept, 'PYTHONPATH': str(ROOT), 'TERM': 'xterm', **changes}


def run(code, *, env=None, **options):
    """Run a program and return what came of it."""
    return subprocess.run(
        [sys.executable, '-c', PREAMBLE + textwrap.dedent(code)], text=True, timeout=20,
        env=env or environment(), **{'capture_output': 'stderr' not in options, **options})


def printed(code, **options):
    """What a program that succeeds, and says nothing on stderr, prints."""
    done = run(code, **options)
    assert (done.returncode, done.stderr or '') == (0, '')
    return done.stdout


def locate(*keys):
    return 'x.yml:' + '.'.join(map(str, keys))


def faults(section, **options):
    return logs.check(section, locate, **options)


# The section


@pytest.fixture
def section(tmp_path):
    return {
        'filters': None,
        'formatters': {'plain': {'format': '%(message)s'}},
        'handlers': {
            'file': {'class': 'logging.FileHandler', 'filename': str(tmp_path / 'log'),
                     'formatter': 'plain'},
            'screen': {'class': 'logging.StreamHandler', 'debug_only': True},
            'collector': {'class': 'logging.handlers.MemoryHandler', 'capacity': 10,
                          'target': 'screen'},
        },
        'loggers': {'orders': {'handlers': ['screen', 'file']}, 'empty': None,
                    'kombu': {'level': 'WARNING'}},
        'root': {'level': 'INFO', 'handlers': ['screen', 'collector', 'file']},
    }


def test_debug_only_handlers_and_every_reference_are_gone_in_the_background(section):
    config = complete(section, foreground=False, working_directory=None)
    assert list(config['handlers']) == ['file']
    assert config['root']['handlers'] == ['file']
    assert config['loggers']['orders']['handlers'] == ['file']


def test_debug_only_handlers_exist_in_the_foreground(section):
    config = complete(section, foreground=True, working_directory=None)
    assert set(config['handlers']) == {'file', 'screen', 'collector'}
    assert config['handlers']['screen'] == {'class': 'logging.StreamHandler'}
    assert config['root']['handlers'] == ['screen', 'collector', 'file']


def test_the_section_is_not_changed(section, tmp_path):
    before = repr(section)
    printed(f'''
        section = {section!r}
        before = repr(section)
        configure(section)
        configure(section, foreground=False)
        assert repr(section) == before
    ''')
    complete(section, foreground=False, working_directory=str(tmp_path))
    assert repr(section) == before


def test_null_parts_and_a_missing_version_are_fine(section):
    config = complete(section, foreground=True, working_directory=None)
    assert (config['version'], config['disable_existing_loggers']) == (1, False)
    assert 'filters' not in config
    assert config['loggers']['empty'] == {}
    assert faults(section) == []


def test_a_relative_filename_is_relative_to_the_working_directory(section):
    section['handlers']['file']['filename'] = 'sub/log'
    config = complete(section, foreground=True, working_directory='/srv')
    assert config['handlers']['file']['filename'] == '/srv/sub/log'


def test_console_may_be_named_without_being_defined():
    code = '''
        section = {{'root': {{'level': 'INFO', 'handlers': ['console']}}}}
        assert logs.check(section, lambda *keys: 'x') == []
        configure(section, foreground={})
        logging.getLogger('shop').info('hello')
    '''
    assert run(code.format(True)).stderr.endswith('shop: hello\n')
    assert run(code.format(False)).stderr == ''


def test_what_dictconfig_accepts_works(tmp_path):
    (tmp_path / 'own.py').write_text(textwrap.dedent('''
        import logging
        class Handler(logging.Handler):
            def __init__(self, prefix, twice, level=0):
                super().__init__(level)
                self.prefix, self.twice = prefix, twice
            def emit(self, record):
                print(self.prefix * self.twice, self.format(record), self.extra)
        def only(prefix):
            return lambda record: record.getMessage().startswith(prefix)
    '''))
    assert printed('''
        section = {
            'version': 1, 'disable_existing_loggers': True,
            'words': {'prefix': 'p', 'count': [1, 2]},
            'formatters': {'curly': {'format': '{message}!', 'style': '{'}},
            'filters': {'good': {'()': 'own.only', 'prefix': 'good'}},
            'handlers': {
                'own': {'()': 'own.Handler', 'prefix': 'cfg://words.prefix',
                        'twice': 'cfg://words.count[1]', 'level': 'INFO', 'formatter': 'curly',
                        'filters': ['good'], '.': {'extra': 'dotted'}},
                'out': {'class': 'logging.StreamHandler', 'stream': 'ext://sys.stdout'}},
            'loggers': {'shop': {'level': 'INFO', 'handlers': ['own'], 'propagate': False}},
            'root': {'level': 'WARNING', 'handlers': ['out']}}
        old = logging.getLogger('old')
        assert logs.check(section, lambda *keys: 'x') == []
        configure(section)
        log = logging.getLogger('shop')
        log.info('good')
        log.info('bad')
        old.error('disabled')
        logging.error('to root')
        configure({'incremental': True, 'handlers': {'own': {'level': 'ERROR'}},
                   'loggers': {'shop': {'level': 'ERROR'}}, 'root': {'level': 'CRITICAL'}})
        log.info('good, but not any more')
        log.error('good error')
        logging.error('not any more')
    ''', env=environment(PYTHONPATH=f'{ROOT}:{tmp_path}')) == (
        'pp good! dotted\nto root\npp good error! dotted\n')


def test_a_handler_of_logutils_works_and_colours_no_pipe():
    assert run('''
        configure({'handlers': {'color': {'class': 'logutils.colorize.ColorizingStreamHandler'}},
                   'root': {'handlers': ['color']}})
        logging.error('hello')
    ''').stderr == 'hello\n'


def test_existing_loggers_are_not_disabled():
    assert run('''
        log = logging.getLogger('before')
        configure({'root': {'handlers': ['console']}})
        log.warning('still here')
    ''').stderr.endswith('before: still here\n')


# Faults


@pytest.mark.parametrize(('change', 'expected'), [
    ({'handlers': {'h': {'class': 'logging.StreamHandler', 'formatter': 'plian'}}},
     ["handlers.h.formatter: there is no formatter 'plian'; did you mean plain?"]),
    ({'root': {'handlers': ['flie', 'other']}},
     ["root.handlers: there is no handler 'flie'; did you mean file?",
      "root.handlers: there is no handler 'other'"]),
    ({'root': {'handlers': 'file'}}, ["root.handlers: expected a list of names, got 'file'"]),
    ({'root': {'handler': ['file']}},
     ['root.handler: unknown key; did you mean handlers?']),
    ({'loggers': {'a': {'filters': ['x']}}}, ["loggers.a.filters: there is no filter 'x'"]),
    ({'loggers': {'a': {'level': 'WARNIGN'}}},
     ["loggers.a.level: unknown level 'WARNIGN'; did you mean WARNING?"]),
    ({'root': {'level': 'info'}}, ["root.level: unknown level 'info'; did you mean INFO?"]),
    ({'root': {'level': True}}, ['root.level: expected the name of a level, got True']),
    ({'handlers': {'h': {'class': 'logging.StreamHandlre'}}},
     ["handlers.h.class: cannot be imported: 'logging.StreamHandlre': "
      "No module named 'logging.StreamHandlre'"]),
    ({'handlers': {'h': {'()': 'no.such.thing'}}},
     ["handlers.h.(): cannot be imported: 'no.such.thing': No module named 'no'"]),
    ({'handlers': {'h': {'class': 'os.sep'}}},
     ["handlers.h.class: expected a class, but 'os.sep' is not one"]),
    ({'handlers': {'h': {'filename': '/tmp/x'}}}, ['handlers.h: a handler needs a class']),
    ({'handlers': {'h': None}}, ['handlers.h: expected a mapping, got None']),
    ({'handlers': ['h']}, ["handlers: expected a mapping, got ['h']"]),
    ({'handlers': {'h': {'class': 'logging.FileHandler', 'filename': '/no/such/x.log'}}},
     ["handlers.h.filename: there is no folder '/no/such'"]),
    ({'handlers': {'h': {'class': 'logging.FileHandler', 'filename': '/tmp'}}},
     ["handlers.h.filename: '/tmp' is a folder"]),
    ({'handlers': {'h': {'class': 'logging.FileHandler', 'filenam': 'x'}}},
     ['handlers.h.filenam: unknown key; did you mean filename?',
      "handlers.h: 'filename' is missing"]),
    ({'handlers': {'h': {'class': 'logging.handlers.MemoryHandler', 'capacity': 1,
                         'target': 'x'}}}, ["handlers.h.target: there is no handler 'x'"]),
    ({'handlers': {'h': {'class': 'logging.StreamHandler', 'debug_only': 'yes'}}},
     ["handlers.h.debug_only: expected true or false, got 'yes'"]),
    ({'formatters': {'f': {'format': '{message}'}}},
     ["formatters.f: Invalid format '{message}' for '%' style"]),
    ({'formatters': {'f': {'format': 'one\nline'}}},
     ["formatters.f: Invalid format 'one\\nline' for '%' style"]),
    ({'formatters': {'f': {'()': 'clihelper.logs.ColourFormatter'}}},
     ["formatters.f.(): cannot be imported: 'clihelper.logs.ColourFormatter': "
      "No module named 'clihelper.logs.ColourFormatter'"]),
    ({'version': 2}, ['version: expected 1, got 2']),
    ({'handelrs': {}}, ['handelrs: unknown key; did you mean handlers?']),
    ({'loggers': {7: {}}}, ['loggers.7: expected a name, got 7']),
])
def test_faults_are_found_before_anything_is_opened(change, expected):
    section = {'formatters': {'plain': {}}, 'handlers': {'file': {'class': 'logging.Handler'}},
               'root': {}}
    for key, value in change.items():
        section[key] = {**section.get(key, {}), **value} if isinstance(value, dict) else value
    assert [fault.partition(': Logging.')[2] for fault in faults(section)] == expected


def test_a_queue_handler_as_python_3_12_has_it_is_no_fault_from_there_on():
    queue = {'class': 'logging.handlers.QueueHandler', 'handlers': ['file', 'screen'],
             'queue': {'()': 'queue.Queue', 'maxsize': 100}, 'respect_handler_level': True}
    section = {'handlers': {'file': {'class': 'logging.NullHandler'}, 'queue': queue,
                            'screen': {'class': 'logging.StreamHandler', 'debug_only': True}},
               'root': {'handlers': ['queue']}}
    config = complete(section, foreground=False, working_directory=None)
    assert config['handlers']['queue']['handlers'] == ['file']
    queue['handlers'].append('flie')
    assert [fault.partition(': Logging.handlers.queue')[2] for fault in faults(section)] == (
        [".handlers: there is no handler 'flie'; did you mean file?"]
        if sys.version_info >= (3, 12) else
        ['.handlers: unknown key', '.respect_handler_level: unknown key'])


def test_a_fault_says_where_it_is():
    assert faults({'root': {'level': 'INF'}}) == [
        "x.yml:Logging.root.level: Logging.root.level: unknown level 'INF'; "
        "did you mean INFO?"]


def test_a_relative_folder_is_looked_for_in_the_working_directory(tmp_path):
    section = {'handlers': {'h': {'class': 'logging.FileHandler', 'filename': 'sub/log'}}}
    assert faults(section, working_directory=str(tmp_path)) == [
        f'x.yml:Logging.handlers.h.filename: Logging.handlers.h.filename: '
        f"there is no folder '{tmp_path}/sub'"]
    (tmp_path / 'sub').mkdir()
    assert faults(section, working_directory=str(tmp_path)) == []
    assert not (tmp_path / 'sub' / 'log').exists()


@pytest.mark.parametrize(('section', 'expected'), [
    ({'handlers': {'file': {'class': 'logging.FileHandler', 'filename': '/no/such/x.log'}}},
     "x.yml:Logging.handlers.file: Logging.handlers.file: "
     "cannot open '/no/such/x.log': No such file or directory"),
    ({'handlers': {'file': {'class': 'logging.FileHandler', 'filenam': 'x'}}},
     'x.yml:Logging.handlers.file: Logging.handlers.file: '
     "FileHandler.__init__() got an unexpected keyword argument 'filenam'"),
    ({'formatters': {'f': {'()': 'clihelper.logs.ColorFormatter', 'style': '?'}}},
     'x.yml:Logging.formatters.f: Logging.formatters.f: '
     "style '?' needs a format"),
    ({'root': {'handlers': ['x']}},
     "x.yml:Logging.root: Logging.root: Unable to add handler 'x'"),
    ({'loggers': {'a': {'level': 'INF'}}},
     "x.yml:Logging.loggers.a: Logging.loggers.a: Unknown level: 'INF'"),
    ({'version': 3}, 'x.yml:Logging: Logging: Unsupported version: 3'),
])
def test_what_dictconfig_rejects_is_one_line(section, expected):
    with pytest.raises(ConfigurationError) as caught:
        logs.configure(section, foreground=True, detached=False, appname='x', locate=locate)
    assert str(caught.value).partition('. Did you mean')[0] == expected  # 3.13 adds that


@pytest.mark.root
def test_a_log_file_that_may_not_be_written_is_not_permitted(tmp_path):
    tmp_path.chmod(0o755)
    output = printed(f'''
        import logging.config
        import clihelper.logs.setup, clihelper.logs.validation
        logs.configure
        from clihelper.errors import NotPermitted
        os.setresuid(65534, 65534, 65534)
        try:
            configure({{'handlers': {{'file': {{'class': 'logging.FileHandler',
                                                'filename': '{tmp_path}/x.log'}}}}}})
        except NotPermitted as error:
            print(error)
    ''')
    assert output == ("x.yml:1:1: Logging.handlers.file: "
                      f"cannot open '{tmp_path}/x.log': Permission denied\n")
    assert NotPermitted.status == 77


# One configuration after another


def test_logging_goes_on_as_it_was_when_the_new_configuration_is_wrong(tmp_path):
    path = tmp_path / 'log'
    printed(f'''
        from clihelper.errors import ConfigurationError
        section = {{'handlers': {{'file': {{'class': 'logging.FileHandler', 'mode': 'w',
                                            'filename': '{path}'}}}},
                    'loggers': {{'shop': {{'level': 'DEBUG', 'propagate': False,
                                           'handlers': ['file']}}}}}}
        configure(section)
        log = logging.getLogger('shop')
        log.debug('before')
        handler = log.handlers[0]
        section['handlers']['other'] = {{'class': 'logging.FileHandler', 'filename': '/no/x'}}
        section['loggers']['new'] = {{'level': 'ERROR', 'handlers': ['file']}}
        for _ in range(2):
            try:
                configure(section)
            except ConfigurationError:
                log.debug('after')
            else:
                raise SystemExit('it was accepted')
        assert log.handlers == [handler] and logging._handlers['file'] is handler
        assert logging.getLogger('new').handlers == []
    ''')
    assert path.read_text() == 'before\nafter\nafter\n'


def test_a_new_configuration_takes_the_place_of_the_old_one(tmp_path):
    printed(f'''
        def section(name, logger):
            return {{'handlers': {{'file': {{'class': 'logging.FileHandler',
                                             'filename': f'{tmp_path}/{{name}}'}}}},
                     'loggers': {{logger: {{'level': 'DEBUG', 'handlers': ['file']}}}}}}
        own = logging.FileHandler('{tmp_path}/own')
        logging.getLogger('mine').addHandler(own)
        configure(section('one', 'a'))
        logging.getLogger('a').debug('first')
        first = logging.getLogger('a').handlers[0]
        stream = own.stream
        configure(section('two', 'b'))
        assert first.stream is None and logging.getLogger('a').handlers == []
        assert logging.getLogger('a').level == 0
        assert own.stream is stream, 'a handler of the application was closed'
        logging.getLogger('b').debug('second')
        logging.getLogger('mine').error('third')
        configure({{'incremental': True, 'handlers': {{'file': {{'level': 'ERROR'}}}}}})
        logging.getLogger('b').debug('below the level of the handler now')
        configure(None)
        assert logging.getLogger('b').handlers == []
    ''')
    assert [(tmp_path / name).read_text() for name in ('one', 'two', 'own')] == [
        'first\n', 'second\n', 'third\n']


def test_the_same_configuration_again_reopens_the_files_and_keeps_the_handlers(tmp_path):
    printed(f'''
        section = {{'handlers': {{'file': {{'class': 'logging.FileHandler', 'mode': 'w',
                                            'filename': '{tmp_path}/log'}}}},
                    'root': {{'handlers': ['file']}}}}
        configure(section)
        handler = logging.root.handlers[0]
        logging.error('one')
        os.rename('{tmp_path}/log', '{tmp_path}/log.1')
        configure(section)
        logging.error('two')
        configure(section)
        logging.error('three')
        assert logging.root.handlers == [handler]
    ''')
    assert (tmp_path / 'log.1').read_text() == 'one\n'
    assert (tmp_path / 'log').read_text() == 'two\nthree\n'


def test_a_file_that_was_begun_anew_is_appended_to_by_the_next_configuration(tmp_path):
    printed(f'''
        section = {{'handlers': {{'file': {{'class': 'logging.FileHandler', 'mode': 'w',
                                            'filename': '{tmp_path}/log'}}}},
                    'root': {{'handlers': ['file']}}}}
        open('{tmp_path}/log', 'w').write('of the last start')
        for level in 'ERROR', 'INFO', 'DEBUG':
            section['root']['level'] = level
            configure(section)
            logging.error(level)
    ''')
    assert (tmp_path / 'log').read_text() == 'ERROR\nINFO\nDEBUG\n'


def test_the_thread_behind_a_queue_is_started_survives_a_fork_and_empties_its_queue(tmp_path):
    (tmp_path / 'own.py').write_text(textwrap.dedent('''
        import logging.handlers, queue, sys
        def queued():
            handler = logging.handlers.QueueHandler(queue.SimpleQueue())
            handler.listener = logging.handlers.QueueListener(
                handler.queue, logging.StreamHandler(sys.stdout))
            return handler
    '''))
    assert printed('''
        import threading
        configure({'handlers': {'queue': {'()': 'own.queued'}},
                   'root': {'level': 'INFO', 'handlers': ['queue']}})
        logging.info('parent')
        pid = os.fork()
        logging.info('child' if pid == 0 else 'parent again')
        if pid == 0:
            raise SystemExit
        os.waitpid(pid, 0)
        configure(None)
        assert threading.active_count() == 1
    ''', env=environment(
        PYTHONPATH=f'{ROOT}:{tmp_path}',
        # Python 3.12 counts threads when the fork is over and this one runs again.
        PYTHONWARNINGS='ignore::DeprecationWarning')).splitlines() in (
        ['parent', 'parent again', 'child'], ['parent', 'child', 'parent again'])


# Without a section


def on_terminal(code, env=None):
    """What a program writes to a terminal that is its standard error."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, '-c', PREAMBLE + textwrap.dedent(code)],
                          stderr=theirs, env=env or environment()) as process:
        os.close(theirs)
        output = b''
        try:
            while data := os.read(ours, 4096):
                output += data
        except OSError:
            pass  # EIO: the other side is closed.
    os.close(ours)
    assert process.returncode == 0
    return output.decode().replace('\r\n', '\n')


GREET = '''
    configure(None)
    logging.getLogger('shop').info('hello')
    logging.getLogger('shop').debug('not at this level')
'''


def test_the_console_has_colour_on_a_terminal():
    assert re.fullmatch(
        r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \x1b\[32mINFO\x1b\[0m     shop: hello\n',
        on_terminal(GREET))


def test_the_console_has_no_colour_on_a_pipe():
    assert re.fullmatch(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INFO     shop: hello\n',
                        run(GREET).stderr)


@pytest.mark.parametrize('variable', [{'NO_COLOR': '1'}, {'TERM': 'dumb'}])
def test_the_console_has_no_colour_where_it_is_not_wanted(variable):
    assert '\x1b' not in on_terminal(GREET, environment(**variable))


def test_a_log_file_has_no_colour_though_the_console_shares_its_formatter(tmp_path):
    output = on_terminal(f'''
        configure({{'formatters': {{'color': {{'()': 'clihelper.logs.ColorFormatter'}}}},
                    'handlers': {{
                        'console': {{'class': 'logging.StreamHandler', 'formatter': 'color'}},
                        'file': {{'class': 'logging.FileHandler', 'formatter': 'color',
                                  'filename': '{tmp_path}/log'}}}},
                    'root': {{'handlers': ['console', 'file']}}}})
        logging.error('hello')
    ''')
    assert '\x1b[1;31mERROR\x1b[0m' in output
    assert (tmp_path / 'log').read_text().endswith(' ERROR    root: hello\n')


def test_the_default_does_without_the_costly_modules():
    assert printed('''
        before = set(sys.modules)
        configure(None)
        configure(None, foreground=False, detached=True)
        costly = {'logging.config', 'logging.handlers', 'socket', 'json', 'typing', 'logutils',
                  'ctypes', 'difflib', 'inspect'}
        print(costly & (set(sys.modules) - before))
    ''') == 'set()\n'


def test_without_standard_error_the_console_harms_nobody():
    done = run('''
        configure(None)
        logging.error('nobody reads this')
    ''', preexec_fn=lambda: os.close(2), stderr=None, stdout=subprocess.PIPE)
    assert done.returncode == 0


def test_lines_in_the_journal_have_their_priority():
    ours, theirs = socket.socketpair()
    status = os.fstat(theirs.fileno())
    journal = f'{status.st_dev}:{status.st_ino}'
    with ours, theirs:
        done = run('''
            configure(None)
            log = logging.getLogger('shop')
            for level in 'info', 'warning', 'error', 'critical':
                getattr(log, level)('one\\ntwo')
        ''', env=environment(JOURNAL_STREAM=journal), stderr=theirs)
        theirs.close()
        assert done.returncode == 0
        assert ours.recv(4096).decode() == ''.join(
            f'<{number}>shop: one\n<{number}>two\n' for number in (6, 4, 3, 2))
    assert '<6>' not in run(GREET, env=environment(JOURNAL_STREAM=journal)).stderr


@pytest.mark.root
def test_a_daemon_without_a_section_logs_to_syslog(tmp_path):
    namespace = (f'mkdir {tmp_path}/dev && mount --rbind /dev {tmp_path}/dev && '
                 f'mount -t tmpfs tmpfs /dev && ln -s {tmp_path}/dev/null /dev/null && '
                 f'exec {sys.executable} {HERE}/programs/logs_syslog.py')
    done = subprocess.run(['unshare', '-m', 'sh', '-c', namespace], capture_output=True,
                          text=True, env=environment(), timeout=20)
    assert (done.returncode, done.stderr) == (0, '')
    pid, info, critical, error = done.stdout.splitlines()
    assert re.fullmatch(rf"b'<30>\w+ +\d+ [\d:]+ orders\[{pid}\]: shop: shipped 7'", info)
    assert critical.endswith(r"shop: a lone \\udc80, a null \\0 and 100%'")
    assert critical.startswith("b'<26>")
    assert error.startswith("b'<27>")


@pytest.fixture
def syslogd(tmp_path, monkeypatch):
    """Starts a syslogd that reads when the test does; it is at another place than /dev/log."""
    monkeypatch.setattr('clihelper.logs.defaults.SYSLOG_SOCKET', str(tmp_path / 'log'))
    sockets = []

    def start(kind=socket.SOCK_DGRAM):
        (tmp_path / 'log').unlink(missing_ok=True)
        sockets.append(socket.socket(socket.AF_UNIX, kind))
        sockets[-1].settimeout(10)
        sockets[-1].bind(str(tmp_path / 'log'))
        if kind == socket.SOCK_STREAM:
            sockets[-1].listen()
        return sockets[-1]

    yield start
    for each in sockets:
        each.close()


@pytest.fixture
def to_syslog(syslogd):
    """A logger with a handler as the default has it, which is closed at the end."""
    logger = logging.Logger('shop')
    handler = logs.SyslogHandler('orders')
    failures.watch(handler)
    logger.addHandler(handler)
    yield logger
    handler.close()


def test_syslog_is_found_again_after_its_restart(syslogd, to_syslog):
    to_syslog.info('before there is one')
    first = syslogd()
    to_syslog.info('one')
    assert first.recv(1000).endswith(b']: shop: one')
    first.close()
    second = syslogd()
    to_syslog.info('two')
    assert second.recv(1000).endswith(b']: shop: two')


def test_syslog_over_a_stream_ends_each_record(syslogd, to_syslog):
    listener = syslogd(socket.SOCK_STREAM)
    to_syslog.info('one')
    to_syslog.info('two')
    with listener.accept()[0] as connection:
        received = b''
        while received.count(b'\0') < 2:
            received += connection.recv(1000)
    assert re.fullmatch(rb'<30>[^\0]*: one\0<30>[^\0]*: two\0', received)


def test_a_syslogd_that_does_not_read_is_waited_for_once_and_what_it_missed_is_counted(
    syslogd, to_syslog, monkeypatch
):
    monkeypatch.setattr('clihelper.logs.defaults.PATIENCE', 200)
    server = syslogd()
    begin = time.monotonic()
    for number in range(2000):
        to_syslog.info('number %d', number)
    assert 0.2 <= time.monotonic() - begin < 2
    read = [server.recv(1000) for _ in range(3)]
    assert read[2].endswith(b'number 2')
    to_syslog.info('at last')
    while not read[-1].endswith(b'at last'):
        read.append(server.recv(1000))
    lost = 2000 - (len(read) - 1)
    assert server.recv(1000).endswith(
        b'clihelper: log handler SyslogHandler writes again, %d records were lost' % lost)


def test_a_record_of_many_bytes_is_cut_to_what_syslogd_takes(syslogd, to_syslog):
    server = syslogd()
    to_syslog.info('\N{SNOWMAN}' * 70_000)
    assert server.recv(1_000_000).decode().endswith('\N{SNOWMAN}... (210006 bytes)')


def test_a_stop_does_not_wait_for_a_syslogd_that_does_not_read(tmp_path):
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(str(tmp_path / 'syslogd'))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b'unread', str(tmp_path / 'syslogd'))
    namespace = (f'mkdir {tmp_path}/dev && mount --rbind /dev {tmp_path}/dev && '
                 f'mount -t tmpfs tmpfs /dev && ln -s {tmp_path}/dev/null /dev/null && '
                 f'ln -s {tmp_path}/syslogd /dev/log && exec "$@"')
    life = Life(tmp_path, 'own_loops.py', 'Logging', options=(), log='')
    life.program._argv[:0] = ['unshare', '-m', 'sh', '-c', namespace, 'sh']
    with server, life:
        assert life.wait_command() == 0
        life.wait_report('loop')
        begin = time.monotonic()
        life.signal('TERM')
        assert life.wait_daemon() == 0
        assert time.monotonic() - begin < 3


def test_a_daemon_without_syslog_is_warned_of(monkeypatch, tmp_path):
    monkeypatch.setattr('clihelper.logs.defaults.SYSLOG_SOCKET', str(tmp_path / 'log'))
    assert 'no Logging section' in logs.check_default(True)
    assert logs.check_default(False) is None
    (tmp_path / 'log').touch()
    assert logs.check_default(True) is None


# JSON


def as_json(**attributes):
    record = logging.makeLogRecord({'name': 'shop', 'levelname': 'INFO', 'levelno': 20,
                                    'msg': 'hello', 'created': 0.25, 'msecs': 250.0,
                                    **attributes})
    text = logs.JSONFormatter().format(record)
    assert '\n' not in text
    return json.loads(text, parse_constant=pytest.fail)


def test_a_json_line_has_what_a_record_has():
    assert as_json(msg='hello\n%s', args=('you',), order_id=7, time='extra') == {
        'time': '1970-01-01T00:00:00.250Z', 'level': 'INFO', 'logger': 'shop',
        'message': 'hello\nyou', 'pid': os.getpid(), 'process': 'MainProcess',
        'thread': 'MainThread', 'order_id': 7, 'time_': 'extra'}


def test_a_json_line_has_the_exception():
    try:
        raise LookupError('lost')
    except LookupError:
        found = as_json(exc_info=sys.exc_info(), stack_info='Stack (most recent call last):')
    assert found['exception'].endswith('LookupError: lost')
    assert found['stack'].startswith('Stack')


class Unprintable:
    def __repr__(self):
        raise RuntimeError('no')


def test_json_expresses_what_it_cannot_express_as_text():
    circle = []
    circle.append(circle)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert as_json(nan=float('nan'))['nan'] == 'nan'
    found = as_json(circle=circle, deep=deep, keys={(1, 2): 3}, good=[1],
                    unprintable=Unprintable(), items={1}, surrogate='\udc80')
    assert (found['circle'], found['keys'], found['good'], found['items']) == (
        '[[...]]', '{(1, 2): 3}', [1], '{1}')
    assert found['unprintable'] == '<Unprintable without a repr>'
    assert found['surrogate'] == '\udc80'
    while deep:
        deep = deep.pop()


# Rotation


@pytest.mark.parametrize('mode', ['a', 'w'])
def test_rotation_by_renaming_loses_no_line(tmp_path, mode):
    path = tmp_path / 'log'
    process = subprocess.Popen(
        [sys.executable, HERE / 'programs' / 'logs_rotation.py', path, mode, '3'],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())
    with process:
        assert process.stdout.readline() == 'logging\n'
        for number in range(30):
            path.rename(f'{path}.{number}')
            process.stdin.write('reopen\n')
            process.stdin.flush()
            assert process.stdout.readline() == 'reopened\n'
            assert path.exists()
        process.stdin.close()
        counts = [int(word) for word in process.stdout.readline().split()]
    lines = [line for file in tmp_path.iterdir() for line in file.read_text().splitlines()]
    expected = {f'{thread} {number}' for thread in range(3) for number in range(counts[thread])}
    assert min(counts) > 0
    assert len(lines) == len(expected)
    assert set(lines) == expected


def test_a_file_behind_other_handlers_is_reopened(tmp_path):
    printed(f'''
        import logging.handlers
        configure({{'handlers': {{
                        'file': {{'class': 'logging.handlers.RotatingFileHandler',
                                  'filename': '{tmp_path}/log'}},
                        'memory': {{'class': 'logging.handlers.MemoryHandler', 'capacity': 1,
                                    'target': 'file'}}}},
                    'root': {{'handlers': ['memory']}}}})
        code = logging.FileHandler('{tmp_path}/code')
        logging.getLogger('code').addHandler(code)
        logging.getLogger('code').error('one')
        del logging._handlerList[:]  # as dictConfig does where somebody else calls it
        for name in 'log', 'code':
            os.rename(f'{tmp_path}/{{name}}', f'{tmp_path}/{{name}}.1')
        logs.reopen()
        logging.getLogger('code').error('two')
    ''')
    for name in ('log', 'code'):
        assert (tmp_path / f'{name}.1').read_text() == 'one\n'
        assert (tmp_path / name).read_text() == 'two\n'


def test_a_file_that_was_truncated_has_no_hole(tmp_path):
    printed(f'''
        configure({{'handlers': {{'file': {{'class': 'logging.FileHandler', 'mode': 'w',
                                            'filename': '{tmp_path}/log'}}}},
                    'root': {{'handlers': ['file']}}}})
        logging.error('one')
        logs.reopen()
        os.truncate('{tmp_path}/log', 0)
        logging.error('two')
    ''')
    assert (tmp_path / 'log').read_text() == 'two\n'


def test_a_file_that_cannot_be_reopened_stays_in_use(tmp_path):
    folder = tmp_path / 'logs'
    folder.mkdir()
    printed(f'''
        configure({{'handlers': {{'file': {{'class': 'logging.FileHandler',
                                            'filename': '{folder}/log'}}}},
                    'root': {{'handlers': ['file']}}}})
        os.rename('{folder}', '{tmp_path}/away')
        logs.reopen()
        logging.error('still here')
    ''')
    first, second = (tmp_path / 'away' / 'log').read_text().splitlines()
    assert first.startswith(f'Cannot reopen the log file {folder}/log')
    assert second == 'still here'


# Redirected output


CONSOLE = '''
    configure({'formatters': {'plain': {'format': '%(levelname)s:%(name)s:%(message)s'}},
               'handlers': {'console': {'class': 'logging.StreamHandler', 'formatter': 'plain'}},
               'root': {'level': 'DEBUG', 'handlers': ['console']}})
    sys.stdout.flush()
'''


def logged(code):
    """What a program logs, and nothing of it is on standard output."""
    done = run(CONSOLE + code)
    assert (done.returncode, done.stdout) == (0, '')
    return done.stderr.splitlines()


def test_a_line_that_is_printed_is_a_record():
    assert logged('''
    import warnings
    warnings.simplefilter('default')
    logs.redirect_output()
    print('x', 'y')
    print('two\\nlines\\n\\n', end='')
    print('to stderr', file=sys.stderr)
    sys.stdout.buffer.write(b'bytes\\n')
    print('be', end='', flush=True)
    print('fore', end='')
    warnings.warn_explicit('careful', UserWarning, 'here', 1)
    print(' and after')
    print('100%s')
    print('no end', end='')
    ''') == ['INFO:stdout:x y', 'INFO:stdout:two', 'INFO:stdout:lines', 'INFO:stdout:to stderr',
             'INFO:stdout:bytes', 'WARNING:py.warnings:here:1: UserWarning: careful', '',
             'INFO:stdout:before and after', 'INFO:stdout:100%s', 'INFO:stdout:no end']


def test_logger_and_level_of_what_is_printed_can_be_chosen_and_changed():
    assert logged('''
    import warnings
    warnings.simplefilter('default')
    logs.redirect_output('out', 'DEBUG')
    print('one')
    logs.redirect_output('other', 30)
    print('two')
    logs.restore_output()
    print('three', file=sys.stderr)
    warnings.warn_explicit('four', UserWarning, 'here', 1)
    ''') == ['DEBUG:out:one', 'WARNING:other:two', 'three', 'here:1: UserWarning: four']


def test_an_unknown_level_of_what_is_printed_is_an_error():
    with pytest.raises(ValueError, match='Unknown level'):
        logs.redirect_output(level='LOUD')


def test_a_record_of_what_is_printed_says_where_that_was():
    assert run('''
        configure({'formatters': {'plain': {'format': '%(funcName)s %(message)s'}},
                   'handlers': {'err': {'class': 'logging.StreamHandler',
                                        'formatter': 'plain'}},
                   'root': {'level': 'DEBUG', 'handlers': ['err']}})
        logs.redirect_output()
        def greet():
            print('hello')
        greet()
    ''').stderr == 'greet hello\n'


def test_a_handler_that_prints_does_not_recurse():
    assert logged('''
    class Printing(logging.Handler):
        def emit(self, record):
            print('handling', record.getMessage(), file=sys.stderr)
    logs.redirect_output()
    logging.root.addHandler(Printing())
    logging.root.addHandler(logging.StreamHandler())
    logging.info('hello')
    print('there')
    ''') == ['INFO:root:hello', 'handling hello', 'hello',
             'INFO:stdout:there', 'handling there', 'there']


def test_threads_that_print_share_no_line():
    lines = logged('''
    import threading
    sys.setswitchinterval(1e-5)
    logs.redirect_output()
    def speak(word):
        for number in range(300):
            print(word, word, number, sep='-')
    threads = [threading.Thread(target=speak, args=(word,)) for word in ('a', 'b', 'c')]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    ''')
    assert sorted(lines) == sorted(
        f'INFO:stdout:{word}-{word}-{number}' for word in 'abc' for number in range(300))


def test_libraries_can_use_what_stands_for_standard_output():
    assert logged('''
    import faulthandler, subprocess
    logs.redirect_output()
    assert sys.stdout.fileno() == 1 and sys.stderr.fileno() == 2
    assert not sys.stdout.isatty() and sys.stdout.writable()
    faulthandler.enable()
    subprocess.run(['true'], stdout=sys.stdout, stderr=sys.stderr, check=True)
    sys.stdout.reconfigure(encoding='utf-8')
    sys.stdout.flush()
    sys.stdout.close()
    print('alive')
    print('x' * 70000, end='')
    print('y' * 10)
    ''') == ['INFO:stdout:alive', 'INFO:stdout:' + 'x' * 70000, 'INFO:stdout:' + 'y' * 10]


# Handlers that fail


@pytest.mark.root
@pytest.mark.parametrize('mode', ['a', 'w'])
def test_a_full_disk_costs_only_the_records_it_has_no_room_for(tmp_path, mode):
    namespace = (f'mount -t tmpfs -o size=128k tmpfs {tmp_path} && exec {sys.executable} '
                 f'{HERE}/programs/logs_full_disk.py {tmp_path} {mode}')
    done = subprocess.run(['unshare', '-m', 'sh', '-c', namespace], capture_output=True,
                          text=True, env=environment(), timeout=20)
    assert done.returncode == 0
    found = json.loads(done.stdout)
    begin, end = done.stderr.splitlines()
    assert begin == (f'clihelper: log handler file ({tmp_path}/log) cannot write, '
                     'records are lost: No space left on device')
    lost = int(re.fullmatch(r'clihelper: log handler file .* writes again, (\d+) records were '
                            r'lost', end)[1])
    whole = [line for line in found['lines'] if re.fullmatch(r'record \d{6} \.{60}', line)]
    assert lost > 9000
    assert len(whole) + lost == found['written']
    assert [line for line in found['lines'] if 'writes again' in line] == [
        end.removeprefix('clihelper: ')]
    assert whole[-10:] == [f'record {number:06d} {"." * 60}'
                           for number in range(found['written'] - 10, found['written'])]
    assert found['grown'] < 1 << 20
    assert not found['observed']


def test_a_disk_that_is_full_now_and_then_floods_nobody():
    done = run('''
        class Moody(logging.Handler):
            turn = 0
            def emit(self, record):
                Moody.turn += 1
                try:
                    if Moody.turn % 2:
                        raise OSError(28, 'No space left on device')
                except OSError:
                    self.handleError(record)
        configure({'handlers': {'moody': {'()': Moody}}, 'root': {'handlers': ['moody']}})
        for number in range(1000):
            logging.error('record %d', number)
    ''')
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) <= 2


def test_closed_standard_error_stops_nobody():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run('''
            configure(None)
            for number in range(1000):
                logging.info('record %d', number)
            print('done')
        ''', stderr=writer, stdout=subprocess.PIPE)
    finally:
        os.close(writer)
    assert (done.returncode, done.stdout) == (0, 'done\n')


def test_a_bad_logging_call_is_told_once_for_each_place_and_its_record_is_kept():
    done = run(CONSOLE + '''
    def bad():
        logging.info('%d apples', 'x')
    for _ in range(3):
        bad()
    logging.info('good')
    ''')
    assert done.returncode == 0
    assert done.stderr.count('bad logging call at <string>:') == 1
    assert ', in bad\n' in done.stderr
    assert done.stderr.count("INFO:root:'%d apples' with ('x',): TypeError: ") == 3
    assert 'records' not in done.stderr
    assert done.stderr.endswith('INFO:root:good\n')


def test_a_record_that_is_not_unicode_is_not_lost(tmp_path):
    printed(f'''
        configure({{'handlers': {{'file': {{'class': 'logging.FileHandler',
                                            'filename': '{tmp_path}/log'}}}},
                    'root': {{'handlers': ['file']}}}})
        logging.error('the file \\udc80')
    ''')
    assert (tmp_path / 'log').read_text() == 'the file \\udc80\n'


# Signals


def test_code_that_interrupts_logging_is_told_so():
    assert printed('''
        import signal
        class Interrupted(logging.Handler):
            def emit(self, record):
                signal.raise_signal(signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, lambda number, frame: print(logs.is_emitting(frame)))
        configure({'handlers': {'own': {'()': Interrupted}}, 'root': {'handlers': ['own']}})
        signal.raise_signal(signal.SIGUSR1)
        logging.error('hello')
        logs.is_emitting(None)
    ''') == 'False\nTrue\n'


def test_a_record_from_a_signal_handler_survives_a_write_that_it_interrupts():
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen([sys.executable, '-c', PREAMBLE + textwrap.dedent('''
        import signal
        configure(None)
        signal.signal(signal.SIGUSR1, lambda number, frame: logging.info('from the handler'))
        sys.stderr.write('x' * 100_000 + '\\n')
    ''')], stderr=writer, env=environment())
    os.close(writer)
    with process, open(reader, 'rb') as pipe:
        first = pipe.read(1)  # The rest does not fit into the pipe: it is writing now.
        process.send_signal(signal.SIGUSR1)
        output = (first + pipe.read()).decode()
    assert process.returncode == 0
    assert output.count('from the handler') == 1
    assert output.count('x') == 100_000
    assert 'rror' not in output


# A handler that cannot be made

SERVER = """\
Logging:
  handlers:
    server: {class: logging.handlers.SysLogHandler, address: [ADDRESS], socktype: 1}
  root: {handlers: [server]}
"""


AWAY = ['127.0.0.1']
if sys.version_info < (3, 14):  # since then the handler itself looks the name up later
    AWAY.append('no.such.host.invalid')


@pytest.mark.parametrize('options', [('-f',), ()])
@pytest.mark.parametrize('host', AWAY)
def test_a_log_server_that_is_away_is_not_the_configurations_fault(tmp_path, host, options):
    with socket.socket() as unused:
        unused.bind(('127.0.0.1', 0))
        address = f'{host}, {unused.getsockname()[1]}'
        log = SERVER.replace('ADDRESS', address)
        with Life(tmp_path, 'announced_interval.py', options=options, log=log) as life:
            assert (life.wait() if options else life.wait_command()) == 75
            line, = life.program.stderr
            assert re.match(r'.*app.yml:4:\d+: Logging\.handlers\.server: .* at a later start\)$',
                            line)
        unused.listen()
        if host == '127.0.0.1':
            with Program([sys.executable, PROGRAMS / 'announced_interval.py', '-c',
                          tmp_path / 'app.yml', '-f']) as program:
                program.wait_ready()
                assert program.stop() == 0


class Away(logging.Handler):
    def __init__(self, kind):
        raise getattr(builtins, kind)('no')


@pytest.mark.parametrize(('kind', 'error'), [
    ('ConnectionRefusedError', UnavailableForNow), ('RuntimeError', UnavailableForNow),
    ('TimeoutError', UnavailableForNow), ('ValueError', ConfigurationError),
    ('KeyError', ConfigurationError), ('AttributeError', ConfigurationError),
])
def test_the_exception_of_a_class_decides_whether_the_configuration_is_at_fault(kind, error):
    section = {'handlers': {'it': {'class': f'{__name__}.Away', 'kind': kind}}}
    with pytest.raises(error, match=r'Logging.handlers.it: ') as caught:
        logs.configure(section, foreground=True, detached=False, appname='x', locate=locate)
    assert caught.value.status == {UnavailableForNow: 75, ConfigurationError: 78}[error]


def test_a_full_disk_is_not_the_configurations_fault():
    full = validation.explain(OSError(errno.ENOSPC, 'No space left', '/x'), locate)
    gone = validation.explain(FileNotFoundError(errno.ENOENT, 'No such file', '/x'), locate)
    forbidden = validation.explain(PermissionError(errno.EACCES, 'Permission denied'), locate)
    assert [each.status for each in (full, gone, forbidden)] == [75, 78, 77]


def test_units_are_started_again_where_something_is_away():
    unit = new.project('hello', 'interval')['debian/hello.service'].text
    assert '\nRestartForceExitStatus=75\n' in unit
    assert '75' not in re.search('RestartPreventExitStatus=(.*)', unit)[1].split()


# Handlers with threads, and workers

WORKERS = """\
Daemon: {workers: 2, pidfile: FOLDER/pid}
Application: {wake_interval: 60}
"""

THREADS = """\
Logging:
  handlers:
    it: {CLASS, filename: FOLDER/log}
  root: {level: INFO, handlers: [it]}
"""


@pytest.mark.parametrize('options', [('-f',), ()])
def test_a_listener_that_a_class_starts_itself_has_a_thread_in_each_worker(tmp_path, options):
    log = THREADS.replace('CLASS', "'()': queued.Queued")
    with Life(tmp_path, 'queued.py', options=options, config=WORKERS, log=log) as life:
        for number in (1, 2):
            life.wait_logged(f'worker {number} works')
        if options:
            life.program.stop()
        else:
            life.pid = int((tmp_path / 'pid').read_text())
            life.signal('TERM')
            life.wait_daemon()
        # What was queued last is written, by the workers and by their supervisor.
        assert {line.partition(' (')[0] for line in life.log} >= {
            'worker 1 cleans up', 'worker 2 cleans up', 'worker 1', 'worker 2'}
        assert not any('main process only' in line for line in life.log)


def test_a_thread_that_workers_do_without_is_named(tmp_path):
    log = THREADS.replace('CLASS', 'class: queued.Threaded')
    with Life(tmp_path, 'queued.py', config=WORKERS, log=log) as life:
        life.wait_logged('the thread writer is in the main process only')
        life.program.stop()


def test_a_child_of_a_process_with_a_listener_logs(tmp_path):
    printed(f'''
        import sys
        sys.path.insert(0, {str(PROGRAMS)!r})
        configure({{'handlers': {{'it': {{'()': 'queued.Queued', 'filename': '{tmp_path}/log'}}}},
                    'root': {{'handlers': ['it'], 'level': 'INFO'}}}})
        import logging.handlers
        from clihelper.logs.setup import stop_all_listeners
        if not os.fork():
            logging.info('child')
            stop_all_listeners()
            os._exit(0)
        os.wait()
        logging.info('parent')
        stop_all_listeners()
    ''')
    assert (tmp_path / 'log').read_text() == 'child\nparent\n'


# Syslog without a socket

SYSLOG = """\
Logging:
  handlers:
    file: {class: logging.FileHandler, filename: FOLDER/log}
    syslog: {class: logging.handlers.SysLogHandler, address: FOLDER/devlog}
    gone: {class: logging.handlers.SysLogHandler, address: /no/such/socket, debug_only: true}
    net: {class: logging.handlers.SysLogHandler, address: [127.0.0.1, 9]}
  root: {level: INFO, handlers: [file, syslog, gone, net]}
"""


@pytest.mark.parametrize('options', [('-f',), ()])
def test_a_syslog_without_a_socket_is_a_warning_on_the_terminal(tmp_path, options):
    with Life(tmp_path, 'announced_interval.py', options=options, log=SYSLOG) as life:
        life.wait_logged('Would be processing')
        life.program.stop() if options else stop_daemon(life, tmp_path / 'pid')
        lines = [line for line in life.program.stderr if 'there is no' in line]
    expected = [rf'{tmp_path}/app.yml:5:\d+: Logging.handlers.syslog: there is no'
                rf' {tmp_path}/devlog: what is logged there is lost until there is one']
    if options:
        expected.append(r'.*: Logging.handlers.gone: there is no /no/such/socket: .*')
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line)


def stop_daemon(life, pidfile):
    life.pid = int(pidfile.read_text())
    life.signal('TERM')
    life.wait_daemon()


def test_a_syslog_with_a_socket_is_not(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslogd:
        syslogd.bind(str(tmp_path / 'devlog'))
        section = {'handlers': {
            'there': {'class': 'logging.handlers.SysLogHandler',
                      'address': str(tmp_path / 'devlog')},
            'own': {'class': 'clihelper.logs.SyslogHandler', 'ident': 'x'},
            'other': {'class': 'logging.StreamHandler'},
        }}
        found = logs.warnings(section, locate, foreground=True)
    assert len(found) == (not os.path.exists('/dev/log'))
    assert all('handlers.own: there is no /dev/log' in line for line in found)
