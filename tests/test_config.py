"""The configuration: defaults, faults with their places, and who may write it."""

import contextlib
import os
import struct
import subprocess
import sys
import tempfile
import textwrap
import time

import pytest
import yaml

from clihelper import config
from clihelper.config import permissions, schema
from clihelper.errors import ConfigurationError, NotPermitted

REFERENCE = os.path.join(os.path.dirname(__file__), os.pardir, 'docs', 'reference.py')
SURROUNDINGS = ('RUNTIME_DIRECTORY', 'XDG_RUNTIME_DIR', 'STATE_DIRECTORY')


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    for variable in SURROUNDINGS:
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def load(tmp_path):
    """Write a file and read it as the configuration of a program ``app``."""
    def write_and_load(text, *required, **options):
        path = tmp_path / 'example.yml'
        path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).encode())
        return config.load(str(path), required, appname='app', shown='example.yml', **options)
    return write_and_load


@pytest.fixture
def faults(load):
    """The lines of what is wrong with a file."""
    def write_and_fail(text, *required):
        with pytest.raises(ConfigurationError) as caught:
            load(text, *required)
        assert caught.value.status == 78
        return list(caught.value.faults)
    return write_and_fail


@contextlib.contextmanager
def as_nobody():
    """Have the rights of an ordinary user for a while."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


# What a good file gives

@pytest.mark.root
def test_absent_sections_have_their_defaults(load):
    read = load('Logging: {version: 1}\n')
    assert read == {
        'Application': {'wake_interval': 60},
        'Daemon': {
            'user': None, 'group': None, 'pidfile': '/run/app.pid', 'umask': 0o027,
            'working_directory': '/', 'prevent_core': True, 'start_timeout': 30,
            'stop_timeout': 60, 'redirect_output': True, 'state_directory': None, 'workers': 1,
            'logs_directory': '/',
            'max_messages': None, 'max_memory': None, 'max_age': None, 'listen': [],
            'metrics': None, 'control': '/run/app.sock',
        },
        'Logging': {'version': 1},
        'AMQP': {
            'url': 'amqp://guest:guest@localhost:5672//', 'transport_options': {},
                'heartbeat': 10, 'prefetch': 100, 'concurrency': None, 'threads': 1, 'batch': None,
            'tls': {'ca': None, 'certificate': None, 'key': None, 'verify': True, 'strict': False,
                    'server_name': None},
            'declare': True, 'exchanges': {}, 'queues': {},
            'retry': {'attempts': 5, 'delay': 1, 'factor': 2, 'max_delay': 300},
            'dead_letter': True, 'accept': ['json', 'text', 'binary'], 'max_body': 16777216,
            'rate': None,
            'breaker': None,
            'handler_timeout': None,
            'wait_for_broker': True, 'tracing': False,
        },
    }
    assert (read.application, read.daemon, read.logging, read.amqp) == (
        read['Application'], read['Daemon'], read['Logging'], read['AMQP'])
    assert read.path.endswith('/example.yml')


def test_null_sections_are_absent_ones(load):
    read = load('Application:\nDaemon: null\nLogging: ~\nAMQP:\n')
    assert read == {**config.Config.default('app'), 'Logging': {}}
    assert read.logging is None
    assert load('Other: 1\n').logging is None


def test_defaults_are_made_anew_each_time(load):
    first = load('Other: 1\n')
    first.amqp['retry']['attempts'] = 99
    first.amqp['accept'].append('x')
    first.amqp['queues']['x'] = {}
    for again in (load('Other: 1\n'), config.Config.default()):
        assert again.amqp['retry']['attempts'] == 5
        assert again.amqp['accept'] == ['json', 'text', 'binary']
        assert again.amqp['queues'] == {}


def test_keys_of_the_application_are_passed_on(load):
    read = load('Application: {wake_interval: 0.5, x: {y: [1, {z: 2}]}}\nShop: [a]\n1: b\n')
    assert read.application == {'wake_interval': 0.5, 'x': {'y': [1, {'z': 2}]}}
    assert type(read.application['x']) is dict
    assert (read['Shop'], read[1]) == (['a'], 'b')


@pytest.mark.root
def test_files_of_tls_are_relative_to_the_working_directory(load):
    read = load('AMQP: {url: amqps://a, tls: {ca: a.pem, certificate: /b.pem, key: c/d.pem}}\n'
                'Daemon: {working_directory: /srv}\n')
    assert read.amqp['tls'] == {
        'ca': '/srv/a.pem', 'certificate': '/b.pem', 'key': '/srv/c/d.pem', 'verify': True,
        'strict': False,
        'server_name': None}
    assert load('AMQP: {tls: {ca: a}, url: memory://}').amqp['tls']['ca'] == '/a'


def test_the_topology_is_filled_in(load):
    read = load('''
        AMQP:
          url: [amqp://a, "amqps://u:p%40@[::1]:5671/v?heartbeat=2.5", memory://]
          exchanges: {shop: {type: topic}, late: {type: x-delayed-message, arguments: {a: 1}}, e: }
          queues:
            orders:
            some: {exchange: shop, routing_keys: a.*, arguments: {x-queue-type: quorum}}
            more: {exchange: amq.topic, routing_keys: [a, b], durable: false}
            '':
            local: {name: '', auto_delete: true, exclusive: false, consumer_arguments: {a: 1}}
            bound:
              name: other
              bindings:
                - {exchange: shop, routing_key: a}
                - {exchange: amq.headers, arguments: {x-match: any, n: 1, l: [1.5, ~, {b: true}]}}
          dead_letter: lost
          retry: {delay: 0.5}
    ''').amqp
    plain = {'durable': True, 'auto_delete': False, 'arguments': {}}
    assert read['exchanges'] == {
        'shop': {**plain, 'type': 'topic'}, 'e': {**plain, 'type': 'direct'},
        'late': {**plain, 'type': 'x-delayed-message', 'arguments': {'a': 1}}}
    plain |= {
        'routing_keys': [], 'bindings': [], 'exclusive': False, 'consumer_arguments': {},
            'consume': True}
    assert read['queues'] == {
        'orders': {**plain, 'name': 'orders'},
        'some': {**plain, 'name': 'some', 'exchange': 'shop', 'routing_keys': ['a.*'],
                 'arguments': {'x-queue-type': 'quorum'}},
        'more': {**plain, 'name': 'more', 'exchange': 'amq.topic', 'routing_keys': ['a', 'b'],
                 'durable': False},
        '': {**plain, 'name': '', 'durable': False, 'exclusive': True},
        'local': {**plain, 'name': '', 'durable': False, 'auto_delete': True,
                  'consumer_arguments': {'a': 1}},
        'bound': {**plain, 'name': 'other', 'bindings': [
            {'exchange': 'shop', 'routing_key': 'a', 'arguments': {}},
            {'exchange': 'amq.headers', 'routing_key': '',
             'arguments': {'x-match': 'any', 'n': 1, 'l': [1.5, None, {'b': True}]}}]}}
    assert len(read['url']) == 3
    assert read['dead_letter'] == 'lost'
    assert read['retry'] == {'attempts': 5, 'delay': 0.5, 'factor': 2, 'max_delay': 300}


def test_logging_is_passed_on_as_it_is(load):
    text = '''
        Logging:
          filters:
          handlers: {a: {debug_only: true, class: x}, b: {(): y, level: 10}}
          root: {handlers: [a]}
    '''
    assert load(text).logging == {
        'filters': None, 'root': {'handlers': ['a']},
        'handlers': {'a': {'debug_only': True, 'class': 'x'}, 'b': {'()': 'y', 'level': 10}}}


@pytest.mark.parametrize('umask', ['027', '0o27', "'027'", "'0o27'", '27', "'27'", '0027'])
def test_the_umask_is_octal_however_it_is_written(load, umask, monkeypatch):
    assert load(f'Daemon: {{umask: {umask}}}\n').daemon['umask'] == 0o027
    monkeypatch.setenv('UMASK', umask.strip("'"))
    assert load('Daemon: {umask: !env UMASK}\n').daemon['umask'] == 0o027


@pytest.mark.parametrize('value', ['nobody', '65534', '"65534"', 'null'])
def test_accounts_are_names_or_numbers(load, value):
    expected = {'nobody': 'nobody', '65534': 65534, '"65534"': '65534', 'null': None}[value]
    read = load(f'Daemon: {{user: {value}, group: {value}}}\n').daemon
    assert (read['user'], read['group']) == (expected, expected)


@pytest.mark.parametrize(('value', 'expected'), [
    ('true', True), ('false', False), ('{}', {'logger': 'stdout', 'level': 'INFO'}),
    ('{level: ERROR}', {'logger': 'stdout', 'level': 'ERROR'}),
])
def test_output_is_redirected_or_not_or_how(load, value, expected):
    assert load(f'Daemon: {{redirect_output: {value}}}\n').daemon['redirect_output'] == expected


def test_a_variable_has_the_type_that_its_place_wants(load, monkeypatch):
    monkeypatch.setenv('PORT', '5672')
    read = load('''
        Application: {wake_interval: !env PORT, port: !env PORT}
        Daemon: {redirect_output: {logger: !env PORT}, user: !env PORT}
        AMQP: {prefetch: !env PORT, dead_letter: !env PORT, declare: !env "NO:false"}
    '''.replace('"NO:false"', 'NO:false'))
    assert read.application == {'wake_interval': 5672, 'port': 5672}
    assert read.daemon['redirect_output']['logger'] == '5672'
    assert read.daemon['user'] == 5672
    assert (read.amqp['prefetch'], read.amqp['dead_letter'], read.amqp['declare']) == (
        5672, '5672', False)


def test_files_are_relative_to_the_folder_of_the_configuration(load, tmp_path):
    (tmp_path / 'url').write_text('amqp://user:password@host\n')
    assert load('AMQP: {url: !file url}\n').amqp['url'] == 'amqp://user:password@host'


# Defaults that depend on the surroundings

@pytest.mark.parametrize(('environment', 'as_root', 'pidfile'), [
    ({}, True, '/run/app.pid'),
    ({}, False, None),
    ({'XDG_RUNTIME_DIR': '/run/user/1'}, False, '/run/user/1/app.pid'),
    ({'XDG_RUNTIME_DIR': '/run/user/1'}, True, '/run/app.pid'),
    ({'RUNTIME_DIRECTORY': '/run/a:/run/b', 'XDG_RUNTIME_DIR': '/c'}, False, '/run/a/app.pid'),
    ({'RUNTIME_DIRECTORY': '/run/%a'}, True, '/run/%a/app.pid'),
    ({'RUNTIME_DIRECTORY': ''}, True, '/run/app.pid'),
])
def test_the_pidfile_is_where_the_surroundings_have_it(load, monkeypatch, environment, as_root,
                                                       pidfile):
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert load('Daemon:\n', as_root=as_root).daemon['pidfile'] == pidfile


@pytest.mark.parametrize(('typed', 'pidfile'), [
    ('/run/%(app)s/%(app)s.pid', '/run/app/app.pid'), ('x/%%.pid', '/srv/x/%.pid'),
    ('%%(app)s', '/srv/%(app)s'), ('null', None),
])
def test_the_pidfile_names_the_program(load, typed, pidfile):
    typed = typed if typed == 'null' else repr(typed)
    text = f'Daemon: {{working_directory: /srv, pidfile: {typed}}}'
    assert load(text).daemon['pidfile'] == pidfile


@pytest.mark.root
def test_the_working_directory_is_where_a_user_started(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load('Daemon:\n').daemon['working_directory'] == '/'
    read = load('Daemon: {pidfile: a.pid, state_directory: b}\n', as_root=False).daemon
    assert (read['working_directory'], read['pidfile'], read['state_directory']) == (
        str(tmp_path), f'{tmp_path}/a.pid', f'{tmp_path}/b')


def test_a_working_directory_that_is_gone_is_told(tmp_path, monkeypatch, load):
    (tmp_path / 'gone').mkdir()
    monkeypatch.chdir(tmp_path / 'gone')
    (tmp_path / 'gone').rmdir()
    assert load('Daemon: {working_directory: /}\n', as_root=False)
    with pytest.raises(ConfigurationError, match=r'^example.yml: Daemon.working_directory: '):
        load('Daemon:\n', as_root=False)


def test_the_state_directory_is_systemds_first(load, monkeypatch):
    monkeypatch.setenv('STATE_DIRECTORY', '/var/lib/a:/var/lib/b')
    assert load('Daemon:\n').daemon['state_directory'] == '/var/lib/a'
    assert load('Daemon: {state_directory: null}\n').daemon['state_directory'] is None


@pytest.mark.root
def test_the_logs_directory_is_systemds_first_and_then_the_working_directory(load, monkeypatch):
    assert load('Daemon: {working_directory: /srv}\n').daemon['logs_directory'] == '/srv'
    read = load('Daemon: {working_directory: /srv, logs_directory: logs}\n')
    assert read.daemon['logs_directory'] == '/srv/logs'
    monkeypatch.setenv('LOGS_DIRECTORY', '/var/log/a:/var/log/b')
    assert load('Daemon:\n').daemon['logs_directory'] == '/var/log/a'
    assert load('Daemon: {logs_directory: null}\n').daemon['logs_directory'] == '/'


@pytest.mark.root
def test_an_ordinary_users_defaults_are_not_roots():
    with tempfile.TemporaryDirectory(dir='/tmp') as folder:
        os.chmod(folder, 0o777)
        path = f'{folder}/example.yml'
        with open(path, 'w') as file:
            file.write('Daemon:\n')
        os.chmod(path, 0o666)
        with as_nobody():
            read = config.load(path, appname='app')
    assert (read.daemon['pidfile'], read.daemon['working_directory']) == (None, os.getcwd())


# What a wrong file is told

@pytest.mark.parametrize(('text', 'fault'), [
    ('Daemon:\n  stop_timeout: soon\n',
     "2:17: Daemon.stop_timeout: expected a number, got 'soon'"),
    ("Application: {wake_interval: '1'}",
     "1:30: Application.wake_interval: expected a number, got '1' (leave out the quotes)"),
    ('Application: {wake_interval: 1e3}\n',
     "1:30: Application.wake_interval: expected a number, got '1e3' (YAML 1.1 reads that as a"
     ' string: write 1.0e+3)'),
    ('Application: {wake_interval: 010}\n',
     '1:30: Application.wake_interval: expected a number without a leading zero or a colon'
     ' (YAML 1.1 reads this as 8), got 010'),
    ('Application: {wake_interval: 1:30}\n',
     '1:30: Application.wake_interval: expected a number without a leading zero or a colon'
     ' (YAML 1.1 reads this as 90), got 1:30'),
    ('Application: {wake_interval: 0}',
     '1:30: Application.wake_interval: expected a number above 0 and at most 31536000, got 0'),
    ('Application: {wake_interval: yes}',
     '1:30: Application.wake_interval: expected a number, got yes'),
    ('Application: {wake_interval: .nan}',
     '1:30: Application.wake_interval: expected a finite number, got .nan'),
    ('Application: {wake_interval: -.inf}',
     '1:30: Application.wake_interval: expected a finite number, got -.inf'),
    ('Application: {wake_interval: }',
     '1:30: Application.wake_interval: expected a number, got nothing'),
    ('Application: {wake_interval: [1]}',
     '1:30: Application.wake_interval: expected a number, got a list'),
    ('Application: {wake_interval: 2001-01-01}',
     '1:30: Application.wake_interval: expected a number, got 2001-01-01'),
    ('Application: [a]', '1:14: Application: expected a mapping, got a list'),
    ('Daemon: text', "1:9: Daemon: expected a mapping, got 'text'"),
    ('Logging: 1', '1:10: Logging: expected a mapping, got 1'),
    ('Daemon: {user: no}',
     '1:16: Daemon.user: expected a name or a numeric id, got no (put it in quotes)'),
    ('Daemon: {user: -1}',
     '1:16: Daemon.user: expected an integer of at least 0 and at most 4294967294, got -1'),
    ('Daemon: {umask: 08}',
     "1:17: Daemon.umask: expected an octal number from 0 to 0777, got '08'"),
    ('Daemon: {umask: 01777}',
     '1:17: Daemon.umask: expected an octal number from 0 to 0777, got 01777'),
    ('Daemon: {umask: -1}', '1:17: Daemon.umask: expected an octal number from 0 to 0777, got -1'),
    ('Daemon: {umask: 0x17}',
     '1:17: Daemon.umask: expected an octal number from 0 to 0777, got 0x17'),
    ('Daemon: {umask: }',
     '1:17: Daemon.umask: expected an octal number from 0 to 0777, got nothing'),
    ('Daemon: {pidfile: "%s"}',
     "1:19: Daemon.pidfile: expected a path with no % except in %(app)s and %%, got '%s'"),
    ('Daemon: {pidfile: "%(app)99999999s"}',
     '1:19: Daemon.pidfile: expected a path with no % except in %(app)s and %%,'
     " got '%(app)99999999s'"),
    ('Daemon: {pidfile: ""}', "1:19: Daemon.pidfile: expected a path that is not empty, got ''"),
    ('Daemon: {working_directory: here}',
     "1:29: Daemon.working_directory: expected an absolute path, got 'here'"),
    ('Daemon: {prevent_core: "true"}',
     "1:24: Daemon.prevent_core: expected true or false, got 'true' (leave out the quotes)"),
    ('Daemon: {redirect_output: 1}',
     '1:27: Daemon.redirect_output: expected true, false or a mapping, got 1'),
    ('Daemon: {redirect_output: {level: info}}',
     '1:35: Daemon.redirect_output.level: expected one of DEBUG, INFO, WARNING, ERROR, CRITICAL,'
     " got 'info'; did you mean INFO?"),
    ('Daemon: {redirect_output: {to: x}}', '1:28: Daemon.redirect_output.to: unknown key'),
    ('Daemon: {stop-timeout: 1}',
     '1:10: Daemon.stop-timeout: unknown key; did you mean stop_timeout?'),
    ('Daemon: {1: 1}', '1:10: Daemon[1]: unknown key'),
    ('Daemon: {workers: 1.5}', '1:19: Daemon.workers: expected an integer, got 1.5'),
    ('Logging: {handlers: {a: {debug_only: 1}}}',
     '1:38: Logging.handlers.a.debug_only: expected true or false, got 1'),
    ('Logging: {handlers: [a]}', '1:21: Logging.handlers: expected a mapping, got a list'),
    ('Deamon: {}', '1:1: Deamon: unknown section; did you mean Daemon?'),
    ('daemon: {}', '1:1: daemon: unknown section; did you mean Daemon?'),
    ('logging: {}', '1:1: logging: unknown section; did you mean Logging?'),
    ('Aplication: {}', '1:1: Aplication: unknown section; did you mean Application?'),
    ('ampq: {}', '1:1: ampq: unknown section; did you mean AMQP?'),
    ('AMQP: {url: []}', '1:13: AMQP.url: expected a list of at least 1, got an empty list'),
    ('AMQP: {accept: [json, yaml]}',
     "1:23: AMQP.accept[1]: expected one of json, text, binary, got 'yaml'"),
    ('AMQP: {accept: json}', "1:16: AMQP.accept: expected a list, got 'json'"),
    ('AMQP: {prefetch: 65536}',
     '1:18: AMQP.prefetch: expected an integer of at least 1 and at most 65535, got 65536'),
    ('AMQP: {prefetch: true}', '1:18: AMQP.prefetch: expected an integer, got true'),
    ('AMQP: {heartbeat: -1}',
     '1:19: AMQP.heartbeat: expected a number of at least 0 and at most 65535, got -1'),
    ('AMQP: {dead_letter: }',
     '1:21: AMQP.dead_letter: expected true or false or a name, got nothing'),
    ('AMQP: {retry: {delay: 301}}', '1:23: AMQP.retry.delay: 301 is above max_delay, 300'),
    ('AMQP: {retry: {factor: 0.5}}',
     '1:24: AMQP.retry.factor: expected a number of at least 1 and at most 1000, got 0.5'),
    ('AMQP: {exchanges: {a: {type: topik}}}',
     "1:30: AMQP.exchanges.a.type: expected one of direct, fanout, topic, headers, or a plugin's"
     " x-..., got 'topik'; did you mean topic?"),
    ('AMQP: {exchanges: {1: {}}}',
     '1:20: AMQP.exchanges: expected a name, got 1 (put it in quotes)'),
    ('AMQP: {exchanges: {shop: }, queues: {q: {exchange: shp}}}',
     '1:52: AMQP.queues.q.exchange: no such exchange in AMQP.exchanges:'
     " 'shp'; did you mean shop?"),
    ('AMQP: {queues: {q: {routing_keys: [a]}}}',
     '1:35: AMQP.queues.q.routing_keys: routing keys, but no exchange'),
    ('AMQP: {queues: {q: {exchange: amq.topic, routing_keys: [1]}}}',
     '1:57: AMQP.queues.q.routing_keys[0]: expected a routing key, got 1 (put it in quotes)'),
    (f'AMQP: {{queues: {{q: {{exchange: amq.{"x" * 252}}}}}}}',
     '1:31: AMQP.queues.q.exchange: expected a name of at most 255 bytes,'
     f" got 'amq.{'x' * 53}...'"),
    ('AMQP: {queues: {q: {arguments: {1: 2}}}}',
     '1:33: AMQP.queues.q.arguments: expected a string as a key, got 1 (put it in quotes)'),
    ('AMQP: {exchanges: {e: {arguments: {a: [2001-01-01]}}}}',
     '1:39: AMQP.exchanges.e.arguments.a: expected text, a number of at most 64 bits, true or'
     ' false, null, or a list or mapping of such, got a list'),
    ('AMQP: {queues: {q: {arguments: {a: 9223372036854775808}}}}',
     '1:36: AMQP.queues.q.arguments.a: expected text, a number of at most 64 bits, true or false,'
     ' null, or a list or mapping of such, got 9223372036854775808'),
    ('AMQP: {queues: {q: {bindings: [{routing_key: a}]}}}',
     '1:32: AMQP.queues.q.bindings[0].exchange: is missing'),
    ('AMQP: {queues: {q: {bindings: {exchange: amq.topic}}}}',
     '1:31: AMQP.queues.q.bindings: expected a list, got a mapping'),
    ('AMQP: {exchanges: {shop: }, queues: {q: {bindings: [{exchange: shp}]}}}',
     '1:64: AMQP.queues.q.bindings[0].exchange: no such exchange in AMQP.exchanges:'
     " 'shp'; did you mean shop?"),
    ("AMQP: {queues: {q: {name: '', exclusive: false}}}",
     '1:42: AMQP.queues.q.exclusive: each connection would leave such a queue behind: it needs'
     ' auto_delete or the argument x-expires'),
    ('AMQP: {queues: {q: , r: {name: q}}}',
     '1:32: AMQP.queues.r.name: is also that of AMQP.queues.q'),
    ('AMQP: {url: amqp://a, tls: {ca: x}}',
     '1:33: AMQP.tls.ca: has no effect: no AMQP.url begins with amqps://'),
    ('AMQP: {url: [amqp://a], tls: {verify: false}}',
     '1:39: AMQP.tls.verify: has no effect: no AMQP.url begins with amqps://'),
    ('AMQP: {url: [amqp://a, amqps://b], tls: {key: x}}',
     '1:47: AMQP.tls.key: a key, but no certificate'),
    ('AMQP: {url: amqps://a, tls: {strict: true, verify: false}}',
     '1:38: AMQP.tls.strict: has no effect: verify is false'),
    ('AMQP: {url: amqps://a, tls: {ca: x, verify: false}}',
     '1:34: AMQP.tls.ca: has no effect: verify is false'),
    (f'AMQP: {{queues: {{{"q" * 251}: }}}}',
     f"1:17: AMQP.queues.'{'q' * 57}...': expected a name of at most 240 bytes, got 251: its"
     ' retry queues are called <queue>.retry.<delay>'),
    (f'AMQP: {{queues: {{q: {{name: {"q" * 248}}}}}}}',
     '1:27: AMQP.queues.q.name: expected a name of at most 240 bytes, got 248: its retry queues'
     ' are called <queue>.retry.<delay>'),
    (f'AMQP: {{retry: {{attempts: 1}}, queues: {{{"q" * 251}: }}}}',
     f"1:39: AMQP.queues.'{'q' * 57}...': expected a name of at most 250 bytes, got 251: its dead"
     ' letters are in <queue>.dead'),
    (f"AMQP: {{queues: {{{'q' * 251}: {{name: ''}}}}}}",
     f"1:17: AMQP.queues.'{'q' * 57}...': expected a name of at most 250 bytes, got 251: its dead"
     ' letters are in <queue>.dead'),
    (f'AMQP: {{queues: {{q: {{arguments: {{x-queue-type: stream}}, name: {"q" * 250}}}}},'
     ' dead_letter: false, retry: {attempts: 1}}',
     '1:62: AMQP.queues.q.name: expected a name of at most 233 bytes, got 250: the broker keeps a'
     ' stream in a folder <vhost>_<queue>_<time>'),
    (f'AMQP: {{url: ["amqp://a//", "amqp://a/%2Ffour?heartbeat=3"], queues: {{"{"é" * 115}": {{'
     'arguments: {x-queue-type: stream}}}}',
     f"1:70: AMQP.queues.'{'é' * 57}...': expected a name of at most 229 bytes, got 230: the"
     ' broker keeps a stream in a folder <vhost>_<queue>_<time>'),
    (f'AMQP: {{exchanges: {{{"é" * 128}: }}}}',
     f"1:20: AMQP.exchanges: expected a name of at most 255 bytes, got '{'é' * 57}...'"),
    (f'AMQP: {{dead_letter: {"d" * 256}}}',
     f"1:21: AMQP.dead_letter: expected a name of at most 255 bytes, got '{'d' * 57}...'"),
    (f'AMQP: {{queues: {{q: {{exchange: amq.topic, routing_keys: [{"k" * 256}]}}}}}}',
     '1:57: AMQP.queues.q.routing_keys[0]: expected a routing key of at most 255 bytes,'
     f" got '{'k' * 57}...'"),
    (f'AMQP: {{queues: {{q: {{arguments: {{x-dead-letter-routing-key: {"k" * 256}}}}}}}}}',
     '1:60: AMQP.queues.q.arguments.x-dead-letter-routing-key: expected a name of at most 255'
     ' bytes'),
    (f'AMQP: {{exchanges: {{e: {{arguments: {{alternate-exchange: {"k" * 256}}}}}}}}}',
     '1:56: AMQP.exchanges.e.arguments.alternate-exchange: expected a name of at most 255 bytes'),
    (f'AMQP: {{url: amqp://host/{"v" * 256}}}',
     '1:13: AMQP.url: expected a URL whose virtual host has at most 255 bytes'),
    ('AMQP: {dead_letter: q, queues: {q: }}',
     '1:21: AMQP.dead_letter: is consumed by AMQP.queues: what fails there would come back for'
     ' ever'),
    ('AMQP: {url: "amqp://a/?heartbeat=5&channel_max=9"}',
     '1:13: AMQP.url: expected a URL with no parameter except one heartbeat: there is no key for'
     ' channel_max'),
    ('AMQP: {url: [amqp://a, "amqps://b//?cacertfile=/x.pem"]}',
     '1:24: AMQP.url[1]: expected a URL with no parameter except one heartbeat: use AMQP.tls.ca'
     ' instead of cacertfile'),
    ('AMQP: {url: "amqp://a?heartbeat=5&heartbeat=6"}',
     '1:13: AMQP.url: expected a URL with no parameter except one heartbeat'),
    *[(f'AMQP: {{url: "amqp://a/?heartbeat={value}"}}',
       '1:13: AMQP.url: expected a URL whose heartbeat is a number from 0 to 65535')
      for value in ('', 'x', '-1', '65536', '1e3', '70000.5')],
])
def test_a_fault_is_one_line_with_its_place_and_name(faults, text, fault):
    assert faults(text) == [f'example.yml:{fault}']


@pytest.mark.parametrize(('text', 'fault'), [
    ('AMQP: {url: ampq://u:hunter2@h}', 'a URL that begins with amqp://, amqps:// or memory://'),
    ('AMQP: {url: hunter2}', 'a URL that begins with amqp://'),
    ('AMQP: {url: "user:hunter2@host"}', 'a URL that begins with amqp://'),
    ('AMQP: {url: amqp://u:hunter2/x@h}', 'a URL whose port is from 1 to 65535'),
    ('AMQP: {url: amqp://u:hunter2@h:65536}', 'a URL whose port is from 1 to 65535'),
    ('AMQP: {url: "amqp://h/?password=hunter2"}', 'there is no key for password'),
    ('AMQP: {url: "amqp://h/?hunter2"}', 'a URL with no parameter except one heartbeat'),
    ('AMQP: {url: "amqp://h/?heartbeat=hunter2"}', 'a URL whose heartbeat is a number'),
    ('AMQP: amqp://u:hunter2@h', 'expected a mapping, got a string with an address in it'),
    ('AMQP: u:hunter2@h', 'expected a mapping, got a string with an address in it'),
    ('AMQP: {prefetch: !env SECRET}', 'expected an integer, got the value of the'),
    ('AMQP: {retry: !env SECRET}', 'expected a mapping, got the value of the'),
    ('AMQP: {prefetch: !file secret}', 'expected an integer, got the content of a file'),
    ('AMQP: {exchanges: {e: {type: !env SECRET}}}',
     'got the value of the environment variable SECRET'),
    ('AMQP: {"amqp://u:hunter2@h": 1}', 'AMQP.a string with an address in it: unknown key'),
    ('AMQP: {queues: {q: {exchange: !env SECRET}}}', 'no such exchange in AMQP.exchanges'),
])
def test_no_fault_repeats_a_password(faults, text, fault, monkeypatch, tmp_path):
    monkeypatch.setenv('SECRET', 'hunter2')
    (tmp_path / 'secret').write_text('hunter2\n')
    [line] = faults(text)
    assert fault in line
    assert 'hunter2' not in line


def test_all_faults_are_told_in_the_order_of_the_file(faults):
    lines = faults('''\
        Daemon: {stop_timeout: soon, usr: x}
        x: !env NOT_SET
        AMQP:
          queues:  1
          prefetch: 0
          prefetch: 1
          retry: []
        Deamon: {}
    ''', 'Shop', 'Stock')
    assert [line.split(': ')[:2] for line in lines] == [
        ['example.yml', 'Shop'], ['example.yml', 'Stock'],
        ['example.yml:1:24', 'Daemon.stop_timeout'], ['example.yml:1:30', 'Daemon.usr'],
        ['example.yml:2:4', 'x'], ['example.yml:4:12', 'AMQP.queues'],
        ['example.yml:5:13', 'AMQP.prefetch'], ['example.yml:6:3', 'AMQP.prefetch'],
        ['example.yml:7:10', 'AMQP.retry'], ['example.yml:8:1', 'Deamon'],
    ]


def test_a_value_with_a_fault_of_its_own_has_no_second_one(faults):
    assert len(faults('AMQP: {retry: !env NOT_SET, prefetch: 2001-99-99, accept: !x y}\n')) == 3
    assert len(faults('AMQP: {queues: {q: {exchange: 1, routing_keys: [a]}, r: 1}}\n')) == 2
    assert len(faults('AMQP: {exchanges: {1: }, queues: {q: {exchange: a}}}\n')) == 2
    assert len(faults('AMQP: {queues: {q: {arguments: {a: [!env NOT_SET]}}}}\n')) == 1
    assert len(faults('AMQP: {queues: {q: {bindings: [1], name: 2, arguments: []}}}\n')) == 3


def test_thousands_of_misspelt_names_take_a_second(faults):
    start = time.process_time()
    lines = faults('AMQP:\n  exchanges:\n' + ''.join(f'    exchange{n}:\n' for n in range(9000))
                   + '  queues:\n' + ''.join(f'    q{n}: {{exchange: exchang{n}}}\n'
                                             for n in range(7000)))
    assert len(lines) == 101
    assert time.process_time() - start < 1


def test_a_required_section_that_is_missing_is_named(faults, load):
    assert faults('Daemon:\n', 'Shop') == [
        'example.yml: Shop: a section that app requires is missing']
    assert faults('Application: {}\nThumbnail: {}\nOther: {}\n', 'Thumbnails') == [
        'example.yml:2:1: Thumbnail: the section Thumbnails, which app requires, is missing;'
        ' did you mean Thumbnails?']
    assert load('Thumbnail:\nThumbnails:\n', 'Thumbnails')['Thumbnail'] is None
    assert load('Shop:\n', 'Shop')['Shop'] is None
    assert load('Loging: 1\n', 'Loging')['Loging'] == 1


@pytest.mark.parametrize('name', ['Log', 'App', 'Login', 'Applied', 'Database', 'Demonstration'])
def test_a_section_of_the_applications_own_is_none_of_clihelpers(load, name):
    assert load(f'{name}: 1\n')[name] == 1


# Where a key is

def test_a_key_is_located_or_else_what_contains_it(load, faults):
    read = load('''\
        x: &x {level: 1}
        Logging:
          version: 1
          handlers:
            file: {class: y}
            more: {<<: *x}
          root: {handlers: [a, b]}
    ''')
    assert read.locate('Logging') == 'example.yml:2:1'
    assert read.locate('Logging', 'handlers', 'file') == 'example.yml:5:5'
    assert read.locate('Logging', 'handlers', 'file', 'absent', 'x') == 'example.yml:5:5'
    assert read.locate('Logging', 'handlers', 'more', 'level') == 'example.yml:1:8'
    assert read.locate('Logging', 'root', 'handlers', 1) == 'example.yml:7:24'
    assert read.locate('Logging', 'root', 'handlers', 2) == 'example.yml:7:10'
    assert read.locate('AMQP', 'url') == 'example.yml'
    assert read.locate() == 'example.yml'
    assert read.locate([]) == 'example.yml'


# What is no file, and who may write it

def test_what_is_no_file_of_text_is_one_line(tmp_path, load):
    os.mkfifo(tmp_path / 'fifo')
    os.symlink('loop', tmp_path / 'loop')
    for name, text in [
        ('fifo', 'is a FIFO, not a regular file'), ('.', 'is a directory, not a regular file'),
        ('/dev/null', 'is a device, not a regular file'),
        ('absent', 'cannot be read: No such file or directory'),
        ('fifo/x', 'cannot be read: Not a directory'),
        ('loop', 'cannot be read: Too many levels of symbolic links'),
    ]:
        with pytest.raises(ConfigurationError) as caught:
            config.load(str(tmp_path / name), appname='app', shown=name)
        assert str(caught.value) == f'{name}: {text}'
    with pytest.raises(ConfigurationError, match='^example.yml: is larger than 1024 KiB$'):
        load(b'#' * 100_000_000)
    with pytest.raises(ConfigurationError, match='^example.yml:1:1: the file is empty'):
        load('')


@pytest.mark.root
def test_a_file_that_may_not_be_read_is_not_permitted():
    with tempfile.TemporaryDirectory(dir='/tmp') as folder:
        os.chmod(folder, 0o755)
        path = f'{folder}/a.yml'
        os.close(os.open(path, os.O_CREAT, 0o600))
        with as_nobody(), pytest.raises(NotPermitted) as caught:
            config.load(path, appname='app', shown='a.yml')
    assert str(caught.value) == 'a.yml: cannot be read: Permission denied'
    assert caught.value.status == 77


@pytest.fixture
def tree(tmp_path):
    """A configuration within folders, all of them root's: ``conf/sub/a.yml``."""
    folder = tmp_path / 'conf' / 'sub'
    folder.mkdir(parents=True)
    (folder / 'a.yml').write_text('Daemon:\n')
    for path in (folder.parent, folder):
        path.chmod(0o755)
    (folder / 'a.yml').chmod(0o644)
    return tmp_path


