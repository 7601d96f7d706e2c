"""Several processes of one controller, under one that is the daemon's main process.

::

                         .--- fork ---> worker 1: Controller, loop
    supervisor (poll) ---+--- fork ---> worker 2: Controller, loop
       ^   ^             '--- fork ---> ...
       |   '--- a pipe from each worker: ready, status, failed
       '------- signals, the ends of workers, what is due

The supervisor has no thread, no connection and no loop of the user's; it waits in one poll(2).
What each module is about: ``policy`` decides and does nothing, ``worker`` is one process as the
supervisor sees it, ``seat`` is that process as it sees itself, ``watch`` looks after limits and
signs of life, ``supervising`` does what is decided, ``init`` is process 1 of a container.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from clihelper.config import Config
    from clihelper.supervisor.child import WorkerChannel as WorkerChannel
    from clihelper.supervisor.supervisor import Supervisor as Supervisor


def is_needed(config: Config) -> bool:
    """Whether there is to be a supervisor: for more than one worker, or to replace a single one.

    The keys that replace a worker which lives are ``max_messages``, ``max_memory``, ``max_age``
    and ``AMQP.handler_timeout``.
    """
    daemon = config.daemon
    limits = (daemon['max_messages'], daemon['max_memory'], daemon['max_age'])
    return daemon['workers'] > 1 or any(limits) or bool(config.amqp['handler_timeout'])


def __getattr__(name: str) -> Any:
    """Import the supervisor when there is to be one (:pep:`562`)."""
    homes = {'Supervisor': 'supervising', 'Seat': 'seat'}
    if name not in homes:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    import importlib

    return getattr(importlib.import_module(f'{__name__}.{homes[name]}'), name)
