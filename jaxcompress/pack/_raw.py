# SPDX-License-Identifier: Apache-2.0
"""The codec ``raw``: little-endian bytes."""

from __future__ import annotations

import numpy as np

from ._payload import Bytes, CorruptPayload


def encode(patterns: np.ndarray) -> bytes:
    """Return the bytes of the array in row-major order."""
    return patterns.astype(patterns.dtype.newbyteorder("<"), copy=False).tobytes()


def decode(data: Bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Invert ``encode``."""
    if len(data) != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise CorruptPayload("the payload does not have the size of its array")
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(shape)
