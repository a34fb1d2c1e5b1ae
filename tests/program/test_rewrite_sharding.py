# SPDX-License-Identifier: Apache-2.0
"""Where a rewritten function runs: shardings, devices and platforms stay as they were."""

import jax
import jax.numpy as jnp
import pytest
from draws import normal
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from models import MODELS, assert_same_bits, linen_transformer, unchanged

import jaxcompress as jc
from jaxcompress.program import OpaqueWarning

PARAMS = {"a": normal(4, 4), "b": normal(4, 4, seed=1)}
X = normal(8, 4, seed=2)


def mlp(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"]


def mesh():
    return jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))


def test_inputs_that_are_sharded_along_the_batch():
    model = linen_transformer(batch=8)
    devices = mesh()
    rows = NamedSharding(devices, PartitionSpec("data"))
    everywhere = NamedSharding(devices, PartitionSpec())
    params = jax.device_put(model.params, everywhere)
    (tokens,) = jax.device_put(model.args, rows)

    def counting(site, op, operands, state):
        return op(*operands), state + 1

    sites = jc.sites(model.fn, params, tokens)
    state = {s.name: jnp.zeros(s.layers) for s in sites}
    plain = jax.block_until_ready(jax.jit(model.fn)(params, tokens))
    out, state = jax.block_until_ready(
        jax.jit(jc.rewrite(model.fn, counting))(params, state, tokens)
    )
    assert_same_bits(out, plain)
    assert out.sharding.is_equivalent_to(plain.sharding, out.ndim)
    assert all((count == 1).all() for count in state.values())


def test_sharding_constraints_inside_hold():
    columns = NamedSharding(mesh(), PartitionSpec(None, "data"))

    def fn(params, x):
        x = lax.with_sharding_constraint(jnp.tanh(x @ params["a"]), columns)
        return x + x @ params["b"], x

    plain, through = (
        jax.block_until_ready(jax.jit(f)(PARAMS, X)) for f in (fn, unchanged(fn))
    )
    assert_same_bits(through, plain)
    assert through[1].sharding.is_equivalent_to(columns, 2)


def test_shardings_of_a_jitted_function_inside_hold():
    rows = NamedSharding(mesh(), PartitionSpec("data"))
    inner = jax.jit(mlp, out_shardings=rows)
    plain, through = (
        jax.block_until_ready(jax.jit(lambda p, x, f=f: f(p, x))(PARAMS, X))
        for f in (inner, unchanged(inner))
    )
    assert_same_bits(through, plain)
    assert through.sharding.is_equivalent_to(plain.sharding, 2)


def test_branches_for_other_platforms_are_not_compiled():
    """A kernel for a TPU, beside a product for all others."""

    def kernel(x, w, out):
        out[...] = x[...] @ w[...]

    def fn(params, x):
        on_tpu = pl.pallas_call(kernel, jax.ShapeDtypeStruct((8, 4), jnp.float32))
        return lax.platform_dependent(x, params["a"], tpu=on_tpu, default=jnp.matmul)

    expected = jax.jit(fn)(PARAMS, X)
    with pytest.warns(OpaqueWarning):
        assert_same_bits(jax.jit(unchanged(fn))(PARAMS, X), expected)


def test_rewriting_inside_of_shard_map():
    model = MODELS["loops"](batch=8)
    rows = PartitionSpec("data")

    def mean(fn):
        def local(params, x):
            # Every device may take another branch, and another number of trips.
            out = fn(params, x)
            return out, lax.pmean(out.sum(), "data")

        return jax.jit(
            jax.shard_map(
                local,
                mesh=mesh(),
                in_specs=(PartitionSpec(), rows),
                out_specs=(rows, PartitionSpec()),
            )
        )

    plain, through = (
        jax.block_until_ready(mean(f)(model.params, *model.args))
        for f in (model.fn, unchanged(model.fn))
    )
    assert_same_bits(through, plain)
