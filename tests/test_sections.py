"""The application's own sections: what becomes of them, and the place of what is wrong in them."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import clihelper
from clihelper import config, program
from clihelper.errors import ConfigurationError
from clihelper.testing import Harness
from tests.life import LOGGING, PROGRAMS, Life

FILE = """\
Application:
  wake_interval: 5
  limit: 3
Shipping:
  carriers: [bike, train]
  depot:
    port: 80
    hosts: [north, south]
"""


@dataclasses.dataclass
class Shipping:
    carriers: list[str]
    depot: dict[str, Any]


def load(folder: Path, text: str, **parsers: Callable[[dict[str, Any]], Any]) -> config.Config:
    path = folder / 'app.yml'
    path.write_text(textwrap.dedent(text))
    return config.load(str(path), tuple(parsers), appname='app', shown='app.yml', parsers=parsers)


def faults(folder: Path, text: str, **parsers: Callable[[dict[str, Any]], Any]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(folder, text, **parsers)
    return list(caught.value.faults)


def raising(error: BaseException) -> Callable[[dict[str, Any]], Any]:
    def parse(section: dict[str, Any]) -> Any:
        raise error

    return parse


# What a section becomes.

def test_a_section_is_what_parse_returns(tmp_path: Path) -> None:
    read = load(tmp_path, FILE, Shipping=lambda section: Shipping(**section))
    assert read['Shipping'].carriers == ['bike', 'train']
    assert read['Application'] == {'wake_interval': 5, 'limit': 3}
    assert read.wake_interval == 5


def test_the_wake_interval_of_application_is_not_the_programs(tmp_path: Path) -> None:
    read = load(tmp_path, FILE, Application=lambda section: sorted(section.items()))
    assert read['Application'] == read.application == [('limit', 3)]
    assert read.wake_interval == 5
    assert load(tmp_path, 'Application:\n', Application=dict).wake_interval == 60


@pytest.mark.parametrize('text', ['Shipping:\n', 'Shipping: {}\n'])
def test_null_is_an_empty_section(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text, Shipping=lambda section: section)['Shipping'] == {}


def test_a_controller_has_it_and_the_test_kit_parses_too() -> None:
    required = {'Application': lambda section: section['limit'], 'Shipping': None}
    with Harness(clihelper.Controller, FILE, required=required) as harness:
        assert harness.controller.application_config == 3
        assert harness.controller.wake_interval == 5
        assert harness.controller.config['Shipping']['carriers'] == ['bike', 'train']


def test_a_section_of_clihelpers_or_what_is_no_function_is_refused() -> None:
    with pytest.raises(ValueError, match='the section Daemon is read by clihelper itself'):
        clihelper.add_config_key('Daemon', dict)
    with pytest.raises(TypeError, match="parse is no function: 'schema.json'"):
        clihelper.add_config_key('Shipping', 'schema.json')  # type: ignore[arg-type]
    assert program.current.parsers == {}
    assert program.current.required_sections == []


# Where an error belongs.

class WithErrors(ValueError):
    """As pydantic's ``ValidationError``."""

    def errors(self) -> list[dict[str, Any]]:
        return [
            {'loc': ('depot', 'port'), 'msg': 'too low', 'input': 80},
            {'loc': ('depot', 'hosts', 1), 'msg': 'not known'},
            {'loc': ('depot', 'name'), 'msg': 'Field required'},
            {'loc': ('carriers', '__root__'), 'msg': 'too many'},
            {'loc': (), 'msg': 'of\nno use'},
        ]


class WithPath(Exception):
    """As jsonschema's ``ValidationError``, whose text has many lines."""

    absolute_path = ('carriers', 1)
    message = "'train' is not one of ['bike']"

    def __str__(self) -> str:
        return 'line\n' * 20


@pytest.mark.parametrize(('error', 'expected'), [
    (WithErrors(), [
        '4:1: Shipping: of no use',
        '5:3: Shipping.carriers: too many',
        '6:3: Shipping.depot.name: Field required',
        '7:5: Shipping.depot.port: too low',
        '8:20: Shipping.depot.hosts[1]: not known',
    ]),
    (WithPath(), ["5:20: Shipping.carriers[1]: 'train' is not one of ['bike']"]),
    (ValueError('Expected `str`, got `int` - at `$.depot.hosts[0]`'),
     ['8:13: Shipping.depot.hosts[0]: Expected `str`, got `int`']),
    (ValueError('nothing\n  for us'), ['4:1: Shipping: nothing for us']),
    (TypeError(), ['4:1: Shipping: TypeError']),
    (SystemExit('cannot'), ['4:1: Shipping: SystemExit: cannot (test_sections.py:LINE)']),
    (KeyError('name'), ["4:1: Shipping: KeyError: 'name' (test_sections.py:LINE)"]),
    (ValueError('\x1b[2J'), ['4:1: Shipping: \\x1b[2J']),
    (ValueError('x' * 10_000), ['4:1: Shipping: ' + 'x' * 297 + '...']),
])
def test_an_error_is_at_the_key_that_it_names(
    tmp_path: Path, error: BaseException, expected: list[str]
) -> None:
    line = str(raising.__code__.co_firstlineno + 2)
    assert faults(tmp_path, FILE, Shipping=raising(error)) == [
        'app.yml:' + each.replace('LINE', line) for each in expected]


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = FILE + 'Daemon: {workers: none}\n'
    assert faults(tmp_path, text, Shipping=raising(ValueError('closed')), Stock=dict) == [
        'app.yml: Stock: a section that app requires is missing',
        'app.yml:4:1: Shipping: closed',
        "app.yml:9:19: Daemon.workers: expected an integer, got 'none'",
    ]


