# SPDX-License-Identifier: Apache-2.0
"""Losses of a batch that is sharded over explicit axes are those of the whole batch."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_loss import LOSSES, array
from jax.sharding import NamedSharding, PartitionSpec as P

STUDENT, TEACHER = array(0, 6, 5), array(1, 6, 5)


def shard(x, mesh):
    return jax.device_put(x, NamedSharding(mesh, P("data", None)))


@pytest.mark.parametrize(
    ("name", "context"),
    [(name, False) for name in sorted(set(LOSSES) - {"bucket", "nce", "top_k"})]
    + [("contrastive", True), ("kl_of_heads", True)],
)
def test_values_and_gradients_do_not_depend_on_the_mesh(name, context):
    def total(student, teacher):
        return jnp.sum(LOSSES[name](student, teacher, None))

    run = jax.jit(jax.value_and_grad(total))
    wanted = run(STUDENT, TEACHER)
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    with jax.set_mesh(mesh) if context else contextlib.nullcontext():
        value, grads = run(shard(STUDENT, mesh), shard(TEACHER, mesh))
    np.testing.assert_allclose(value, wanted[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(grads, wanted[1], rtol=1e-3, atol=1e-5)
    assert jax.typeof(grads).sharding.spec == P("data", None)
