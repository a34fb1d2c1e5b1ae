# SPDX-License-Identifier: Apache-2.0
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcompress as jc


def kernel(seed=0, shape=(12, 10)):
    return jax.random.normal(jax.random.key(seed), shape)


@hypothesis.given(
    clusters=st.integers(2, 20),
    keep_zero=st.booleans(),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16]),
)
def test_every_weight_gets_the_nearest_centroid(clusters, keep_zero, seed, dtype):
    params = {"kernel": kernel(seed).astype(dtype).at[0].set(0)}
    c = jc.weight_sharing(clusters, keep_zero=keep_zero)
    state = c.init(params)
    centroids = np.asarray(state.centroids["kernel"], np.float64)
    assert len(centroids) == clusters and (np.diff(centroids) >= 0).all()
    view = np.asarray(c.apply(params, state)["kernel"], np.float64)
    exact = np.asarray(params["kernel"], np.float64)
    best = np.abs(exact[..., None] - centroids).min(-1)
    step = float(jnp.finfo(dtype).eps) * np.abs(exact).max()
    assert (np.abs(view - exact) <= best + step).all()
    if keep_zero:
        assert not view[0].any() and 0.0 in centroids


def test_k_means_beats_its_even_start_and_updates_do_not_undo_it():
    params = {"kernel": kernel()}

    def error(iterations, updates=0):
        c = jc.weight_sharing(8, iterations=iterations)
        p, state = params, c.init(params)
        for _ in range(updates):
            p, state = c.update(p, state)
        return float(jnp.sum((c.apply(p, state)["kernel"] - p["kernel"]) ** 2))

    assert error(20) < 0.8 * error(0)
    assert error(0, updates=20) == pytest.approx(error(20), rel=1e-3)


def test_centroids_are_the_means_of_their_weights():
    params = {"kernel": kernel()}
    c = jc.weight_sharing(4, keep_zero=False, iterations=100)
    shared = jc.compress(c, params)["kernel"]
    for code, centroid in enumerate(shared.centroids):
        members = np.asarray(params["kernel"])[np.asarray(shared.codes) == code]
        np.testing.assert_allclose(members.mean(), centroid, rtol=1e-5)


def test_centroids_move_every_few_updates():
    c = jc.weight_sharing(4, iterations=0, every=3)
    params = {"kernel": kernel()}
    state = c.init(params)
    seen = [state.centroids["kernel"]]
    for _ in range(3):
        params, state = c.update(params, state)
        seen.append(state.centroids["kernel"])
    np.testing.assert_array_equal(seen[0], seen[2])
    assert (seen[2] != seen[3]).any()


def test_gradients_pass_straight_through():
    params = {"kernel": kernel()}
    c = jc.weight_sharing(4)
    state = c.init(params)
    grads = jax.grad(lambda p: c.apply(p, state)["kernel"].sum())(params)
    np.testing.assert_array_equal(grads["kernel"], jnp.ones((12, 10)))


def test_large_codebooks_take_two_bytes_a_code():
    shared = jc.compress(jc.weight_sharing(300), {"kernel": kernel(shape=(40, 40))})
    assert shared["kernel"].codes.dtype == jnp.uint16


@pytest.mark.parametrize("clusters", [1, 65537])
def test_bad_clusters(clusters):
    with pytest.raises(ValueError, match="clusters must be 2 to 65536 values"):
        jc.weight_sharing(clusters)


def test_bad_every():
    with pytest.raises(ValueError, match="every must be at least 1 update, got 0"):
        jc.weight_sharing(4, every=0)
