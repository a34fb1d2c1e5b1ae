# SPDX-License-Identifier: Apache-2.0
"""Statistics of fewer rows than features: no solver does harm on other inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcompress as jc
from jaxcompress import formats, prune, quantize
from jaxcompress.numerics import output_error, shrunk

FEATURES, OUTPUTS = 64, 16


def problem(seed, rows):
    """Weights, X^T X of some rows, and the second moments that all rows have."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(FEATURES) + 0.5 * rng.normal(size=(FEATURES,) * 2) / FEATURES**0.5
    x = rng.normal(size=(rows, FEATURES)) @ mixing
    w = rng.normal(size=(FEATURES, OUTPUTS))
    return *(jnp.asarray(a, jnp.float32) for a in (w, x.T @ x)), mixing.T @ mixing


def change(new, w, moments):
    """The expected squared change of the outputs on new inputs, in float64."""
    difference = np.asarray(new, np.float64) - np.asarray(w, np.float64)
    return np.sum(difference * (moments @ difference))


@pytest.mark.parametrize(
    ("solver", "plain"),
    [
        (quantize.gptq_quantization(4), jc.weight_quantization(bits=4)),
        (prune.sparsegpt_pruning(0.5), jc.magnitude_pruning(0.5)),
        (prune.obs_pruning(0.5), jc.magnitude_pruning(0.5)),
    ],
    ids=["GPTQ", "SparseGPT", "OBS"],
)
def test_no_number_of_rows_makes_a_solver_worse_than_none(solver, plain):
    run = jax.jit(
        lambda w, h, rows: jc.dense(
            jc.compress(
                solver, {"kernel": w},
                stats={"kernel": jc.program.statistics.Gram(rows, h)},
            )
        )["kernel"]
    )  # fmt: skip
    without = jax.jit(lambda w: jc.dense(jc.compress(plain, {"kernel": w}))["kernel"])
    for rows in (8, 32, 64, 128):
        changes = []
        for seed in range(4):
            w, h, moments = problem(seed, rows)
            changes.append(
                [
                    change(run(w, h, jnp.uint32(rows)), w, moments),
                    change(without(w), w, moments),
                ]
            )
        solved, unsolved = np.mean(changes, 0)
        assert solved <= 1.01 * unsolved
    assert solved <= 0.96 * unsolved  # with two rows a feature


def test_shrunk_moments_are_nearer_to_those_of_all_inputs():
    few = jax.jit(shrunk)
    for seed in range(3):
        for rows in (4, 16, 64, 200):
            _, h, moments = problem(seed, rows)
            found = np.asarray(few(h, jnp.uint32(rows)), np.float64) / rows
            error = np.linalg.norm(found - moments)
            assert error < 0.9 * np.linalg.norm(np.asarray(h) / rows - moments)
            assert np.linalg.eigvalsh(found).min() > 0


def test_enough_rows_are_taken_at_their_word():
    _, h, _ = problem(0, 256)
    np.testing.assert_array_equal(shrunk(h, jnp.uint32(256)), h)
    assert (shrunk(h, jnp.uint32(255)) != h).any()


def test_dead_features_stay_dead_and_no_unit_matters():
    _, h, _ = problem(0, 16)
    dead = h.at[3].set(0).at[:, 3].set(0)
    found = shrunk(dead, jnp.uint32(16))
    assert not found[3].any() and not found[:, 3].any()
    for unit in (2.0**-100, 2.0**100):
        scaled = shrunk(dead * unit, jnp.uint32(16)) / unit
        np.testing.assert_allclose(scaled, found, rtol=1e-5)
    assert not shrunk(jnp.zeros((4, 4)), jnp.uint32(0)).any()


def test_a_solution_that_is_worse_than_rounding_is_not_shipped():
    def harm(w, h, keep, grid, scale):
        del h, scale
        return jnp.where(keep, -w, 0), grid

    w, h, _ = problem(0, 256)
    compressor = quantize.layerwise_quantization(
        formats.Int(4), granularity=jc.PerChannel(), solve=harm
    )
    stats = {"kernel": jc.program.statistics.Gram(jnp.uint32(256), h)}
    shipped = jc.dense(jc.compress(compressor, {"kernel": w}, stats=stats))["kernel"]
    nearest = jc.compress(jc.weight_quantization(bits=4), {"kernel": w})["kernel"]
    np.testing.assert_array_equal(shipped, nearest.dense())


def test_the_output_error_is_that_of_the_outputs():
    rng = np.random.default_rng(0)
    x, w, v = rng.normal(size=(9, 5)), rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    expected = np.sum((x @ (v - w)) ** 2)
    found = output_error(*(jnp.asarray(a, jnp.float32) for a in (v, w, x.T @ x)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
