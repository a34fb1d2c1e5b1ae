# SPDX-License-Identifier: Apache-2.0
"""The codec ``sparse``: a mask of elements that differ from the most common value.

The zeros of pruned matrices are unevenly distributed: border pixels and idle units leave
almost empty rows and columns. So rows and columns are grouped into a few classes of similar
density, and every (row class, column class) block of the mask is coded with its own
frequency. Such a mask can take less than its order-0 entropy.

The codec ``gaps`` is the same where most elements are the most common value: it codes the
gaps between the others, instead of a bit for each element, in as many bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import _ans, _bytes, _gaps, _nested
from ._payload import Bytes, CorruptPayload, Reader, varint

# In the order in which they came: the index is the codec number in the file.
_VALUES = (
    *_nested.PLAIN[:3],
    _nested.Codec(_bytes.encode, _bytes.decode),
    *_nested.PLAIN[3:],
)
_CLASSES = (1, 2, 3, 4, 6, 8)
# From this share of the most common value on, gaps are decoded faster than bits.
_GAPS_FROM = 0.8

# (block, its ones) -> symbols and how often each occurs.
_Run = Callable[["_Block", int], tuple[_ans.Symbols, np.ndarray]]
# Sets the elements of a block that are ones; (decoder, block, its ones) -> their places,
# if they are known.
_Place = Callable[[_ans.Decoder, np.ndarray, int], np.ndarray | None]


def encode(patterns: np.ndarray) -> bytearray | None:
    """Encode as common value, mask and other values; None if no value is common enough."""
    return _encode(patterns, 0.1, _GAPS_FROM, _encode_bits)


def encode_gaps(patterns: np.ndarray) -> bytearray | None:
    """Encode like ``encode``, by gaps; None unless one value is very common."""
    return _encode(patterns, _GAPS_FROM, 1.1, _encode_gaps)


def decode(data: Bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Invert ``encode``."""
    return _decode(data, shape, dtype, _decode_bits)


