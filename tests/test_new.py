"""clihelper new: what it writes works as it is, and the example's service is of the same make."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from clihelper import config, logs
from clihelper.commands import new
from clihelper.config import schema
from clihelper.operations import exposition
from packages import service

ROOT = Path(__file__).resolve().parent.parent

LOOPS = ['interval', 'ioloop', 'consumer']


def clihelper(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / 'bin/clihelper', *words],
        env={**os.environ, 'PYTHONPATH': str(ROOT)}, cwd=cwd,
        capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize('name', ['my-program', 'hello', 'any', 'path'])
@pytest.mark.parametrize('loop', LOOPS)
def test_what_is_written_passes_its_tests(loop: str, name: str, tmp_path: Path) -> None:
    done = clihelper('new', name, '--loop', loop, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, '')
    tested = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider'],
        cwd=tmp_path / name, env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True, text=True, timeout=60)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_the_loop_is_interval_unless_it_is_said(tmp_path: Path) -> None:
    assert clihelper('new', 'hello', cwd=tmp_path).returncode == 0
    assert '(clihelper.Controller)' in (tmp_path / 'hello/hello/controller.py').read_text()


@pytest.mark.parametrize('loop', LOOPS)
def test_no_word_of_a_template_is_left_and_programs_are_executable(loop: str) -> None:
    for path, file in new.project('my-program', loop).items():
        assert not re.search('@[a-z_]+@', file.text), path
        assert not re.search('NAME|MODULE', path)
        assert file.executable == path.endswith(('.init', '.postrm', 'rules', 'tests/service'))
        assert not re.search(r'[ \t]$', file.text, re.MULTILINE), path
        assert file.text.endswith('\n')


def test_the_alerts_and_the_dashboard_are_of_metrics_that_there_are(tmp_path: Path) -> None:
    files = new.project('my-program', 'consumer')
    alerts, dashboard = (
        files[f'monitoring/{name}'].text for name in ('alerts.yml', 'dashboard.json'))
    (tmp_path / 'alerts.yml').write_text(alerts)
    done = subprocess.run(['promtool', 'check', 'rules', tmp_path / 'alerts.yml'],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    panels = json.loads(dashboard)['panels']
    expressions = [target['expr'] for panel in panels for target in panel['targets']]
    assert len(panels) == len({panel['title'] for panel in panels}) == 12
    assert all('program="my-program"' in each for each in expressions)
    named = set(re.findall(r'(?:clihelper|process)_[a-z_]+', alerts + dashboard))
    known = {*exposition.FAMILIES, 'clihelper_handler_seconds_count',
             'clihelper_handler_seconds_bucket'}
    assert named <= known


def test_an_alert_is_raised_for_this_program_only(tmp_path: Path) -> None:
    text = new.project('my-program', 'consumer')['monitoring/alerts.yml'].text
    (tmp_path / 'alerts.yml').write_text(text)
    series = [
        {'series': 'clihelper_info{job="j",instance="a",program="my-program"}', 'values': '1x20'},
        {'series': 'clihelper_info{job="j",instance="b",program="other"}', 'values': '1x20'},
        *({'series': f'clihelper_ready{{job="j",instance="{instance}"}}', 'values': '0x20'}
          for instance in 'ab'),
        *({'series': f'clihelper_messages_total{{job="j",instance="{instance}",queue="orders",'
                     'outcome="dead_lettered"}', 'values': '0+1x20'}
          for instance in 'ab'),
        *({'series': f'{name}{{job="j",instance="{instance}",queue="orders"}}', 'values': '7x20'}
          for name in ('clihelper_queue_messages', 'clihelper_handler_seconds_count')
          for instance in 'ab'),
    ]
    labels = {'job': 'j', 'instance': 'a'}
    raised = [
        {'alertname': 'NotReady', 'labels': {'severity': 'critical', **labels}},
        {'alertname': 'DeadLetters', 'labels': {
            'severity': 'warning', 'queue': 'orders', 'outcome': 'dead_lettered', **labels}},
        {'alertname': 'QueueStands', 'labels': {
            'severity': 'warning', 'queue': 'orders', **labels}},
        {'alertname': 'Absent', 'labels': None},
    ]
    rules = {each['alert']: each for each in yaml.safe_load(text)['groups'][0]['rules']}
    (tmp_path / 'test.yml').write_text(json.dumps({
        'rule_files': ['alerts.yml'], 'evaluation_interval': '1m',
        'tests': [{'interval': '1m', 'input_series': series, 'alert_rule_test': [
            {'eval_time': '15m', 'alertname': each['alertname'], 'exp_alerts': [
                {'exp_labels': each['labels'], 'exp_annotations': {
                    name: value.replace('{{ $labels.instance }}', 'a')
                               .replace('{{ $labels.queue }}', 'orders')
                    for name, value in rules[each['alertname']]['annotations'].items()
                }}] if each['labels'] else []}
            for each in raised]}],
    }))
    done = subprocess.run(['promtool', 'test', 'rules', 'test.yml'], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize('loop', LOOPS)
def test_the_description_of_the_package_suits_a_terminal(loop: str) -> None:
    control = new.project('a' * new.LONGEST, loop)['debian/control'].text
    description = control.partition('\nDescription:')[2]
    assert description
    assert max(map(len, description.splitlines())) <= 79


def test_the_socket_of_a_server_is_at_the_address_that_its_configuration_names() -> None:
    files = new.project('my-server', 'ioloop')
    listen = config.parse(files['my-server.yml'].text.encode(), '/etc/my-server.yml',
                          appname='my-server', shown='x.yml').daemon['listen']
    unit = files['debian/my-server.socket'].text
    assert [line.partition('=')[2] for line in unit.splitlines() if 'Stream=' in line] == listen
    # The service is restarted at an upgrade, and its socket stays.
    rules = files['debian/rules'].text
    assert '--no-stop-on-upgrade my-server.socket\n' in rules
    assert rules.endswith('dh_installsystemd --name=my-server my-server.service\n')


@pytest.mark.parametrize('loop', ['interval', 'consumer'])
def test_what_serves_nobody_has_no_socket(loop: str) -> None:
    assert not [path for path in new.project('hello', loop) if path.endswith('.socket')]


# Names


@pytest.mark.parametrize('name', ['ab', 'orders', 'order-mailer2', 'a' * 31])
def test_a_name(name: str) -> None:
    new.check_name(name)


@pytest.mark.parametrize('name', [
    'a', 'A', 'Orders', 'my_program', '2nd', '-x', 'a--b', 'a-', 'a' * 32, 'import', 'match',
    'json', 'kombu', 'tests', 'ärger', '../x', 'a/b', 'a b', 'a\n', '', '@name@',
])
def test_a_name_that_cannot_be_is_one_line_and_nothing_is_written(
    name: str, tmp_path: Path
) -> None:
    done = clihelper('new', name, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith('clihelper: new: ')
    assert done.stderr.count('\n') == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('words', [(), ('ab', 'cd'), ('ab', '--loop', 'for'), ('ab', '--loop')])
def test_a_wrong_command_line_is_one_line(words: tuple[str, ...], tmp_path: Path) -> None:
    done = clihelper('new', *words, cwd=tmp_path)
    assert (done.returncode, done.stderr.count('\n')) == (2, 1), done.stderr
    assert os.listdir(tmp_path) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / 'orders').mkdir()
    (tmp_path / 'hello').write_text('mine')
    for name in ('orders', 'hello'):
        done = clihelper('new', name, cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr == f'clihelper: new: {name}: already exists, and is left alone\n'
    assert os.listdir(tmp_path / 'orders') == []
    assert (tmp_path / 'hello').read_text() == 'mine'


# The configuration




@pytest.mark.parametrize('loop', LOOPS)
def test_every_key_is_explained_and_the_defaults_are_the_schemas(loop: str) -> None:
    text = new.project('my-program', loop)['my-program.yml'].text
    read = config.parse(text.encode(), '/etc/my-program.yml', appname='my-program', shown='x.yml')
    assert not logs.check(read.logging, read.locate, working_directory='/')
    sections = ['Application', 'Daemon', *(['AMQP'] if loop == 'consumer' else [])]
    for section in sections:
        table = schema.SECTIONS.keys[section].type
        assert isinstance(table, schema.Table)
        part = re.search(rf'^{section}:\n((?:  .*\n|\n)*)', text, re.MULTILINE)
        assert part
        for key in table.keys:
            assert re.search(rf'^  (# )?{key}:', part[1], re.MULTILINE), key
    assert 'Logging:' in text


def test_what_is_commented_out_is_as_it_would_be_typed() -> None:
    """Without the comment signs before keys it is YAML, with the schema's own defaults."""
    text = new.project('my-program', 'consumer')['my-program.yml'].text
    lines = []
    for line in text.splitlines():
        found = re.fullmatch(r'( +)# ( *[A-Za-z_]+:( .*)?)', line)
        if found and not found[2].strip().endswith('.'):
            line = found[1] + found[2]
        lines.append(line)
    read = yaml.safe_load('\n'.join(lines))
    assert read['AMQP']['retry'] == {'attempts': 5, 'delay': 1, 'factor': 2, 'max_delay': 300}
    assert read['Daemon']['redirect_output'] == {'logger': 'stdout', 'level': 'INFO'}
    assert read['AMQP']['exchanges']['EXCHANGE']['type'] == 'direct'
    assert read['AMQP']['batch'] == {'size': 100, 'wait': 0.1}
    assert read['AMQP']['breaker'] == {'failures': None, 'within': 60, 'pause': 30}
    defaults = schema.SECTIONS.defaults()
    for section in ('Daemon', 'AMQP'):
        for key, value in defaults[section].items():
            if key not in ('url', 'queues', 'exchanges', 'redirect_output', 'umask', 'batch',
                           'breaker'):
                assert read[section][key] == value, key