def load_as_root(path):
    return config.load(str(path), appname='app', shown='a.yml')


@pytest.mark.root
@pytest.mark.parametrize(('name', 'mode', 'uid', 'gid', 'reason'), [
    ('conf/sub/a.yml', 0o666, 0, 0, 'can be written by everybody (mode 0666)'),
    ('conf/sub/a.yml', 0o664, 0, 65534, 'can be written by group 65534 (mode 0664)'),
    ('conf/sub/a.yml', 0o644, 65534, 0, 'is owned by user 65534'),
    ('conf/sub', 0o777, 0, 0, 'can be written by everybody (mode 0777)'),
    ('conf/sub', 0o775, 0, 65534, 'can be written by group 65534 (mode 0775)'),
    ('conf', 0o757, 0, 0, 'can be written by everybody (mode 0757)'),
    ('conf', 0o755, 65534, 0, 'is owned by user 65534'),
    ('conf', 0o1777, 65534, 0, 'is owned by user 65534'),
])
def test_what_others_may_write_is_refused_as_root(tree, name, mode, uid, gid, reason):
    os.chown(tree / name, uid, gid)
    os.chmod(tree / name, mode)
    with pytest.raises(NotPermitted) as caught:
        load_as_root(tree / 'conf/sub/a.yml')
    assert str(caught.value) == f'a.yml: refused, as root: {tree / name} {reason}'


