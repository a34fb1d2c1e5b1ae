# SPDX-License-Identifier: Apache-2.0
"""The codec ``contexts``: a sparse matrix of codes, by what its rows and columns hold.

The matrix is read line by line, rows or columns, whichever takes fewer bytes. Lines that
are about equally dense form a class, and only the class of each line is stored. Across the
lines, each place has odds of its own: what it has held in the lines above, against what
their classes let expect. Dense lines come first, since they tell most about the places, and
empty ones take no bits at all. The codes that are not the most common one have a
distribution that is learned on the way, too.

A line is decoded in one call. That is slower than the classes on both axes of ``sparse``
and ``gaps``, so this codec is for small networks, where percents of the file matter.

Encoder and decoder compute their probabilities by sums, products and quotients of floats
only, which are rounded alike on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from . import _ans, _nested
from ._payload import Bytes, CorruptPayload, Reader, varint
from ._sparse import as_matrix

# Larger arrays take the codecs that decode them fast.
_MOST = 1 << 18
# Imagined lines with average places, before the first: the encoder takes the best.
_IMAGINED = (2, 4, 8, 16, 32)
_FIRST_CHUNK = 32


class _Plan(NamedTuple):
    """What is stored before the lines."""

    by_columns: bool  # whether lines are columns
    imagined: int  # index in _IMAGINED
    classes: np.ndarray  # uint8: class of each line; 0 if it is empty
    ones: list[int]  # in the lines of each class but the first


def encode(patterns: np.ndarray) -> bytearray | None:
    """Encode as common value, mask and other values; None for wide or large arrays."""
    if patterns.dtype.itemsize > 1 or not 0 < patterns.size <= _MOST:
        return None
    fill = int(_ans.histogram(patterns.reshape(-1)).argmax())
    mask = patterns.reshape(as_matrix(patterns.shape)) != fill
    if not mask.any():
        return None
    # The difference to the most common value, as a signed number of one byte.
    values = (patterns.reshape(-1)[mask.reshape(-1)] - np.uint8(fill)).view(np.int8)
    high = int(np.abs(values.astype(np.int16)).max())
    plan, flags, probabilities = min(
        _plans(mask), key=lambda made: _bits(*made[1:]) + 3 * made[0].classes.size
    )
    coded = bytearray([fill, high, 2 * plan.imagined + plan.by_columns])
    _nested.write(coded, plan.classes)
    for count in plan.ones:
        coded += varint(count)
    coded += _ans.encode_with([(flags, probabilities)], list(_value_runs(values, high)))
    return coded


def decode(data: Bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Invert ``encode``."""
    rows, columns = as_matrix(shape)
    if dtype.itemsize > 1 or rows * columns > _MOST:
        raise CorruptPayload("the codec contexts is for small arrays of bytes")
    reader = Reader(data)
    fill, high, kind = reader.byte(), reader.byte(), reader.byte()
    by_columns, imagined = bool(kind % 2), kind // 2
    number, length = (columns, rows) if by_columns else (rows, columns)
    classes = _nested.read(reader, (number,), np.dtype(np.uint8), _nested.PLAIN)
    last = int(classes.max(initial=0))
    if imagined >= len(_IMAGINED) or not 1 <= high <= 128 or not 0 < last <= 32:
        raise CorruptPayload("the classes of lines do not fit the array")
    ones = [reader.varint() for _ in range(last)]
    plan = _Plan(by_columns, imagined, classes, ones)
    if any(n > length * np.count_nonzero(classes == i) for i, n in enumerate(ones, 1)):
        raise CorruptPayload("the counts do not fit the array")
    decoder = _ans.Decoder(reader.rest())
    lines = np.zeros((number, length), bool)
    model = _Lines(plan, length)
    for i in model.order:
        lines[i] = decoder.flags(model.probabilities(i))
        model.add(i, lines[i])
    mask = (lines.T if by_columns else lines).reshape(-1)
    patterns = np.full(mask.size, fill, np.uint8)
    count = int(np.count_nonzero(mask))
    patterns[mask] += _decode_values(decoder, count, high).view(np.uint8)
    decoder.finish()
    return patterns.reshape(shape).astype(dtype, copy=False)