# The example's service


def test_the_examples_service_is_as_the_templates_make_it() -> None:
    """If not: python3 -m packages.service writes it anew."""
    for path, file in service.files().items():
        assert (ROOT / path).read_text() == file.text, \
            f'{path}: python3 -m packages.service writes it anew'
        assert bool((ROOT / path).stat().st_mode & 0o100) == file.executable, path


def test_the_examples_configuration_is_that_of_the_example() -> None:
    read = {}
    for path in ('example.yml', 'debian/clihelper-example.yml'):
        read[path] = config.load(str(ROOT / path), appname='example', as_root=True)
    one, other = read.values()
    assert {**one, 'Logging': None} == {**other, 'Logging': None}


def test_the_versions_are_one() -> None:
    first = (ROOT / 'debian/changelog').read_text().splitlines()[0]
    from clihelper import __version__

    assert f'({__version__.replace(".dev", "~dev")})' in first


UNIT = new.project('my-program', 'interval')['debian/my-program.service'].text


def test_a_restart_is_prevented_by_what_it_cannot_mend() -> None:
    assert 'RestartPreventExitStatus=2 73 77 78\n' in UNIT


def test_the_unit_is_hardened(tmp_path: Path) -> None:
    """Silence of `systemd-analyze verify` is held where the program is installed: deb-check."""
    unit = tmp_path / 'my-program.service'
    unit.write_text(UNIT)
    done = subprocess.run(
        ['systemd-analyze', 'security', '--offline=true', '--threshold=15', '--no-pager', unit],
        capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
