"""``clihelper doctor``: what would keep a daemon from running, or lose messages."""

from __future__ import annotations

import os
import sys

from clihelper.commands import daemons
from clihelper.errors import Error
from clihelper.process.pidfile import is_held_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from clihelper.commands.arguments import Arguments
    from clihelper.doctor.findings import Finding

USAGE = f"""\
usage: clihelper doctor [--json] NAME | --pidfile FILE | -c FILE [NAME]
       clihelper doctor [--json] --pidfile FILE -c FILE

Check what would keep a daemon from running, or lose messages: configuration, user, folders,
pidfile, log, systemd unit, descriptors, clock, and each broker with its queues. Nothing is
changed. Each line has a level (ok, warning or fault), where, what was found, and what to do. The
exit status is 0 if there is no fault, 1 if there is one, 2 if the configuration is not found.

{daemons.OPTIONS_HELP}
                    Without -c, the configuration is the one that the process or its systemd unit
                    was started with, or /etc/NAME.yml
  --json            print a list of objects: check, level, where, text, remedy

Example:
  $ clihelper doctor -c /etc/orders.yml
  ok       /etc/orders.yml: is valid
  fault    AMQP.url amqp://guest:**@mq1:5672//: name mq1 is not known: see /etc/hosts or DNS"""


def main(argv: Sequence[str]) -> int:
    """Check the daemon, and return 1 if a finding is a fault, otherwise 0."""
    if '-h' in argv or '--help' in argv:
        print(USAGE)
        return 0
    words = daemons.parse(argv, command='doctor', flags=('--json',), pidfile_and_config=True)
    findings = _examine(words)
    if '--json' in words.flags:
        import json

        found = list(findings)
        print(json.dumps([finding.as_dict() for finding in found], indent=1))
    else:
        found = _print_all(findings)
    return int(any(finding.level == 'fault' for finding in found))


def _print_all(findings: Iterable[Finding]) -> list[Finding]:
    """Print each finding as soon as it is there: a broker may take seconds."""
    found = []
    for finding in findings:
        print(finding, flush=True)
        found.append(finding)
    sys.stdout.flush()
    return found


def _examine(words: Arguments) -> Iterable[Finding]:
    from clihelper.doctor.examination import examine
    from clihelper.doctor.subject import Subject

    name, shown = ''.join(words.names), words.values.get('config')
    if not name and 'pidfile' not in words.values and shown is not None:
        # Where the name matters, the program's is most often that of its configuration.
        words.names = [os.path.splitext(os.path.basename(shown))[0]]
    try:
        found = daemons.find(words)
    except Error:
        if shown is None:
            raise
        found = None  # it is told with all other faults of the configuration
    state, pid, pidfile = 'stopped', None, words.values.get('pidfile')
    if found is not None and found.state != 'stopped':
        state, pid, pidfile = found.state, found.pid, found.path
    # Otherwise the number is another's: it was reused, or somebody has written it there.
    holds = state == 'running' and pid is not None and is_held_by(str(pidfile), pid)
    running = pid if holds else None
    return examine(Subject(name, pidfile, running, shown), state, pid)
