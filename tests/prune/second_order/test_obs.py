# SPDX-License-Identifier: Apache-2.0
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_problems import damp, layer, loss, refit, singles

from jaxcompress.numerics import inverse_hessian
from jaxcompress.prune.second_order import (
    obs_scores,
    optimal_brain_surgeon,
    reconstruct,
)


def surgeon(w, h, count):
    """Exact greedy OBS in float64, with the choice over all outputs at the end."""
    features, outputs = w.shape
    order = np.zeros((outputs, features), int)
    losses = np.zeros((outputs, features))
    for j in range(outputs):
        left = list(range(features))
        v, inverse = w[:, j].copy(), np.linalg.inv(h)
        for step in range(features):
            scores = [v[i] ** 2 / (2 * inverse[i, i]) for i in left]
            i = left.pop(int(np.argmin(scores)))
            order[j, step], losses[j, step] = i, min(scores)
            v -= inverse[:, i] * v[i] / inverse[i, i]
            inverse -= np.outer(inverse[:, i], inverse[i]) / inverse[i, i]
            v[i], inverse[i, i] = 0, 1
    cheapest = np.argsort(losses.ravel(), kind="stable")[:count]
    gone = np.bincount(cheapest // features, minlength=outputs)
    keep = np.ones_like(w, bool)
    for j in range(outputs):
        keep[order[j, : gone[j]], j] = False
    return refit(w, h, keep), keep


@pytest.mark.parametrize("damping", [0.0, 0.01, 1.0])
def test_the_inverse_is_that_of_the_damped_matrix(damping):
    _, h = layer(12, 1)
    found = inverse_hessian(*singles(h), damping)
    np.testing.assert_allclose(found @ damp(h, damping), np.eye(12), atol=2e-5)
    # The unit of the inputs does not matter.
    scaled = inverse_hessian(*singles(1e6 * h), damping) * 1e6
    np.testing.assert_allclose(scaled, found, rtol=1e-4, atol=1e-7)


def test_a_score_is_the_loss_after_the_best_repair():
    w, h = layer(12, 5)
    scores = obs_scores(*singles(w, h), 0.0)
    for i in range(12):
        for j in range(5):
            keep = np.ones_like(w, bool)
            keep[i, j] = False
            best = loss(refit(w, h, keep), w, h)
            np.testing.assert_allclose(scores[i, j], best, rtol=1e-4)


@pytest.mark.parametrize("outputs", [1, 33])
def test_reconstruction_is_least_squares(outputs):
    w, h = layer(12, outputs)
    keep = np.random.default_rng(1).random(w.shape) < 0.4
    found = reconstruct(*singles(w, h), jnp.asarray(keep), 0.0)
    expected = refit(w, h, keep)
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())
    assert not np.asarray(found)[~keep].any()
    few = reconstruct(*singles(w, h), jnp.asarray(keep), 0.0, batch_size=2)
    np.testing.assert_allclose(few, found, rtol=1e-5, atol=1e-6)


def test_reconstruction_keeps_what_is_kept_whole_and_bears_an_empty_mask():
    w, h = singles(*layer(12, 5))
    same = reconstruct(w, h, jnp.ones(w.shape, bool))
    np.testing.assert_array_equal(same, w)
    assert not reconstruct(w, h, jnp.zeros(w.shape, bool)).any()
    half = reconstruct(w.astype(jnp.bfloat16), h, w > 0)
    assert half.dtype == jnp.bfloat16


@pytest.mark.parametrize("count", [0, 1, 20, 47, 59, 60])
def test_surgery_is_that_of_the_papers(count):
    w, h = layer(12, 5)
    expected, kept = surgeon(w, damp(h, 0.01), count)
    found, keep = optimal_brain_surgeon(*singles(w, h), count)
    np.testing.assert_array_equal(keep, kept)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert int((~keep).sum()) == int((found == 0).sum()) == count


def test_without_correlations_it_is_magnitude_pruning():
    w, _ = singles(*layer(12, 5))
    found, keep = optimal_brain_surgeon(w, 3 * jnp.eye(12), 40)
    threshold = jnp.sort(jnp.abs(w).ravel())[40]
    np.testing.assert_array_equal(keep, jnp.abs(w) >= threshold)
    np.testing.assert_array_equal(found, jnp.where(keep, w, 0))


def test_surgery_beats_choosing_at_once_and_that_beats_magnitude():
    w, h = layer(12, 5)
    narrow = singles(w, h)
    count = 35
    greedy, _ = optimal_brain_surgeon(*narrow, count, 0.0)

    def at_once(scores):
        keep = np.asarray(scores) > np.sort(np.asarray(scores).ravel())[count - 1]
        return loss(refit(w, h, keep), w, h), loss(np.where(keep, w, 0), w, h)

    scored, _ = at_once(obs_scores(*narrow, 0.0))
    refitted, magnitude = at_once(jnp.abs(narrow[0]))
    assert loss(greedy, w, h) < min(scored, refitted)
    assert max(scored, refitted) < magnitude


def test_dead_features_go_first_and_change_nothing():
    w, h = layer(12, 5)
    alone, kept = optimal_brain_surgeon(*singles(w, h), 10)
    dead = [1, 5]
    wide_w = np.insert(w, [1, 4], 100.0, axis=0)
    wide_h = np.insert(np.insert(h, [1, 4], 0, axis=0), [1, 4], 0, axis=1)
    found, keep = optimal_brain_surgeon(*singles(wide_w, wide_h), 10 + 2 * 5)
    assert not np.asarray(found)[dead].any() and not np.asarray(keep)[dead].any()
    np.testing.assert_array_equal(np.delete(keep, dead, axis=0), kept)
    np.testing.assert_allclose(np.delete(found, dead, axis=0), alone, rtol=1e-5)
    assert not obs_scores(*singles(wide_w, wide_h))[np.array(dead)].any()
    # Of a feature nobody has seen, what is kept stays as it is.
    same, _ = optimal_brain_surgeon(*singles(wide_w, wide_h), 0)
    np.testing.assert_array_equal(same, jnp.asarray(wide_w, jnp.float32))


def test_layers_that_see_nothing_at_all_stay_finite():
    w, _ = singles(*layer(12, 5))
    found, keep = optimal_brain_surgeon(w, jnp.zeros((12, 12)), 30)
    assert int(keep.sum()) == 30
    np.testing.assert_array_equal(found, jnp.where(keep, w, 0))


def test_counts_may_be_traced_and_many_layers_mapped():
    problems = [singles(*layer(12, 5, seed=i)) for i in range(3)]
    ws, hs = (jnp.stack(column) for column in zip(*problems, strict=True))

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(ws, hs, counts):
        return jax.vmap(optimal_brain_surgeon)(ws, hs, counts)

    for shift in (0, 5):
        counts = jnp.array([3, 21, 50]) + shift
        found, keep = run(ws, hs, counts)
        for i, (w, h) in enumerate(problems):
            alone, kept = optimal_brain_surgeon(w, h, counts[i])
            np.testing.assert_array_equal(keep[i], kept)
            np.testing.assert_allclose(found[i], alone, rtol=1e-4, atol=1e-5)
