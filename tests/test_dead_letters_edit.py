"""``clihelper dead-letters edit``, with editors that are scripts, on RabbitMQ."""

from __future__ import annotations

import os
import select
import shlex
import signal
import stat
import sys

import kombu
import pytest

from clihelper.amqp.properties import copied
from clihelper.testing import Program
from tests.proxy import Proxy
from tests.test_dead_letters import Desk
from tests.test_dead_letters_odd import ODD, put, taken

SUBSTITUTE = """\
import sys
path = sys.argv[-1]
data = open(path, 'rb').read()
for old, new in zip(sys.argv[1:-1:2], sys.argv[2:-1:2]):
    old, new = (each.encode().decode('unicode_escape').encode('latin-1') for each in (old, new))
    assert old in data, data
    data = data.replace(old, new)
open(path, 'wb').write(data)
"""


@pytest.fixture
def channel(broker):
    confirm = {'confirm_publish': True}
    connection = kombu.Connection(broker.url(), transport_options=confirm)
    with connection, connection.channel() as channel:
        yield channel


@pytest.fixture
def desk(tmp_path, broker, channel, queue_name):
    return Desk(tmp_path, broker.url(), channel, queue_name)


@pytest.fixture(params=['classic', 'quorum'])
def each_desk(request, tmp_path, broker, channel, queue_name):
    return Desk(tmp_path, broker.url(), channel, queue_name, request.param)


@pytest.fixture(autouse=True)
def drafts(tmp_path, monkeypatch):
    """The folder in which texts are while they are edited; no editor but the test's."""
    folder = tmp_path / 'drafts'
    folder.mkdir()
    monkeypatch.setenv('TMPDIR', str(folder))
    monkeypatch.setenv('EDITOR', 'false')
    monkeypatch.delenv('VISUAL', raising=False)
    return folder


@pytest.fixture
def editor(tmp_path, monkeypatch):
    """Sets an editor that replaces texts, given in pairs."""
    script = tmp_path / 'substitute.py'
    script.write_text(SUBSTITUTE)

    def use(*words):
        monkeypatch.setenv('VISUAL', shlex.join([sys.executable, str(script), *words]))

    return use


def test_an_edited_letter_takes_the_place_of_the_old_one(each_desk, editor, drafts):
    desk = each_desk
    desk.die('{"a": 1}', content_type='application/json', content_encoding='utf-8', priority=3)
    desk.die('other')
    old = desk.ids()[0]
    mine = "mine: '1'\\n  more: [1, {a: null}]"
    editor('"a": 1', '"a": 2', 'mine: 1', mine, 'priority: 3', 'priority: 4')
    said = desk.run('edit', old, '--yes')
    new = desk.ids()[1]
    assert said == f'{old}: now {new} in {desk.dead}\n'
    desk.channel.basic_get(desk.dead, no_ack=True)
    message = desk.channel.basic_get(desk.dead, no_ack=True)
    assert message.body == '{"a": 2}'
    assert message.properties['priority'] == 4
    assert message.content_type == 'application/json'
    assert message.headers['mine'] == '1'
    assert message.headers['more'] == [1, {'a': None}]
    assert message.headers['x-clihelper-reason'] == 'exception'
    assert desk.count(desk.dead) == desk.count(desk.queue) == 0
    assert not [*drafts.iterdir()]


def test_an_edited_letter_is_replayed_where_the_text_says(each_desk, editor, queue_name):
    desk = each_desk
    desk.die('one')
    desk.die('two', queue='wrong')
    first, second = desk.ids()
    editor('\\none\\n', '\\nwon\\n')
    assert desk.run('edit', first, '--replay', '--yes') == f'{first}: replayed to {desk.queue}\n'
    editor('x-clihelper-queue: wrong', f'x-clihelper-queue: {desk.queue}')
    desk.run('edit', second, '--replay', '--yes')
    message = desk.channel.basic_get(desk.queue, no_ack=True)
    message.headers.pop('x-delivery-count', None)
    assert (message.body, message.headers) == ('won', {'mine': 1})
    assert desk.bodies(desk.queue) == ['two']
    assert desk.count(desk.dead) == 0


def test_what_is_removed_from_the_text_is_gone(desk, editor):
    desk.die('one', correlation_id='7', reply_to='me')
    editor('  mine: 1\\n', '', "  correlation_id: '7'\\n", '', 'reply_to: me', 'reply_to:')
    desk.run('edit', desk.ids()[0], '--yes')
    message = desk.channel.basic_get(desk.dead, no_ack=True)
    assert 'mine' not in message.headers
    assert not {'correlation_id', 'reply_to'} & message.properties.keys()


