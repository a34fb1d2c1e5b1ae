# SPDX-License-Identifier: Apache-2.0
"""The codec ``lanes``: what ``symbols`` does, by thousands of coders side by side.

Each lane is a coder by asymmetric numeral systems with a state of 32 bits, and all of them
take a step at once, as one operation of NumPy. So large arrays are decoded several times as
fast, and other threads run meanwhile. Integers are all there is to it, so every machine
decodes alike.

The lanes start with a state each, whose lower half is free: it holds the last symbols.

References:
  Giesen, 2014, Interleaved entropy coders, https://arxiv.org/abs/1402.3392
"""

from __future__ import annotations

import math

import numpy as np

from . import _ans
from ._payload import Bytes, CorruptPayload, Reader, varint

_PRECISION = 14  # frequencies are in units of 1 / 2**14
_WORD = 16
_LEAST = 1 << _WORD  # of a state, between steps
_SMALL = 1 << 17  # elements: too few for any number of lanes
_FEWEST, _MOST = 10, 13  # lanes, as powers of two; one coder is as fast as 512 lanes
_VERY_COMMON = 0.8  # the codec ``gaps`` decodes such arrays as fast

ALLOWANCE = 0.01
"""What share more bytes may be taken, because they are decoded faster."""


def lanes_for(counts: np.ndarray) -> int | None:
    """Return how many lanes are worth it, as a power of two.

    As many as take no more than their share of additional bytes; None if those are too few
    to be fast.

    Args:
      counts: how often each byte occurs, without those that do not.
    """
    size = int(counts.sum())
    if size < _SMALL or counts.size < 2 or counts.max() >= _VERY_COMMON * size:
        return None
    bits = -float(counts @ np.log2(counts / size))
    rounded = -float(counts @ np.log2(_frequencies(counts) / (1 << _PRECISION)))
    _, held = _held(counts.size)
    # A state takes two words. Half a word of them tells something, and so do the symbols
    # that it started with.
    each = 1.5 * _WORD - held * bits / size
    lanes = ((1 + ALLOWANCE) * bits - rounded) / max(each, 1.0)
    power = int(math.log2(lanes)) if lanes > 1 else 0
    return min(power, _MOST) if power >= _FEWEST else None


def encode(patterns: np.ndarray) -> bytearray | None:
    """Encode as alphabet, frequencies, states and words; None unless it is worth it."""
    if patterns.dtype.itemsize > 1 or patterns.size < _SMALL:
        return None
    flat = patterns.reshape(-1)
    counts = _ans.histogram(flat)
    alphabet = np.flatnonzero(counts)
    power = lanes_for(counts[alphabet])
    if power is None:
        return None
    width, held = _held(alphabet.size)
    lanes, frequencies = 1 << power, _frequencies(counts[alphabet])
    size = flat.size - held * lanes
    index = np.zeros(256, np.int64)
    index[alphabet] = np.arange(alphabet.size)
    shifts = width * np.arange(held)[:, None]
    last = index[flat[size:]].reshape(held, lanes)
    states = _LEAST + np.sum(last << shifts, axis=0)
    words = _push(states, index, flat[:size], frequencies)
    coded = bytearray(_ans.write_table(alphabet, frequencies) + varint(power))
    coded += states.astype("<u4").tobytes()
    while words:  # each is freed as it is written
        coded += words.pop().data
    return coded


