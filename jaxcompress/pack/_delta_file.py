# SPDX-License-Identifier: Apache-2.0
"""The file of a delta: which file it updates, to which, and how.

jcdelta1                        8 bytes
SHA-256 of the old file         32 bytes
SHA-256 of the new file         32 bytes
size of the new file            varint
head of the new file            deflated, with the old one as dictionary
payloads of the new file        see `_delta_payloads`
CRC-32 of all of that           4 bytes
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ._payload import Bytes, CorruptPayload, Reader, Unsupported, varint

MAGIC = b"jcdelta1"
_FOOT = 4
_CHUNK = 1 << 20
# The window of deflate has 32 KiB: a piece is coded with the old bytes around its place.
_PIECE, _BEFORE, _AFTER = 16 << 10, 8 << 10, 24 << 10

Progress = Callable[[int], object]


class Delta(NamedTuple):
    """What a delta is for: the result of ``read_delta``.

    Attributes:
      old_sha256: of the file that it updates, in hexadecimal digits.
      new_sha256: of the file that it makes.
      new_bytes: size of the file that it makes.
    """

    old_sha256: str
    new_sha256: str
    new_bytes: int


def head(delta: Delta) -> bytes:
    """Return the first bytes of the file."""
    hashes = bytes.fromhex(delta.old_sha256 + delta.new_sha256)
    return MAGIC + hashes + varint(delta.new_bytes)


def with_checksum(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the chunks, and then their checksum."""
    crc = 0
    for chunk in chunks:
        crc = zlib.crc32(chunk, crc)
        yield chunk
    yield crc.to_bytes(_FOOT, "little")


def is_delta(path: str | os.PathLike[str]) -> bool:
    """Return whether a file starts like a delta of ``diff``.

    Args:
      path: path of the file.

    Raises:
      OSError: if it cannot be read.
    """
    with open(path, "rb") as file:
        return file.read(7) == MAGIC[:7]


def read_head(data: memoryview) -> tuple[Delta, Reader]:
    """Check a delta, and return what it is for and the rest of it.

    Raises:
      CorruptPayload: if it is damaged, or no delta.
      Unsupported: if it is one of a newer version.
    """
    if data[:7] != MAGIC[:7]:
        raise CorruptPayload(
            "it does not start like the result of jaxcompress.pack.diff"
        )
    if data[:8] != MAGIC:
        raise Unsupported("a newer jaxcompress made it")
    crc, body = 0, data[:-_FOOT]
    for at in range(0, len(body), _CHUNK):
        crc = zlib.crc32(body[at : at + _CHUNK], crc)
    if crc != int.from_bytes(data[-_FOOT:], "little"):
        raise CorruptPayload("the checksum is wrong")
    reader = Reader(body[len(MAGIC) :])
    old, new = reader.take(32).hex(), reader.take(32).hex()
    return Delta(old, new, reader.varint()), reader


def sha256(path: Path, progress: Progress) -> str:
    """Return the hash of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            progress(len(chunk))
    return digest.hexdigest()


def deflate(new: bytes, old: bytes) -> bytes:
    """Code bytes against older ones, which they resemble place by place."""
    coded = bytearray(varint(len(new)))
    for at in range(0, len(new), _PIECE):
        coder = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=_around(old, at))
        piece = coder.compress(new[at : at + _PIECE]) + coder.flush()
        coded += varint(len(piece))
        coded += piece
    return bytes(coded)


def inflate(reader: Reader, old: bytes) -> bytes:
    """Invert ``deflate``."""
    size, new = reader.varint(), bytearray()
    while len(new) < size:
        decoder = zlib.decompressobj(-15, zdict=_around(old, len(new)))
        most = min(_PIECE, size - len(new))
        piece: Bytes = reader.sized()
        try:
            new += (found := decoder.decompress(piece, most))
        except zlib.error as error:
            raise CorruptPayload(f"its head is damaged ({error})") from error
        if len(found) != most:
            raise CorruptPayload("its head is damaged")
    return bytes(new)


def _around(old: bytes, at: int) -> bytes:
    start = min(at, len(old))
    return old[max(0, start - _BEFORE) : start + _AFTER]
