# SPDX-License-Identifier: Apache-2.0
"""The codec ``symbols``: entropy coding by the frequency of each element.

The size is within a few bytes of the order-0 entropy, plus the alphabet and its counts.
"""

from __future__ import annotations

import numpy as np

from . import _ans, _lanes
from ._payload import Bytes, CorruptPayload, Reader

# A sample of this many elements identifies arrays with few distinct values, before the
# whole array is sorted.
_SAMPLE = 4096
_MOST = 1 << 16  # distinct values


def encode(patterns: np.ndarray) -> bytearray | None:
    """Encode as alphabet, counts and coded symbols.

    None if the alphabet is too big, or if ``lanes`` does the same faster.
    """
    if patterns.size == 0:
        return None
    flat = patterns.reshape(-1)
    sample = flat[:: max(1, flat.size // _SAMPLE)]
    if np.unique(sample).size > sample.size // 2 and flat.dtype.itemsize > 1:
        return None
    alphabet, counts = _alphabet(flat)
    if alphabet.size > _MOST:
        return None
    if flat.dtype.itemsize == 1 and _lanes.lanes_for(counts) is not None:
        return None
    model = _ans.write_table(alphabet, counts)
    # The coder ends with a word; no stream is shorter than the entropy by more than that.
    if len(model) + _entropy(counts) / 8 > flat.nbytes + 8:
        return None
    coded = bytearray(model)
    coded += _ans.encode([(_Indices(flat, alphabet), counts)])
    return coded


def decode(data: Bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Invert ``encode``."""
    flat = np.empty(int(np.prod(shape, dtype=np.int64)), dtype)
    reader = Reader(data)
    size = reader.varint()
    if not 1 <= size <= min(flat.size, _MOST):
        raise CorruptPayload(f"{flat.size} elements cannot have {size} distinct values")
    alphabet, counts = _ans.read_table(reader, size)
    if alphabet[-1] > np.iinfo(dtype).max or sum(counts) != flat.size:
        raise CorruptPayload("the counts do not fit the array")
    values, at = np.array(alphabet, dtype), 0
    decoder = _ans.Decoder(reader.rest())
    for symbols in decoder.decode(np.array(counts)):
        flat[at : at + symbols.size] = values[symbols]
        at += symbols.size
    decoder.finish()
    return flat.reshape(shape)


class _Indices:
    """The index of each element in the alphabet, made part by part."""

    def __init__(self, flat: np.ndarray, alphabet: np.ndarray) -> None:
        self._flat, self._alphabet, self.size = flat, alphabet, flat.size
        self._table = None
        if flat.dtype.itemsize <= 2:  # a table is ten times as fast as a search
            self._table = np.zeros(int(alphabet[-1]) + 1, np.int32)
            self._table[alphabet] = np.arange(alphabet.size)

    def __getitem__(self, part: slice) -> np.ndarray:
        if self._table is not None:
            return self._table[self._flat[part]]
        return np.searchsorted(self._alphabet, self._flat[part])


def _alphabet(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct patterns and how often each occurs; it stops at too many."""
    if flat.dtype.itemsize <= 2:
        # Counting is ten times as fast as sorting.
        every = _ans.histogram(flat)
        alphabet = np.flatnonzero(every)
        return alphabet, every[alphabet]
    alphabet, counts = flat[:0], np.zeros(0, np.int64)
    for start, stop in _ans.parts(flat.size):
        values, more = np.unique(flat[start:stop], return_counts=True)
        merged = np.union1d(alphabet, values)
        total = np.zeros(merged.size, np.int64)
        total[np.searchsorted(merged, alphabet)] += counts
        total[np.searchsorted(merged, values)] += more
        alphabet, counts = merged, total
        if alphabet.size > _MOST:
            break
    return alphabet, counts


def _entropy(counts: np.ndarray) -> float:
    """Return the bits of all symbols, each at its own cost."""
    return float(-(counts * np.log2(counts / counts.sum())).sum())
