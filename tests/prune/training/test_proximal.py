# SPDX-License-Identifier: Apache-2.0
import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import normal

import jaxcompress as jc
from jaxcompress.prune import (
    group_lasso_pruning,
    hold_zeros,
    l0_pruning,
    l1_pruning,
    proximal,
)
from jaxcompress.prune.patterns import Blocks, Slices
from jaxcompress.prune.training import (
    group_soft_threshold,
    hard_threshold,
    soft_threshold,
)

PARAMS = {
    "Dense_0": {
        "kernel": normal(8, 12),
        "bias": jnp.full(12, 1e-3),
    },
    "Dense_1": {"kernel": 0.1 * normal(12, 5, seed=1)},
}

GRID = np.linspace(-4, 4, 80001)


@hypothesis.given(w=st.floats(-3, 3, width=32), strength=st.floats(0, 3, width=32))
def test_soft_and_hard_thresholds_minimize_their_objectives(w, strength):
    """On a grid fine enough: no point of it is better than the prox."""
    for prox, penalty in ((soft_threshold, np.abs), (hard_threshold, np.sign)):

        def objective(x, penalty=penalty):
            return (x - w) ** 2 / 2 + strength * np.abs(penalty(x))

        got = float(prox("", jnp.asarray([w]), jnp.float32(strength))[0])
        assert objective(got) <= objective(GRID).min() + 1e-6
        assert got == 0 or got * w > 0


def test_group_soft_threshold_minimizes_its_objective():
    """By descent on the convex objective, whose kinks only zero groups touch."""
    kernel = np.array(PARAMS["Dense_0"]["kernel"], np.float64)
    kernel[:, :4] *= 0.1
    strength = 0.3
    got = np.asarray(
        group_soft_threshold()("kernel", jnp.asarray(kernel, jnp.float32), strength)
    )
    for column, new in zip(kernel.T, got.T, strict=True):
        norm, least = np.linalg.norm(column), strength * np.sqrt(8)

        def objective(length, direction=column / norm, column=column, least=least):
            x = length[:, None] * direction
            return ((x - column) ** 2).sum(1) / 2 + least * np.linalg.norm(x, axis=1)

        # By symmetry the minimum lies along the column.
        best = np.linspace(0, norm, 20001)
        best = best[objective(best).argmin()]
        np.testing.assert_allclose(np.linalg.norm(new), best, atol=1e-3)
        np.testing.assert_allclose(new * norm, column * np.linalg.norm(new), atol=1e-4)
        assert (norm <= least) == (not new.any())


