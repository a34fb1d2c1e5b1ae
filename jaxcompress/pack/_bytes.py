# SPDX-License-Identifier: Apache-2.0
"""The codec ``bytes``: first bytes of all elements, then all second bytes, and so on.

It is made for floats, whose exponents repeat while their fractions do not. Each plane of
bytes is coded with the codec that makes it smallest.
"""

from __future__ import annotations

import numpy as np

from . import _nested
from ._payload import Reader


def encode(patterns: np.ndarray) -> bytes | None:
    """Encode one plane per byte, most significant first; None for 1-byte elements."""
    width = patterns.dtype.itemsize
    if width == 1 or patterns.size == 0:
        return None
    return b"".join(
        _nested.write((patterns >> np.uint8(8 * i)).astype(np.uint8), _nested.PLAIN)
        for i in reversed(range(width))
    )


def decode(data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Invert ``encode``."""
    reader, patterns = Reader(data), np.zeros(shape, dtype)
    for i in reversed(range(dtype.itemsize)):
        plane = _nested.read(reader, shape, np.dtype(np.uint8), _nested.PLAIN)
        patterns |= plane.astype(dtype) << np.uint8(8 * i)
    reader.finish()
    return patterns
