# SPDX-License-Identifier: Apache-2.0
"""Shrunk functions on meshes with explicit axes: sharded like the function itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec as P

import jaxcompress as jc
from jaxcompress.structured import mask_params, slice_params, trace_blocks, verify

MESH = jax.make_mesh((2, 2), ("data", "model"))
X = normal(4, 8)
PARAMS = {
    "up": normal(8, 16, seed=1),
    "down": normal(16, 8, seed=2),
    "layers": normal(3, 8, 8, seed=3),
}
ROWS, COLUMNS = P(None, "model"), P("model", None)


def place(**specs):
    """Parameters and a batch on the mesh; what is not named is replicated."""
    put = lambda name, x: jax.device_put(  # noqa: E731
        x, NamedSharding(MESH, specs.get(name, P()))
    )
    return {n: put(n, w) for n, w in PARAMS.items()}, put("x", X)


def stacked(params, x):
    """A scan over layers, a custom derivative, and a block."""
    x, _ = lax.scan(lambda h, w: (h + jnp.tanh(h @ w), None), x, params["layers"])
    return x + jax.nn.relu(x @ params["up"]) @ params["down"]


def columns(params, x):
    return jax.nn.relu(x @ params["up"]) @ params["down"]


def summed(params, x):
    h = jax.nn.relu(x @ params["up"])
    spec = NamedSharding(MESH, P("data", None))
    return jnp.einsum("bi,io->bo", h, params["down"], out_sharding=spec)


CASES = {
    "columns": (columns, {"down": ROWS, "x": P("data")}),
    "rows are summed over": (
        summed,
        {"up": ROWS, "down": COLUMNS, "x": P("data")},
    ),
    "batch": (stacked, {"x": P("data")}),
}


@pytest.mark.parametrize("left", [8, 7])
@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_sharded_as_without_the_plan(name, left):
    fn, specs = CASES[name]
    params, x = place(**specs)
    groups = jc.trace_axes(fn, params, x)
    wide = groups["up[1]"]
    assert not wide.frozen
    plan = groups.plan({wide.name: np.arange(16) < left})
    small, shrunk = slice_params(params, plan), jc.shrink(fn, plan)
    masked = mask_params(params, plan)

    @jax.jit
    def both(masked, small, x):
        losses = [lambda p, f=f: jnp.square(f(p, x)).sum() for f in (fn, shrunk)]
        grads = [
            jax.grad(loss)(p) for loss, p in zip(losses, (masked, small), strict=True)
        ]
        return fn(masked, x), shrunk(small, x), *grads

    full, cut, wanted, grads = both(masked, small, x)
    assert jax.typeof(cut) == jax.typeof(full)
    np.testing.assert_allclose(cut, full, rtol=1e-4, atol=1e-4)
    for leaf, grad in slice_params(wanted, plan).items():
        assert jax.typeof(grads[leaf]).sharding == jax.typeof(small[leaf]).sharding
        np.testing.assert_allclose(grads[leaf], grad, rtol=1e-3, atol=1e-2)
    verify(fn, params, plan, x)
    used = jc.weight_axes(fn, params, x)
    assert repr(jc.weight_axes(shrunk, small, x)) == repr(used)


def test_blocks_and_layers_are_removed_on_a_mesh():
    params, x = place(x=P("data"))
    groups = jc.trace_axes(stacked, params, x)
    layers = groups.plan({"layers[0]": np.array([True, False, True])})
    block = trace_blocks(stacked, params, x).plan(["down"])
    for plan in (layers, block, layers | block):
        verify(stacked, params, plan, x)
        out = jax.jit(jc.shrink(stacked, plan))(slice_params(params, plan), x)
        assert jax.typeof(out) == jax.typeof(jax.jit(stacked)(params, x))


def test_channels_are_reordered_on_a_mesh():
    params, x = place(up=ROWS, x=P("data"))
    couplings = jc.program.find_couplings(columns, params, x)
    assert {"up": 1, "down": 0} in list(couplings)
    pattern = jc.prune.patterns.NOfM(2, 4, axes=jc.Axes(contraction=0))
    kernels = {name: params[name] for name in ("up", "down")}
    new, (order,) = jc.prune.patterns.permuted_for(
        pattern, kernels, couplings, key=jax.random.key(0)
    )
    alone, (wanted,) = jc.prune.patterns.permuted_for(
        pattern, {n: PARAMS[n] for n in kernels}, couplings, key=jax.random.key(0)
    )
    np.testing.assert_array_equal(order, wanted)
    for name, kernel in new.items():
        np.testing.assert_array_equal(kernel, alone[name])
        assert jax.typeof(kernel) == jax.typeof(params[name])
