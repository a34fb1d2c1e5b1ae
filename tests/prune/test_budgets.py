# SPDX-License-Identifier: Apache-2.0
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress.prune import erk, global_, uniform

SHAPES = {"a": (300, 100), "b": (100, 10), "c": (3, 3, 4, 8)}
SCORES = {
    path: jnp.abs(jax.random.normal(jax.random.key(i), shape))
    for i, (path, shape) in enumerate(SHAPES.items())
}
SIZES = np.array([s.size for s in SCORES.values()])


@hypothesis.given(sparsity=st.floats(0, 0.999))
def test_every_budget_spends_what_was_asked(sparsity):
    for budget in (uniform, erk, global_):
        counts = np.array(
            [int(n) for n in budget(SCORES, jnp.float32(sparsity)).values()]
        )
        assert (counts >= 0).all() and (counts <= SIZES).all()
        # Each leaf rounds to a whole weight; ERK's factor is exact to float32.
        assert abs(counts.sum() - sparsity * SIZES.sum()) <= 2 + 1e-5 * SIZES.sum()


def test_erk_densities_are_proportional_until_a_leaf_is_dense():
    counts = erk(SCORES, jnp.float32(0.9))
    density = 1 - np.array([int(n) for n in counts.values()]) / SIZES
    raw = np.array([sum(s.shape) / s.size for s in SCORES.values()])
    assert (density <= 1).all()
    open_leaves = density < 0.999
    ratio = density[open_leaves] / raw[open_leaves]
    np.testing.assert_allclose(ratio, ratio[0], rtol=2e-2)
    np.testing.assert_array_equal(np.argsort(density), np.argsort(raw))


def test_erk_takes_a_traced_sparsity():
    values = jnp.asarray([0.5, 0.9, 0.97])
    batched = jax.vmap(lambda s: jnp.stack([*erk(SCORES, s).values()]))(values)
    for row, value in zip(batched, values, strict=True):
        assert row.tolist() == [int(n) for n in erk(SCORES, value).values()]


def test_global_equals_one_sort():
    sparsity = jnp.float32(0.8)
    counts = [int(n) for n in global_(SCORES, sparsity).values()]
    flat = np.concatenate([np.asarray(s).ravel() for s in SCORES.values()])
    threshold = np.sort(flat)[round(0.8 * flat.size) - 1]
    assert counts == [int((np.asarray(s) <= threshold).sum()) for s in SCORES.values()]


def test_global_mixes_dtypes():
    mixed = {"a": SCORES["a"].astype(jnp.bfloat16), "b": SCORES["b"]}
    total = sum(int(n) for n in global_(mixed, jnp.float32(0.5)).values())
    assert total == (SIZES[0] + SIZES[1]) // 2
