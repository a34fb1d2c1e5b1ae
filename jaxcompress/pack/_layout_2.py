# SPDX-License-Identifier: Apache-2.0
"""The second layout of a file, which is written: one tensor with everything in it.

    CRC-32 of the manifest          4 bytes
    size of the manifest            varint
    manifest: text                  its size, and JSON of [tree, by_path], deflated
    manifest: sizes of payloads     varints, in the order of the leaves
    manifest: checksums             4 bytes each
    payloads

A tensor for each leaf would take 75 bytes for its name and its place alone. Names and
nodes are alike, so that deflate leaves little of them. Sizes and checksums are apart from
the text, which stays the same when only values change.
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from . import _nodes
from ._manifest import Tensor
from ._opened import Opened
from ._payload import Bytes, CorruptPayload, Reader, Unsupported, varint

TENSOR = "leaves"
METADATA = {"jaxcompress": '{"version":2}'}
_CRC = 4
_MOST_TEXT = 64 << 20
# What trees often say, the most frequent last. It is a part of the format: another text
# needs another version.
_DICTIONARY = (
    b'bfloat16[float16[uint32[int32[bool["PackedCodes",[uint8["SparseArray",["LowRank",["'
    b'"Codebook",["uint8[]sparse","float32[]symbols"]["Levels",["Float",["Int",8,false,'
    b'"weight":"w":"b":["embedding":"layers_Block_layer_Conv_0":{"BatchNorm_0":{"'
    b'[["tuple",["list",["scale":"float32[64]bytes","mean":"var":"Dense_0":{"bias":'
    b'"float32[]raw"},"kernel":["QArray",["int8[,]symbols","float32[1,1]packed","'
    b'float32[1,1]raw",null],["Int",4,true,null],"float32"]},null]'
)


def manifest(
    tree_node: Any, by_path: str | None, sizes: Iterable[int], checksums: Iterable[int]
) -> bytes:
    """Return what comes before the payloads."""
    text = json.dumps([tree_node, by_path], separators=(",", ":"), ensure_ascii=False)
    coder = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=_DICTIONARY)
    coded = coder.compress(text.encode()) + coder.flush()
    parts = [varint(len(coded)), coded, *map(varint, sizes)]
    parts += [crc.to_bytes(_CRC, "little") for crc in checksums]
    body = b"".join(parts)
    return zlib.crc32(body).to_bytes(_CRC, "little") + varint(len(body)) + body


def open_file(file: Any, file_bytes: int) -> Opened:
    """Read the manifest of an open safetensors file.

    Args:
      file: what ``safe_open`` returned.
      file_bytes: size of the file.
    """
    if list(file.keys()) != [TENSOR]:
        raise CorruptPayload(f"it does not have one tensor {TENSOR!r}")
    part = file.get_slice(TENSOR)
    if part.get_dtype() != "U8" or len(part.get_shape()) != 1:
        raise CorruptPayload(f"tensor {TENSOR!r} is not a vector of bytes")
    (total,) = part.get_shape()

    def cut(start: int, stop: int) -> Callable[[], Bytes]:
        return lambda: part[start:stop].data if start < stop else b""

    start = Reader(cut(0, min(total, _CRC + 10))())
    crc, size = int.from_bytes(start.take(_CRC), "little"), start.varint()
    begin = _CRC + len(varint(size))
    if size > total - begin:
        raise CorruptPayload("the manifest ends too early")
    body = cut(begin, begin + size)()
    if zlib.crc32(body) != crc:
        raise CorruptPayload("the checksum of its manifest is wrong")
    tree, by_path, sizes, checksums = _parse(Reader(body))
    ends = list(itertools.accumulate(sizes.values(), initial=begin + size))
    if ends[-1] != total:
        raise CorruptPayload("the payloads do not fill the file")
    places = zip(sizes.items(), checksums, itertools.pairwise(ends), strict=True)
    tensors = {
        name: Tensor(cut(*ends), size, crc) for (name, size), crc, ends in places
    }
    return Opened(tree, by_path, tensors, file_bytes - sum(sizes.values()))


def _parse(reader: Reader) -> tuple[Any, Any, dict[str, int], list[int]]:
    decoder = zlib.decompressobj(-15, zdict=_DICTIONARY)
    try:
        text = decoder.decompress(reader.sized(), _MOST_TEXT)
        if not decoder.eof and len(text) == _MOST_TEXT:
            raise Unsupported(f"its manifest has more than {_MOST_TEXT} characters")
        tree, by_path = json.loads(text)
    except (zlib.error, ValueError, TypeError) as error:
        if isinstance(error, Unsupported):
            raise
        raise CorruptPayload(f"the manifest is not valid ({error})") from error
    names = [node.name for node in _nodes.leaves(tree)]
    sizes = {name: reader.varint() for name in names}
    checksums = [int.from_bytes(reader.take(_CRC), "little") for _ in names]
    reader.finish()
    return tree, by_path, sizes, checksums