@pytest.mark.parametrize(('name', 'mode'), [
    ('conf', 0o1777), ('conf/sub', 0o775), ('conf/sub/a.yml', 0o664), ('conf/sub/a.yml', 0o400)])
def test_what_only_root_may_write_is_read_as_root(tree, name, mode):
    os.chmod(tree / name, mode)
    assert load_as_root(tree / 'conf/sub/a.yml')


@pytest.mark.root
def test_a_list_of_those_who_may_write_is_looked_at(tree):
    """An access control list, see acl(5): user 65534 may write, and the mode says group 0."""
    entries = [(0x01, 6, -1), (0x02, 6, 65534), (0x04, 4, -1), (0x10, 6, -1), (0x20, 4, -1)]
    acl = (2).to_bytes(4, 'little') + b''.join(
        struct.pack('<HHi', *entry) for entry in entries)
    os.setxattr(tree / 'conf/sub/a.yml', 'system.posix_acl_access', acl)
    with pytest.raises(NotPermitted, match=r'a.yml can be written by group 0 \(mode 0664\)$'):
        load_as_root(tree / 'conf/sub/a.yml')


@pytest.mark.root
@pytest.mark.parametrize('way', ['home/a.yml', 'home/../conf/sub/a.yml', 'there.yml', 'up/a.yml'])
def test_a_way_through_what_others_may_write_is_refused_as_root(tree, way):
    """The file is safe, but a link or folder on the way to it is somebody else's."""
    (tree / 'home').mkdir()
    os.symlink('../conf/sub/a.yml', tree / 'home/a.yml')
    os.symlink('home/a.yml', tree / 'there.yml')
    os.symlink(str(tree / 'home'), tree / 'up')
    assert load_as_root(tree / way)
    os.chown(tree / 'home', 65534, 65534)
    with pytest.raises(NotPermitted, match=f'{tree}/home is owned by user 65534$'):
        load_as_root(tree / way)


