# SPDX-License-Identifier: Apache-2.0
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal

import jaxcompress as jc


def low_rank_matrix(rank, shape, seed=0):
    left, right = jax.random.split(jax.random.key(seed))
    rows, columns = shape
    return jax.random.normal(left, (rows, rank)) @ jax.random.normal(
        right, (rank, columns)
    )


@hypothesis.given(
    rank=st.integers(1, 4),
    rows=st.integers(10, 24),
    columns=st.integers(10, 24),
    seed=st.integers(0, 99),
)
def test_it_is_the_best_approximation_of_its_rank(rank, rows, columns, seed):
    w = normal(rows, columns, seed=seed)
    factors = jc.compress(jc.low_rank(rank=rank), {"kernel": w})["kernel"]
    u, s, v = np.linalg.svd(np.asarray(w, np.float64), full_matrices=False)
    best = (u[:, :rank] * s[:rank]) @ v[:rank]
    np.testing.assert_allclose(factors.dense(), best, atol=1e-4)
    assert factors.rank == rank and factors.shape == (rows, columns)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_energy_finds_the_rank(rank):
    params = {"kernel": low_rank_matrix(rank, (30, 20))}
    factors = jc.factorize(params, energy=0.9999999)["kernel"]
    assert factors.rank == rank
    np.testing.assert_allclose(factors.dense(), params["kernel"], atol=1e-4)


def test_energy_that_does_not_pay_leaves_the_leaf_dense_and_says_so():
    params = {"kernel": jnp.eye(8)}
    c = jc.low_rank(energy=0.99)
    with pytest.warns(UserWarning, match="'kernel' stays dense: 0.99 of its energy"):
        state = c.init(params)
    params, state = c.update(params, state)
    assert c.finalize(params, state)["kernel"] is params["kernel"]


def test_convolutions_split_after_their_inputs():
    kernel = normal(3, 3, 8, 16)
    with pytest.raises(ValueError, match="'kernel' has shape .* pass split="):
        jc.factorize({"kernel": kernel}, rank=2)
    factors = jc.factorize({"kernel": kernel}, rank=2, split=3)["kernel"]
    assert factors.left.shape == (3, 3, 8, 2) and factors.right.shape == (2, 16)
    assert factors.dense().shape == kernel.shape


def test_the_subspace_follows_the_weights_every_few_updates():
    c = jc.low_rank(rank=1, every=2)
    first, second = low_rank_matrix(1, (9, 9), 1), low_rank_matrix(1, (9, 9), 2)
    state = c.init({"kernel": first})
    params, state = c.update({"kernel": second}, state)
    assert jnp.abs(c.apply(params, state)["kernel"] - second).max() > 0.1
    params, state = c.update(params, state)
    np.testing.assert_allclose(c.apply(params, state)["kernel"], second, atol=1e-5)


def test_the_gradient_is_that_of_the_projection():
    w = normal(7, 5)
    c = jc.low_rank(rank=2)
    state = c.init({"kernel": w})
    u = np.asarray(state.bases["kernel"])
    grad = jax.grad(lambda w: (c.apply({"kernel": w}, state)["kernel"] ** 2).sum())(w)
    np.testing.assert_allclose(grad, 2 * u @ u.T @ np.asarray(w), atol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "needs one of rank= and energy="),
        ({"rank": 1, "energy": 0.5}, "needs one of rank= and energy="),
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"energy": 1.5}, "energy must be .* got 1.5"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        jc.low_rank(**kwargs)


def test_a_rank_that_saves_nothing_is_refused():
    with pytest.raises(
        ValueError, match="rank must be below 4 .* 8 x 8 matrix 'kernel' smaller, got 4"
    ):
        jc.factorize({"kernel": jnp.eye(8)}, rank=4)


def test_energy_needs_concrete_values():
    with pytest.raises(TypeError, match="call init outside jit"):
        jax.jit(jc.low_rank(energy=0.9).init)({"kernel": jnp.eye(8)})
