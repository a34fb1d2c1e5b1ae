# SPDX-License-Identifier: Apache-2.0
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from examples import examples
from hypothesis import given, strategies as st

from jaxcompress.pack import _ans, _codecs, _lanes, _packed
from jaxcompress.pack._codecs import CODECS
from jaxcompress.pack._payload import CorruptPayload, Reader, varint
from jaxcompress.report import code_entropy

UNSIGNED = st.sampled_from([np.uint8, np.uint16, np.uint32, np.uint64])
SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=9)


@st.composite
def patterns(draw):
    """Bit patterns of few values around a random one, or of any values."""
    dtype = np.dtype(draw(UNSIGNED))
    top = int(np.iinfo(dtype).max)
    start, span = draw(st.integers(0, top)), draw(st.sampled_from([0, 1, 15, 300, top]))
    some = st.integers(0, span).map(lambda x: (start + x) % (top + 1))
    return draw(hnp.arrays(dtype, draw(SHAPES), elements=some, fill=some))


@pytest.mark.parametrize("name", CODECS)
@examples(200)
@given(array=patterns())
def test_decoding_inverts_encoding(name, array):
    encode, decode, _ = CODECS[name]
    data = encode(array)
    if data is not None:
        back = decode(data, array.shape, array.dtype)
        assert back.dtype == array.dtype
        assert np.array_equal(back, array)


@pytest.mark.parametrize("name", CODECS)
@examples(200)
@given(data=st.binary(max_size=60), shape=SHAPES, dtype=UNSIGNED)
def test_any_bytes_decode_to_the_shape_or_raise_corrupt_payload(
    name, data, shape, dtype
):
    try:
        array = CODECS[name].decode(data, shape, np.dtype(dtype))
    except CorruptPayload:
        return
    assert (array.shape, array.dtype) == (shape, dtype)


@pytest.mark.parametrize("name", CODECS)
@examples(200)
@given(array=patterns(), data=st.data())
def test_damaged_payloads_decode_to_the_shape_or_raise_corrupt_payload(
    name, array, data
):
    encode, decode, _ = CODECS[name]
    payload = bytearray(encode(array) or b"")
    if payload:
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at] ^= data.draw(st.integers(1, 255))
        kept = data.draw(st.integers(at, len(payload)))
        try:
            back = decode(bytes(payload[:kept]), array.shape, array.dtype)
        except CorruptPayload:
            return
        assert (back.shape, back.dtype) == (array.shape, array.dtype)


@pytest.mark.parametrize(
    ("name", "zeros"), [("packed", 1), ("symbols", 1), ("sparse", 5), ("gaps", 9)]
)
def test_arrays_of_several_parts(monkeypatch, name, zeros):
    monkeypatch.setattr(_ans, "_PART", 16)
    monkeypatch.setattr(_packed, "_PART", 16)
    array = np.random.default_rng(0).integers(0, 10, (17, 23)).astype(np.uint8)
    array[array < zeros] = 0
    encode, decode, _ = CODECS[name]
    data = encode(array)
    assert data is not None
    assert np.array_equal(decode(data, array.shape, array.dtype), array)


def quantized(weights, bits, sparsity):
    """Codes of the weights with the smallest ones pruned, on an absmax grid."""
    kept = np.abs(weights) > np.quantile(np.abs(weights), sparsity)
    scale = np.abs(weights).max() / (2 ** (bits - 1) - 1)
    return np.round(weights * kept / scale).astype(np.int8)


NORMAL = np.random.default_rng(0).normal(size=(500, 500)).astype(np.float32)
CASES = {
    "90 % zeros, 4 bits": quantized(NORMAL, 4, 0.9),
    "97 % zeros, 4 bits": quantized(NORMAL, 4, 0.97),
    "dense, 4 bits": quantized(NORMAL, 4, 0.0),
    "dense, 8 bits": quantized(NORMAL, 8, 0.0),
    "ternary": (np.sign(NORMAL) * (np.abs(NORMAL) > 0.6745)).astype(np.int8),
    "mask, 90 % zeros": np.abs(NORMAL) > 1.645,
}


@pytest.mark.parametrize("name", CASES)
def test_weights_without_structure_cost_their_entropy(name):
    codes = CASES[name]
    codec, data = _codecs.encode(codes)
    ideal = code_entropy(codes) * codes.size / 8
    # Of each symbol the value and the count (up to 3 bytes); the coder's last words.
    table = 4 * np.unique(codes).size + 16
    most = 1 + _lanes.ALLOWANCE if codec == "lanes" else 1.001
    assert ideal <= len(data) <= most * ideal + table