def decode(data: Bytes, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Invert ``encode``."""
    flat = np.empty(int(np.prod(shape, dtype=np.int64)), np.uint8)
    reader = Reader(data)
    number = reader.varint()
    if dtype.itemsize > 1 or not 2 <= number <= 256:
        raise CorruptPayload("lanes are for bytes of 2 to 256 values")
    alphabet, frequencies = _ans.read_table(reader, number)
    power = reader.varint()
    if alphabet[-1] > 255 or sum(frequencies) != 1 << _PRECISION or power > _MOST:
        raise CorruptPayload("the frequencies do not fit")
    width, held = _held(number)
    lanes, size = 1 << power, flat.size - (held << power)
    if size < 0:
        raise CorruptPayload("there are more lanes than elements")
    states = np.frombuffer(reader.take(4 * lanes), "<u4").astype(np.int64)
    rest = reader.rest()
    if len(rest) % 2:
        raise CorruptPayload("the words end too early")
    words = np.frombuffer(rest, "<u2")
    values = np.array(alphabet, np.uint8)
    _pull(states, words, flat[:size], values, np.array(frequencies, np.int64))
    last = states - _LEAST
    indices = last >> width * np.arange(held)[:, None] & (1 << width) - 1
    if last.min() < 0 or last.max() >> width * held or indices.max() >= number:
        raise CorruptPayload("the lanes do not end with symbols")
    flat[size:] = values[indices.reshape(-1)]
    return flat.reshape(shape)


def _held(number: int) -> tuple[int, int]:
    """Return the bits of an index among so many values, and how many a lane starts with."""
    width = (number - 1).bit_length()
    return width, _WORD // width


def _frequencies(counts: np.ndarray) -> np.ndarray:
    """Return frequencies that are in proportion to counts, all above zero."""
    whole = 1 << _PRECISION
    frequencies = np.maximum(1, np.round(counts / counts.sum() * whole)).astype(
        np.int64
    )
    while excess := int(frequencies.sum()) - whole:
        largest = int(np.argmax(frequencies))
        frequencies[largest] -= min(excess, int(frequencies[largest]) // 2)
    return frequencies


def _push(
    states: np.ndarray, index: np.ndarray, flat: np.ndarray, frequencies: np.ndarray
) -> list[np.ndarray]:
    """Encode from back to front, in place, and return the words of each step."""
    lanes, words = states.size, []
    of_byte = index.clip(0, frequencies.size - 1)
    frequency = frequencies[of_byte]
    start = (np.cumsum(frequencies) - frequencies)[of_byte]
    for begin in reversed(range(0, flat.size, lanes)):
        row = flat[begin : begin + lanes]
        state, share = states[: row.size], frequency[row]
        full = np.flatnonzero(state >= share << 2 * _WORD - _PRECISION)
        high = state[full]
        words.append((high & _LEAST - 1).astype("<u2"))
        state[full] = high >> _WORD
        # Quotients of such small integers are exact in float64, and faster.
        whole = (state / share).astype(np.int64)
        state += whole * ((1 << _PRECISION) - share) + start[row]
    return words


def _pull(
    states: np.ndarray,
    words: np.ndarray,
    flat: np.ndarray,
    values: np.ndarray,
    frequencies: np.ndarray,
) -> None:
    """Decode from front to back, in place."""
    lanes, at = states.size, 0
    of_slot = np.repeat(np.arange(frequencies.size), frequencies)
    start = np.cumsum(frequencies) - frequencies
    within = np.arange(of_slot.size) - start[of_slot]
    # One look-up for all that a slot means: value, frequency and place in the interval.
    table = values[of_slot] | frequencies[of_slot] << 8 | within << 32
    slot, entry = np.empty_like(states), np.empty_like(states)
    for begin in range(0, flat.size, lanes):
        row = flat[begin : begin + lanes]
        state, slots, entries = states[: row.size], slot[: row.size], entry[: row.size]
        np.bitwise_and(state, of_slot.size - 1, out=slots)
        table.take(slots, out=entries, mode="clip")
        row[:] = entries  # the lowest byte
        np.right_shift(state, _PRECISION, out=state)
        np.right_shift(entries, 8, out=slots)
        np.bitwise_and(slots, (1 << 24) - 1, out=slots)
        np.multiply(state, slots, out=state)
        np.right_shift(entries, 32, out=entries)
        np.add(state, entries, out=state)
        (low,) = (state < _LEAST).nonzero()
        if low.size > words.size - at:
            raise CorruptPayload("the words end too early")
        state[low] = state[low] << _WORD | words[at : at + low.size]
        at += low.size
    if at != words.size:
        raise CorruptPayload("there are more words than elements")