class _Lines:
    """The probabilities of each line, given those before it."""

    def __init__(self, plan: _Plan, length: int) -> None:
        self._classes, self._imagined = plan.classes, float(_IMAGINED[plan.imagined])
        sizes = np.bincount(plan.classes, minlength=len(plan.ones) + 1)[1:] * length
        # Below one, also where every code of a class is set.
        self._density = [0.0] + [
            (n + 0.5) / (int(size) + 1.0)
            for n, size in zip(plan.ones, sizes, strict=True)
        ]
        self._share = (sum(plan.ones) + 0.5) / (plan.classes.size * length + 1.0)
        self._held = np.zeros(length)  # ones at each place so far
        self._expected = 0.0  # and how many an average place has
        self._seen = 0.0
        order = np.argsort(-plan.classes.astype(np.int64), kind="stable")
        self.order = order[: int(np.count_nonzero(plan.classes))]

    def probabilities(self, line: int) -> np.ndarray:
        """Return how likely the codes of a line are to be set."""
        density = self._density[self._classes[line]]
        odds = self._odds(self._held) / self._odds(self._expected)
        one = density * odds
        return one / (one + (1.0 - density))

    def add(self, line: int, flags: np.ndarray) -> None:
        """Take in a line, which was the next in the order."""
        self._held = self._held + flags
        self._expected += self._density[self._classes[line]]
        self._seen += 1.0

    def _odds(self, held: np.ndarray | float) -> np.ndarray | float:
        ones = held + self._imagined * self._share
        return ones / (self._seen - held + self._imagined * (1.0 - self._share))


def _plans(mask: np.ndarray) -> Iterator[tuple[_Plan, np.ndarray, np.ndarray]]:
    """Yield every plan, and the flags in its order with their probabilities."""
    for by_columns in (False, True):
        lines = np.ascontiguousarray(mask.T if by_columns else mask)
        if lines.shape[1] == 1 < lines.shape[0]:
            continue  # a vector: a class for each code would say more than the code
        classes, ones = _classes(np.count_nonzero(lines, axis=1))
        for imagined in range(len(_IMAGINED)):
            plan = _Plan(by_columns, imagined, classes, ones)
            model, parts = _Lines(plan, lines.shape[1]), []
            for i in model.order:
                parts.append(model.probabilities(i))
                model.add(i, lines[i])
            yield plan, lines[model.order].reshape(-1), np.concatenate(parts)


def _classes(counts: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Return the class of each line by how many ones it has, and the ones of each class."""
    # 0 for none, 1 for one, 2 for two or three, 3 for four to seven, ...
    classes = np.array([int(n).bit_length() for n in counts], np.uint8)
    # Without gaps between the classes, which would be stored as empty ones.
    _, classes = np.unique(np.concatenate([[0], classes]), return_inverse=True)
    classes = classes[1:].astype(np.uint8)
    return classes, np.bincount(classes, counts)[1:].astype(np.int64).tolist()


def _bits(flags: np.ndarray, probabilities: np.ndarray) -> float:
    return float(-np.log2(np.where(flags, probabilities, 1 - probabilities)).sum())


def _value_runs(
    values: np.ndarray, high: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield chunks of values, as indices, with the weights that earlier chunks give."""
    symbols = values.astype(np.int64) + high
    weights = _first_weights(high)
    for start, stop in _chunks(symbols.size):
        yield symbols[start:stop], weights.copy()
        weights += np.bincount(symbols[start:stop], minlength=weights.size)


def _decode_values(decoder: _ans.Decoder, count: int, high: int) -> np.ndarray:
    weights = _first_weights(high)
    parts = [np.zeros(0, np.int64)]
    for start, stop in _chunks(count):
        parts.append(decoder.draw(weights, stop - start).astype(np.int64))
        weights += np.bincount(parts[-1], minlength=weights.size)
    return (np.concatenate(parts) - high).astype(np.int8)


def _first_weights(high: int) -> np.ndarray:
    """Return the weights of -high ... high before anything is known; none for zero."""
    weights = 0.5 ** np.abs(np.arange(-high, high + 1)).clip(max=32).astype(np.float64)
    weights[high] = 0
    return weights


def _chunks(size: int) -> Iterator[tuple[int, int]]:
    start = 0
    while start < size:
        stop = min(size, max(_FIRST_CHUNK, 2 * start))
        yield start, stop
        start = stop
