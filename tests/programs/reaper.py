"""Runs a command and waits for whatever it leaves behind: reaper.py COMMAND...

It is the subreaper of the daemons that the command starts (PR_SET_CHILD_SUBREAPER, prctl(2)), so
that it learns their exit statuses. It says ``command STATUS`` and, of each other process,
``PID STATUS``; -n is for signal n.
"""

import ctypes
import os
import subprocess
import sys

PR_SET_CHILD_SUBREAPER = 36


def main():
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    command = subprocess.Popen(sys.argv[1:])
    print('started', command.pid, flush=True)
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            return
        who = 'command' if pid == command.pid else pid
        print(who, os.waitstatus_to_exitcode(status), flush=True)


if __name__ == '__main__':
    main()
