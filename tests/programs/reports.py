"""How the programs here tell a test where they are, and wait for it there.

The two named pipes are found in the environment, and opened by the program itself, so that a
daemon keeps them.
"""

import os

_reports = os.open(os.environ['REPORTS'], os.O_RDWR | os.O_CLOEXEC)
_gate = os.open(os.environ['GATE'], os.O_RDWR | os.O_CLOEXEC)
_held = set(os.environ['HELD_AT'].split())


def report(*words):
    """Write a line: the number of the process, and the words."""
    line = ' '.join(map(str, (os.getpid(), *words)))
    os.write(_reports, f'{line}\n'.encode())


def at(phase):
    """Report the phase; wait there until the test opens the gate, if that is what it wants."""
    report(phase)
    if phase in _held:
        _held.remove(phase)
        os.read(_gate, 1)
