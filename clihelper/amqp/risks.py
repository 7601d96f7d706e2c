"""The ways in which a queue can lose messages, as far as its declaration shows."""

from __future__ import annotations

from clihelper.amqp.declarer import TYPE
from clihelper.amqp.settlement import DELIVERY_LIMIT, renewal_threshold
from clihelper.amqp.topology import NOT_KEPT, QUORUM, STREAM, STREAM_OFFSET
from clihelper.errors import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from clihelper.amqp.entities import Options
    from clihelper.amqp.topology import Topology

DLX, DLX_KEY = 'x-dead-letter-exchange', 'x-dead-letter-routing-key'


class Risk:
    """A way in which a queue can lose messages.

    :ivar text: a description, and what to do about it.
    :ivar keys: the option of the queue that causes it; empty if a missing option does.
    :ivar chosen: whether the option is there for this effect, so that its author knows about it.
    """

    __slots__ = ('chosen', 'keys', 'text')

    def __init__(self, text: str, *keys: str, chosen: bool = True) -> None:
        self.text = text
        self.keys = keys
        self.chosen = chosen


def warnings(topology: Topology) -> list[str]:
    """Log lines at start-up about what can lose messages without having been chosen for that.

    The broker is not asked, so the arguments of policies are not known.
    """
    lines = [
        f'{topology.entities.positions[label]}: {risk.text}'
        for label, options in topology.entities.queues.items()
        for risk in risks_of(options, topology.is_own(label))
        if not risk.chosen
    ]
    return list(dict.fromkeys(lines))  # that of all partitions of a queue is one


def risks_of(options: Options, own: bool) -> Iterator[Risk]:
    """The risks of one queue.

    :param options: as in ``AMQP.queues``.
    :param own: whether it belongs to the connection, and is deleted with it.
    """
    arguments = options['arguments']
    if arguments.get(TYPE) == STREAM:
        yield from _of_stream(options)
        return
    yield from _of_limit(arguments)
    yield from _of_length(arguments, own)
    if 'x-message-ttl' in arguments and DLX not in arguments:
        yield Risk(
            f'x-message-ttl is {arguments["x-message-ttl"]}: messages that wait longer are'
            f' dropped; {DLX} would keep them',
            'arguments', 'x-message-ttl',
        )  # fmt: skip
    if not own:
        yield from _of_deletion(options)


def _of_stream(options: Options) -> Iterator[Risk]:
    if options.get('consume', True) and STREAM_OFFSET not in options['consumer_arguments']:
        yield Risk(
            'what is published while the program does not run is not read;'
            f' {STREAM_OFFSET} in consumer_arguments says where reading begins'
        )


def _of_limit(arguments: Options) -> Iterator[Risk]:
    limit = arguments.get('x-delivery-limit')
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit < DELIVERY_LIMIT:
        return
    lost = 'dead-letters' if DLX in arguments else 'drops'
    if limit == 0:
        text = f'x-delivery-limit is 0: the queue {lost} all that is prefetched at each stop'
    else:
        text = (
            f'x-delivery-limit is {limit}: messages are published anew after'
            f' {counted(renewal_threshold(limit), "return")}, and the queue {lost} one that is'
            f' returned {limit + 1} times, by stops and lost connections, before its turn'
        )
    yield Risk(
        f'{text}; set {DELIVERY_LIMIT} or more', 'arguments', 'x-delivery-limit', chosen=False
    )


def _of_length(arguments: Options, own: bool) -> Iterator[Risk]:
    limits = [name for name in ('x-max-length', 'x-max-length-bytes') if name in arguments]
    if not limits:
        return
    overflow = arguments.get('x-overflow', 'drop-head')
    if overflow != 'drop-head':
        if own:
            yield Risk(
                f'x-overflow is {overflow}: {NOT_KEPT}', 'arguments', 'x-overflow', chosen=False
            )
        elif arguments.get(TYPE) != QUORUM and DLX not in arguments:
            yield Risk(
                f'x-overflow is {overflow}: a classic queue that has more messages than it takes'
                ' when the broker starts, as some were not acknowledged, drops the oldest;'
                f' x-queue-type: quorum, or {DLX}, would keep them',
                'arguments', 'x-overflow', chosen=False,
            )  # fmt: skip
    elif DLX not in arguments:
        yield Risk(
            f'{limits[0]} is {arguments[limits[0]]}: the oldest messages are dropped when the'
            f' queue is full; x-overflow: reject-publish, or {DLX}, would keep them',
            'arguments', limits[0],
        )  # fmt: skip


def _of_deletion(options: Options) -> Iterator[Risk]:
    expires = options['arguments'].get('x-expires')
    if expires is not None:
        yield Risk(
            f'x-expires is {expires}: the queue is deleted, with all that is in it, when it has'
            ' not been used for so long',
            'arguments', 'x-expires',
        )  # fmt: skip
    if options['auto_delete']:
        yield Risk(
            'auto_delete is true: the queue is deleted, with all that is in it, at each stop',
            'auto_delete',
        )
    elif not options['durable']:
        yield Risk(
            'durable is false: a restart of the broker loses all that is in the queue', 'durable'
        )
