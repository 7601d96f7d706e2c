"""Compressed bodies: undone on arrival, up to AMQP.max_body, and made for publishing."""

from __future__ import annotations

import gzip
import resource
import zlib
from typing import Any

import pytest

import clihelper
from clihelper import testing
from clihelper.amqp.compression import TooLarge, compress, decompress
from clihelper.amqp.settlement import Oversize

MIB = 1024 * 1024
CONFIG = {'AMQP': {'queues': {'jobs': {}}, 'max_body': MIB}}


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


class Keeper(clihelper.ConsumerController):
    def on_message(self, body: Any, message: Any) -> Any:
        self.body = body
        return body


@pytest.mark.parametrize(
    ('encoding', 'pack'),
    [('gzip', gzip.compress), ('GZip ', gzip.compress), ('x-gzip', gzip.compress),
     ('deflate', zlib.compress), ('deflate', raw_deflate)],
)  # fmt: skip
def test_a_handler_gets_what_was_compressed(encoding: str, pack: Any) -> None:
    with testing.Harness(Keeper, CONFIG) as harness:
        for body, kind, expected in (
            (b'{"a": "\xc3\xa9"}', 'application/json', {'a': 'é'}),
            ('é'.encode(), 'text/plain', 'é'),
            ('é'.encode('latin-1'), 'text/plain; charset=latin-1', 'é'),
            (b'\x00\xff' * 100_000, None, b'\x00\xff' * 100_000),
            (b'', 'application/octet-stream', b''),
        ):
            result = harness.deliver(pack(body), content_type=kind, content_encoding=encoding)
            assert result.outcome.name == 'ACK'
            assert harness.controller.body == expected
            assert result.message.raw == pack(body)


def test_content_encoding_may_still_be_a_character_set() -> None:
    with testing.Harness(Keeper, CONFIG) as harness:
        harness.deliver(b'\xe9', content_type='text/plain', content_encoding='latin-1')
        assert harness.controller.body == 'é'
        harness.deliver(b'[1]', content_type='application/json', content_encoding='utf-8')
        assert harness.controller.body == [1]


@pytest.mark.parametrize(
    ('data', 'encoding'),
    [(b'{}', 'gzip'), (b'', 'gzip'), (b'', 'deflate'), (zlib.compress(b'{}'), 'gzip'),
     (zlib.compress(b'{}') + b'x', 'deflate'),
     # Each process of the tests has to give them the same names.
     (gzip.compress(b'{}', mtime=0)[:-1], 'gzip'), (gzip.compress(b'{}', mtime=0) + b'x', 'gzip')],
)  # fmt: skip
def test_what_is_not_compressed_as_it_says_is_undecodable(data: bytes, encoding: str) -> None:
    with testing.Harness(Keeper, CONFIG) as harness:
        result = harness.deliver(data, content_type='application/json', content_encoding=encoding)
        assert result.reason == 'undecodable'
        dead = result.dead_letter
        assert dead is not None
        assert (dead.raw, dead.properties['content_encoding']) == (data, encoding)


def test_files_of_gzip_one_behind_the_other_are_one() -> None:
    assert decompress(gzip.compress(b'a') + gzip.compress(b'b'), 'gzip', 2) == b'ab'
    with pytest.raises(TooLarge):
        decompress(gzip.compress(b'a') + gzip.compress(b'b'), 'gzip', 1)


@pytest.mark.parametrize('size', [MIB, MIB + 1])
def test_the_limit_is_that_of_the_decompressed_body(size: int) -> None:
    with testing.Harness(Keeper, CONFIG) as harness:
        result = harness.deliver(gzip.compress(b'0' * size), content_encoding='gzip')
        assert result.reason == (None if size == MIB else 'oversize')


@pytest.mark.parametrize('encoding', ['gzip', 'deflate'])
def test_a_bomb_is_oversize_and_takes_no_memory(encoding: str) -> None:
    compressor = zlib.compressobj(9, wbits=31 if encoding == 'gzip' else 15)
    bomb = b''.join(compressor.compress(bytes(MIB)) for _ in range(512)) + compressor.flush()
    with testing.Harness(Keeper, CONFIG) as harness:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result = harness.deliver(bomb, content_encoding=encoding)
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert result.reason == 'oversize'
        assert more < 32 * 1024  # KiB


def test_what_a_program_publishes_compressed_is_read_by_the_next() -> None:
    class Packer(clihelper.Controller):
        def _process(self) -> None:
            self.publish({'a': 'x' * 1000}, routing_key='jobs', compress=True)

    with testing.Harness(Packer) as harness:
        harness.tick()
        (message,) = harness.published
    assert message.properties['content_encoding'] == 'gzip'
    assert message.properties['content_type'] == 'application/json'
    assert len(message.raw) < 100
    assert gzip.decompress(message.raw) == b'{"a":"%s"}' % (b'x' * 1000)
    assert message.body == {'a': 'x' * 1000}


def test_the_same_body_is_compressed_to_the_same_bytes() -> None:
    assert compress(b'x') == compress(b'x')


def test_a_message_that_is_got_is_bounded_too(broker: Any, queue_name: str) -> None:
    from contextlib import nullcontext

    from clihelper.amqp.client import Client
    from clihelper.amqp.connection import Connection

    def connect() -> Connection:
        return Connection([broker.url()], 0, 'test', max_body=MIB)

    client = Client(connect(), nullcontext, connect)
    try:
        with client.using():
            client.lend()
        client._connection.channel().queue_declare(queue_name, durable=True, auto_delete=False)
        for size in (MIB, MIB + 1):
            client.publish(bytes(size), '', queue_name, {}, compress=True)
        fits, bomb = client.get(queue_name), client.get(queue_name)
        assert fits is not None
        assert fits.body == bytes(MIB)
        assert bomb is not None
        with pytest.raises(Oversize):
            _ = bomb.body
    finally:
        client.close()