def test_a_binary_body_is_edited_in_base64(desk, editor):
    desk.die(b'\xff\x00', content_type='application/octet-stream', content_encoding='binary')
    editor('/wA=', '/wE=')
    desk.run('edit', desk.ids()[0], '--yes')
    assert desk.bodies(desk.dead) == [b'\xff\x01']


@pytest.mark.parametrize(
    ('content_type', 'words', 'said'),
    [
        ('application/json', ('{}', '{]'), 'body: not application/json'),
        ('application/json', ('\\n{}\\n', '\\n\\xff\\n'), 'application/json: invalid utf-8'),
        ('text/plain', ('text/plain', 'application/json', '\\n{}\\n', '\\nx\\n'), 'body: not '),
        ('text/plain', ('\\n{}\\n', '\\n\\xff\\n'), 'body: not text/plain'),
        ('text/plain', ('---\\n', ''), 'there is no line "---"'),
        ('text/plain', ('mine: 1', 'mine: ['), 'not YAML: '),
        ('text/plain', ('mine: 1', '5: 1'), 'headers: expected a text as name, got 5'),
        ('text/plain', ('mine: 1', 'mine: 2026-01-01'), 'headers: AMQP has no type for date'),
        ('text/plain', ('mine: 1', 'mine: 99999999999999999999'), 'out of range'),
        ('text/plain', ('mine: 1', 'x-death: 1'), 'headers: x-death cannot be given'),
        ('text/plain', ('headers:', 'haeders:'), "headers and body, got 'haeders'"),
        ('text/plain', ('priority: 3', 'priority: 256'), 'priority: expected a number that fits'),
        ('text/plain', ('priority: 3', 'priority: high'), 'priority: expected a number that fits'),
        ('text/plain', ('priority: 3', 'priority: true'), 'expected no truth value'),
        ('text/plain', ('priority: 3', 'user_id: me'), 'user_id cannot be given'),
        ('text/plain', ('priority: 3', 'colour: red'), 'not a property of a message: colour'),
        ('text/plain', ('priority: 3', 'expiration: 5'), 'expected milliseconds as text'),
        ('text/plain', ('delivery_mode: 2', 'delivery_mode: 3'), 'delivery_mode: expected 1 or 2'),
        ('text/plain', ('body: text', 'body: base64'), 'body: not Base64'),
    ],
)  # fmt: skip
def test_a_text_that_is_wrong_changes_nothing_and_is_kept(
    desk, editor, drafts, content_type, words, said
):
    desk.die('{}', content_type=content_type, content_encoding='utf-8', priority=3)
    ids = desk.ids()
    editor(*words)
    desk.run('edit', ids[0], '--yes', status=2)
    (fault,) = desk.stderr.splitlines()
    (draft,) = drafts.iterdir()
    assert said in fault
    assert fault.endswith(f'; nothing is changed; the text is in {draft}')
    assert stat.S_IMODE(draft.stat().st_mode) == 0o600
    assert desk.ids() == ids


def test_an_editor_that_fails_or_changes_nothing_changes_nothing(desk, monkeypatch, drafts):
    desk.die('one')
    ids = desk.ids()
    for command, said in (
        ("sh -c 'echo x >>$0; exit 3'", 'ended with status 3'),
        ("sh -c 'echo x >>$0; kill -9 $$'", 'was ended by signal 9'),
        ('/nowhere/editor', 'No such file'),
        ("'", 'No closing quotation'),
        ('rm', 'No such file'),
    ):
        monkeypatch.setenv('EDITOR', command)
        desk.run('edit', ids[0], '--yes', status=69)
        (fault,) = desk.stderr.splitlines()
        assert said in fault
        assert fault.endswith('; nothing is changed')
    for command in ('true', "sh -c 'sed -i 1d $0'"):
        monkeypatch.setenv('EDITOR', command)
        assert desk.run('edit', ids[0], '--yes') == 'nothing is changed\n'
    assert desk.ids() == ids
    assert not [*drafts.iterdir()]


def test_wrong_use_is_told_in_a_line(desk):
    desk.die('one')
    identity = desk.ids()[0]
    for words in (
        (identity,), ('--yes',), ('1', '--yes'), ('gabcdef', '--yes'), ('abcdef0', '--yes'),
        (identity, 'abcdef0', '--yes'), (identity, '--rate', '1/s', '--yes'),
    ):  # fmt: skip
        desk.run('edit', *words, status=2)
        assert len(desk.stderr.splitlines()) == 1
    desk.run('list', '--replay', status=2)


