# SPDX-License-Identifier: Apache-2.0
"""Arrays inside a payload, stored as codec number (one byte), size and bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from . import _packed, _raw, _symbols
from ._payload import CorruptPayload, Reader, sized


class Codec(NamedTuple):
    """A pair of pure functions over arrays of unsigned bit patterns."""

    encode: Callable[[np.ndarray], bytes | None]  # None: unsuited to this array
    decode: Callable[[bytes, tuple[int, ...], np.dtype], np.ndarray]


# The index is the codec number in the file, so only append.
PLAIN = (
    Codec(_raw.encode, _raw.decode),
    Codec(_packed.encode, _packed.decode),
    Codec(_symbols.encode, _symbols.decode),
)


def write(patterns: np.ndarray, codecs: Sequence[Codec]) -> bytes:
    """Encode with the codec that yields the fewest bytes."""
    coded = [(i, codec.encode(patterns)) for i, codec in enumerate(codecs)]
    index, data = min(
        ((i, data) for i, data in coded if data is not None), key=lambda x: len(x[1])
    )
    return bytes([index]) + sized(data)


def read(
    reader: Reader, shape: tuple[int, ...], dtype: np.dtype, codecs: Sequence[Codec]
) -> np.ndarray:
    """Invert ``write``."""
    index = reader.byte()
    if index >= len(codecs):
        raise CorruptPayload(f"unknown codec number {index}")
    return codecs[index].decode(reader.sized(), shape, dtype)
