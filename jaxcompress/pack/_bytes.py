# SPDX-License-Identifier: Apache-2.0
"""The codec ``bytes``: first bytes of all elements, then all second bytes, and so on.

It is made for floats, whose exponents repeat while their fractions do not. Each plane of
bytes is coded with the codec that makes it smallest.
"""

from __future__ import annotations

import numpy as np

from . import _nested
from ._payload import Bytes, Reader


def encode(patterns: np.ndarray) -> bytearray | None:
    """Encode one plane per byte, most significant first; None for 1-byte elements."""
    width = patterns.dtype.itemsize
    if width == 1 or patterns.size == 0:
        return None
    little = patterns.astype(patterns.dtype.newbyteorder("<"), copy=False)
    planes, coded = little.view(np.uint8).reshape(*patterns.shape, width), bytearray()
    for i in reversed(range(width)):
        _nested.write(coded, np.ascontiguousarray(planes[..., i]), _nested.PLAIN)
    return coded


def decode(data: Bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Invert ``encode``."""
    reader, little = Reader(data), np.empty(shape, dtype.newbyteorder("<"))
    planes = little.view(np.uint8).reshape(*shape, dtype.itemsize)
    for i in reversed(range(dtype.itemsize)):
        plane = _nested.read(reader, shape, np.dtype(np.uint8), _nested.PLAIN)
        planes[..., i] = plane
    reader.finish()
    return little.astype(dtype, copy=False)