@pytest.mark.root
def test_a_link_of_another_in_a_sticky_folder_is_refused_as_root(tree):
    (tree / 'tmp').mkdir()
    (tree / 'tmp').chmod(0o1777)
    os.symlink('../conf/sub/a.yml', tree / 'tmp/a.yml')
    assert load_as_root(tree / 'tmp/a.yml')
    os.lchown(tree / 'tmp/a.yml', 65534, 65534)
    with pytest.raises(NotPermitted, match='tmp/a.yml is owned by user 65534$'):
        load_as_root(tree / 'tmp/a.yml')


@pytest.mark.root
def test_a_file_that_was_replaced_after_it_was_opened_is_refused_as_root(tree):
    (tree / 'conf/other.yml').write_text('Daemon:\n')
    with open(tree / 'conf/other.yml') as opened, pytest.raises(NotPermitted, match='replaced'):
        permissions.refuse_foreign_writers(str(tree / 'conf/sub/a.yml'), opened.fileno(), 'a.yml')


# Speed, and the page that is made from the schema

def test_reading_takes_little_more_than_pyyaml_alone(load, tmp_path):
    """Of 60 lines: 1.4 ms on a quiet machine, where PyYAML alone takes 0.8 ms."""
    text = 'Daemon: {user: nobody}\nLogging:\n  handlers:\n' + ''.join(
        f'    h{n}: {{class: logging.StreamHandler, level: INFO}}\n' for n in range(57))
    load(text)
    ways = {'clihelper': lambda: config.load(str(tmp_path / 'example.yml'), appname='app'),
            'pyyaml': lambda: yaml.load(text, yaml.CSafeLoader)}
    taken = {name: [] for name in ways}
    for name in [*ways] * 30:
        start = time.process_time()
        ways[name]()
        taken[name].append(time.process_time() - start)
    assert min(taken['clihelper']) < 3 * min(taken['pyyaml'])


