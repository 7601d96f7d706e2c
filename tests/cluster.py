"""RabbitMQ nodes on one host that are a cluster, for tests and for figures among faults.

They share a port mapper and a cookie; all else of each is its own, as of any
:class:`~tests.broker.Broker`. ``python -m tests.cluster`` runs three until Ctrl-C.
"""

from __future__ import annotations

import json
import secrets
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.broker import Broker, _free_ports

FORMATION = {
    'cluster_formation.peer_discovery_backend': 'classic_config',
    # The first node asks the others this often before it makes a cluster that they join.
    'cluster_formation.discovery_retry_interval': 50,
}

START_TIMEOUT = 120
"""seconds for the nodes to start, which together take longer than one does"""

QUORUM = {'x-queue-type': 'quorum', 'x-quorum-initial-group-size': 3}
"""arguments of a queue that has a member on each of three nodes"""


class Cluster:
    """A cluster of private nodes; a context manager that starts and removes it.

    Starting three nodes takes about 10 s with two cores.

    :param size: how many nodes.
    :param config: lines of rabbitmq.conf for each node.
    :param options: further arguments of each :class:`~tests.broker.Broker`.
    :ivar nodes: the nodes; each can be stopped, killed and started again.
    """

    def __init__(self, size: int = 3, config: str = '', **options: Any) -> None:
        [epmd_port] = _free_ports(1)
        shared = {'epmd_port': epmd_port, 'cookie': secrets.token_hex(10)}
        self.nodes = [Broker(schedulers=1, **shared, **options) for _ in range(size)]
        for node in self.nodes:
            node.configure('\n'.join([*self._formation(), config]))

    def __enter__(self) -> Cluster:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def start(self) -> None:
        """Start all nodes at the same time, and return when each accepts connections."""
        self._each(lambda node: node.start(START_TIMEOUT))

    def close(self) -> None:
        """Stop all nodes, and remove what they have stored."""
        try:
            self._each(Broker.kill)
        finally:
            for node in self.nodes:
                node.close()

    def ctl(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` on the first node that runs; see :meth:`Broker.ctl`."""
        running = next(node for node in self.nodes if node.process is not None)
        return running.ctl(*arguments)

    def leader_of(self, queue: str) -> Broker | None:
        """The node of a quorum queue's leader; None while there is no leader."""
        listed = self.ctl('list_queues', 'name', 'leader', '--formatter', 'json')
        leaders = {each['name']: each['leader'] for each in json.loads(listed)}
        return next((node for node in self.nodes if node.name == leaders[queue]), None)

    def _formation(self) -> list[str]:
        """What rabbitmq.conf says about the other nodes."""
        lines = [f'{key} = {value}' for key, value in FORMATION.items()]
        for number, node in enumerate(self.nodes, 1):
            lines.append(f'cluster_formation.classic_config.nodes.{number} = {node.name}')
        return lines

    def _each(self, do: Callable[[Broker], None]) -> None:
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(do, self.nodes))


def main() -> None:
    with Cluster() as cluster:
        for node in cluster.nodes:
            print(node.url())
        print('(Ctrl-C ends it)', flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print()


if __name__ == '__main__':
    main()
