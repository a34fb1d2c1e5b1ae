# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_problems import damp, layer, loss, refit, singles

import jaxcompress as jc
from jaxcompress.prune.second_order import optimal_brain_surgeon, row_grid, sparsegpt


def reference(w, h, sparsity, block, n_of_m=None, quantize=None):
    """SparseGPT as in the authors' code, in float64, transposed to inputs by outputs."""
    w, features = w.copy(), len(w)
    live = np.diag(h) > 0
    inverse = np.linalg.inv(damp(h, 0.01))
    upper = np.linalg.cholesky(inverse).T
    drop = np.zeros(w.shape, bool)
    for start in range(0, features, block):
        stop = min(start + block, features)
        square, rows = upper[start:stop, start:stop], w[start:stop].copy()
        errors = np.zeros_like(rows)

        def scores(rows, square=square, alive=live[start:stop]):
            found = rows**2 / np.diag(square)[:, None] ** 2
            return np.where(alive[:, None], found, 0)

        if n_of_m is None:
            ends = [
                np.round(np.float32(sparsity) * w.shape[1] * x) for x in (start, stop)
            ]
            lowest = np.argsort(scores(rows).ravel(), kind="stable")
            drop[start:stop].reshape(-1)[lowest[: int(ends[1] - ends[0])]] = True
        for k in range(stop - start):
            if n_of_m is not None and k % n_of_m[1] == 0:
                group = slice(k, k + n_of_m[1])
                ranks = np.argsort(np.argsort(scores(rows)[group], 0), 0)
                drop[start:stop][group] = ranks < n_of_m[1] - n_of_m[0]
            new = rows[k] if quantize is None else quantize(rows[k])
            new = np.where(drop[start + k], 0, new)
            errors[k] = (rows[k] - new) / square[k, k]
            rows[k + 1 :] -= np.outer(square[k, k + 1 :], errors[k])
            rows[k] = new
        w[start:stop] = rows
        w[stop:] -= upper[start:stop, stop:].T @ errors
    return w, ~drop


@pytest.mark.parametrize("block", [1, 8])
@pytest.mark.parametrize("sparsity", [0.3, 0.75])
def test_it_is_the_algorithm_of_the_paper(block, sparsity):
    w, h = layer(20, 6)
    expected, kept = reference(w, h, sparsity, block)
    found, keep = sparsegpt(*singles(w, h), sparsity=sparsity, block=block)
    np.testing.assert_array_equal(keep, kept)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert int((found == 0).sum()) == round(sparsity * 120)


