"""Several processes of one controller, under one that is the daemon's main process.

::

                         .--- fork ---> worker 1: Controller, loop
    supervisor (poll) ---+--- fork ---> worker 2: Controller, loop
       ^   ^             '--- fork ---> ...
       |   '--- a pipe from each worker: ready, status, failed
       '------- signals, the ends of workers, what is due

The supervisor has no thread, no connection and no loop of the user's; it waits in one poll(2).
``policy`` decides and does nothing; ``supervisor`` does what is decided; ``monitor`` checks limits
and heartbeats. ``worker`` is one process as the supervisor sees it, ``child`` the same process as
it sees itself.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from clihelper.config import Config


def is_needed(config: Config) -> bool:
    """Whether there is to be a supervisor: for more than one worker, or to replace a single one.

    The keys that replace a worker which lives are ``max_messages``, ``max_memory``, ``max_age``
    and ``AMQP.handler_timeout``.
    """
    daemon = config.daemon
    limits = (daemon['max_messages'], daemon['max_memory'], daemon['max_age'])
    return daemon['workers'] > 1 or any(limits) or bool(config.amqp['handler_timeout'])
