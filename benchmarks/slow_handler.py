"""A handler that works for 1 ms: how many messages a second, and how late each acknowledgement.

A proxy before the broker sees the acknowledgements. The handler keeps a CPU busy, because a sleep
of 1 ms takes longer than that.
"""

from __future__ import annotations

import struct
import time

from benchmarks.programs import PATIENCE, Workshop
from benchmarks.stream import HUNDRED, Streams
from benchmarks.tables import Table, percentile
from tests.proxy import Proxy

WORK = 0.001
MESSAGES, ROUNDS = 3000, 3
RATE, LATEST = 0.97, 60.0

_ack = struct.Struct('>BHIHHQ?B')  # a whole frame: AMQP 0-9-1, sections 1.8.3.13 and 2.3.5
FRAME, METHOD = struct.Struct('>BHI'), 1
BASIC_ACK = (60, 80)


class Acknowledgements:
    """What a proxy sees of them.

    :ivar list times: when each message was acknowledged, in the order of their delivery tags.
    """

    def __init__(self) -> None:
        self.times: list[float] = []
        self._rest = b''

    def see(self, data: bytes) -> None:
        """What a consumer has sent; it begins with a protocol header, no frame."""
        now = time.monotonic()
        data = self._rest + data
        if data.startswith(b'AMQP'):
            data = data[8:]
        while len(data) >= FRAME.size:
            end = FRAME.size + FRAME.unpack_from(data)[2] + 1
            if len(data) < end:
                break
            if end == _ack.size:
                self._look_at(data, now)
            data = data[end:]
        self._rest = data

    def _look_at(self, frame: bytes, now: float) -> None:
        kind, _, _, *method, tag, multiple, _ = _ack.unpack_from(frame)
        if kind == METHOD and tuple(method) == BASIC_ACK:
            assert multiple or tag == len(self.times) + 1
            self.times += [now] * (tag - len(self.times))


def measure(workshop: Workshop, quick: bool) -> Table:
    """Handle them, with clihelper and with the peers that acknowledge each message by itself."""
    messages = 1000 if quick else MESSAGES
    streams = Streams(workshop)
    rounds = 1 if quick else ROUNDS
    table = Table(f'A handler of {WORK * 1000:.0f} ms, {messages} messages; best of {rounds} runs',
                  ['messages/s', 'ack p50', 'ack p99', 'ack max'])
    for name in ('clihelper', 'kombu Consumer', 'pika'):
        # What else the machine does can only add to it.
        rate, late = max(_run(workshop, streams, name, messages) for _ in range(rounds))
        table.row(name, rate, percentile(late, 50), percentile(late, 99), max(late))
        if name == 'clihelper':
            table.bar(f'1,000 messages/s over clihelper: 1/{RATE}', 1 / WORK / rate, 1 / RATE)
            table.bar("clihelper, ms from a handler's end to its acknowledgement, max",
                      max(late), LATEST)
    return table


def _run(workshop: Workshop, streams: Streams, name: str,
         messages: int) -> tuple[float, list[float]]:
    """Messages a second, and how many ms after its end each was acknowledged."""
    queue = streams.queue()
    streams.fill(queue, messages, *HUNDRED)
    acknowledgements = Acknowledgements()
    with Proxy(workshop.broker.port) as proxy:
        proxy.see = acknowledgements.see
        with streams.run(name, queue, proxy.url, spin=WORK) as program:
            _wait(acknowledgements, messages)
            begun = program.events()
    streams.delete(queue)
    late = [(acknowledged - begin - WORK) * 1000
            for begin, acknowledged in zip(begun, acknowledgements.times, strict=False)]
    return (messages - 1) / (begun[-1] - begun[0]), late


def _wait(acknowledgements: Acknowledgements, messages: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(acknowledgements.times) < messages:
        if time.monotonic() > deadline:
            raise RuntimeError(f'{len(acknowledgements.times)} of {messages} acknowledged')
        time.sleep(0.01)
