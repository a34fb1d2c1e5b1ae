# SPDX-License-Identifier: Apache-2.0
"""The codec ``symbols``: entropy coding by the frequency of each element.

The size is within a few bytes of the order-0 entropy, plus the alphabet and its counts.
"""

from __future__ import annotations

import itertools

import numpy as np

from . import _ans
from ._payload import CorruptPayload, Reader, varint

# A sample of this many elements identifies arrays with few distinct values, before the
# whole array is sorted.
_SAMPLE = 4096


def encode(patterns: np.ndarray) -> bytes | None:
    """Encode as alphabet, counts and coded symbols; None if the alphabet is too big."""
    if patterns.size == 0:
        return None
    flat = patterns.reshape(-1)
    sample = flat[:: max(1, flat.size // _SAMPLE)]
    if np.unique(sample).size > sample.size // 2 and flat.dtype.itemsize > 1:
        return None
    alphabet, symbols, counts = _alphabet(flat)
    if alphabet.size > 1 << 16:
        return None
    gaps = [int(alphabet[0]), *np.diff(alphabet).tolist()]
    model = b"".join(map(varint, [alphabet.size, *gaps, *counts.tolist()]))
    return model + _ans.encode([(symbols, counts)])


def decode(data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Invert ``encode``."""
    flat = np.empty(int(np.prod(shape, dtype=np.int64)), dtype)
    reader = Reader(data)
    size = reader.varint()
    # Check before the loop: a damaged count must not determine how long it runs.
    if not 1 <= size <= min(flat.size, 1 << 16):
        raise CorruptPayload(f"{flat.size} elements cannot have {size} distinct values")
    alphabet = list(itertools.accumulate(reader.varint() for _ in range(size)))
    counts = [reader.varint() for _ in range(size)]
    if alphabet[-1] > np.iinfo(dtype).max or sum(counts) != flat.size:
        raise CorruptPayload("the counts do not fit the array")
    values, at = np.array(alphabet, dtype), 0
    decoder = _ans.Decoder(reader.rest())
    for symbols in decoder.decode(np.array(counts)):
        flat[at : at + symbols.size] = values[symbols]
        at += symbols.size
    decoder.finish()
    return flat.reshape(shape)


def _alphabet(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct patterns, each element's index among them, and their counts."""
    if flat.dtype.itemsize > 2:
        return np.unique(flat, return_inverse=True, return_counts=True)
    # Counting is ten times as fast as sorting.
    counts = np.bincount(flat, minlength=1)
    alphabet = np.flatnonzero(counts)
    index = np.zeros(counts.size, np.int32)
    index[alphabet] = np.arange(alphabet.size)
    return alphabet, index[flat], counts[alphabet]
