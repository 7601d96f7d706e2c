"""What ``clihelper dead-letters`` does: its actions, each with the letters that were chosen."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter

from clihelper.amqp.dead_letters import DeadLetterReader
from clihelper.amqp.publisher import PublishError
from clihelper.commands import letter_printing as printing
from clihelper.commands.editor import Draft
from clihelper.commands.interruption import Interruption
from clihelper.commands.letter_form import Edited, InvalidForm, as_form, edited
from clihelper.commands.letter_groups import Groups
from clihelper.commands.letter_printing import line
from clihelper.commands.progress import Progress, clear_line
from clihelper.commands.selection import is_group, is_selected, names
from clihelper.errors import UnavailableError, UsageError, counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Collection, Iterator, Mapping
    from typing import Any

    from clihelper.amqp.dead_letters import DeadLetter

MANY = 20
"""The number of letters from which a summary is printed."""

UNKNOWN_ORIGIN = 'the queue that it came from is unknown'


class Actions:
    """The actions of the command.

    :param section: the ``AMQP`` section.
    :param queues: the dead-letter queues, each with the queue that its letters are of.
    :param options: the command line.
    """

    def __init__(
        self, section: Mapping[str, Any], queues: dict[str, str], options: Namespace
    ) -> None:
        self._section = section
        self._queues = queues
        self._options = options

    def run(self) -> int:
        """Do what the command line says, and return the exit status."""
        if self._options.action == 'edit':
            return self._edit()
        actions: dict[str, Callable[[DeadLetterReader], int]] = {
            'list': self._list,
            'show': self._show,
            'replay': self._replay,
            'drop': self._drop,
        }
        with self._reader() as letters:
            return actions[self._options.action](letters)

    def _reader(self) -> DeadLetterReader:
        return DeadLetterReader(self._section, _warn)

    def _chosen(
        self, letters: DeadLetterReader, interruption: Interruption | None = None
    ) -> Iterator[DeadLetter]:
        """Yield the letters that the options select, up to the limit, or until a signal."""
        left = self._options.limit or sys.maxsize
        with Progress(self._count(letters), 'letters') as progress:
            for letter in self._read(letters):
                if interruption is not None and interruption.signum:
                    return
                progress.advance()
                if is_selected(letter, self._options):
                    yield letter
                    left -= 1
                    if not left:
                        return

    def _read(self, letters: DeadLetterReader) -> Iterator[DeadLetter]:
        """Yield all letters, with their positions among those of all queues."""
        position, only_looks = 0, self._options.action in ('list', 'show')
        for queue, source in self._queues.items():
            for letter in letters.read(queue, source, ahead=only_looks):
                position += 1
                letter.position = position
                yield letter

    def _count(self, letters: DeadLetterReader) -> int:
        return sum(letters.count(queue) or 0 for queue in self._queues)

    # list and show

    def _list(self, letters: DeadLetterReader) -> int:
        total = self._count(letters)
        found = self._list_each(letters) if self._options.each else self._list_groups(letters)
        if not self._options.json:
            queues = ', '.join(self._queues) or 'no queue'
            print(f'{found} of {counted(total, "dead letter")} in {queues}')
        return 0

    def _list_each(self, letters: DeadLetterReader) -> int:
        self._options.limit = self._options.limit or 1000
        rows, counts = [], Counter[tuple[str, ...]]()
        for letter in self._chosen(letters):
            rows.append(letter.row())
            counts[letter.kind] += 1
        if self._options.json:
            printing.print_json(rows)
            return len(rows)
        printing.print_table(rows, printing.LETTER_HEADINGS)
        if len(rows) >= MANY:
            printing.print_summary(counts)
        return len(rows)

    def _list_groups(self, letters: DeadLetterReader) -> int:
        groups = Groups()
        for letter in self._chosen(letters):
            groups.add(letter)
        if self._options.json:
            printing.print_json(groups.rows())
        else:
            printing.print_table(groups.rows(), printing.GROUP_HEADINGS)
        if groups.rest:
            _warn(
                f'{counted(groups.rest, "letter")} of further groups are not shown; --queue,'
                ' --reason and --exception select fewer'
            )
        return groups.count

    def _show(self, letters: DeadLetterReader) -> int:
        if is_group(self._options.letters[0]) and not self._options.raw:
            return self._show_group(letters)
        for letter in self._chosen(letters):
            if self._options.raw:
                sys.stdout.buffer.write(letter.body)
            elif self._options.json:
                printing.print_json(printing.whole(letter))
            else:
                printing.print_whole(letter)
            return 0
        raise _missing(self._options.letters)

    def _show_group(self, letters: DeadLetterReader) -> int:
        """Show the facts about a group, and its first letter."""
        groups, example = Groups(), None
        for letter in self._chosen(letters):
            groups.add(letter)
            example = example or letter
        if example is None:
            raise _missing(self._options.letters)
        (row,) = groups.rows()
        if self._options.json:
            printing.print_json({**row, 'letter': printing.whole(example)})
            return 0
        printing.print_facts(row)
        print()
        printing.print_whole(example)
        return 0

    # replay and drop

    def _replay(self, letters: DeadLetterReader) -> int:
        replayed = Counter[str]()
        kept, words = 0, set(self._options.letters)
        interval, due = 1 / self._options.rate if self._options.rate else 0.0, time.monotonic()
        with Interruption() as interruption:
            try:
                for letter in self._chosen(letters, interruption):
                    words -= _those_of(letter, words)
                    if not interruption.wait_until(due):
                        break
                    due = max(due, time.monotonic() - interval) + interval
                    if fault := _replay_one(letters, letter):
                        kept += 1
                        _warn(f'{letter.id} is kept: {fault}')
                    else:
                        replayed[letter.target] += 1
                letters.flush()
            finally:
                _print_replayed(replayed)
        if interruption.signum:
            return interruption.status
        if words:
            raise _missing(words)
        return os.EX_UNAVAILABLE if kept else 0

    def _drop(self, letters: DeadLetterReader) -> int:
        # There may be many large letters: their contents are not kept.
        chosen: list[tuple[str, int]] = []
        counts = Counter[tuple[str, ...]]()
        words = set(self._options.letters)
        for letter in self._chosen(letters):
            words -= _those_of(letter, words)
            counts[letter.kind] += 1
            chosen.append((letter.held_in, letter.delivery_tag))
        if words:
            raise _missing(words)
        if chosen and not self._options.yes:
            printing.print_summary(counts)
            if not _confirmed(f'Drop {counted(len(chosen), "dead letter")} for good?'):
                chosen = []
        for held_in, delivery_tag in chosen:
            letters.drop(held_in, delivery_tag)
        letters.flush()
        print(f'dropped: {len(chosen)}')
        return 0

    # edit

    def _edit(self) -> int:
        """Have a letter edited, which nobody holds meanwhile: that may take an hour."""
        with self._reader() as letters:
            letter = next(self._chosen(letters), None)
        if letter is None:
            raise _missing(self._options.letters)
        if letter.fault:
            raise UsageError(f'{letter.id} cannot be edited: {letter.fault}')
        with Draft(as_form(letter)) as draft:
            result = _revised(draft, letter)
            if not result.changes or not self._is_wanted(result):
                print('nothing is changed')
                return 0
            draft.is_kept = True  # until it is in the broker
            try:
                self._put(letter.id, result.letter)
            except (UnavailableError, UsageError) as error:
                raise type(error)(f'{error}; the text is in {draft.path}') from error
            draft.is_kept = False
        return 0

    def _is_wanted(self, result: Edited) -> bool:
        if self._options.yes:
            return True
        print(f'changed: {line(", ".join(result.changes))}')
        verb = 'Replay' if self._options.replay else 'Replace'
        return _confirmed(f'{verb} the letter?')

    def _put(self, identity: str, changed: DeadLetter) -> None:
        """Put an edited letter in the place of the old one."""
        with self._reader() as letters:
            for letter in self._read(letters):
                if letter.held_in == changed.held_in and letter.id == identity:
                    break
            else:
                raise _missing([identity])
            successor = letter.edited(changed.body, changed.packed)
            try:
                if self._options.replay:
                    fault = _replay_one(letters, successor)
                else:
                    fault = ''
                    letters.replace(successor)
            except PublishError as error:
                fault = str(error)
            if fault:
                raise UnavailableError(f'{identity} is kept: {fault}')
            letters.flush()
        where = 'replayed to' if self._options.replay else f'now {successor.id} in'
        target = successor.target if self._options.replay else successor.held_in
        print(f'{identity}: {where} {line(target)}')


def _replay_one(letters: DeadLetterReader, letter: DeadLetter) -> str:
    """Replay one letter, and return why it could not be; empty if it is done.

    :raises UnavailableError: nobody knows what became of it.
    """
    if not letter.target:
        return UNKNOWN_ORIGIN
    try:
        letters.replay(letter)
    except PublishError as error:
        if error.unknown:
            raise UnavailableError(f'{letter.id} is kept: {error}') from error
        return str(error)
    return ''


def _revised(draft: Draft, letter: DeadLetter) -> Edited:
    """Have a letter edited until it is right, or until the user gives up.

    :raises UsageError: the user gave up, or there is nobody to ask.
    """
    before = as_form(letter)
    while True:
        after = draft.edit()
        if after == before:
            return Edited(letter, [])
        try:
            return edited(letter, before, after)
        except InvalidForm as error:
            fault = line(str(error))
        if sys.stdin.isatty():
            _warn(fault)
            if _confirmed('Edit it again?'):
                continue
        draft.is_kept = True
        raise UsageError(f'{fault}; nothing is changed; the text is in {draft.path}')


def _those_of(letter: DeadLetter, words: Collection[str]) -> set[str]:
    return {word for word in words if names(word, letter)}


def _print_replayed(replayed: Counter[str]) -> None:
    for queue, number in replayed.items():
        print(f'replayed to {line(queue)}: {number}')
    if not replayed:
        print('replayed: 0')


def _confirmed(question: str) -> bool:
    try:
        return input(f'{question} [y/N] ').strip().lower() in ('y', 'yes')
    except EOFError:
        print()
        return False


def _missing(words: Collection[str]) -> UsageError:
    return UsageError(f'no dead letter {", ".join(sorted(words))}; it is gone, or somebody else'
                      ' is reading it')  # fmt: skip


def _warn(text: str) -> None:
    sys.stdout.flush()
    clear_line()
    print(f'clihelper dead-letters: {line(text)}', file=sys.stderr)
