"""Several worker processes of one controller, under the daemon's main process.

::

                         .--- fork ---> worker 1: Controller, loop
    supervisor (poll) ---+--- fork ---> worker 2: Controller, loop
       ^   ^             '--- fork ---> ...
       |   '--- a pipe from each worker: ready, status, failed
       '------- signals, the ends of workers, timers

The supervisor has no other threads, no connections and no loop of the user's; it waits in a
single poll(2). ``policy`` only decides; ``supervisor`` acts on the decisions; ``monitor`` checks
limits and heartbeats. ``worker`` is the supervisor's view of a process, ``child`` the process's
view of itself.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clihelper.config import Config


def is_needed(config: Config) -> bool:
    """Return whether a supervisor is needed: for several workers, or to replace a single one.

    The keys that make it replace a running worker are ``max_messages``, ``max_memory``,
    ``max_age`` and ``AMQP.handler_timeout``.
    """
    daemon = config.daemon
    limits = (daemon['max_messages'], daemon['max_memory'], daemon['max_age'])
    return daemon['workers'] > 1 or any(limits) or bool(config.amqp['handler_timeout'])