@pytest.mark.parametrize(('text', 'fault'), [
    ('Shipping: [bike]\n', '1:11: Shipping: expected a mapping'),
    ('Shipping: bike\n', '1:11: Shipping: expected a mapping'),
    ('Shipping: {depot: !env NOWHERE}\n',
     '1:19: Shipping.depot: the environment variable NOWHERE is not set'),
])
def test_what_cannot_be_parsed_is_not(tmp_path: Path, text: str, fault: str) -> None:
    assert faults(tmp_path, text, Shipping=raising(AssertionError())) == [f'app.yml:{fault}']


def test_no_error_shows_what_came_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(section: dict[str, Any]) -> Any:
        raise ValueError(f'cannot connect with {section}')

    (tmp_path / 'key').write_text("a'key\n  of two lines\n")
    monkeypatch.setenv('TOKEN', 'swordfish')
    for value, origin in (('!env TOKEN', 'the value of the environment variable TOKEN'),
                          ('!file key', 'the content of a file')):
        (fault,) = faults(tmp_path, f'Shipping: {{depot: {value}}}\n', Shipping=connect)
        reason = f'refused; the reason is not shown because it contains {origin}'
        assert fault == f'app.yml:1:1: Shipping: {reason}'
    (fault,) = faults(tmp_path, 'Shipping: {depot: "postgres://me:secret@host/db"}\n',
                      Shipping=connect)
    assert 'postgres://me:***@host/db' in fault
    (fault,) = faults(tmp_path, f'Shipping: {{depot: "x://me:{"secret" * 50}@host"}}\n',
                      Shipping=connect)
    assert 'secret' not in fault


def test_a_misspelt_section_is_not_taken_for_one_that_is_required(tmp_path: Path) -> None:
    assert faults(tmp_path, 'Shiping: {}\n', Shipping=dict) == [
        'app.yml:1:1: Shiping: the section Shipping, which app requires, is missing; did you mean'
        ' Shipping?',
    ]
    assert load(tmp_path, 'Shiping: {}\nShipping: {}\n', Shipping=dict)['Shiping'] == {}


# What Python says of a call.

@dataclasses.dataclass
class Depot:
    port: int


@dataclasses.dataclass
class Store:
    depot: Depot
    carriers: list[str] = dataclasses.field(default_factory=list)
    total: int = dataclasses.field(init=False, default=0)


def nested(section: dict[str, Any]) -> Store:
    return Store(depot=Depot(**section.pop('depot')), **section)


