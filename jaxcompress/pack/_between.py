# SPDX-License-Identifier: Apache-2.0
"""An array coded against an older array of the same shape and dtype.

Two methods compete. `contexts` codes each new element with the frequencies of the elements
that replace its old one, which suits codes: where nothing changed, that is nearly free.
`steps` codes which elements became zero, and the differences of the others, which suits
floats: those of a fine-tuned leaf are small.
"""

from __future__ import annotations

import itertools

import numpy as np

from . import _ans, _codecs, _nested
from ._payload import CorruptPayload, Reader, varint

# More distinct old values than this cost more in frequencies than they gain.
_CONTEXTS = 64
_SYMBOLS = 256


def encode(new: np.ndarray, old: np.ndarray) -> bytes | bytearray:
    """Code bit patterns against older ones, in the fewest bytes."""
    coded = [b"\0" + _encode_steps(new, old)]
    if (contexts := _encode_contexts(new, old)) is not None:
        coded.append(b"\1" + contexts)
    return min(coded, key=len)


def decode(data: memoryview, old: np.ndarray) -> np.ndarray:
    """Invert ``encode``.

    Raises:
      CorruptPayload: if the data do not decode to an array like the old one.
    """
    reader = Reader(data)
    method = reader.byte()
    if method > 1:
        raise CorruptPayload(f"unknown method {method}")
    new = (_decode_contexts if method else _decode_steps)(reader, old)
    reader.finish()
    return new


def _encode_contexts(new: np.ndarray, old: np.ndarray) -> bytearray | None:
    before, after = _few(old, _CONTEXTS), _few(new, _SYMBOLS)
    if before is None or after is None:
        return None
    coded = bytearray(varint(after.size))
    for gap in np.diff(after, prepend=after.dtype.type(0)).tolist():
        coded += varint(gap)
    runs = []
    for value in before:
        symbols = np.searchsorted(after, new[old == value]).astype(np.uint8)
        counts = np.bincount(symbols, minlength=after.size)
        coded += _counts_text(counts)
        runs.append((symbols, counts))
    coded += _ans.encode(runs)
    return coded


def _decode_contexts(reader: Reader, old: np.ndarray) -> np.ndarray:
    before = _few(old, _CONTEXTS)
    if before is None:
        raise CorruptPayload("the older array has too many distinct values")
    size = reader.varint()
    if not 1 <= size <= min(_SYMBOLS, old.size):
        raise CorruptPayload(f"{old.size} elements cannot have {size} distinct values")
    after = list(itertools.accumulate(reader.varint() for _ in range(size)))
    if after[-1] > np.iinfo(old.dtype).max:
        raise CorruptPayload(f"{after[-1]} does not fit in {old.dtype}")
    values, new = np.array(after, old.dtype), np.empty_like(old)
    places = [old == value for value in before]
    counts = [_read_counts(reader, size, int(x.sum())) for x in places]
    decoder = _ans.Decoder(reader.rest())
    for place, every in zip(places, counts, strict=True):
        new[place] = values[np.concatenate(list(decoder.decode(every)))]
    decoder.finish()
    return new


def _counts_text(counts: np.ndarray) -> bytes:
    """Write frequencies: how many are above zero, and the gap and the size of each."""
    used = np.flatnonzero(counts)
    gaps = np.diff(used, prepend=-1) - 1
    pairs = zip(gaps.tolist(), counts[used].tolist(), strict=True)
    numbers = [used.size, *itertools.chain.from_iterable(pairs)]
    return b"".join(map(varint, numbers))


def _read_counts(reader: Reader, size: int, total: int) -> np.ndarray:
    counts, at = np.zeros(size, np.int64), -1
    for _ in range(min(reader.varint(), size)):
        at += reader.varint() + 1
        count = reader.varint()
        if at >= size or not 1 <= count <= total:
            raise CorruptPayload("the counts do not fit the array")
        counts[at] = count
    if counts.sum() != total:
        raise CorruptPayload("the counts do not fit the array")
    return counts


def _few(array: np.ndarray, most: int) -> np.ndarray | None:
    """Return the distinct values, or None if there are more than so many."""
    flat = array.reshape(-1)
    if flat.dtype.itemsize == 1:
        values = np.flatnonzero(np.bincount(flat, minlength=256)).astype(np.uint8)
    else:
        sample = flat[:: max(1, flat.size // 4096)]
        if np.unique(sample).size > most:
            return None
        values = np.unique(flat)
    return values if values.size <= most else None


def _encode_steps(new: np.ndarray, old: np.ndarray) -> bytearray:
    kept, coded = old != 0, bytearray()
    zeroed = (new == 0)[kept]
    coded.append(int(zeroed.any()))
    if zeroed.any():
        _nested.write(coded, zeroed.view(np.uint8), _codecs.ALL)
        old = _without(old, kept, zeroed)
    _nested.write(coded, _zigzag(new - old), _codecs.ALL)
    return coded


def _decode_steps(reader: Reader, old: np.ndarray) -> np.ndarray:
    if reader.byte():
        kept = old != 0
        shape = (int(np.count_nonzero(kept)),)
        zeroed = _nested.read(reader, shape, np.dtype(np.uint8), _codecs.ALL)
        old = _without(old, kept, zeroed.astype(bool))
    steps = _nested.read(reader, old.shape, old.dtype, _codecs.ALL)
    return old + _unzigzag(steps)


def _without(old: np.ndarray, kept: np.ndarray, zeroed: np.ndarray) -> np.ndarray:
    """Return the old elements, with zero where the new ones are zero."""
    left = old[kept]
    left[zeroed] = 0
    changed = old.copy()
    changed[kept] = left
    return changed


def _zigzag(steps: np.ndarray) -> np.ndarray:
    """Map wrapped differences to small patterns: 0, -1, 1, -2 to 0, 1, 2, 3."""
    sign = steps >> steps.dtype.type(8 * steps.dtype.itemsize - 1)
    return (steps << steps.dtype.type(1)) ^ (-sign)


def _unzigzag(codes: np.ndarray) -> np.ndarray:
    one = codes.dtype.type(1)
    return (codes >> one) ^ (-(codes & one))
