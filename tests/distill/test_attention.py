# SPDX-License-Identifier: Apache-2.0
"""Relations of positions; maps of activity are in test_features."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from examples import examples
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxcompress import distill

# Compiled whole: fast, and a test that it can be. Its doctest runs without.
attention_relations = jax.jit(distill.attention_relations, static_argnames="heads")


def vectors(seed, shape=(2, 5, 8)):
    return normal(*shape, seed=seed)


@examples(8)
@hypothesis.given(
    batch=st.lists(st.integers(1, 3), max_size=2).map(tuple),
    positions=st.integers(1, 5),
    heads=st.integers(1, 3),
    widths=st.tuples(*[st.integers(1, 4)] * 2),
)
def test_it_is_the_papers_formula(batch, positions, heads, widths):
    s, t = (vectors(i, (*batch, positions, heads * w)) for i, w in enumerate(widths))

    def relation(x, head, width):
        x = np.asarray(x, np.float64)[..., head * width : (head + 1) * width]
        e = np.exp(x @ np.swapaxes(x, -1, -2) / np.sqrt(width))
        return e / e.sum(-1, keepdims=True)

    expected = 0
    for head in range(heads):
        q, p = (relation(x, head, w) for x, w in zip((s, t), widths, strict=True))
        expected = expected + (p * np.log(p / q)).sum(-1) / heads
    got = attention_relations(s, t, heads=heads)
    assert got.shape == (*batch, positions)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


def test_it_is_zero_for_equal_relations_and_positive_otherwise():
    s, t = vectors(0), vectors(1)
    np.testing.assert_allclose(attention_relations(s, s, heads=2), 0, atol=1e-7)
    np.testing.assert_allclose(attention_relations(s, -s, heads=2), 0, atol=1e-7)
    assert (attention_relations(s, t, heads=2) > 1e-3).all()


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, 1e30])
def test_padding_changes_nothing_and_gets_nothing(bad):
    s, t = vectors(0), vectors(1, (2, 5, 4))
    where = jnp.array([[True] * 3 + [False] * 2, [False] * 5])
    holes = [jnp.where(where[..., None], x, bad) for x in (s, t)]

    def total(s):
        values = attention_relations(s, holes[1], heads=2, where=where)
        return values.sum(), values

    grad, values = jax.jit(jax.grad(total, has_aux=True))(holes[0])
    expected = attention_relations(s[0, :3], t[0, :3], heads=2)
    np.testing.assert_allclose(values[0, :3], expected, rtol=1e-4)
    assert not values[~where].any() and not grad[~where].any()
    assert jnp.isfinite(grad).all() and grad[0, :3].any()


def test_sharp_relations_and_short_floats_are_stable():
    short = [1e4 * vectors(i).astype(jnp.bfloat16) for i in (0, 1)]

    def total(s):
        values = attention_relations(s, short[1], heads=2)
        return values.sum(), values

    grad, values = jax.grad(total, has_aux=True)(short[0])
    assert values.dtype == jnp.float32 and jnp.isfinite(values).all()
    assert grad.dtype == jnp.bfloat16 and jnp.isfinite(grad.astype(jnp.float32)).all()


def test_gradients_agree_with_differences_and_reach_no_teacher():
    s, t, direction = (vectors(i) for i in range(3))

    @jax.jit
    def along(step):
        return attention_relations(s + step * direction, t, heads=4).sum()

    slope = jax.jvp(along, (0.0,), (1.0,))[1]
    differences = (along(1e-2) - along(-1e-2)) / 2e-2
    np.testing.assert_allclose(slope, differences, rtol=2e-2)
    np.testing.assert_allclose(slope, jax.grad(along)(0.0), rtol=1e-4)
    assert not jax.grad(lambda t: attention_relations(s, t, heads=4).sum())(t).any()


def test_batches_and_shards_change_no_value():
    def loss(s, t):
        return attention_relations(s, t, heads=2)

    pair = vectors(0, (4, 8, 8)), vectors(1, (4, 8, 8))
    expected = loss(*pair)
    np.testing.assert_allclose(jax.vmap(loss)(*pair), expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(
        loss(*(x[:2] for x in pair)), expected[:2], rtol=1e-4, atol=1e-7
    )
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
    for spec in (PartitionSpec("d"), PartitionSpec(None, "d")):
        spread = jax.device_put(pair, NamedSharding(mesh, spec))
        got = loss(*spread)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)


def test_bad_arguments():
    s = vectors(0)
    with pytest.raises(ValueError, match=r"divide both widths, 8 and 6, got heads=3"):
        attention_relations(s, vectors(1, (2, 5, 6)), heads=3)
    with pytest.raises(ValueError, match="heads=0"):
        attention_relations(s, s, heads=0)
    with pytest.raises(
        ValueError, match=r"with the same positions, got \(2, 5, 8\) and \(2, 4, 8\)"
    ):
        attention_relations(s, s[:, :4], heads=2)
    with pytest.raises(
        ValueError, match=r"where must have shape \(2, 5\), .* got \(2,\)"
    ):
        attention_relations(s, s, heads=2, where=jnp.ones(2, bool))
