"""What the commands that ask a running daemon share."""

from __future__ import annotations

from clihelper.commands import daemons
from clihelper.errors import Error, NotPermitted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from clihelper.commands.daemons import Found
    from clihelper.operations.client import Conversation

NOT_RUNNING = 7
"""The status for this in the Linux Standard Base Core Specification 5.0, section 22.2."""

STATUSES_HELP = """\
The exit status is 0 if it was done, 2 if the command line is wrong, 7 if no daemon is running, 75
if it could not be done in time, 77 if it is not yours to ask, and 78 if the configuration is
wrong."""


class NotRunning(Error):
    """There is no daemon to ask."""

    status = NOT_RUNNING

    def __init__(self, found: Found) -> None:
        super().__init__(f'{found.label}: does not run')


def check_running(found: Found) -> None:
    """Raise an error unless the daemon runs.

    :raises NotRunning: it does not.
    :raises Error: that is unknown.
    """
    if found.state == 'unknown':
        raise Error(str(found))
    if found.state != 'running':
        raise NotRunning(found)


def control_path(found: Found) -> str:
    """Return where the control socket of a daemon is.

    The daemon has it in its memory, which not everybody may read; else it is the default.

    :raises NoControl: the daemon has none.
    """
    from clihelper.config import default_control
    from clihelper.operations import report
    from clihelper.operations.client import NoControl

    try:
        path = report.read(found.pid or 0).get('control')
    except (LookupError, PermissionError):
        return default_control(found.path)
    if not isinstance(path, str):
        raise NoControl(f'{found.label}: has no control socket (Daemon.control)')
    return path


def conversation(found: Found) -> Conversation:
    """Connect to a daemon that runs.

    :raises NotRunning: it does not.
    :raises NoControl: it has no control socket.
    :raises NotPermitted: it is another user's.
    """
    from clihelper.operations.client import Conversation

    check_running(found)
    try:
        with daemons.LockedDaemon(found) as daemon:
            return Conversation(control_path(found), daemon.pid)
    except ProcessLookupError:
        raise NotRunning(found) from None
    except NotPermitted:
        raise NotPermitted(f'{found.label}: is not yours to ask') from None


def ask(found: Found, words: Mapping[str, Any], timeout: float) -> Iterator[dict[str, Any]]:
    """Ask a daemon, and yield its answers, up to the last one, whose status is 0.

    :raises Error: it has not done what was asked; each line begins with the daemon.
    """
    from clihelper.errors import UnavailableForNow
    from clihelper.operations.client import fault_of

    faults: list[str] = []
    with conversation(found) as daemon:
        try:
            for answer in daemon.ask(words, timeout):
                faults += fault_of(answer)
                if answer.get('status'):
                    raise refusal(found, answer['status'], faults)
                yield answer
        except UnavailableForNow as error:
            raise UnavailableForNow(f'{found.label}: {error}') from None


def refusal(found: Found, status: int, faults: list[str]) -> Error:
    """Return the error for a request that was not done, with a line for each fault."""
    from clihelper.amqp.escaping import escaped
    from clihelper.operations.client import Refused

    lines = [f'{found.label}: {escaped(line)}' for line in faults or ['it was not done']]
    return Refused('\n'.join(lines), status)
