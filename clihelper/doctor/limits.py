"""Descriptors: how many are in use, and whether as many as are needed may be opened."""

from __future__ import annotations

from clihelper.doctor.findings import fault, ok, warning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from clihelper.doctor.findings import Finding
    from clihelper.doctor.running import Running
    from clihelper.doctor.unit import Unit

MANY = 0.8
"""the part of the limit from which a warning is given"""

LEFT = 8
"""descriptors: with fewer left, a reload or a new connection fails"""

BASE = 48
"""descriptors of a process besides: standard streams, pipes, log files, broker, libraries"""

PER_WORKER = 4
"""descriptors of a supervisor for each worker: a pipe, and as much for its successor"""

REMEDY = 'raise LimitNOFILE= in the unit, or ulimit -n'


def check_use(running: Running) -> Iterator[Finding]:
    """Whether the daemon and its workers have descriptors left."""
    for process in (running, *running.children):
        used, most = process.descriptors, process.most_descriptors
        if used is None or most is None:
            if process is running:
                yield ok('descriptors', f'process {process.pid}', 'its descriptors are not shown'
                         ' to this user')
            continue
        yield judge(f'process {process.pid}', used, most)


def judge(where: str, used: int, most: int) -> Finding:
    """What the use of descriptors means.

    :param used: how many are open.
    :param most: how many may be open.
    """
    said = f'{used} of {most} descriptors are open'
    if most - used < LEFT:
        return fault('descriptors', where, said, f'{REMEDY}; see /proc/PID/fd for what they are')
    if used > MANY * most:
        return warning('descriptors', where, said, f'{REMEDY}; see /proc/PID/fd for what they are')
    return ok('descriptors', where, said)


def check_need(config: Mapping[str, Any], most: int) -> Iterator[Finding]:
    """Whether a daemon that is to be started may open as many as its configuration implies.

    :param config: the whole configuration.
    :param most: how many it may open.
    """
    needed = needed_by(config)
    workers = config['Daemon']['workers']
    if most < needed:
        yield fault('descriptors', f'Daemon.workers {workers}', f'needs about {needed}'
                    f' descriptors, and {most} may be open', REMEDY)
    else:
        yield ok('descriptors', f'Daemon.workers {workers}', f'{most} descriptors may be open,'
                 f' about {needed} are needed')


def needed_by(config: Mapping[str, Any]) -> int:
    """About how many descriptors the process that needs most of them opens."""
    daemon = config['Daemon']
    workers: int = daemon['workers']
    threads: int = config['AMQP']['threads']
    supervisor = PER_WORKER * workers if workers > 1 else 0
    return BASE + supervisor + len(daemon['listen'] or ()) + threads


def limit_at_start(unit: Unit | None) -> int:
    """How many descriptors a daemon may open that is started now.

    systemd's default soft limit is 1024, see systemd.exec(5); otherwise it is this process's.
    """
    import resource

    from clihelper.doctor.unit import most_descriptors

    if unit is not None:
        return most_descriptors(unit) or 1024
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return soft if soft != resource.RLIM_INFINITY else 2**31
