# SPDX-License-Identifier: Apache-2.0
"""The codec ``packed``: differences to the smallest element, in as few bits as possible.

It stores no model, so it is best for small arrays; a constant array takes no bits at all.
Differences wrap around, so that -1 and 0 are neighbors.
"""

from __future__ import annotations

import numpy as np

from ._payload import Bytes, CorruptPayload, Reader, varint

# Bits are unpacked to bytes part by part; a multiple of 8, so that parts end on bytes.
_PART = 1 << 17


def encode(patterns: np.ndarray) -> bytes | bytearray | None:
    """Encode as smallest pattern, width and bits; None if the width is 16 bits or more."""
    if patterns.size == 0:
        return None
    width, low = min(_span(patterns), _span(patterns.view(f"i{patterns.itemsize}")))
    if width >= min(16, 8 * patterns.dtype.itemsize):
        return None
    flat, low = patterns.reshape(-1), patterns.dtype.type(low)
    coded = bytearray(varint(int(low)) + bytes([width]))
    for start in range(0, flat.size if width else 0, _PART):
        distance = (flat[start : start + _PART] - low).astype(">u2")
        bits = np.unpackbits(distance.view(np.uint8).reshape(-1, 2), axis=1)
        coded += np.packbits(bits[:, 16 - width :]).tobytes()
    return coded


def decode(data: Bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Invert ``encode``."""
    reader = Reader(data)
    low, width = reader.varint(), reader.byte()
    if low > np.iinfo(dtype).max or width >= min(16, 8 * dtype.itemsize):
        raise CorruptPayload(
            f"{width}-bit codes that start at {low} do not fit in {dtype}"
        )
    flat = np.full(int(np.prod(shape, dtype=np.int64)), low, dtype)
    for start in range(0, flat.size if width else 0, _PART):
        part = flat[start : start + _PART]
        packed = np.frombuffer(reader.take(-(-part.size * width // 8)), np.uint8)
        bits = np.unpackbits(packed, count=part.size * width).reshape(-1, width)
        wide = np.zeros((part.size, 16), np.uint8)
        wide[:, 16 - width :] = bits
        part += np.packbits(wide, axis=1).view(">u2").reshape(-1).astype(dtype)
    reader.finish()
    return flat.reshape(shape)


def _span(values: np.ndarray) -> tuple[int, int]:
    """Return the bit width of differences to the minimum, and the minimum's pattern."""
    low, high = int(values.min()), int(values.max())
    return (high - low).bit_length(), low % (1 << 8 * values.itemsize)
