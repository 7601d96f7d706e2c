"""The memory of what each worker has in hand, and the file that it may be."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clihelper.process import scoreboard
from clihelper.process.scoreboard import CRASHED, ENTRIES, EXPIRY, SIZE, TIMEOUT, Scoreboard, find
from tests.forking import fork, status_of

ROOT = Path(__file__).parent.parent
MESSAGE = 4711


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'orders.scoreboard'


def die_with(slot, message):
    """A process that has that in hand, and is killed."""
    pid = fork(lambda: (slot.claim(), slot.take(1.0, message)))
    assert status_of(pid) == 0
    return pid


def test_what_a_dead_process_had_in_hand_is_known_before_and_after_it_is_buried():
    book = Scoreboard.anonymous()
    slot = book.slot(3)
    die_with(slot, MESSAGE)
    assert book.deaths(MESSAGE) == (1, CRASHED)
    assert book.deaths(MESSAGE + 1) == (0, CRASHED)
    slot.record_death()
    assert book.deaths(MESSAGE) == (1, CRASHED)
    assert slot.read() == (0.0, 0, 0, 0.0)
    slot.set_cause(TIMEOUT)
    die_with(slot, MESSAGE)
    assert book.deaths(MESSAGE) == (2, TIMEOUT)
    slot.record_death()
    assert book.deaths(MESSAGE) == (2, TIMEOUT)
    book.forget(MESSAGE)
    assert book.deaths(MESSAGE) == (0, CRASHED)


def test_who_is_counted_already_is_not_counted_twice_while_the_slot_is_not_cleared():
    book = Scoreboard.anonymous()
    pid = die_with(book.slot(0), MESSAGE)
    book.count(MESSAGE, pid, 0)
    assert book.deaths(MESSAGE) == (1, CRASHED)


def test_a_zombie_is_dead_and_a_living_process_is_not():
    book = Scoreboard.anonymous()
    slot = book.slot(0)
    pid = fork(lambda: (slot.claim(), slot.take(0.0, MESSAGE)))
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert book.deaths(MESSAGE) == (1, CRASHED)
    os.waitpid(pid, 0)
    slot.claim()
    assert book.deaths(MESSAGE) == (0, CRASHED)


def test_who_is_absolved_is_not_counted():
    book = Scoreboard.anonymous()
    slot = book.slot(0)
    die_with(slot, MESSAGE)
    slot.clear_in_flight()
    slot.record_death()
    assert book.deaths(MESSAGE) == (0, CRASHED)


def test_what_rests_has_nothing_in_hand():
    slot = Scoreboard.anonymous().slot(0)
    slot.take(5.0, MESSAGE)
    slot.handled = 7
    assert slot.read()[:2] == (5.0, MESSAGE)
    slot.end_message()
    assert slot.read()[:3] == (0.0, 0, 7)


def test_the_table_is_bounded_and_forgets_the_oldest():
    now = 1e9
    book = Scoreboard(Scoreboard.anonymous().memory, clock=lambda: now)
    for message in range(1, 3 * ENTRIES):
        now += 0.001
        book.count(message, 1, 0)
    known = [message for message in range(1, 3 * ENTRIES) if book.deaths(message)[0]]
    assert ENTRIES / 2 < len(known) <= ENTRIES
    assert book.deaths(3 * ENTRIES - 1)[0] == 1
    assert min(known) > ENTRIES


def test_entries_expire():
    now = 1e9
    book = Scoreboard(Scoreboard.anonymous().memory, clock=lambda: now)
    book.count(MESSAGE, 1, 0)
    now += EXPIRY - 1
    assert book.deaths(MESSAGE)[0] == 1
    now += 2
    assert book.deaths(MESSAGE)[0] == 0
    book.count(MESSAGE, 2, 0)
    assert book.deaths(MESSAGE)[0] == 1


def test_the_next_start_knows_what_a_process_that_died_alone_had_in_hand(path):
    script = (
        'import os, sys; from clihelper.process.scoreboard import Scoreboard\n'
        'book = Scoreboard.open(sys.argv[1]); slot = book.slot(0); slot.claim()\n'
        'slot.take(0.0, 4711); os.kill(os.getpid(), 9)'
    )
    for deaths in (1, 2, 3):
        subprocess.run([sys.executable, '-c', script, str(path)], cwd=ROOT)
        book = Scoreboard.open(str(path))
        assert book.deaths(MESSAGE) == (deaths, CRASHED)
        os.close(book._descriptor)
        book.memory.close()
    assert path.stat().st_size == SIZE
    assert path.stat().st_mode & 0o777 == 0o600


def close(book):
    os.close(book._descriptor)
    book.memory.close()


def test_what_is_torn_or_garbage_in_the_table_is_nothing(path):
    book = Scoreboard.open(str(path))
    book.count(MESSAGE, 1, 0)
    close(book)
    data = bytearray(path.read_bytes())
    place = data.rindex(MESSAGE.to_bytes(8, 'little'))
    data[place + 8] ^= 0xFF
    path.write_bytes(data)
    book = Scoreboard.open(str(path))
    assert book.deaths(MESSAGE) == (0, CRASHED)
    close(book)
    header = scoreboard._HEADER.size
    path.write_bytes(data[:header] + os.urandom(SIZE - header))
    book = Scoreboard.open(str(path))  # slots with garbage in hand are of dead processes
    assert book.deaths(MESSAGE) == (0, CRASHED)
    book.count(MESSAGE, 1, 0)
    assert book.deaths(MESSAGE) == (1, CRASHED)
    close(book)


@pytest.mark.parametrize('data', [b'', bytes(SIZE), b'clihelper scoreboard' + bytes(100)])
def test_a_file_that_is_empty_or_of_another_version_is_begun_anew(path, data):
    path.write_bytes(data)
    path.chmod(0o600)
    book = Scoreboard.open(str(path))
    assert path.stat().st_size == SIZE
    close(book)


# A copy in a file.

def copied(path):
    return Scoreboard.open(str(path), mapped=False)


@pytest.mark.parametrize('mapped', [False, True])
def test_what_is_counted_and_forgotten_is_in_the_copy(path, mapped):
    book = copied(path)
    for message in (MESSAGE, MESSAGE + 1):
        book.count(message, 1, 0)
    book.forget(MESSAGE)
    close(book)
    book = Scoreboard.open(str(path), mapped=mapped)
    assert book.deaths(MESSAGE) == (0, CRASHED)
    assert book.deaths(MESSAGE + 1) == (1, CRASHED)
    close(book)


def test_what_is_kept_in_the_copy_and_not_released_is_counted_at_the_next_start(path):
    book = copied(path)
    for index, end in enumerate(('release', 'clear_in_flight', 'clear', 'keep')):
        slot = book.slot(index)
        slot.claim()
        slot.note(MESSAGE + index)
        slot.keep(MESSAGE + index)
        if end != 'keep':
            getattr(slot, end)()
    book.slot(9).note(MESSAGE + 9)  # a first delivery is in the memory alone
    close(book)
    book = copied(path)
    assert [book.deaths(MESSAGE + index)[0] for index in (0, 1, 2, 3, 9)] == [0, 0, 0, 1, 0]
    close(book)
    book = copied(path)
    assert book.deaths(MESSAGE + 3) == (1, CRASHED)
    close(book)


def test_a_copy_that_is_truncated_is_written_anew(path, caplog):
    book = copied(path)
    book.count(MESSAGE, 1, 0)
    os.truncate(path, 100)
    slot = book.slot(0)
    slot.claim()
    slot.note(MESSAGE)
    assert book.deaths(MESSAGE) == (1, CRASHED)
    assert caplog.records == []
    book.count(MESSAGE + 1, 1, 0)
    assert [record.getMessage() for record in caplog.records] == [
        f'{path} has been truncated and is written anew']
    close(book)
    book = Scoreboard.open(str(path))
    assert book.deaths(MESSAGE) == book.deaths(MESSAGE + 1) == (1, CRASHED)
    close(book)


def test_a_copy_that_cannot_be_written_is_told_once(path, caplog):
    book = copied(path)
    os.dup2(os.open(os.devnull, os.O_RDONLY), book._descriptor)
    for message in (MESSAGE, MESSAGE + 1):
        book.count(message, 1, 0)
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f'{path}: Bad file descriptor; from now on this process does not write to it',
    ]
    assert book.deaths(MESSAGE + 1) == (1, CRASHED)
    close(book)


def test_a_file_that_was_truncated_is_told_at_the_next_start(path, caplog):
    close(Scoreboard.open(str(path)))
    assert caplog.records == []
    os.truncate(path, 0)
    close(Scoreboard.open(str(path)))
    (record,) = caplog.records
    assert record.getMessage().startswith(f'{path} had been truncated, which ends a process')


def garbage(path):
    path.write_bytes(b'precious' * 100)


def huge(path):
    with open(path, 'wb') as file:
        file.write(b'x')
        file.truncate(1 << 40)


def symlink(path):
    (path.parent / 'target').write_text('precious')
    path.symlink_to(path.parent / 'target')


def writable(path):
    path.write_bytes(b'')
    path.chmod(0o666)


def foreign(path):
    path.write_bytes(b'')
    os.chown(path, 54324, 54324)


def linked(path):
    path.write_bytes(b'')
    os.link(path, path.parent / 'other')


@pytest.mark.parametrize(
    ('make', 'why'),
    [
        (garbage, 'is not a scoreboard file, and is left alone'),
        (huge, 'is not a scoreboard file, and is left alone'),
        (symlink, 'is a symbolic link'),
        (os.mkdir, 'Is a directory'),
        (os.mkfifo, 'is not a regular file with a single name'),
        (writable, 'belongs to another user, or is writable by others'),
        pytest.param(
            foreign, 'belongs to another user, or is writable by others',
            marks=pytest.mark.root,
        ),
        (linked, 'is not a regular file with a single name'),
    ],
)
def test_what_is_no_scoreboard_is_left_alone_and_told_in_one_line(path, caplog, make, why):
    make(path)
    before = os.lstat(path)
    with caplog.at_level(logging.WARNING):
        assert find(str(path.parent), 'orders') is None
    (record,) = caplog.records
    assert record.getMessage() == (
        f'{path}: {why}; after a restart it is not known which messages ended a process')
    after = os.lstat(path)
    assert (after.st_size, after.st_mtime) == (before.st_size, before.st_mtime)


def test_it_is_one_programs_alone(path, caplog):
    book = Scoreboard.open(str(path))
    assert find(str(path.parent), 'orders') is None
    assert 'is in use by another process' in caplog.text
    close(book)


def test_without_a_state_directory_or_room_there_is_none(tmp_path, caplog):
    assert find(None, 'orders') is None
    assert caplog.records == []
    assert find(str(tmp_path / 'none'), 'orders') is None
    assert 'No such file or directory' in caplog.text


@pytest.mark.root
def test_a_full_disk_is_told_and_does_not_kill(tmp_path):
    script = (
        'mount -t tmpfs -o size=64k none "$1" && exec "$2" -c "'
        'import logging; logging.basicConfig(); from clihelper.process.scoreboard import find; '
        "print(find('$1', 'orders'))\""
    )
    done = subprocess.run(
        ['unshare', '-m', 'sh', '-c', script, 'sh', str(tmp_path), sys.executable],
        cwd=ROOT, capture_output=True, text=True,
    )
    assert done.stdout == 'None\n', done.stderr
    assert 'No space left on device' in done.stderr