def test_rows_and_columns_of_unlike_density_cost_less_than_the_entropy():
    rng = np.random.default_rng(0)
    rows, columns = rng.beta(0.5, 5, (784, 1)), rng.beta(5, 5, (1, 300))
    kept = rng.random((784, 300)) < 2 * rows * columns
    codes = rng.integers(1, 8, kept.shape).astype(np.int8) * kept
    name, data = _codecs.encode(codes)
    assert name == "gaps"
    assert len(data) < 0.9 * code_entropy(codes) * codes.size / 8
    assert np.array_equal(_codecs.decode(name, data, codes.shape, codes.dtype), codes)


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.03, 0.19])
def test_gaps_cost_what_bits_cost(share):
    """Without a table, and whatever a gap can be: the entropy of the mask, both."""
    mask = np.random.default_rng(0).random((1000, 300)) < share
    mask[-1, -1] = True
    data = CODECS["gaps"].encode(mask.view(np.uint8))
    assert data is not None
    ideal = code_entropy(mask) * mask.size / 8
    assert len(data) <= 1.001 * ideal + 24
    back = CODECS["gaps"].decode(data, mask.shape, np.dtype(np.uint8))
    assert np.array_equal(back, mask)


def test_gaps_are_for_rare_elements_and_bits_for_others():
    for share, name in ((0.1, "gaps"), (0.3, "sparse")):
        codes = np.random.default_rng(0).random((1000, 300)) < share
        codes = codes.view(np.uint8)
        made = [k for k in ("gaps", "sparse") if CODECS[k].encode(codes) is not None]
        assert made == [name]


def test_exponents_of_floats_are_compressed_but_not_their_fractions():
    name, data = _codecs.encode(NORMAL)
    assert name == "bytes"
    assert 0.75 * NORMAL.nbytes < len(data) < 0.9 * NORMAL.nbytes


def test_sparse_floats_cost_their_mask_and_their_values():
    kept = np.abs(NORMAL) > 1.645
    _, data = _codecs.encode(np.where(kept, NORMAL, 0))
    mask = code_entropy(kept) * kept.size / 8
    assert len(data) < mask + 4 * np.count_nonzero(kept)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint32])
def test_few_codes_are_packed_because_a_table_would_cost_more(dtype):
    codes = np.random.default_rng(0).permutation(16).astype(dtype) - dtype(7)
    name, data = _codecs.encode(codes)
    assert name == "packed"
    assert len(data) <= 8 + 6  # 4 bits each; lowest element and width


def test_a_large_alphabet_does_not_grow():
    codes = np.random.default_rng(0).integers(0, 1 << 16, 100_000).astype(np.uint16)
    _, data = _codecs.encode(codes)
    assert len(data) <= codes.nbytes


def test_a_constant_takes_a_few_bytes():
    _, data = _codecs.encode(np.zeros((1000, 1000), np.float32))
    assert len(data) < 8


@given(st.integers(0, 2**64 - 1))
def test_varints(value):
    reader = Reader(varint(value))
    assert reader.varint() == value
    reader.finish()


def test_a_varint_of_more_than_64_bits_is_refused():
    for data in (b"\xff" * 20, b"\xff" * 9 + b"\x7f"):
        with pytest.raises(CorruptPayload, match="64 bits"):
            Reader(data).varint()


def test_impossible_counts_are_refused():
    ids = b"\x01\x02\0\0"  # packed, two bytes: all of class 0
    with pytest.raises(CorruptPayload, match="3 of 2 elements cannot be set"):
        CODECS["sparse"].decode(
            b"\0" + ids + ids + b"\x03\0", (1, 2), np.dtype(np.uint8)
        )
    with pytest.raises(CorruptPayload, match="2 elements cannot have 3 distinct"):
        CODECS["symbols"].decode(b"\x03" + b"\1" * 6, (2,), np.dtype(np.uint8))
    with pytest.raises(CorruptPayload, match="counts do not fit"):
        CODECS["symbols"].decode(b"\x02\0\1\1\2", (2,), np.dtype(np.uint8))


def test_missing_library_names_the_fix(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "constriction", None)
    with pytest.raises(ImportError, match="pip install 'constriction"):
        _ans.encode([(np.array([0, 1]), np.array([1, 1]))])