def decode_gaps(data: Bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Invert ``encode_gaps``."""
    return _decode(data, shape, dtype, _decode_gaps)


def _encode(
    patterns: np.ndarray, least: float, below: float, code_run: _Run
) -> bytearray | None:
    """Encode if the share of the most common value is in a range."""
    if patterns.size == 0:
        return None
    fill, count = _most_common(patterns)
    if not least <= count / patterns.size < below:
        return None
    mask = patterns != fill
    coded = bytearray(varint(int(fill)))
    _encode_mask(coded, mask.reshape(as_matrix(mask.shape)), code_run)
    values = patterns[mask]
    del mask
    _nested.write(coded, values, _VALUES)
    return coded


def _decode(
    data: Bytes, shape: tuple[int, ...], dtype: np.dtype, decode_run: _Place
) -> np.ndarray:
    reader = Reader(data)
    fill = reader.varint()
    if fill > np.iinfo(dtype).max:
        raise CorruptPayload(f"{fill} does not fit in {dtype}")
    mask, places = _decode_mask(reader, as_matrix(shape), decode_run)
    mask = mask.reshape(-1)
    count = int(np.count_nonzero(mask)) if places is None else places.size
    values, at = _nested.read(reader, (count,), dtype, _VALUES), 0
    reader.finish()
    patterns = np.full(mask.shape, fill, dtype)
    if places is not None:
        patterns[places] = values
        return patterns.reshape(shape)
    for start, stop in _ans.parts(mask.size):
        # Indices are twice as fast as a mask.
        found = np.flatnonzero(mask[start:stop])
        patterns[start:stop][found] = values[at : at + found.size]
        at += found.size
    return patterns.reshape(shape)


def as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the shape as rows, of all axes but the last, and columns."""
    columns = shape[-1] if shape else 1
    return int(np.prod(shape[:-1], dtype=np.int64)), columns


def _most_common(patterns: np.ndarray) -> tuple[np.generic, int]:
    """Return a value and how often it occurs."""
    # In wide floats only zero is common enough to be worth a mask.
    if patterns.dtype.itemsize > 2:
        zeros = patterns.size - int(np.count_nonzero(patterns))
        return patterns.dtype.type(0), zeros
    counts = _ans.histogram(patterns.reshape(-1))
    return patterns.dtype.type(np.argmax(counts)), int(counts.max())


class _Block:
    """The elements of the mask in a class of rows and one of columns, part by part."""

    def __init__(
        self, mask: np.ndarray, rows: tuple[Any, int], columns: tuple[Any, int]
    ) -> None:
        self._mask, (self._rows, height), (self._columns, self._width) = (
            mask,
            rows,
            columns,
        )
        self.size = height * self._width

    def __getitem__(self, part: slice) -> np.ndarray:
        first, last = part.start // self._width, -(-part.stop // self._width)
        if isinstance(self._rows, slice):
            strip = self._mask[first:last]
        else:
            strip = self._mask[self._rows[first:last]]
        block = strip[:, self._columns].reshape(-1)
        return block[part.start - first * self._width :][: part.stop - part.start]

    def parts(self) -> Iterator[np.ndarray]:
        return (self[slice(*part)] for part in _ans.parts(self.size))


def _encode_mask(out: bytearray, mask: np.ndarray, code_run: _Run) -> None:
    ids = _best_classes(mask)
    runs = []
    for x in ids:
        _nested.write(out, x)
    for rows, columns in itertools.product(*map(_groups, ids)):
        block = _Block(mask, rows, columns)
        ones = int(sum(map(np.count_nonzero, block.parts())))
        out += varint(ones)
        runs.append(code_run(block, ones))
    coded = _ans.encode(runs)
    out += varint(len(coded))
    out += coded


def _encode_bits(block: _Block, ones: int) -> tuple[_ans.Symbols, np.ndarray]:
    return block, np.array([block.size - ones, ones])


def _encode_gaps(block: _Block, ones: int) -> tuple[_ans.Symbols, np.ndarray]:
    weights = _gaps.weights(ones, block.size)
    return _gaps.tokens(block.parts(), ones, block.size), weights


def _decode_mask(
    reader: Reader, shape: tuple[int, int], decode_run: _Place
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the mask, and the places of its ones in order if they are known."""
    byte = np.dtype(np.uint8)
    ids = [_nested.read(reader, (n,), byte, _nested.PLAIN) for n in shape]
    if any(x.max() >= _limit(shape) for x in ids):
        raise CorruptPayload("there are too many classes of rows or columns")
    row_groups, column_groups = map(_groups, ids)
    ones = iter([reader.varint() for _ in row_groups for _ in column_groups])
    decoder, mask = _ans.Decoder(reader.sized()), np.empty(shape, bool)
    places = None
    for rows, height in row_groups:
        strip = np.empty((height, shape[1]), bool)
        for columns, width in column_groups:
            block, count = np.zeros(height * width, bool), next(ones)
            if count > block.size:
                raise CorruptPayload(f"{count} of {block.size} elements cannot be set")
            places = decode_run(decoder, block, count)
            strip[:, columns] = block.reshape(height, width)
        mask[rows] = strip
    decoder.finish()
    return mask, places if len(row_groups) == len(column_groups) == 1 else None


def _decode_bits(decoder: _ans.Decoder, block: np.ndarray, ones: int) -> None:
    at = 0
    for part in decoder.decode(np.array([block.size - ones, ones])):
        block[at : at + part.size] = part
        at += part.size


def _decode_gaps(decoder: _ans.Decoder, block: np.ndarray, ones: int) -> np.ndarray:
    places, at = np.empty(ones, np.int64), 0
    for found in _gaps.positions(decoder, ones, block.size):
        places[at : at + found.size] = found
        at += found.size
    block[places] = True
    return places


def _groups(ids: np.ndarray) -> list[tuple[Any, int]]:
    """Return an index that selects the members of each class, and the size of each."""
    if not ids.any():
        # A slice, because for a vector a list of indices would be larger than the mask.
        return [(slice(None), ids.size)]
    members = [np.flatnonzero(ids == k) for k in range(int(ids.max()) + 1)]
    return [(index, index.size) for index in members]


def _limit(shape: tuple[int, int]) -> int:
    """Return the maximum number of classes; 1 for vectors, whose rows have one element."""
    return max(_CLASSES) if min(shape) > 1 else 1


def _classes(counts: np.ndarray, classes: int) -> np.ndarray:
    """Assign class ids, with classes equally wide in the square root of the count.

    The square root makes the noise of counts about equally wide everywhere. Fitting the
    classes by k-means instead gained below 0.1 % in measurements.
    """
    root = np.sqrt(counts)
    width = (root.max() - root.min()) / classes
    ids = (root - root.min()) / width if width else np.zeros(counts.size)
    return np.minimum(ids, classes - 1).astype(np.uint8)


def _best_classes(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes of rows and columns with the smallest estimated size."""
    if _limit(mask.shape) == 1:
        rows, columns = (np.zeros(n, np.uint8) for n in mask.shape)
        return rows, columns
    options, class_counts = [], [n for n in _CLASSES if n <= _limit(mask.shape)]
    by_row, by_column = (
        [_classes(np.count_nonzero(mask, axis), n) for n in class_counts]
        for axis in (1, 0)
    )
    for rows in by_row:
        row_sizes = np.bincount(rows)
        per_class = _sums(mask, rows, row_sizes.size)
        for columns in by_column:
            column_sizes = np.bincount(columns)
            ones = np.stack([np.bincount(columns, weights=x) for x in per_class])
            zeros = np.outer(row_sizes, column_sizes) - ones
            # Besides the entropies, each block stores a count of about 12 bits.
            side = _bits(row_sizes) + _bits(column_sizes) + 12 * ones.size
            options.append((_bits(np.stack([ones, zeros])) + side, rows, columns))
    _, rows, columns = min(options, key=lambda option: option[0])
    return rows, columns


def _sums(mask: np.ndarray, rows: np.ndarray, classes: int) -> np.ndarray:
    """Return the ones of each column in each class of rows, in bounded memory."""
    sums = np.zeros((classes, mask.shape[1]), np.int64)
    for start, stop in _ans.parts(mask.shape[0], mask.shape[1]):
        strip, ids = mask[start:stop], rows[start:stop]
        for k in np.unique(ids):
            sums[k] += np.count_nonzero(strip[ids == k], axis=0)
    return sums


def _bits(counts: np.ndarray) -> float:
    """Return the total bits of symbols with these counts; symbols along the first axis."""
    total = counts.sum(0)
    share = np.where(counts > 0, counts, 1) / np.maximum(total, 1)
    return float(-(counts * np.log2(share)).sum())