def calls_wrongly(section: dict[str, Any]) -> None:
    Depot(depth=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(('text', 'parse', 'expected'), [
    ('{}', lambda section: Shipping(**section),
     ['1:1: Shipping.carriers: is missing', '1:1: Shipping.depot: is missing']),
    ('{carier: [bike]}', lambda section: Shipping(**section),
     ['1:12: Shipping.carier: unknown key']),
    ('{depot: {prot: 1}}', nested, ['1:20: Shipping.depot.prot: unknown key']),
    ('{depot: {}, more: {}}', nested, ['1:1: Shipping: port is missing for Depot']),
    ('{depot: {port: 1}, weight: 1}', nested, ['1:30: Shipping.weight: unknown key']),
    # A mistake of the program's own is no key of the section.
    ('{}', calls_wrongly,
     ["1:1: Shipping: Depot.__init__() got an unexpected keyword argument 'depth'"]),
    # A dataclass itself: all at once.
    ('{carier: [bike], total: 1}', Store, [
        '1:1: Shipping.depot: is missing',
        '1:12: Shipping.carier: unknown key; did you mean carriers?',
        '1:28: Shipping.total: unknown key',
    ]),
])
def test_arguments_that_are_unknown_or_missing_are_keys(
    tmp_path: Path, text: str, parse: Any, expected: list[str]
) -> None:
    found = faults(tmp_path, f'Shipping: {text}\n', Shipping=parse)
    # Python 3.14 has a suggestion; so has a dataclass.
    shown = [each.partition('; did')[0] for each in found] if parse is not Store else found
    assert shown == ['app.yml:' + each for each in expected]


def test_a_dataclass_is_made_of_the_keys(tmp_path: Path) -> None:
    read = load(tmp_path, 'Shipping: {depot: {port: 80}}\n', Shipping=Store)
    assert read['Shipping'] == Store(depot={'port': 80})  # type: ignore[arg-type]


def test_wake_interval_is_no_argument_of_application(tmp_path: Path) -> None:
    text = 'Application: {wake_interval: 5, port: 1}\n'
    assert load(tmp_path, text, Application=Depot)['Application'] == Depot(1)
    assert faults(tmp_path, text.replace('port', 'prot'), Application=Depot) == [
        'app.yml:1:1: Application.port: is missing',
        'app.yml:1:33: Application.prot: unknown key; did you mean port?',
    ]


@pytest.mark.parametrize(('text', 'expected'), [
    ('Object missing required field `name` - at `$.depot`',
     '6:3: Shipping.depot.name: is missing'),
    ('Object missing required field `name`', '4:1: Shipping.name: is missing'),
    ('Object contains unknown field `depot`', '6:3: Shipping.depot: unknown key'),
    ('Expected `int`, got `str` - at `key` in `$.depot`',
     '6:3: Shipping.depot: Expected `int`, got `str`, as a key'),
    ('Expected `int`, got `str` - at `$.depot[...].port`',
     '6:3: Shipping.depot: Expected `int`, got `str`, at [...].port'),
])
def test_the_texts_of_msgspec(tmp_path: Path, text: str, expected: str) -> None:
    # Its ValidationError is a ValueError in some versions only.
    for error in (ValueError(text), RuntimeError(text)):
        assert faults(tmp_path, FILE, Shipping=raising(error)) == [f'app.yml:{expected}']


@pytest.mark.parametrize('secret', ['swordfish', 'sword' * 40, '0x1F4'])
def test_what_a_library_shortens_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    def parse(section: dict[str, Any]) -> Any:
        text = str(section['port'])
        raise ValueError(text if len(text) < 50 else f'{text[:24]}...{text[-24:]}')

    monkeypatch.setenv('PORT', secret)
    (fault,) = faults(tmp_path, 'Shipping: {port: !env PORT}\n', Shipping=parse)
    assert fault.partition('; ')[2].startswith('the reason is not shown')


# In a program.

CONFIG = 'Application: {word: WORD}\nShipping: {carriers: [bike]}\n'


@pytest.mark.parametrize('words', [('--check',), ('-f',)])
def test_it_is_found_before_anything_starts(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / 'app.yml').write_text('Shipping: {carrier: bike}\n')
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / 'parsed.py'), '-c', 'app.yml', *words], cwd=tmp_path,
        env={'PYTHONPATH': f'{PROGRAMS.parent.parent}:{PROGRAMS}', 'REPORTS': os.devnull,
             'GATE': os.devnull, 'HELD_AT': ''}, capture_output=True, text=True,
    )
    assert done.returncode == 78
    # From 3.14 on, Python has a suggestion.
    lines = [line.partition('; did you')[0] for line in done.stderr.splitlines()]
    assert lines == [
        'app.yml: Application: a section that parsed requires is missing',
        'app.yml:1:12: Shipping.carrier: unknown key',
    ]


@pytest.mark.parametrize('workers', [1, 2])
def test_a_reload_is_refused_before_anything_is_stopped_for_it(
    tmp_path: Path, workers: int
) -> None:
    daemon = f'Daemon: {{workers: {workers}}}\n'
    with Life(tmp_path, 'parsed.py', config=CONFIG + daemon, notify=True) as life:
        life.program.wait_ready()
        life.wait_report("setup WORD ['bike']")
        life.pid = life.program.pid
        life.configure(CONFIG.replace('WORD', '7') + daemon + LOGGING)
        for count, signum in enumerate(('HUP', 'USR1'), 1):
            life.signal(signum)
            life.wait_logged('ERROR clihelper.config', 2 * count)
        assert life.logged('app.yml:1:1: Application: word: expected a string, got 7') >= 2
        assert life.logged('the configuration was not read; going on with the old one') >= 2
        life.configure(CONFIG.replace('WORD', 'new') + daemon + LOGGING)
        life.signal('HUP')
        for _ in range(workers):
            life.wait_report("setup new ['bike']")
        life.program.wait_ready()
        life.program.signal('TERM')
        assert life.program.wait() == 0
        assert [each for each in life.program.notifications if 'RELOADING' in each][1:] == []
