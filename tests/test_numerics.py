# SPDX-License-Identifier: Apache-2.0
import re

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from examples import examples

from jaxcompress.numerics import (
    _counts as digits,
    expand_tiles,
    reduce_tiles,
    smallest,
    smallest_per_leaf,
    ste,
)

SHAPES = [(7,), (3, 5), (2, 3, 4)]


def reference(scores, count):
    """The first ``count`` of a stable argsort."""
    order = np.argsort(np.asarray(scores, np.float64).ravel(), kind="stable")
    mask = np.zeros(scores.size, bool)
    mask[order[: max(0, count)]] = True
    return mask.reshape(scores.shape)


@hypothesis.given(
    data=st.data(),
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16]),
)
def test_smallest_equals_a_stable_sort_with_ties(data, shape, dtype):
    values = st.one_of(
        st.integers(-3, 3).map(float),  # many ties, and both zeros
        st.floats(-1e4, 1e4, width=16),
        st.sampled_from([-0.0, 0.0, np.inf, -np.inf, 6e-8, np.nan]),
    )
    scores = jnp.asarray(
        data.draw(hnp.arrays(np.float32, shape, elements=values)), dtype
    )
    count = data.draw(st.integers(-1, scores.size + 1))
    mask = smallest(scores, count)
    np.testing.assert_array_equal(mask, reference(scores, min(count, scores.size)))


def test_smallest_orders_subnormals_that_float_comparison_may_flush():
    tiny = np.float32(1e-45)
    scores = jnp.asarray([2 * tiny, tiny, 0, -tiny], jnp.float32)
    assert smallest(scores, 3).tolist() == [False, True, True, True]


@hypothesis.given(
    arrays=st.lists(
        hnp.arrays(np.float32, (3, 4), elements=st.integers(-2, 2).map(float)),
        min_size=3,
        max_size=3,
    ),
    count=st.integers(0, 36),
)
def test_smallest_per_leaf_equals_one_sort_over_all(arrays, count):
    counts = smallest_per_leaf([jnp.asarray(a) for a in arrays], count)
    expected = reference(np.stack(arrays), count).sum(axis=(1, 2))
    assert [int(n) for n in counts] == expected.tolist()


def test_counts_may_be_traced_and_batched():
    scores = normal(5, 6)
    counts = jnp.arange(4) * 7
    masks = jax.jit(jax.vmap(smallest, in_axes=(None, 0)))(scores, counts)
    for mask, count in zip(masks, counts, strict=True):
        np.testing.assert_array_equal(mask, reference(scores, int(count)))


def test_double_precision_scores_are_refused():
    with jax.enable_x64(True), pytest.raises(TypeError, match="float64"):
        smallest(jnp.ones(3, jnp.float64), 1)


# Arithmetic on CPUs may flush subnormals to zero, whatever the expression.
FLOATS = st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False)


@hypothesis.given(
    x=hnp.arrays(np.float32, 20, elements=FLOATS),
    value=hnp.arrays(np.float32, 20, elements=FLOATS),
)
def test_ste_is_bit_exact_forward_and_the_identity_backward(x, value):
    inside = jnp.asarray(x > 0)
    out, pullback = jax.vjp(lambda v: ste(v, value, inside), jnp.asarray(x))
    np.testing.assert_array_equal(out, value)
    np.testing.assert_array_equal(pullback(jnp.ones(20))[0], inside.astype(np.float32))


def test_ste_has_forward_mode_and_second_derivatives():
    def f(x):
        return jnp.sum(ste(x, jnp.round(x)) ** 3)

    x = jnp.asarray([1.2, -2.7])
    assert jax.jvp(f, (x,), (jnp.ones(2),))[1] == jnp.sum(3 * jnp.round(x) ** 2)
    # The gradient is 3 r(x)^2, and r passes straight through once more.
    hessian = jax.jacfwd(jax.grad(f))(x)
    np.testing.assert_allclose(hessian, jnp.diag(6 * jnp.round(x)))


@pytest.mark.parametrize("tiles", [(1, 1), (2, 3), (3, 1)])
@pytest.mark.parametrize("sizes", [(1, 4), (2, 1), (4, 3)])
def test_tiles_split_and_expand(tiles, sizes):
    shape = tuple(t * s for t, s in zip(tiles, sizes, strict=True))
    x = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
    largest = expand_tiles(reduce_tiles(jnp.max, x, tiles), shape)
    for i in range(shape[0]):
        for j in range(shape[1]):
            a, b = i // sizes[0] * sizes[0], j // sizes[1] * sizes[1]
            assert largest[i, j] == x[a : a + sizes[0], b : b + sizes[1]].max()


# Whole numbers near the edges of both digits, and of 32 bits.
WHOLE = st.one_of(
    st.integers(0, 2**47),
    st.sampled_from([2**16, 2**32, 2**33, 2**47])
    .flatmap(lambda edge: st.integers(-3, 3).map(lambda i: edge + i))
    .filter(lambda n: n <= 2**47),
)
UINT32 = st.one_of(st.integers(0, 2**32 - 1), st.just(2**32 - 1), st.just(0))


def value(number):
    return (int(number.high) << 16) + int(number.low)