@pytest.mark.parametrize("n_of_m", [(2, 4), (3, 5)])
@pytest.mark.parametrize("block", [6])
def test_n_of_m_is_exact_and_adaptive(n_of_m, block):
    n, m = n_of_m
    w, h = layer(20, 6)
    whole = -(-block // m) * m
    expected, kept = reference(w, h, None, whole, n_of_m)
    found, keep = sparsegpt(*singles(w, h), sparsity=None, block=block, n_of_m=n_of_m)
    np.testing.assert_array_equal(keep, kept)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert (keep.reshape(20 // m, m, 6).sum(1) == n).all()


def test_features_that_fill_no_block_are_pruned_as_well():
    w, h = layer(19, 6)
    for sparsity in (0.0, 0.5, 1.0):
        found, keep = sparsegpt(*singles(w, h), sparsity=sparsity, block=8)
        assert int((~keep).sum()) == round(sparsity * 19 * 6)
        assert bool((found[-3:] == 0).all()) == (sparsity == 1.0)
    _, keep = sparsegpt(*singles(*layer(18, 6)), sparsity=None, block=8, n_of_m=(1, 3))
    assert (keep.reshape(6, 3, 6).sum(1) == 1).all()


def test_sparsity_zero_changes_nothing():
    w, h = singles(*layer(19, 6))
    found, keep = sparsegpt(w, h, 0.0, block=8)
    assert keep.all()
    np.testing.assert_array_equal(found, w)


def test_without_correlations_it_is_magnitude_pruning_of_each_block():
    w, _ = singles(*layer(20, 6))
    found, keep = sparsegpt(w, 5 * jnp.eye(20), 0.5, block=8)
    for rows in (slice(0, 8), slice(8, 16), slice(16, 20)):
        magnitude = jnp.abs(w[rows])
        np.testing.assert_array_equal(keep[rows], magnitude > jnp.median(magnitude))
    np.testing.assert_array_equal(found, jnp.where(keep, w, 0))


@pytest.mark.parametrize("seed", range(3))
def test_it_lies_between_magnitude_and_least_squares(seed):
    w, h = layer(20, 6, seed, positive=True)  # behind a ReLU
    narrow = singles(w, h)
    found, keep = sparsegpt(*narrow, sparsity=0.6, block=20)
    error = loss(found, w, h)
    magnitude = np.abs(w)
    largest = magnitude > np.sort(magnitude.ravel())[int((~keep).sum()) - 1]
    assert error < loss(np.where(largest, w, 0), w, h)
    assert error < loss(np.where(keep, w, 0), w, h)
    assert error >= loss(refit(w, h, keep), w, h)
    greedy, _ = optimal_brain_surgeon(*narrow, int((~keep).sum()))
    assert loss(greedy, w, h) < error


def test_dead_features_go_first_and_change_nothing():
    w, h = layer(20, 6)
    alone, kept = sparsegpt(*singles(w, h), sparsity=0.5)
    dead = [1, 5]
    wide_w = np.insert(w, [1, 4], 100.0, axis=0)
    wide_h = np.insert(np.insert(h, [1, 4], 0, axis=0), [1, 4], 0, axis=1)
    found, keep = sparsegpt(*singles(wide_w, wide_h), sparsity=(60 + 12) / 132)
    assert not np.asarray(keep)[dead].any()
    np.testing.assert_array_equal(np.delete(keep, dead, axis=0), kept)
    np.testing.assert_allclose(np.delete(found, dead, axis=0), alone, rtol=1e-5)


def test_joint_quantization_is_on_the_grid_and_makes_up_for_it():
    w, h = layer(20, 6)
    narrow = singles(w, h)
    fmt = jc.formats.Int(3)
    grid = row_grid(fmt)(narrow[0])
    found, keep = sparsegpt(*narrow, sparsity=0.5, block=8, quantize=grid)
    step = np.abs(w).max(0) / fmt.high
    codes = np.asarray(found) / step
    np.testing.assert_allclose(codes, codes.round(), atol=1e-4)
    assert not np.asarray(found)[~np.asarray(keep)].any()
    separately, kept = sparsegpt(*narrow, sparsity=0.5, block=8)
    rounded = np.stack([grid(row) for row in separately])
    assert loss(found, w, h) < loss(np.where(kept, rounded, 0), w, h)


def test_joint_quantization_is_that_of_the_paper_and_of_gptq():
    w, h = layer(20, 6)
    narrow = singles(w, h)
    step = np.abs(w).max(0) / 7

    def quantize(row):
        return np.clip(np.round(row / step), -7, 7) * step

    grid = row_grid(jc.formats.Int(4))(narrow[0])
    for sparsity in (0.0, 0.5):  # 0.0 is GPTQ
        expected, kept = reference(w, h, sparsity, 8, quantize=quantize)
        found, keep = sparsegpt(*narrow, sparsity=sparsity, block=8, quantize=grid)
        np.testing.assert_array_equal(keep, kept)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_any_function_of_a_row_quantizes():
    w, h = singles(*layer(20, 6))
    found, _ = sparsegpt(w, h, 0.5, quantize=jnp.round)
    np.testing.assert_array_equal(found, jnp.round(found))


def test_sparsity_may_be_traced_and_mapped_over():
    w, h = singles(*layer(20, 6))
    sparsities = jnp.array([0.1, 0.5, 0.9])
    found, keep = jax.jit(jax.vmap(lambda s: sparsegpt(w, h, s, block=8)))(sparsities)
    for i, sparsity in enumerate(sparsities):
        alone, kept = sparsegpt(w, h, float(sparsity), block=8)
        np.testing.assert_array_equal(keep[i], kept)
        np.testing.assert_allclose(found[i], alone, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_is_refused():
    w, h = singles(*layer(10, 2))
    with pytest.raises(ValueError, match="m must divide the 10 features, got m=4"):
        sparsegpt(w, h, None, n_of_m=(2, 4))
    with pytest.raises(ValueError, match="0 < n < m"):
        sparsegpt(w, h, None, n_of_m=(4, 4))
    with pytest.raises(ValueError, match="sparsity=None"):
        sparsegpt(w, h, None)
