# SPDX-License-Identifier: Apache-2.0
import functools
from typing import Any

import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from examples import examples

import jaxcompress as jc
from jaxcompress.prune.budgets import global_
from jaxcompress.prune.patterns import NOfM, unstructured
from jaxcompress.prune.schedules import cubic


def scores(shape, seed=0):
    return jnp.abs(normal(*shape, seed=seed))


@functools.cache
def every_count(n, m) -> Any:
    """Masks of (12, 5) scores for all counts, in one program."""
    counts = jnp.arange(61, dtype=jnp.uint32)
    pattern = functools.partial(NOfM(n, m), "kernel")
    program = jax.jit(jax.vmap(pattern, in_axes=(None, 0)))
    return lambda scores: np.asarray(program(scores, counts))


def oracle(scores, n, m, count):
    """Groups along axis 0; those that lose least fall first, ties by flat index."""
    groups = scores.T.reshape(-1, m)  # row-major over (outputs, inputs)
    order = np.argsort(groups, axis=1, kind="stable")[:, : m - n]
    loss = np.take_along_axis(groups, order, 1).sum(1)
    number = int(np.floor(count / (m - n) + 0.5))
    keep = np.ones(groups.shape, bool)
    for group in np.argsort(loss, kind="stable")[:number]:
        keep[group, order[group]] = False
    return keep.reshape(scores.shape[1], scores.shape[0]).T


