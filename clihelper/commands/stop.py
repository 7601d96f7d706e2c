"""``clihelper stop``: stop a daemon, and wait until it has ended."""

from __future__ import annotations

import signal

from clihelper.commands import arguments, daemons
from clihelper.errors import Error, PidfileError
from clihelper.process.pidfile import Pidfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = 10.0
"""Seconds to wait in addition to ``Daemon.stop_timeout``, after which a daemon ends itself."""

TIMEOUT = 60.0 + PATIENCE
"""Seconds to wait if the configuration is not read and so ``Daemon.stop_timeout`` is unknown."""

KILLED = 5.0
"""Seconds to wait for the kernel to end a killed process."""

USAGE = f"""\
usage: clihelper stop [--timeout SECONDS] [--kill] NAME | -c FILE [NAME] | --pidfile FILE

Stop a daemon gracefully, by sending TERM, and return when it has ended. A daemon that is already
stopped is a success. The exit status is 0 if it is stopped, 1 if it is still running, 77 if it
may not be signalled.

{daemons.OPTIONS_HELP}
  --timeout SECONDS how long to wait for it; default: Daemon.stop_timeout and {PATIENCE:g} s more,
                    or {TIMEOUT:g} s if no configuration is given
  --kill            kill it if it is still running after that"""


def main(argv: Sequence[str]) -> int:
    """Stop the daemon, and return the exit status."""
    if '-h' in argv or '--help' in argv:
        print(USAGE)
        return 0
    asked = daemons.parse(argv, command='stop', values=('--timeout',), flags=('--kill',))
    given = asked.values.get('--timeout')
    if given is not None:
        timeout = arguments.seconds(given, command='stop', option='--timeout')
    found = daemons.find(asked)
    if given is None:
        timeout = TIMEOUT if found.stop_timeout is None else found.stop_timeout + PATIENCE
    if found.state == 'unknown':
        raise Error(str(found))
    manner = ''
    if found.state == 'running':
        manner = _end(found, timeout, kill='--kill' in asked.flags)
    if found.state == 'died' or manner:
        _tidy(found.path)
    print(f'{found.label}: stopped{manner}')
    return 0


def _end(found: daemons.Found, timeout: float, *, kill: bool) -> str:
    """Stop a running daemon.

    :returns: how it ended, if not gracefully.
    :raises Error: it is still running.
    """
    try:
        with daemons.LockedDaemon(found) as daemon:
            daemon.signal(signal.SIGTERM)
            if daemon.wait(timeout):
                return ''
            if kill:
                daemon.signal(signal.SIGKILL)
                if daemon.wait(KILLED):
                    return f', killed after {timeout:g} s'
            raise Error(f'{found.label}: still runs after {timeout:g} s, pid {daemon.pid}')
    except ProcessLookupError:
        return ''
    except daemons.NotHeld:
        # It was killed, and its workers end by themselves.
        if daemons.wait_unlocked(found.path, found.pid, timeout):
            return ', killed before'
        raise


def _tidy(path: str) -> None:
    """Remove the pidfile that a killed daemon left, unless it is in use again."""
    pidfile = Pidfile(path)
    try:
        pidfile.acquire()
        pidfile.write()
    except PidfileError:
        pass
    finally:
        pidfile.release()
