# SPDX-License-Identifier: Apache-2.0
"""The bits that training counts, against the bytes that a file takes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcompress as jc
from jaxcompress.pack import _codecs
from jaxcompress.rate._code_length import code_length, count_values

HIGH = 7


def uneven(rows, columns, share, seed=0):
    """Codes whose rows and columns differ in density, as in trained networks."""
    draws = np.random.default_rng(seed)
    densities = np.outer(draws.gamma(0.5, 2.0, rows), draws.gamma(0.5, 2.0, columns))
    codes = draws.geometric(0.7, (rows, columns)).clip(1, HIGH)
    codes *= draws.choice([-1, 1], codes.shape)
    keep = draws.random(codes.shape) < np.minimum(share * densities, 0.95)
    return np.where(keep, codes, 0)


def even(rows, columns, share, seed=0):
    draws = np.random.default_rng(seed)
    return np.round(draws.laplace(size=(rows, columns), scale=share)).clip(-HIGH, HIGH)


def bits_of(codes):
    steps = jnp.asarray(codes, jnp.float32)
    return code_length(steps, count_values(steps, HIGH))


@pytest.mark.parametrize("make", [uneven, even])
@pytest.mark.parametrize("share", [0.05, 0.2])
@pytest.mark.parametrize("shape", [(400, 150)])
def test_the_rate_is_what_the_file_takes(make, share, shape):
    codes = make(*shape, share)
    payload = _codecs.encode(codes.astype(np.int8))[1]
    assert float(bits_of(codes)) / 8 == pytest.approx(len(payload), rel=0.02, abs=16)


def test_the_slope_is_what_one_step_of_a_code_changes():
    """The shares of the others are held, so the two agree where lines hold a few codes."""
    codes = uneven(80, 60, 0.1)
    steps = jnp.asarray(codes, jnp.float32)
    values = count_values(steps, HIGH)
    length = jax.jit(code_length)
    slopes = jax.jit(jax.grad(code_length))(steps + 0.25, values)
    used = (codes != 0).sum(1, keepdims=True) * (codes != 0).sum(0) >= 12
    places = np.argwhere(used & ((codes != 0).sum(0) >= 3))[::40]
    assert len(places) >= 10
    for i, j in places:
        changed = length(steps.at[i, j].add(1), values) - length(steps, values)
        assert float(slopes[i, j]) == pytest.approx(float(changed), abs=1.0)


def test_weights_that_round_to_zero_are_pulled_to_it():
    steps = jnp.asarray(uneven(40, 30, 0.1), jnp.float32)
    values = count_values(steps, HIGH)
    nudge = jnp.where(steps == 0, 0.3, 0.0)
    up = jax.grad(code_length)(steps + nudge, values)
    down = jax.grad(code_length)(steps - nudge, values)
    assert bool(jnp.all(up[steps == 0] > 0)) and bool(jnp.all(down[steps == 0] < 0))


def test_a_network_of_zeros_takes_next_to_nothing():
    assert float(bits_of(np.zeros((300, 200)))) < 8 * 20


def test_scalars_vectors_and_stacks_have_a_length():
    for shape in ((), (3, 3, 4, 6)):
        steps = jnp.ones(shape)
        assert np.isfinite(float(code_length(steps, count_values(steps, HIGH))))


def test_codes_beyond_the_widest_are_counted_as_the_widest():
    high = 1
    steps = jnp.asarray([[0.0, 1e6], [-1e6, 1.0]])
    values = count_values(jnp.clip(steps, -high, high), high)
    assert np.isfinite(float(code_length(steps, values)))
    assert bool(jnp.isfinite(jax.grad(code_length)(steps, values)).all())


def test_a_nan_is_not_hidden():
    steps = jnp.asarray([[0.0, jnp.nan]])
    values = count_values(jnp.zeros((1, 2)), HIGH)
    assert np.isnan(float(code_length(steps, values)))


def test_measure_needs_a_rate():
    params = {"kernel": jnp.eye(4)}
    pruner = jc.magnitude_pruning(0.5)
    with pytest.raises(ValueError, match="has no rate"):
        jc.rate.measure(pruner, params, pruner.init(params))