@pytest.mark.parametrize(("n", "m"), [(1, 2), (2, 4), (1, 4), (5, 6)])
@examples(8)
@hypothesis.given(seed=st.integers(0, 9999))
def test_masks_equal_the_oracle_for_every_count_and_are_monotone(n, m, seed):
    # Eighths: they often tie, and their sums are exact.
    drawn = np.random.default_rng(seed).integers(-9, 12, (12, 5)) / 8
    drawn = drawn.astype(np.float32)
    masks = every_count(n, m)(jnp.asarray(drawn))
    for count in range(61):
        np.testing.assert_array_equal(masks[count], oracle(drawn, n, m, count))
    assert masks[0].all() and not (masks[1:] & ~masks[:-1]).any()
    assert (masks[-1].reshape(12 // m, m, 5).sum(1) == n).all()


def test_a_ramp_is_followed_group_by_group():
    s = scores((32, 16))
    pattern = NOfM(2, 4)
    before = jnp.ones((32, 16), bool)
    for count in (0, 2, 50, 128, 256, 400):
        for given in (jnp.int32(count), jnp.uint32(count), count):
            keep = pattern("kernel", s, given)  # pyright: ignore[reportArgumentType]
            assert int((~keep).sum()) == min(count, 256)
        assert not (keep & ~before).any()
        before = keep


def test_the_axis_follows_the_framework_and_can_be_said():
    s = scores((4, 6))
    flax = NOfM(2, 4)("Dense_0/kernel", s, jnp.int32(99))
    equinox = NOfM(2, 4)("layers/0/weight", s.T, jnp.int32(99))
    np.testing.assert_array_equal(flax, equinox.T)
    conv = scores((3, 3, 8, 5))
    keep = NOfM(2, 4, axes={"Conv_*": jc.Axes(contraction=-2)})(
        "Conv_0/kernel", conv, jnp.int32(9999)
    )
    assert (keep.reshape(9, 2, 4, 5).sum(2) == 2).all()


def test_axes_are_read_from_a_linen_model_of_convolutions_and_attention():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(8, (3, 3))(x).mean((1,))
            return nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=8)(x)

    model, x = Model(), jnp.ones((2, 4, 4, 4))
    params = jax.jit(model.init)(jax.random.key(0), x)
    axes = jc.weight_axes(model.apply, params, x)
    pruner = jc.magnitude_pruning(0.5, pattern=NOfM(2, 4, axes=axes))
    masks = jax.jit(pruner.init)(params).masks["params"]
    attention = masks["MultiHeadDotProductAttention_0"]
    for name in ("query", "key", "value"):  # inputs, heads, features
        mask = attention[name]["kernel"]
        assert mask.shape == (8, 2, 4)
        assert (mask.reshape(2, 4, 2, 4).sum(1) == 2).all()
    # Those that sum over several axes: groups lie along the last of them.
    assert axes["params/Conv_0/kernel"].contraction == (0, 1, 2)
    assert (masks["Conv_0"]["kernel"].sum(2) == 2).all()
    assert (attention["out"]["kernel"].sum(1) == 2).all()


def test_a_schedule_ends_in_the_pattern_and_masks_are_monotone():
    pruner = jc.magnitude_pruning(cubic(0.9, end=6), pattern=NOfM(2, 4))
    update = jax.jit(pruner.update)
    params = {"kernel": scores((16, 8), 1)}
    state = pruner.init(params)
    pruned = []
    for step in range(1, 8):
        before = state.masks["kernel"]
        noise = 0.1 * normal(16, 8, seed=step)
        params, state = update({"kernel": params["kernel"] + noise}, state)
        mask = state.masks["kernel"]
        assert not (mask & ~before).any()
        pruned.append(float(1 - mask.mean()))
        wanted = min(0.5, float(jnp.asarray(cubic(0.9, end=6)(step))))
        assert abs(pruned[-1] - wanted) <= 1.5 / 128
    assert pruned[-1] == 0.5
    assert (mask.reshape(4, 4, 8).sum(1) == 2).all()


def test_a_nan_stays_visible_under_jit():
    s = jnp.asarray([[3.0], [jnp.nan], [1.0], [2.0]])
    keep = jax.jit(lambda s: NOfM(2, 4)("kernel", s, jnp.uint32(2)))(s)
    assert keep.ravel().tolist() == [True, True, False, False]


class Columns:
    """A pattern of somebody else's: whole columns, by their largest score."""

    max_sparsity = 0.75

    def spread(self, path, scores):
        del path
        return jnp.broadcast_to(jnp.max(scores, 0, keepdims=True), scores.shape)

    def __call__(self, path, scores, count):
        rows = scores.shape[0]
        number = (jnp.asarray(count, jnp.uint32) + rows // 2) // rows
        keep = unstructured(path, self.spread(path, scores)[0], number)
        return jnp.broadcast_to(keep[None], scores.shape)


def test_budgets_rank_the_groups_that_a_pattern_spreads():
    a, b = scores((6, 8), 0), scores((6, 8), 1).at[0].add(3)  # one high row in b
    params = {"a": {"kernel": a}, "b": {"kernel": b}}
    pruner = jc.magnitude_pruning(0.5, pattern=Columns(), budget=global_)
    masks = jax.jit(pruner.init)(params).masks
    # Every column of b holds a weight above all of a's: all 8 that go are a's.
    assert not masks["a"]["kernel"].any() and masks["b"]["kernel"].all()
    plain = jax.jit(jc.magnitude_pruning(0.5, budget=global_).init)(params).masks
    assert plain["a"]["kernel"].any() and not plain["b"]["kernel"].all()
    with pytest.raises(ValueError, match=r"at most 0.75 with .*Columns.*, got 0.8"):
        jc.magnitude_pruning(0.8, pattern=Columns())
    jc.magnitude_pruning(lambda count: 0.8, pattern=Columns())  # unknown until it runs


def test_what_does_not_fit_is_refused_by_name():
    pruner = jc.magnitude_pruning(0.5, pattern=NOfM(2, 4))
    with pytest.raises(
        ValueError, match="'kernel': axis 0 of .10, 4. is not a multiple"
    ):
        pruner.init({"kernel": scores((10, 4))})
    with pytest.raises(ValueError, match="'kernel' has shape .3, 3, 8, 5.*Pass axes="):
        pruner.init({"kernel": scores((3, 3, 8, 5))})
    with pytest.raises(ValueError, match="there is no axis 7"):
        NOfM(2, 4, axes=jc.Axes(contraction=7))("kernel", scores((4, 4)), jnp.int32(0))
    for n, m in ((4, 4), (0, 4), (-1, 2), (5, 4)):
        with pytest.raises(ValueError, match="0 < n < m"):
            NOfM(n, m)
