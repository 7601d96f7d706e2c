"""Bodies in ``gzip`` and ``deflate``, the encodings of :rfc:`9110`, section 8.4.1."""

from __future__ import annotations

import sys

GZIP = 'gzip'

_NAMES = {'gzip': GZIP, 'x-gzip': GZIP, 'deflate': 'deflate'}

_GZIP_FORMAT, _ZLIB_FORMAT, _RAW_FORMAT = 31, 15, -15
"""What zlib calls ``wbits``."""

LEVEL = 6
"""how hard is tried: zlib's default"""


class TooLarge(ValueError):
    """There is more than should be decompressed."""


def compress(data: bytes) -> bytes:
    """The data in gzip's format; the same data is the same bytes at any time."""
    import zlib

    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP_FORMAT)
    return compressor.compress(data) + compressor.flush()


def compression(content_encoding: str | None) -> str | None:
    """``gzip`` or ``deflate`` if that is what the property says; otherwise it is a character set.

    >>> compression('GZIP'), compression('utf-8')
    ('gzip', None)
    """
    return _NAMES.get(content_encoding.strip().lower()) if content_encoding else None


def decompress(data: bytes, encoding: str, most: int) -> bytes:
    """Undo a compression.

    :param encoding: ``gzip`` or ``deflate``.
    :param most: the most bytes of the result; a little more than that is held at any time.
    :raises TooLarge: there are more.
    :raises ValueError: it is not in that format, or not complete.
    """
    import zlib

    parts: list[bytes] = []
    try:
        while True:
            decompressor = zlib.decompressobj(_format(data, encoding))
            # 0 stands for no limit; one byte more shows that there is more.
            parts.append(decompressor.decompress(data, min(most + 1, sys.maxsize)))
            most -= len(parts[-1])
            if most < 0:
                raise TooLarge
            if not decompressor.eof:
                raise ValueError(f'{encoding} data that is cut short')
            data = decompressor.unused_data
            if not data:
                return b''.join(parts) if len(parts) > 1 else parts[0]
            if encoding != GZIP:
                raise ValueError(f'{encoding} data with something behind it')
            # Files of gzip's may be one behind the other (RFC 1952, section 2.2).
    except zlib.error:
        raise ValueError(f'invalid {encoding} data') from None
    finally:
        parts.clear()  # the traceback of an error would keep them


def _format(data: bytes, encoding: str) -> int:
    if encoding == GZIP:
        return _GZIP_FORMAT
    # Some programs leave out zlib's header. Its first two bytes are a multiple of 31.
    has_header = data[:1] and data[0] & 0x0F == 8 and int.from_bytes(data[:2], 'big') % 31 == 0
    return _ZLIB_FORMAT if has_header else _RAW_FORMAT
