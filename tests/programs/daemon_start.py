"""A daemon that starts as it is told to: daemon_start.py SCENARIO FACTS [options].

The daemon writes what it knows of itself to the file FACTS, as JSON, before it does anything
else; what the command tells its user goes to stderr.
"""

import argparse
import json
import os
import resource
import signal
import sys

from clihelper.errors import Error
from clihelper.process import daemonize
from clihelper.process.signals import HANDLED, Signals


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument('scenario')
    parser.add_argument('facts')
    parser.add_argument('--timeout', type=float, default=20)
    parser.add_argument('--umask', type=lambda text: int(text, 8), default=0o27)
    parser.add_argument('--directory', default='/')
    parser.add_argument('--opens', help='a file that the program opens before it detaches')
    parser.add_argument('--opens-early', help='a file that it opens before it mends its streams')
    parser.add_argument('--preserve', type=int, action='append', default=[])
    parser.add_argument('--no-descriptors', action='store_true')
    parser.add_argument('--huge-limit', action='store_true', help='of descriptors, apparently')
    parser.add_argument('--user', type=int, help='whose processes are limited to --processes')
    parser.add_argument('--processes', type=int)
    parser.add_argument('--late', action='store_true', help='take over the signals late')
    parser.add_argument('--at-exit', help='a file to write to at the end of the program')
    return parser.parse_args()


def write_facts(path, **facts):
    with open(f'{path}.new', 'w') as file:
        json.dump({'pid': os.getpid(), 'LISTEN_PID': os.environ.get('LISTEN_PID'), **facts}, file)
    os.rename(f'{path}.new', path)


def become(user, processes):
    """Be an ordinary user, who may not be able to read the interpreter's library any more."""
    import daemon.daemon  # noqa: F401

    resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def ready(readiness):
    readiness.ready()
    signal.pause()


def ready_with_child(readiness):
    if os.fork() == 0:
        signal.pause()
    ready(readiness)


def fails(readiness):
    readiness.failed(78, ['the first line', 'the second\nthe third'])


def warns(readiness):
    readiness.warn('this looks odd')
    readiness.warn('and so does this: \N{SNOWMAN} \udcff')
    ready(readiness)


def warns_a_lot(readiness):
    for number in range(10_000):
        readiness.warn(f'{number} this looks odd')
    ready(readiness)


def dies(readiness):
    os.kill(os.getpid(), signal.SIGKILL)


def dies_leaving_a_child(readiness):
    child = os.fork()
    if child == 0:
        signal.pause()
    readiness.warn(f'child {child}')
    dies(readiness)


def dumps_core(readiness):
    import ctypes  # it opens a file of libffi's, which is to get no stream's number

    daemonize.prevent_core()
    ctypes.string_at(0)


def hangs(readiness):
    readiness.warn('hanging')
    signal.pause()


def stops(readiness):
    signal.pthread_sigmask(signal.SIG_BLOCK, daemonize.PASSED_ON)
    readiness.warn('hanging')
    signum = signal.sigwait(daemonize.PASSED_ON)
    readiness.failed(75, [f'stopped by {signum.name}'])


def stops_at_once(readiness):
    signal.pthread_sigmask(signal.SIG_BLOCK, daemonize.PASSED_ON)
    readiness.warn('hanging')
    assert signal.sigwait(daemonize.PASSED_ON) == signal.SIGTERM
    readiness.warn('stopping')
    assert signal.sigwait(daemonize.PASSED_ON) == signal.SIGINT
    readiness.failed(130, [])


def ignores_term(readiness):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    readiness.warn('hanging')
    signal.pause()


def main():
    options = arguments()
    early = os.open(options.opens_early, os.O_WRONLY) if options.opens_early else None
    daemonize.mend_standard_streams()
    opened = os.open(options.opens, os.O_WRONLY) if options.opens else None
    signals = Signals()
    if not options.late:
        signals.install()
    if options.at_exit:
        import atexit

        atexit.register(os.close, os.open(options.at_exit, os.O_WRONLY | os.O_CREAT))
        atexit.register(os.unlink, options.at_exit)
    if options.no_descriptors:
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, free))
    if options.huge_limit:
        resource.getrlimit = lambda _: (2**20, 2**20)
    if options.user:
        become(options.user, options.processes)
    print('noise')
    print('noise', file=sys.stderr, flush=True)
    side = daemonize.detach(
        umask=options.umask, working_directory=options.directory, preserve=options.preserve
    )
    if isinstance(side, daemonize.Command):
        if options.late:
            print('detached', file=sys.stderr, flush=True)
            sys.stdin.readline()
            signals.install()
        side.leave(side.wait(options.timeout, signals, lambda line: print(line, file=sys.stderr)))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    write_facts(options.facts, opened=opened, early=early)
    print('noise', flush=True)
    print('noise', file=sys.stderr, flush=True)
    globals()[options.scenario](side)


if __name__ == '__main__':
    try:
        main()
    except Error as error:
        print(error, file=sys.stderr)
        sys.exit(error.status)
