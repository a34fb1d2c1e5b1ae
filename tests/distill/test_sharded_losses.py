# SPDX-License-Identifier: Apache-2.0
"""Losses of a batch that is sharded over explicit axes are those of the whole batch."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_loss import LOSSES, array
from jax.sharding import NamedSharding, PartitionSpec as P

BY_ROWS, BY_COLUMNS = P("data", None), P(None, "data")


def shard(x, mesh, spec):
    return jax.device_put(x, NamedSharding(mesh, spec))


# Those that need the compiler to place what lies between.
PLACED = (
    "attention_relations", "attention_transfer", "contrastive", "crd", "hard_labels",
    "hint", "info_nce", "kl_of_heads", "relational_angle", "relational_distance",
    "similarity_preserving", "top_k_kl", "total_variation",
)  # fmt: skip


def by_rows(name):
    marks = () if name in PLACED else pytest.mark.slow
    return pytest.param(name, BY_ROWS, False, marks=marks)


@pytest.mark.parametrize(
    ("name", "spec", "context"),
    [by_rows(name) for name in sorted(set(LOSSES) - {"bucket", "nce", "top_k"})]
    + [(name, BY_COLUMNS, False) for name in ("contrastive", "hint", "hard_labels")]
    + [("relational_angle", BY_ROWS, True), ("kl_of_heads", BY_ROWS, True)],
)
def test_values_and_gradients_do_not_depend_on_the_mesh(name, spec, context):
    def total(student, teacher):
        return jnp.sum(LOSSES[name](student, teacher, None))

    run = jax.jit(jax.value_and_grad(total))
    arrays = [array(seed, 6, 5 if spec == BY_ROWS else 4) for seed in (0, 1)]
    wanted = run(*arrays)
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    with jax.set_mesh(mesh) if context else contextlib.nullcontext():
        value, grads = run(*(shard(x, mesh, spec) for x in arrays))
    np.testing.assert_allclose(value, wanted[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(grads, wanted[1], rtol=1e-3, atol=1e-5)
    assert jax.typeof(grads).sharding.spec == spec
