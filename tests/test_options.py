"""The command line, parsed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from clihelper import options
from clihelper.errors import UsageError


def parse(*argv: str, option_callback: Any = None) -> tuple[options.Options, list[str]]:
    return options.parse(
        argv, appname='app', description='Does it.', version='1.2', option_callback=option_callback
    )


def help_of(option_callback: Any, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as left:
        parse('--help', option_callback=option_callback)
    assert left.value.code == 0
    return capsys.readouterr().out


def test_the_configuration_is_all_that_is_required() -> None:
    chosen, arguments = parse('-c', 'app.yml')
    assert vars(chosen) == {
        'configuration': 'app.yml', 'foreground': False, 'check': False, 'check_broker': False,
        'check_verbose': False, 'message_file': None, 'post_mortem': False,
        'print_asyncapi': False, 'restarts': False,
    }  # fmt: skip
    assert arguments == []


@pytest.mark.parametrize('argv', [
    ('-c', 'app.yml', '-f'), ('--config', 'app.yml', '--foreground'), ('-fc', 'app.yml'),
    ('--config=app.yml', '-f'), ('-f', '-capp.yml'),
])
def test_options_have_a_short_and_a_long_form(argv: tuple[str, ...]) -> None:
    chosen, _ = parse(*argv)
    assert chosen.configuration == 'app.yml'
    assert chosen.foreground is True


def test_what_belongs_to_no_option_is_left_over() -> None:
    chosen, arguments = parse('one', '-c', 'app.yml', 'two', '-f', '--', '-three')
    assert arguments == ['one', 'two', '-three']
    assert chosen.foreground
    assert '_arguments' not in vars(chosen)


@pytest.mark.parametrize(('argv', 'word'), [
    ((), '-c/--config'), (('-f',), '-c/--config'), (('-c',), '-c/--config'),
    (('-c', ''), '-c/--config'),
    (('-c', 'app.yml', '--nonsense'), '--nonsense'), (('-c', 'app.yml', '-x'), '-x'),
])
def test_a_wrong_command_line_is_one_line(argv: tuple[str, ...], word: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(*argv)
    text = str(caught.value)
    assert word in text
    assert text.endswith('(see app --help)')
    assert '\n' not in text
    assert caught.value.status == 2


def test_an_application_adds_options_in_argparse_s_words() -> None:
    def add(parser: Any) -> None:
        parser.add_argument('-n', '--number', type=int, default=3)

    assert parse('-c', 'x', option_callback=add)[0].number == 3
    assert parse('-c', 'x', '-n', '7', option_callback=add)[0].number == 7
    with pytest.raises(UsageError, match="argument -n/--number: invalid int value: 'many'"):
        parse('-c', 'x', '-n', 'many', option_callback=add)


@pytest.mark.parametrize(('name', 'text', 'value'), [
    ('string', 'a', 'a'), ('str', 'a', 'a'), ('int', '4', 4), ('long', '4', 4),
    ('float', '0.5', 0.5), ('complex', '1j', 1j), (int, '4', 4),
])
def test_an_application_adds_options_in_optparse_s_words(
    name: object, text: str, value: object
) -> None:
    def add(parser: Any) -> None:
        parser.add_option('-p', '--prefix', dest='prefix', type=name, nargs=1, metavar='P')

    assert parse('-c', 'x', '-p', text, option_callback=add)[0].prefix == value


def test_an_optparse_choice_is_one_of_its_choices() -> None:
    def add(parser: Any) -> None:
        parser.add_option('--kind', type='choice', choices=['a', 'b'], default='a')

    assert parse('-c', 'x', '--kind', 'b', option_callback=add)[0].kind == 'b'
    with pytest.raises(UsageError, match='--kind'):
        parse('-c', 'x', '--kind', 'c', option_callback=add)


def test_an_optparse_help_text_has_its_default_and_its_percent_signs(
    capsys: pytest.CaptureFixture[str]
) -> None:
    def add(parser: Any) -> None:
        parser.add_option('-p', default='/tmp', help='where (default: %default; 50% more)')

    assert 'where (default: /tmp; 50% more)' in help_of(add, capsys)


def test_an_optparse_callback_is_refused_with_a_word_of_why() -> None:
    def add(parser: Any) -> None:
        parser.add_option('-p', '--prefix', action='callback', callback=print)

    with pytest.raises(TypeError, match='-p/--prefix: an option cannot have a callback'):
        parse('-c', 'x', option_callback=add)


def test_an_application_may_have_positional_arguments_of_its_own() -> None:
    def add(parser: Any) -> None:
        parser.add_argument('name')

    chosen, arguments = parse('-c', 'x', 'Ann', option_callback=add)
    assert (chosen.name, arguments) == ('Ann', [])
    with pytest.raises(UsageError, match='name'):
        parse('-c', 'x', option_callback=add)


def test_help_describes_all_and_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(None, capsys)
    for words in ('usage: app', 'Does it.', '--config FILE', '--foreground', '--check',
                  '--version'):
        assert words in text
    assert '_arguments' not in text


def test_version_is_the_name_and_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse('--version')
    assert left.value.code == 0
    assert capsys.readouterr().out == 'app 1.2\n'


def test_without_a_name_the_program_is_called_as_it_was_called(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('sys.argv', ['/usr/bin/orders', '-f'])
    assert options.program_name() == 'orders'


@pytest.mark.parametrize('argv', [
    ('-c', 'app.yml'), ('-f', '-c', 'app.yml'), ('--config', 'app.yml', '--check'),
    ('-c', 'one.yml', '-c', 'two.yml', '--foreground'), ('--broker', '-c', 'app.yml', '--check'),
])
def test_a_plain_command_line_means_the_same_with_and_without_argparse(
    argv: tuple[str, ...],
) -> None:
    assert parse(*argv) == parse(*argv, option_callback=lambda parser: None)


@pytest.mark.parametrize('argv', [
    (), ('-f',), ('-c',), ('-c', ''), ('-c', '-f'), ('-c', 'app.yml', '-x'), ('-c', 'a.yml', '-c'),
])
def test_a_faulty_command_line_is_left_to_argparse(argv: tuple[str, ...]) -> None:
    assert not options._is_plain(argv, options.Options(configuration=None))


def test_a_plain_command_line_does_not_import_argparse() -> None:
    code = (
        'import sys; from clihelper import options; '
        "options.parse(['-c', 'x'], appname='a', description=None, version=None); "
        "sys.exit('argparse' in sys.modules)"
    )
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


@pytest.mark.parametrize('argv', [('-c', 'x', '--broker'), ('-c', 'x', '-f', '--broker', 'word')])
def test_the_broker_is_only_checked(argv: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match='--broker: only with --check'):
        parse(*argv)


def test_an_application_may_have_an_option_of_that_name() -> None:
    def add(parser: Any) -> None:
        parser.add_option('-b', '--broker', default='here')

    chosen, _ = parse('-c', 'x', '--broker', 'there', option_callback=add)
    assert (chosen.broker, chosen.check_broker) == ('there', False)
    chosen, _ = parse('-c', 'x', '--check', option_callback=add)
    assert (chosen.broker, chosen.check_broker) == ('here', False)
