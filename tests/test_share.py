# SPDX-License-Identifier: Apache-2.0
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from variants import marked

import jaxcompress as jc
from jaxcompress.numerics import move_clusters


def kernel(seed=0, shape=(12, 10)):
    return normal(*shape, seed=seed)


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


def heavy():
    """A normal sample with one weight at 50 sigma."""
    return np.append(np.random.default_rng(0).normal(size=8191), 50.0)


def lloyd(values, centroids, iterations=20):
    """Plain k-means in float64; returns the squared error."""
    for _ in range(iterations):
        edges = (centroids[1:] + centroids[:-1]) / 2
        code = np.searchsorted(edges, values)
        count = np.bincount(code, minlength=len(centroids))
        total = np.bincount(code, values, len(centroids))
        centroids = np.where(count > 0, total / np.maximum(count, 1), centroids)
    return np.sum((values - centroids[code]) ** 2)


def squared_error(leaf, centroids):
    distance = np.abs(np.asarray(leaf, np.float64).ravel()[:, None] - centroids)
    return np.sum(distance.min(1) ** 2)


@pytest.mark.parametrize("clusters", marked([4, 16], slow=[4]))
@pytest.mark.parametrize("values", [heavy(), heavy()[:-1]], ids=["outlier", "normal"])
def test_no_start_of_plain_k_means_is_better(values, clusters):
    leaf = jnp.asarray(values, jnp.float32).reshape(-1, 1)
    c = jc.weight_sharing(clusters, keep_zero=False)
    found = np.asarray(c.init({"kernel": leaf}).centroids["kernel"], np.float64)
    even = np.linspace(values.min(), values.max(), clusters)
    quantiles = np.quantile(values, (np.arange(clusters) + 0.5) / clusters)
    plain = min(lloyd(values, even), lloyd(values, quantiles))
    assert squared_error(leaf, found) <= 1.02 * plain
    shared = jc.compress(c, {"kernel": leaf})["kernel"]
    assert len(np.unique(shared.codes)) == clusters


def test_updates_revive_centroids_that_have_no_weights():
    params = {"kernel": jnp.asarray(heavy(), jnp.float32).reshape(-1, 1)}
    c = jc.weight_sharing(16)
    state = c.init(params)
    best = squared_error(params["kernel"], np.asarray(state.centroids["kernel"]))
    even = jnp.linspace(params["kernel"].min(), 50, 16)
    even = even.at[jnp.argmin(jnp.abs(even))].set(0)
    state = state._replace(centroids={"kernel": even})
    update = jax.jit(c.update)
    for _ in range(40):
        _, state = update(params, state)
    centroids = np.asarray(state.centroids["kernel"])
    assert squared_error(params["kernel"], centroids) <= 1.5 * best
    assert 0.0 in centroids and (np.diff(centroids) > 0).all()


@pytest.mark.parametrize("spoiled", [jnp.nan, jnp.inf, -jnp.inf])
def test_under_jit_a_weight_that_is_not_finite_spoils_no_other(spoiled):
    good = kernel().at[3, 4].set(0)
    bad = {"kernel": good.at[3, 4].set(spoiled)}
    c = jc.weight_sharing(8)
    update = jax.jit(c.update)
    for params, state in (
        (bad, jax.jit(c.init)(bad)),
        update(bad, c.init({"kernel": good})),
    ):
        view = jax.jit(c.apply)(params, state)["kernel"]
        clean, other = jax.jit(c.init)({"kernel": good}), jnp.ones_like(good, bool)
        if state.count:
            _, clean = update({"kernel": good}, c.init({"kernel": good}))
        expected = c.apply({"kernel": good}, clean)["kernel"]
        other = other.at[3, 4].set(False)
        np.testing.assert_allclose(view[other], expected[other], rtol=1e-5)
        assert not jnp.isfinite(view[3, 4])


def test_the_range_of_a_half_float_is_no_limit():
    params = {
        "kernel": jnp.asarray([[-6e4, -5.9e4], [0.0, 6e4], [5e4, 1e4]], jnp.float16)
    }
    shared = jc.compress(jc.weight_sharing(6), params)["kernel"]
    np.testing.assert_array_equal(shared.dense(), params["kernel"])


@pytest.mark.slow
def test_the_mean_of_more_weights_than_float32_counts():
    leaf = jnp.ones(3 << 23)
    moved = jax.jit(move_clusters, static_argnums=2)(leaf, jnp.array([0.0, 4.0]), False)
    np.testing.assert_allclose(moved[0], 1.0, rtol=1e-6)


def test_no_device_gathers_a_sharded_leaf():
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
    c = jc.weight_sharing(8)
    for spec in (PartitionSpec("x"), PartitionSpec(None, "x")):
        leaf = jax.device_put(kernel(shape=(64, 32)), NamedSharding(mesh, spec))
        params = {"kernel": leaf}
        compiled = jax.jit(c.update).lower(params, c.init(params)).compile()
        assert "all-gather" not in str(compiled.as_text())


def test_a_state_of_another_number_of_clusters_is_refused():
    params = {"kernel": kernel(shape=(40, 40))}
    state, few = (
        jc.weight_sharing(1000, iterations=1).init(params),
        jc.weight_sharing(4),
    )
    for use in (few.apply, few.update, few.finalize):
        with pytest.raises(ValueError, match=r"weight_sharing\(4\), got .* 'kernel'"):
            use(params, state)
