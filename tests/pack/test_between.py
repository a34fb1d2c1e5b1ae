# SPDX-License-Identifier: Apache-2.0
"""Arrays coded against older ones: exact, and near their conditional entropy."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from examples import examples
from hypothesis import given, strategies as st
from test_codecs import NORMAL, UNSIGNED, quantized

from jaxcompress.pack import _between
from jaxcompress.pack._payload import CorruptPayload
from jaxcompress.report import code_entropy

SHAPES = hnp.array_shapes(min_dims=1, max_dims=2, min_side=1, max_side=9)


@st.composite
def pairs(draw):
    """Two arrays alike: any patterns, few patterns, and some elements changed."""
    dtype, shape = np.dtype(draw(UNSIGNED)), draw(SHAPES)
    top = int(np.iinfo(dtype).max)
    some = st.integers(0, draw(st.sampled_from([0, 1, 15, top])))
    some = some | st.just(0) | st.just(top)
    old = draw(hnp.arrays(dtype, shape, elements=some, fill=some))
    other = draw(hnp.arrays(dtype, shape, elements=some, fill=some))
    changed = draw(hnp.arrays(bool, shape, fill=st.just(False)))
    return np.where(changed, other, old), old


@examples(200)
@given(pair=pairs())
def test_decoding_inverts_encoding(pair):
    new, old = pair
    back = _between.decode(memoryview(_between.encode(new, old)), old)
    assert (back.dtype, back.shape) == (new.dtype, new.shape)
    assert np.array_equal(back, new)


@examples(200)
@given(pair=pairs(), data=st.data())
def test_damaged_bytes_decode_to_the_shape_or_raise_corrupt_payload(pair, data):
    new, old = pair
    coded = bytearray(_between.encode(new, old))
    at = data.draw(st.integers(0, len(coded) - 1))
    coded[at] ^= data.draw(st.integers(1, 255))
    kept = data.draw(st.integers(at, len(coded)))
    try:
        back = _between.decode(memoryview(coded[:kept]), old)
    except CorruptPayload:
        return
    assert (back.dtype, back.shape) == (new.dtype, new.shape)


@examples(200)
@given(data=st.binary(max_size=40), pair=pairs())
def test_any_bytes_decode_to_the_shape_or_raise_corrupt_payload(data, pair):
    _, old = pair
    try:
        back = _between.decode(memoryview(data), old)
    except CorruptPayload:
        return
    assert (back.dtype, back.shape) == (old.dtype, old.shape)


def conditional_bytes(new, old):
    """The entropy of the new codes where the old ones are known."""
    parts = [new[old == value] for value in np.unique(old)]
    return sum(code_entropy(part) * part.size for part in parts) / 8


@pytest.mark.parametrize("bits", [2, 4])
def test_codes_cost_their_entropy_given_the_old_ones(bits):
    drift = np.random.default_rng(1).normal(size=NORMAL.shape).astype(np.float32)
    old, new = (quantized(NORMAL + 0.05 * x, bits, 0.5) for x in (0, drift))
    new, old = new.view(np.uint8), old.view(np.uint8)
    ideal = conditional_bytes(new, old)
    # Of each pair of codes that occurs the place and the count; the coder's last words.
    table = 5 * np.unique(np.stack([new, old]).reshape(2, -1), axis=1).shape[1] + 64
    assert ideal < 0.5 * code_entropy(new) * new.size / 8
    assert len(_between.encode(new, old)) <= 1.01 * ideal + table


def test_zeroed_floats_cost_their_positions():
    old = np.where(np.abs(NORMAL) > 1.6, NORMAL, 0).astype(np.float32)
    gone = np.abs(old) < 1.65
    new = np.where(gone, 0, old).astype(np.float32)
    kept = old != 0
    ideal = code_entropy(gone[kept]) * np.count_nonzero(kept) / 8
    coded = _between.encode(new.view(np.uint32), old.view(np.uint32))
    assert len(coded) <= 1.01 * ideal + 64


def test_fine_tuned_floats_cost_their_differences():
    draws = np.random.default_rng(1)
    new = NORMAL * (1 + 1e-5 * draws.normal(size=NORMAL.shape).astype(np.float32))
    coded = _between.encode(new.view(np.uint32), NORMAL.view(np.uint32))
    # Differences of about 2**7 of the last bits take 9 bits with their signs.
    assert len(coded) < 10 / 8 * NORMAL.size


def test_a_method_of_another_version_is_refused():
    with pytest.raises(CorruptPayload, match="unknown method 7"):
        _between.decode(memoryview(b"\x07"), np.zeros(2, np.uint8))
