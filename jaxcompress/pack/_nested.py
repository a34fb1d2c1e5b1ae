# SPDX-License-Identifier: Apache-2.0
"""Arrays inside a payload, stored as codec number (one byte), size and bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from . import _lanes, _packed, _raw, _symbols
from ._payload import Bytes, CorruptPayload, Reader, varint


class Codec(NamedTuple):
    """A pair of pure functions over arrays of unsigned bit patterns."""

    # None: unsuited to this array.
    encode: Callable[[np.ndarray], bytes | bytearray | None]
    decode: Callable[[Bytes, tuple[int, ...], np.dtype], np.ndarray]
    # What share its result may be larger than another, because it is decoded faster.
    allowance: float = 0.0


# The index is the codec number in the file, so only append.
PLAIN = (
    Codec(_raw.encode, _raw.decode),
    Codec(_packed.encode, _packed.decode),
    Codec(_symbols.encode, _symbols.decode),
    Codec(_lanes.encode, _lanes.decode, allowance=_lanes.ALLOWANCE),
)


def smallest(
    patterns: np.ndarray, codecs: Sequence[Codec]
) -> tuple[int, bytes | bytearray]:
    """Encode with the codec that yields the fewest bytes; return its index, too.

    On ties the first wins. The first must be ``raw``, whose size is known without its
    bytes, and the second ``packed``, to which a constant array is a few bytes.
    """
    constant = patterns.size > 0 and patterns.min() == patterns.max()
    best: tuple[int, bytes | bytearray] | None = None
    least = math.inf
    for i, codec in enumerate(codecs[1 : 2 if constant else None], 1):
        data = codec.encode(patterns)
        if data is None:
            continue
        cost = len(data) - math.ceil(codec.allowance * len(data))
        if cost < least:
            best, least = (i, data), cost
    if best is None or len(best[1]) >= patterns.nbytes:
        return 0, codecs[0].encode(patterns) or b""
    return best


def write(
    out: bytearray, patterns: np.ndarray, codecs: Sequence[Codec] = PLAIN
) -> None:
    """Append the array, coded by the codec that yields the fewest bytes."""
    index, data = smallest(patterns, codecs)
    out.append(index)
    out += varint(len(data))
    out += data


def read(
    reader: Reader, shape: tuple[int, ...], dtype: np.dtype, codecs: Sequence[Codec]
) -> np.ndarray:
    """Invert ``write``."""
    index = reader.byte()
    if index >= len(codecs):
        raise CorruptPayload(f"unknown codec number {index}")
    return codecs[index].decode(reader.sized(), shape, dtype)
