# SPDX-License-Identifier: Apache-2.0
"""Functions in training mode: dropout and batch statistics."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from prunable import IMAGES, filled

import jaxcompress as jc
from jaxcompress.structured import PlanError, mask_params, slice_params, verify

STATE = "state that the function returns; trace it in evaluation mode"
BATCH = jnp.concatenate([IMAGES] * 4)
DRAWN = "other random numbers are drawn at another size; evaluation mode draws none"


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = nn.Conv(6, (3, 3))(x).mean((1, 2))
        return nn.Dense(2)(nn.Dropout(0.5, deterministic=not train)(x))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.second = nnx.Conv(4, 6, (3, 3), rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.first(x)))
        return self.out(self.dropout(self.second(x).mean((1, 2))))


def linen():
    net, key = Linen(), jax.random.key(3)
    shapes = jax.eval_shape(lambda k: net.init(k, IMAGES, False), key)

    def train(variables, x):
        return net.apply(
            variables, x, True, mutable=["batch_stats"], rngs={"dropout": key}
        )

    names = ["params/Conv_0/kernel[3]", "params/Conv_1/kernel[3]"]
    return train, lambda v, x: net.apply(v, x, False), filled(shapes), names


def nnx_model():
    model = Nnx(nnx.Rngs(0))
    definition, state = nnx.split(model)

    def train(state, x):
        model = nnx.merge(definition, state)
        return model(x), nnx.state(model)

    model.eval()
    eval_definition = nnx.graphdef(model)

    def evaluate(state, x):
        return nnx.merge(eval_definition, state)(x)

    return train, evaluate, state, ["first/kernel[3]", "second/kernel[3]"]


@pytest.mark.parametrize("make", [linen, nnx_model])
def test_training_mode_says_to_trace_in_evaluation_mode(make):
    train, evaluate, params, (first, second) = make()
    groups = jc.trace_axes(train, params, IMAGES)
    assert not groups.prunable
    assert groups[first].frozen[0].startswith(STATE)
    assert any(reason.startswith(DRAWN) for reason in groups[second].frozen)
    assert f"frozen, {STATE}: {first}" in repr(groups)
    # Without its state, the norm alone is exact: batch statistics of zeros are zeros.
    alone = jc.trace_axes(lambda *a: train(*a)[0], params, IMAGES)
    assert list(alone.prunable) == [first]
    assert list(jc.trace_axes(evaluate, params, IMAGES).prunable) == [first, second]


def test_statistics_among_the_arguments_belong_to_the_parameters():
    model = Nnx(nnx.Rngs(0))
    model.eval()
    definition, params, rest = nnx.split(model, nnx.Param, ...)
    groups = jc.trace_axes(
        lambda params, rest, x: nnx.merge(definition, params, rest)(x),
        params,
        rest,
        IMAGES,
    )
    text = "frozen, an input of the network; pass running statistics in params: first"
    assert text in repr(groups)


@pytest.mark.parametrize("make", [linen, nnx_model])
def test_a_plan_of_evaluation_mode_trains_with_dropout_of_its_own(make):
    train, evaluate, params, names = make()
    groups = jc.trace_axes(evaluate, params, IMAGES)
    plan = groups.plan({n: np.arange(groups[n].size) % 2 == 0 for n in names})
    with pytest.raises(PlanError, match="verify it in evaluation mode"):
        verify(train, params, plan, IMAGES)

    @jax.jit
    def run(masked, small):
        return [
            seen_by_last(fn, tree)
            for fn, tree in ((train, masked), (jc.shrink(train, plan), small))
        ]

    masked, small = mask_params(params, plan), slice_params(params, plan)
    (full, wanted), (cut, found) = run(masked, small)
    # What comes before the dropout is that of the masked network.
    leaves = map(jax.tree.leaves, (found, slice_params(wanted, plan)))
    for a, b in zip(*leaves, strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    # And so is what both draws of the dropout leave.
    full = full[:, ::2]
    left = (full != 0) & (cut != 0)
    assert left.any() and (cut == 0).any()
    np.testing.assert_allclose(cut[left], full[left], rtol=1e-4)


def seen_by_last(fn, params):
    """Return what the last layer reads, and the new state.

    The layer is linear, so what it reads is the derivative by its kernel.
    """
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    (place,) = (i for i, (_, leaf) in enumerate(paths) if leaf.shape[1:] == (2,))
    leaves, treedef = jax.tree.flatten(params)

    def by_kernel(kernel):
        changed = [kernel if i == place else x for i, x in enumerate(leaves)]
        return fn(jax.tree.unflatten(treedef, changed), BATCH)

    jacobian, state = jax.jacrev(
        lambda kernel: (lambda out, new: (out[:, 0], new))(*by_kernel(kernel)),
        has_aux=True,
    )(leaves[place])
    return jacobian[:, :, 0], state
