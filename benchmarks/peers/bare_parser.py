"""asyncio and nothing else: a protocol that parses frames itself, with a task for each message.

It has what no consumer can do without: bodies decoded by their type, handlers that may fail,
heartbeats, and acknowledgements of messages that end in any order. py-amqp only connects.
"""

import asyncio
import json
import struct
import traceback

import amqp
from stream import HEARTBEAT, PORT, PREFETCH, QUEUE, SLEEP, handled, seconds

METHOD, HEADER, BODY = 1, 2, 3
DELIVER = b'\0\x3c\0\x3c'
ACK, REJECT = 80, 90
HEARTBEAT_FRAME = b'\x08\0\0\0\0\0\0\xce'

frame_start = struct.Struct('>BHI').unpack_from
long = struct.Struct('>Q').unpack_from
settlement = struct.Struct('>BHIHHQ?B').pack


async def on_message(body):
    if SLEEP:
        await asyncio.sleep(seconds())
    handled()


class Consumer(asyncio.Protocol):
    def __init__(self, channel):
        self.channel = channel
        self.loop = asyncio.get_running_loop()
        self.rest = b''
        self.tag, self.kind, self.missing, self.parts = 0, b'', 0, []
        self.tasks = set()
        self.unsettled = {}  # in the order of their delivery
        self.settled = []
        self.last = 0

    def connection_made(self, transport):
        self.transport = transport
        self.beat()

    def connection_lost(self, error):
        self.loop.stop()

    def beat(self):
        self.transport.write(HEARTBEAT_FRAME)
        self.loop.call_later(HEARTBEAT / 2, self.beat)

    def data_received(self, data):
        if self.rest:
            data = self.rest + data
        position, length = 0, len(data)
        while length - position >= 8:
            kind, _, size = frame_start(data, position)
            begin = position + 7
            end = begin + size
            if end >= length:
                break
            if kind == BODY:
                self.add(data[begin:end])
            elif kind == HEADER:
                self.begin(data, begin)
            elif kind == METHOD:
                if data[begin:begin + 4] != DELIVER:
                    raise ValueError(f'method {data[begin:begin + 4]}')
                self.tag, = long(data, begin + 5 + data[begin + 4])
            position = end + 1
        self.rest = data[position:]

    def begin(self, data, begin):
        self.missing, = long(data, begin + 4)
        self.kind = b''
        if data[begin + 12] & 0x80:  # content_type is the first property
            start = begin + 15
            self.kind = data[start:start + data[start - 1]]
        if not self.missing:
            self.start(b'')

    def add(self, part):
        self.missing -= len(part)
        if self.missing:
            self.parts.append(part)
        elif self.parts:
            body = b''.join([*self.parts, part])
            self.parts.clear()
            self.start(body)
        else:
            self.start(part)

    def start(self, body):
        self.unsettled[self.tag] = None
        self.last = self.tag
        task = self.loop.create_task(self.handle(self.tag, self.kind, body))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def handle(self, tag, kind, body):
        try:
            if kind == b'application/json':
                body = json.loads(body)
            elif kind.startswith(b'text/'):
                body = body.decode()
            await on_message(body)
        except Exception:
            traceback.print_exc()
            del self.unsettled[tag]
            self.transport.write(settlement(METHOD, self.channel, 13, 60, REJECT, tag, False, 206))
            return
        del self.unsettled[tag]
        if not self.settled:
            self.loop.call_soon(self.acknowledge)
        self.settled.append(tag)

    def acknowledge(self):
        """Acknowledge all before the first unsettled one by one frame, the others by one each."""
        lowest = next(iter(self.unsettled), self.last + 1)
        together = [tag for tag in self.settled if tag < lowest]
        alone = [tag for tag in self.settled if tag > lowest]
        self.settled.clear()
        frames = [settlement(METHOD, self.channel, 13, 60, ACK, tag, False, 206) for tag in alone]
        if together:
            frames.append(
                settlement(METHOD, self.channel, 13, 60, ACK, max(together), True, 206))
        self.transport.write(b''.join(frames))


async def main():
    connection = amqp.Connection(f'127.0.0.1:{PORT}', heartbeat=HEARTBEAT)
    connection.connect()
    channel = connection.channel()
    channel.queue_declare(QUEUE, durable=True, auto_delete=False)
    channel.basic_qos(0, PREFETCH, False)
    channel.basic_consume(QUEUE, nowait=True, consumer_tag='bare')
    sock = connection.transport.sock.dup()
    sock.setblocking(False)
    await asyncio.get_running_loop().create_connection(
        lambda: Consumer(channel.channel_id), sock=sock)
    await asyncio.Future()


asyncio.run(main())
