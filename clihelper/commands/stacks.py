"""``clihelper stacks``: where every thread and task of a running daemon is."""

from __future__ import annotations

import os
import sys

from clihelper.commands import asking, daemons

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from clihelper.commands.daemons import Found

PROMPT = 0.4
"""Seconds to wait for the daemon; the supervisor waits 0.3 s for its workers."""

DUMP = 1.0
"""Seconds to wait for a process that writes its stacks at a signal."""

FROM_C = 'does not answer; from C, the innermost call first'

USAGE = f"""\
usage: clihelper stacks [--json] NAME | -c FILE [NAME] | --pidfile FILE

Print the stacks of all threads, and of the tasks of running event loops, of each process of a
daemon. The daemon goes on. A process that does not answer, because it is in C code that holds the
interpreter, is shown as faulthandler sees it: its threads, without source lines. Where the daemon
has changed its user, only root sees that.

{daemons.OPTIONS_HELP}
  --json            print a list of objects

{asking.STATUSES_HELP}
It is 75, too, if one of the processes could not be shown: one that is stopped, say.

Example: clihelper stacks orders"""


def main(argv: Sequence[str]) -> int:
    """Print the stacks, and return the exit status."""
    if '-h' in argv or '--help' in argv:
        print(USAGE)
        return 0
    asked = daemons.parse(argv, command='stacks', flags=('--json',))
    found = daemons.find(asked)
    answers = _answers(found)
    shown = {answer['pid']: answer for answer in answers if 'stacks' in answer}
    missing = {}
    for worker, pid in _processes(found, answers):
        if pid not in shown:
            try:
                shown[pid] = {'worker': worker, 'pid': pid, 'why': FROM_C, 'stacks': _dump(pid)}
            except (LookupError, PermissionError, TimeoutError) as error:
                missing[worker, pid] = str(error.args[0] if error.args else error)
    parts = sorted(shown.values(), key=lambda answer: (answer['worker'], answer['pid']))
    if '--json' in asked.flags:
        import json

        print(json.dumps([{'worker': each['worker'], 'pid': each['pid'],
                           'answered': 'why' not in each, 'stacks': each['stacks']}
                          for each in parts]))
    else:
        print('\n\n'.join('\n'.join(_lines(each)) for each in parts))
    for (worker, pid), why in missing.items():
        print(f'clihelper: {found.label}: worker {worker}, pid {pid}: {why}', file=sys.stderr)
    return os.EX_TEMPFAIL if missing or not shown else 0


def _answers(found: Found) -> list[dict[str, Any]]:
    """Return what the daemon answers in time."""
    from clihelper.errors import UnavailableForNow
    from clihelper.operations.client import fault_of

    answers = []
    with asking.conversation(found) as daemon:
        try:
            for answer in daemon.ask({'command': 'stacks'}, PROMPT):
                if isinstance(answer.get('pid'), int) and isinstance(answer.get('worker'), int):
                    answers.append(answer)
                elif answer.get('status') not in (0, os.EX_TEMPFAIL):
                    raise asking.refusal(found, answer.get('status', 1), fault_of(answer))
        except UnavailableForNow:
            pass
    return answers


def _processes(found: Found, answers: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Return the number and the process ID of each process that can have stacks to show."""
    from clihelper.operations import report

    try:
        processes = report.read(found.pid or 0)['processes']
    except (LookupError, PermissionError):
        processes = answers or [{'worker': 1, 'pid': found.pid}]
    return [(each['worker'], each['pid']) for each in processes]


def _dump(pid: int) -> str:
    from clihelper.operations import stacks

    try:
        return stacks.dump(pid, DUMP)
    except PermissionError:
        raise PermissionError('does not answer; root can see where it is') from None


def _lines(part: dict[str, Any]) -> Iterator[str]:
    from clihelper.amqp.escaping import escaped

    why = f' ({part["why"]})' if 'why' in part else ''
    yield f'worker {part["worker"]}, pid {part["pid"]}{why}'
    yield from (escaped(line) for line in str(part['stacks']).splitlines())
