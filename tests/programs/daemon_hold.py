"""Holds a pidfile: daemon_hold.py PATH [--user UID] [--becomes UID].

It acquires it when stdin has a line, says ``held`` or why not, and releases it when stdin ends.
"""

import argparse
import fcntl  # noqa: F401 - an ordinary user may not be able to read the library any more
import os
import sys

from clihelper.errors import Error
from clihelper.process.pidfile import Pidfile


def become(user):
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('path')
    parser.add_argument('--user', type=int, help='before it acquires')
    parser.add_argument('--becomes', type=int, help='before it writes')
    options = parser.parse_args()
    if options.user:
        become(options.user)
    pidfile = Pidfile(options.path)
    print('waiting', flush=True)
    sys.stdin.readline()
    pidfile.acquire()
    try:
        if options.becomes:
            become(options.becomes)
        pidfile.write()
        print('held', flush=True)
        sys.stdin.read()
    finally:
        pidfile.release()


if __name__ == '__main__':
    try:
        main()
    except Error as error:
        print(error, flush=True)
        sys.exit(error.status)
