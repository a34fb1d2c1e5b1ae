# SPDX-License-Identifier: Apache-2.0
"""The payload of a leaf, coded against that of an older leaf.

The arrays come last first, because the values of a sparse array are coded knowing its mask.
Each starts with a byte that says how it is coded:

    0                           the payload of the older array
    1, size, bytes              a payload by itself
    2, codec, size, bytes       against the older array (see `_between`)
    3, codec, size, bytes       values of a sparse array, against the older values at the
                                places of the new mask

The codec is the number of the one that makes the payload out of the array.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _between, _codecs, _nodes
from ._payload import Bytes, CorruptPayload, Reader, varint


class _Arrays:
    """The arrays of a leaf: their payloads, and bit patterns when asked for."""

    def __init__(self, node: Any, payload: Bytes) -> None:
        reader = Reader(payload)
        self.nodes = list(_nodes.arrays(node))
        self.payloads = [reader.sized() for _ in self.nodes]
        self.values = _nodes.sparse_values(node)

    def bits(self, i: int) -> np.ndarray:
        node = self.nodes[i]
        array = _codecs.decode(node.codec, self.payloads[i], node.shape, node.dtype)
        return _codecs.patterns(array)

    def at(self, i: int, mask: np.ndarray) -> np.ndarray:
        """Return the values of a sparse array at the places of a mask; zero elsewhere."""
        old_mask = self.bits(i + 1)
        values = np.zeros(old_mask.shape, f"u{self.nodes[i].dtype.itemsize}")
        values[old_mask.astype(bool)] = self.bits(i)
        return values[mask.astype(bool)]


def encode(new_node: Any, new: Bytes, old_node: Any, old: Bytes) -> bytes | None:
    """Code a payload against an older one; None if that saves nothing.

    Args:
      new_node: what the manifest says of the leaf.
      new: its payload.
      old_node: what the older manifest says of the older leaf.
      old: its payload.
    """
    after, before = _Arrays(new_node, new), _Arrays(old_node, old)
    if len(after.nodes) != len(before.nodes):
        return None
    parts: list[bytes] = []
    for i in reversed(range(len(after.nodes))):
        mask_is_known = bool(parts) and parts[-1][0] in (0, 2)
        parts.append(_encode_array(after, before, i, mask_is_known))
    coded = b"".join(parts)
    return coded if len(coded) < len(new) else None


def decode(coded: Bytes, old_node: Any, old: Bytes) -> bytes:
    """Invert ``encode``.

    Raises:
      CorruptPayload: if the bytes do not fit the older leaf.
    """
    reader, before = Reader(coded), _Arrays(old_node, old)
    parts: list[Bytes] = []
    mask: np.ndarray | None = None
    for i in reversed(range(len(before.nodes))):
        data, mask = _decode_array(reader, before, i, mask)
        parts += [data, varint(len(data))]
    reader.finish()
    return b"".join(reversed(parts))


def _encode_array(
    after: _Arrays, before: _Arrays, i: int, mask_is_known: bool
) -> bytes:
    data, node = after.payloads[i], after.nodes[i]
    if data == before.payloads[i] and node == before.nodes[i]:
        return b"\0"
    whole = b"\1" + varint(len(data)) + data
    bits = after.bits(i)
    # Another version of this library, or of NumPy, may have made other bytes of it.
    if node.dtype != before.nodes[i].dtype or _encoded(node.codec, bits) != data:
        return whole
    if i in after.values & before.values and mask_is_known:
        method, base = 3, before.at(i, after.bits(i + 1))
    elif node.shape == before.nodes[i].shape:
        method, base = 2, before.bits(i)
    else:
        return whole
    if not bits.size:
        return whole
    between = _between.encode(bits, base)
    index = list(_codecs.CODECS).index(node.codec)
    coded = bytes([method, index]) + varint(len(between)) + between
    return min(coded, whole, key=len)


def _decode_array(
    reader: Reader, before: _Arrays, i: int, mask: np.ndarray | None
) -> tuple[Bytes, np.ndarray | None]:
    """Return the payload of an array, and its bits if they can be the next one's mask."""
    method = reader.byte()
    if method == 0:
        return before.payloads[i], before.bits(i) if i - 1 in before.values else None
    if method == 1:
        return reader.sized(), None
    if method == 2:
        base = before.bits(i)
    elif method == 3 and i in before.values and mask is not None:
        base = before.at(i, mask)
    else:
        raise CorruptPayload("an array is coded in an unknown way")
    index = reader.byte()
    if index >= len(_codecs.ALL) or not base.size:
        raise CorruptPayload(f"codec number {index} cannot make this array")
    bits = _between.decode(reader.sized(), base)
    data = _codecs.ALL[index].encode(bits)
    if data is None:
        raise CorruptPayload(f"codec number {index} cannot make this array")
    return data, bits


def _encoded(codec: str, bits: np.ndarray) -> Bytes | None:
    return _codecs.CODECS[codec].encode(bits) if bits.size else b""
