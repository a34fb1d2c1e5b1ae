# SPDX-License-Identifier: Apache-2.0
import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress.numerics import (
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
    scores = jax.random.normal(jax.random.key(0), (5, 6))
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


@hypothesis.given(
    tiles=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_tiles_split_and_expand(tiles, sizes):
    shape = tuple(t * s for t, s in zip(tiles, sizes, strict=True))
    x = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
    largest = expand_tiles(reduce_tiles(jnp.max, x, tiles), shape)
    for i in range(shape[0]):
        for j in range(shape[1]):
            a, b = i // sizes[0] * sizes[0], j // sizes[1] * sizes[1]
            assert largest[i, j] == x[a : a + sizes[0], b : b + sizes[1]].max()