@hypothesis.given(a=WHOLE, b=WHOLE, flag=st.booleans())
def test_two_digits_count_like_whole_numbers(a, b, flag):
    x, y = digits.number(a), digits.number(b)
    assert value(x) == a and int(x.low) < 2**16
    assert bool(digits.less(x, y)) == (a < b)
    assert value(digits.select(jnp.asarray(flag), x, y)) == (a if flag else b)
    assert value(digits.clipped_to(x, b)) == min(a, b)
    large, small = (x, y) if a >= b else (y, x)
    difference = digits.minus(large, small)
    assert value(difference) == abs(a - b) and int(difference.low) < 2**16


@hypothesis.given(parts=st.lists(UINT32, min_size=4, max_size=4), a=WHOLE, most=UINT32)
def test_two_digits_add_up_and_come_back_as_one(parts, a, most):
    together = digits.total([jnp.uint32(part) for part in parts])
    assert value(together) == sum(parts) and int(together.low) < 2**16
    clipped = digits.clipped(digits.number(a), jnp.uint32(most))
    assert clipped.dtype == jnp.uint32 and int(clipped) == min(a, most)


@hypothesis.given(x=st.floats(-(2.0**20), 2.0**47, width=32), n=UINT32)
def test_floats_and_uint32_become_the_number_they_round_to(x, n):
    assert value(digits.number(jnp.float32(x))) == max(0, round(x))
    assert value(digits.number(jnp.uint32(n))) == n
    assert value(digits.number(-n)) == 0


@pytest.mark.parametrize(
    "count",
    [2**31, 2**32 + 1, 2**60, -(2**40), jnp.inf, np.uint32(2**32 - 1), np.int64(2**32)],
)
def test_counts_of_any_size_are_clipped(count):
    scores = jnp.asarray([3.0, 1.0, 2.0])
    expected = max(0, min(count, 3))
    assert int(smallest(scores, count).sum()) == expected
    found = smallest_per_leaf([scores, scores], count)
    assert sum(int(n) for n in found) == max(0, min(count, 6))


@pytest.mark.parametrize(
    "dtype",
    [jnp.int8, jnp.uint32, jnp.bfloat16, jnp.float16],
)
def test_counts_of_any_dtype(dtype):
    scores = jnp.asarray([3.0, 1.0, 2.0])
    assert smallest(scores, jnp.asarray(2, dtype)).tolist() == [False, True, True]


@pytest.mark.parametrize(
    "shape",
    [
        (),
        (1,),
        (0, 3),
        (97,),
        (4096,),
        (31, 1, 2),
        (64, 128),
        (1, 3, 32, 1),
        (2, 89, 1),
    ],
)
def test_flags_are_counted_in_any_shape(shape):
    drawn = np.random.default_rng(len(shape)).random((3, *shape)) < 0.4
    counts = digits.count([jnp.asarray(flags) for flags in drawn])
    assert [int(n) for n in counts] == [int(flags.sum()) for flags in drawn]
    assert all(n.dtype == jnp.uint32 for n in counts)


def test_no_scores_and_one_score():
    assert smallest(jnp.zeros((0, 3)), 2).shape == (0, 3)
    assert bool(smallest(jnp.zeros(()), 1)) and not bool(smallest(jnp.zeros(()), 0))
    counts = smallest_per_leaf([jnp.zeros((0, 3)), jnp.ones(4)], 3)
    assert [int(n) for n in counts] == [0, 3]


@examples(5)
@hypothesis.given(seed=st.integers(0, 9999))
def test_larger_arrays_in_which_most_scores_tie(seed):
    rng = np.random.default_rng(seed)
    scores = jnp.asarray(rng.geometric(0.3, (257, 3, 32)) * rng.choice([-1, 1]))
    scores = scores.astype(jnp.bfloat16)
    for count in rng.integers(0, scores.size, 3):
        mask = smallest(scores, jnp.int32(count))
        np.testing.assert_array_equal(mask, reference(scores, count))


@pytest.mark.parametrize("axis", [0, 1])
def test_devices_exchange_counters_and_nothing_else(axis):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec(*["x" if i == axis else None for i in range(2)])
    place = jax.sharding.NamedSharding(mesh, spec)
    whole = jnp.round(4 * normal(64, 128))
    scores = jax.device_put(whole, place)

    @jax.jit
    def ranked(scores, count):
        return smallest(scores, count), smallest_per_leaf([scores, -scores], count)

    compiled = ranked.lower(scores, 2000).compile()
    text = str(compiled.as_text())
    assert "all-gather" not in text and "all-to-all" not in text
    text = re.sub(r"/\*index=\d+\*/", "", text)
    exchanged = re.findall(r"= (.*) all-reduce\(", text)
    assert exchanged
    for shapes in exchanged:
        assert re.fullmatch(r"[(]?(u32\[\](, )?)+[)]?", shapes), shapes
    mask, counts = jax.block_until_ready(compiled(scores, 2000))
    np.testing.assert_array_equal(mask, reference(whole, 2000))
    assert mask.sharding.is_equivalent_to(place, 2)
    both = reference(jnp.stack([whole, -whole]), 2000)
    assert [int(n) for n in counts] == both.sum((1, 2)).tolist()
