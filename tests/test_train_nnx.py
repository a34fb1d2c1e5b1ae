# SPDX-License-Identifier: Apache-2.0
"""``train_step`` with the mutable variables of NNX."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from two_layers import cache_size

import jaxcompress as jc


@pytest.mark.parametrize(
    ("tx", "micro_batches"), [(optax.sgd(0.1), 2), (optax.lbfgs(), 1)]
)
def test_mutable_variables_of_nnx(tx, micro_batches):
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.hidden = nnx.Linear(4, 8, rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.dropout(self.norm(self.hidden(x)))

    graph, params, variables = nnx.split(Model(nnx.Rngs(0)), nnx.Param, ...)

    def loss(params, batch, *, model_state):
        model = nnx.merge(graph, params, model_state)
        value = jnp.mean((model(batch["x"]) - 1) ** 2)
        return value, jc.Aux(model_state=nnx.state(model, nnx.Not(nnx.Param)))

    init, step = jc.train_step(loss, tx, micro_batches=micro_batches)
    state = init(params, model_state=variables)
    batch = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(8, 4)))}
    after, _ = step(state, batch)
    moved = [
        not np.array_equal(a, b)
        for a, b in zip(
            jax.tree.leaves(after.model_state["norm"]),
            jax.tree.leaves(variables["norm"]),
            strict=True,
        )
    ]
    assert all(moved) and cache_size(step) == 1