@pytest.mark.parametrize(
    ("groups", "shape", "extents"),
    [
        (Blocks((4, 4)), (9, 9), (4, 4)),
        (Slices(axes=jc.Axes(outputs=-1)), (3, 1, 2, 4), (3, 1, 2, 1)),
        (Blocks((2,)), (5,), (2,)),
        (Blocks((..., None)), (2, 3, 4), (1, 1, 4)),
    ],
)
def test_groups_fall_as_a_whole_by_their_own_size(groups, shape, extents):
    x = np.asarray(normal(*shape, seed=3))
    prox = jax.jit(functools.partial(group_soft_threshold(groups), "leaf"))
    index = np.indices(shape)
    tiles = [-(-size // b) for size, b in zip(shape, extents, strict=True)]
    along = [i // b for i, b in zip(index, extents, strict=True)]
    ids = np.ravel_multi_index(along, tiles).ravel()
    norm = np.sqrt(np.bincount(ids, x.ravel() ** 2))[ids].reshape(shape)
    least = np.sqrt(np.bincount(ids))[ids].reshape(shape)
    for strength in (0.0, 0.6, 1.0, 5.0):
        expected = x * np.maximum(1 - strength * least / norm, 0)
        got = np.asarray(prox(jnp.asarray(x), strength))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(got == 0, expected == 0)


def test_zeros_nans_and_half_floats():
    @jax.jit
    def each(x, strength):
        proxes = soft_threshold, hard_threshold, group_soft_threshold()
        return [prox("kernel", x, strength) for prox in proxes]

    zero = jnp.zeros((300, 2))
    for got in each(zero, 0.0):
        np.testing.assert_array_equal(got, zero)
    for got in each(zero.at[0, 0].set(jnp.nan).at[1, 1].set(0.1), 0.001):
        assert jnp.isnan(got[0, 0]) and not jnp.isnan(got[:, 1]).any()
    for got in each(jnp.full((300, 2), 300.0, jnp.float16), 1.0):
        assert got.dtype == jnp.float16
        assert jnp.isfinite(got).all() and got.all()  # though their squares overflow


def test_the_group_lasso_keeps_the_laws():
    lasso = group_lasso_pruning(optax.linear_schedule(0.0, 0.1, 3))
    result = jc.testing.check_compressor(lasso, PARAMS, steps=2, rounding=1e-5)
    assert set(result.values()) == {"held"}


def test_what_sums_nothing_keeps_the_laws_to_the_bit():
    kernel = PARAMS["Dense_1"]["kernel"]
    params = {**PARAMS, "Dense_1": {"kernel": kernel.at[::2].set(0)}}
    last = "Dense_1/kernel"
    together = jc.chain(
        l0_pruning(0.02, where="Dense_0/kernel"),
        hold_zeros(last),
        l1_pruning(0.02, where=last),
    )
    result = jc.testing.check_compressor(together, params, steps=2)
    assert set(result.values()) == {"held"}


def test_zeros_are_in_the_raw_parameters_and_the_schedule_counts_from_zero():
    def tenth(count):
        return jnp.where(count == 0, 0.1, 0.0)

    c = l1_pruning(tenth)
    params, state = c.update(PARAMS, c.init(PARAMS))
    kernel = PARAMS["Dense_0"]["kernel"]
    expected = soft_threshold("", kernel, jnp.float32(0.1))
    np.testing.assert_array_equal(params["Dense_0"]["kernel"], expected)
    assert 0 < int((expected == 0).sum()) < kernel.size
    assert params["Dense_0"]["bias"] is PARAMS["Dense_0"]["bias"]
    again, state = c.update(params, state)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    jax.tree.map(np.testing.assert_array_equal, c.apply(again, state), params)
    assert int(state.count) == 2


def test_lasso_is_solved_by_a_loop_and_vmaps_over_strengths():
    """ISTA on a least-squares problem: the optimality conditions of the lasso hold."""
    inputs = normal(40, 8, seed=4) / 40**0.5
    targets = inputs @ jnp.array([2.0, -1.0, 0, 0, 0, 0, 0, 0])[:, None]
    rate = 0.3

    def gradient(params):
        return inputs.T @ (inputs @ params["kernel"] - targets)

    def solve(lam):
        c = proximal(soft_threshold, strength=lambda count: rate * lam)

        def step(carry, _):
            params, state = carry
            params = {"kernel": params["kernel"] - rate * gradient(params)}
            return c.update(params, state), None

        start = {"kernel": jnp.zeros((8, 1))}
        (params, _), _ = jax.lax.scan(step, (start, c.init(start)), length=400)
        return params["kernel"], gradient(params)

    lams = jnp.array([0.01, 0.1, 0.3])
    kernels, gradients = jax.jit(jax.vmap(solve))(lams)
    for kernel, grad, lam in zip(kernels, gradients, lams, strict=True):
        at = kernel != 0
        assert at[:2].all() and not at.all()
        np.testing.assert_allclose(grad[at], -lam * jnp.sign(kernel[at]), atol=1e-4)
        assert (jnp.abs(grad[~at]) <= lam + 1e-4).all()


def test_held_zeros_stay_in_training():
    kernel = jnp.where(PARAMS["Dense_0"]["kernel"] > 0, 0, PARAMS["Dense_0"]["kernel"])
    params = {"kernel": kernel.at[0, 0].set(-0.0), "bias": jnp.zeros(12)}
    c = hold_zeros()
    init, step = jc.train_step(
        lambda p, b: jnp.sum((b @ p["kernel"] + p["bias"][None] - 1) ** 2),
        optax.adam(0.1),
        c,
    )
    state = init(params)
    for i in range(3):
        x = normal(4, 8, seed=i)
        state, _ = step(state, x)
    after = state.params["kernel"]
    np.testing.assert_array_equal(after == 0, params["kernel"] == 0)
    assert (after != kernel)[kernel != 0].all() and state.params["bias"].all()


def test_nothing_to_hold_is_refused():
    with pytest.raises(ValueError, match="must contain zeros to hold, got 2 leaves"):
        hold_zeros().init(PARAMS)
    half = {**PARAMS, "Dense_1": {"kernel": jnp.zeros((12, 5))}}
    assert not hold_zeros().init(half).masks["Dense_1"]["kernel"].any()
    assert jax.jit(hold_zeros().init)(PARAMS).masks["Dense_0"]["kernel"].all()


@pytest.mark.parametrize("strength", [-1.0, float("nan")])
def test_bad_strengths(strength):
    for make in (l1_pruning, l0_pruning, group_lasso_pruning):
        with pytest.raises(
            ValueError, match="learning rate times lambda. must be at least 0"
        ):
            make(strength)


def test_what_cannot_work_is_refused_in_init():
    with pytest.raises(TypeError, match="strength must be a number .* string '0.1'"):
        l1_pruning("0.1")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="selected none of 3 leaves"):
        l1_pruning(0.1, where="*/kernal").init(PARAMS)
    conv = {"kernel": jnp.ones((3, 3, 2, 4))}
    with pytest.raises(ValueError, match="'kernel' has shape .3, 3, 2, 4.*Pass axes="):
        group_lasso_pruning(0.1).init(conv)
    with pytest.raises(
        ValueError, match="'kernel': blocks must have one extent per axis .* got .4, 4."
    ):
        group_lasso_pruning(0.1, groups=Blocks((4, 4))).init(conv)
    narrowing = proximal(lambda path, x, s: x.sum(0), strength=0.1)
    with pytest.raises(
        ValueError, match=r"'kernel': prox must keep .* from float32\[3, 3, 2, 4\]"
    ):
        narrowing.init(conv)


def test_a_leaf_without_weights_is_named():
    params = {"a": {"kernel": jnp.ones((2, 2))}, "b": {"kernel": jnp.full((2, 2), 3.0)}}
    with pytest.warns(UserWarning, match="'a/kernel' has only zeros left") as caught:
        jc.compress(l1_pruning(2.0), params)
    assert len(caught) == 1
