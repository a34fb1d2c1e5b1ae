# SPDX-License-Identifier: Apache-2.0
"""The codec for small sparse matrices, against the others and against its own model."""

import numpy as np
import pytest

from jaxcompress.pack import _codecs, _contexts, _symbols
from jaxcompress.pack._payload import CorruptPayload


def sparse_codes(shape, share, seed=0, largest=3):
    """Codes whose rows and columns differ in density, as in trained networks."""
    draws = np.random.default_rng(seed)
    rows, columns = (draws.gamma(0.5, 2.0, n) for n in shape)
    probability = np.minimum(share * np.outer(rows, columns), 0.95)
    codes = draws.geometric(0.7, shape).clip(1, largest) * draws.choice([-1, 1], shape)
    return np.where(draws.random(shape) < probability, codes, 0).astype(np.int8)


def encoded(patterns):
    data = _contexts.encode(patterns)
    assert data is not None
    return data


@pytest.mark.parametrize(
    "codes",
    [
        sparse_codes((64, 30), 0.1),
        sparse_codes((30, 64), 0.05, seed=1),
        sparse_codes((1, 50), 0.9),
        sparse_codes((50, 1), 0.9, seed=1),
        sparse_codes((20, 20), 1.0, largest=127),
        np.full((6, 5), -128, np.int8) * (np.arange(30).reshape(6, 5) == 7),
        1 - np.eye(9, dtype=np.int8),  # most codes are 1, and zero is the exception
        np.arange(-120, 120, dtype=np.int8).reshape(12, 20),
    ],
    ids=[
        "tall", "wide", "a row", "a column", "wide codes", "one", "ones", "all differ",
    ],
)  # fmt: skip
def test_codes_come_back(codes):
    patterns = _codecs.patterns(codes.astype(np.int8))
    data = encoded(patterns)
    back = _contexts.decode(bytes(data), patterns.shape, patterns.dtype)
    np.testing.assert_array_equal(back, patterns)


def test_only_arrays_of_bytes_that_differ_are_taken():
    assert _contexts.encode(np.zeros((4, 4), np.uint8)) is None
    assert _contexts.encode(np.eye(4, dtype=np.uint16)) is None
    assert _contexts.encode(np.zeros((0, 4), np.uint8)) is None


def test_uneven_rows_and_columns_take_less_than_their_entropy():
    patterns = _codecs.patterns(sparse_codes((200, 100), 0.05))
    size = {
        "contexts": len(encoded(patterns)),
        "symbols": len(_symbols.encode(patterns) or b""),
    }
    assert size["contexts"] < 0.85 * size["symbols"]
    name, data = _codecs.encode(patterns)
    assert len(data) <= 1.011 * size["contexts"]
    assert name in ("contexts", "gaps")


def test_the_size_is_that_of_the_model():
    """Each flag costs what its probability says; the coder adds next to nothing."""
    mask = sparse_codes((120, 60), 0.05) != 0
    plans = list(_contexts._plans(mask))
    assert len(plans) == 10
    best = min(_contexts._bits(flags, p) / 8 for _, flags, p in plans)
    data = encoded(mask.astype(np.uint8))
    classes = 120 * 3 / 8  # at most eight classes of at most 120 lines
    assert best < len(data) < best + classes + 20


@pytest.mark.parametrize("at", range(0, 60, 3))
def test_damage_is_an_error_or_other_codes_but_never_another_shape(at):
    patterns = _codecs.patterns(sparse_codes((30, 20), 0.2))
    data = bytearray(encoded(patterns))
    data[at % len(data)] ^= 0x5A
    try:
        back = _contexts.decode(bytes(data), patterns.shape, patterns.dtype)
    except CorruptPayload:
        return
    assert back.shape == patterns.shape