def test_a_letter_that_is_gone_meanwhile_is_told_and_the_text_is_kept(desk, monkeypatch, drafts):
    desk.die('one')
    identity = desk.ids()[0]
    drop = ' '.join(desk.command('drop', identity, '--yes'))
    monkeypatch.setenv('EDITOR', f"sh -c '{drop} && echo more >>$0'")
    desk.run('edit', identity, '--yes', status=2)
    (draft,) = drafts.iterdir()
    assert f'no dead letter {identity}' in desk.stderr
    assert str(draft) in desk.stderr
    assert draft.read_text().endswith('one\nmore\n')
    assert desk.count(desk.dead) == 0


def test_a_letter_that_goes_nowhere_is_kept(desk, editor, drafts):
    desk.die('one', queue='gone')
    identity = desk.ids()[0]
    editor('\\none\\n', '\\nwon\\n')
    desk.run('edit', identity, '--replay', '--yes', status=69)
    assert f'{identity} is kept: ' in desk.stderr
    assert len([*drafts.iterdir()]) == 1
    assert desk.ids() == [identity]


@pytest.mark.parametrize('kind', ['classic', 'quorum'])
def test_what_of_an_odd_letter_is_not_edited_stays_byte_for_byte(
    tmp_path, broker, channel, queue_name, editor, kind
):
    desk = Desk(tmp_path, broker.url(), channel, queue_name, kind)
    for name, packed in ODD.items():
        put(channel, desk.dead, packed, name.encode())
        identity = desk.ids()[0]
        editor(f'\\n{name}\\n', '\\nedited\\n')
        if name == 'content type':  # of which no body can be
            desk.run('edit', identity, '--yes', status=2)
            editor('content_encoding:', 'reply_to: me\\n  content_encoding:')
            desk.run('edit', identity, '--yes')
            body, expected = name.encode(), b'\xc2' + packed[1:] + b'\x02me'
        else:
            desk.run('edit', identity, '--yes')
            body, expected = b'edited', packed
        found = taken(desk, desk.dead)[body]
        if b'-count' in packed:  # RabbitMQ's own
            expected = copied(packed, without_headers=lambda name: name.endswith(b'-count'))
        if kind == 'quorum':
            found = copied(found, without_headers=lambda name: name == b'x-delivery-count')
        # A quorum queue sorts the headers.
        assert found == expected or (name == 'said' and sorted(found) == sorted(expected)), name
        channel.queue_purge(desk.dead)


@pytest.mark.parametrize('method', [b'\x00\x3c\x00\x28', b'\x00\x3c\x00\x50'])
@pytest.mark.parametrize('words', [(), ('--replay',)])
def test_an_edit_that_is_killed_loses_nothing(each_desk, broker, editor, method, words):
    """As it publishes, and as it acknowledges."""
    desk = each_desk
    desk.die('old')
    (identity,) = desk.ids()
    editor('\\nold\\n', '\\nnew\\n')
    with Proxy(broker.port) as proxy:
        desk.configure(proxy.url, f'{{{desk.queue}: }}')

        def see(data):
            if method in data:
                proxy.swallow()
                program.signal('KILL')

        command = desk.command('edit', identity, '--yes', *words)
        with Program(command, notify=False) as program:
            proxy.see = see
            assert program.wait() == -9
    desk.wait_for_letters(1)
    found = desk.bodies(desk.dead) + desk.bodies(desk.queue)
    assert 'old' in found
    assert len(found) <= 2


@pytest.mark.parametrize(('answer', 'body'), [(b'y\n', 'new'), (b'n\n', 'old'), (b'\x04', 'old')])
def test_on_a_terminal_it_asks_and_a_wrong_text_is_edited_again(
    desk, tmp_path, monkeypatch, answer, body
):
    desk.die('old', content_type='text/plain')
    script = tmp_path / 'editor'
    script.write_text(
        '#!/bin/sh\n'
        'if grep -q wrong: "$1"; then sed -i -e /wrong:/d -e s/^old$/new/ "$1"\n'
        'else sed -i "s/^headers:/wrong: 1\\n&/" "$1"; fi\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv('VISUAL', str(script))
    dialogue = [(b'again? [y/N] ', b'y\n'), (b'letter? [y/N] ', answer)]
    text = on_terminal(desk.command('edit', desk.ids()[0]), dialogue)
    assert b"got 'wrong'" in text
    assert b'changed: body' in text
    assert desk.bodies(desk.dead) == [body]


def on_terminal(command, dialogue):
    """Run a command on a terminal, answer its questions, and return what it wrote."""
    pid, terminal = os.forkpty()
    if not pid:
        os.execv(sys.executable, command)
    text = b''
    try:
        for question, answer in dialogue:
            while question not in text:
                text += os.read(terminal, 4096)
            os.write(terminal, answer)
        while select.select([terminal], [], [], 20)[0]:
            try:
                text += os.read(terminal, 4096)
            except OSError:  # it has ended
                break
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        pid = 0
    finally:
        os.close(terminal)
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert b'Traceback' not in text
    return text
