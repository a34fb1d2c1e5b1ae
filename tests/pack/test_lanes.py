# SPDX-License-Identifier: Apache-2.0
"""Coders side by side: the same symbols, at nearly the same size."""

import numpy as np
import pytest

from jaxcompress.pack import _bytes, _codecs, _lanes, _symbols
from jaxcompress.pack._payload import CorruptPayload

SIZE = 1_000_000 + 12345


def codes(spread, high, size=SIZE, seed=0):
    draws = np.random.default_rng(seed).normal(size=size) * spread
    return np.clip(np.round(draws), -high, high).astype(np.int8).view(np.uint8)


def encoded(patterns):
    data = _lanes.encode(patterns)
    assert data is not None
    return data


def bound(patterns):
    counts = np.bincount(patterns)
    counts = counts[counts > 0]
    return -float(counts @ np.log2(counts / counts.sum())) / 8


@pytest.mark.parametrize(
    "patterns",
    [codes(30, 127), codes(2.2, 7), codes(0.7, 1, 2 * SIZE)],
    ids=["8 bits", "4 bits", "2 bits"],
)
def test_what_is_decoded_is_what_was_encoded_near_the_bound(patterns):
    data = encoded(patterns)
    np.testing.assert_array_equal(
        _lanes.decode(data, patterns.shape, patterns.dtype), patterns
    )
    assert bound(patterns) < len(data) < 1.01 * bound(patterns) + 600
    assert _symbols.encode(patterns) is None  # one of the two


@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, SIZE])
def test_sizes_need_not_fit_the_lanes(size):
    patterns = codes(2.2, 7, size).reshape(1, -1)
    data = encoded(patterns)
    np.testing.assert_array_equal(
        _lanes.decode(data, patterns.shape, patterns.dtype), patterns
    )


def test_all_256_bytes_and_two_of_them():
    draws = np.random.default_rng(0)
    biased = np.minimum(draws.integers(0, 256, SIZE), draws.integers(0, 256, SIZE))
    for patterns in (biased.astype(np.uint8), codes(1, 1, 2 * SIZE) & np.uint8(128)):
        data = encoded(patterns)
        np.testing.assert_array_equal(
            _lanes.decode(data, patterns.shape, patterns.dtype), patterns
        )


def test_small_wide_constant_and_very_sparse_arrays_are_left_to_others():
    assert _lanes.encode(codes(2, 7, 1 << 16)) is None
    assert _lanes.encode(codes(2, 7).astype(np.uint16)) is None
    assert _lanes.encode(np.zeros(SIZE, np.uint8)) is None
    rare = np.zeros(SIZE, np.uint8)
    rare[::6] = 1
    assert _lanes.encode(rare) is None and _symbols.encode(rare) is not None


def test_the_file_takes_lanes_for_codes_and_for_the_exponents_of_floats():
    name, _ = _codecs.encode(codes(2.2, 7).view(np.int8))
    assert name == "lanes"
    floats = np.random.default_rng(0).normal(size=SIZE).astype(np.float32)
    name, data = _codecs.encode(floats)
    assert name == "bytes" and data == _bytes.encode(floats.view(np.uint32))
    assert data[0] == 3  # the codec of the first plane
    np.testing.assert_array_equal(
        _codecs.decode(name, data, floats.shape, floats.dtype), floats
    )


def test_damage_is_refused_or_changes_values():
    """The checksum of the file finds the rest."""
    patterns = codes(2.2, 7)
    data, draws = bytes(encoded(patterns)), np.random.default_rng(0)
    places = [*range(40), *draws.integers(0, len(data), 40)]
    refused = 0
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(draws.integers(8))
        try:
            decoded = _lanes.decode(damaged, patterns.shape, patterns.dtype)
        except CorruptPayload:
            refused += 1
        else:
            assert not np.array_equal(decoded, patterns)
    assert refused > len(places) // 2
    for cut in (1, 2, 3, 2000, len(data) - 20, len(data) - 1):
        with pytest.raises(CorruptPayload):
            _lanes.decode(data[:-cut], patterns.shape, patterns.dtype)
    for shape in ((SIZE - 1,), (SIZE + 1,), (3,)):
        with pytest.raises(CorruptPayload):
            _lanes.decode(data, shape, patterns.dtype)