def test_a_good_file_needs_no_module_that_is_costly(tmp_path):
    (tmp_path / 'a.yml').write_text('Shop: 1\nDaemon: {user: x}\nAMQP: {queues: {q: }}\n')
    program = (
        'import sys; from clihelper import config; early = "yaml" in sys.modules\n'
        f'config.load({str(tmp_path / "a.yml")!r}, appname="app")\n'
        'print(early, *sorted({"difflib", "socket", "typing", "json", "pathlib", "urllib.parse"}'
        ' & set(sys.modules)))'
    )
    seen = subprocess.run([sys.executable, '-c', program], capture_output=True, check=True)
    assert seen.stdout == b'False\n'


def test_the_reference_has_every_key():
    page = subprocess.run([sys.executable, REFERENCE], capture_output=True, check=True, text=True)

    def names(table):
        for key in table.keys.values():
            inner = key.type
            inner = inner.value if isinstance(inner, schema.Map) else inner
            if isinstance(inner, schema.Either):
                inner = inner.alternative(mapping=True, sequence=False)
            yield key.name
            yield from names(inner) if isinstance(inner, schema.Table) else ()

    every = list(names(schema.SECTIONS))
    assert len(every) > 40
    for name in every[4:]:
        assert f'``{name}``' in page.stdout or f'\n{name}\n---' in page.stdout, name


def test_a_name_from_the_environment_is_utf_8(faults, monkeypatch):
    monkeypatch.setenv('QUEUE', 'a\udcff')
    assert faults('AMQP: {queues: {q: {name: !env QUEUE}}}') == [
        'example.yml:1:27: AMQP.queues.q.name: expected a name in UTF-8, got the value of the'
        ' environment variable QUEUE'
    ]
