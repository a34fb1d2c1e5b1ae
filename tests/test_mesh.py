# SPDX-License-Identifier: Apache-2.0
"""Meshes with explicit axes, the default of ``jax.make_mesh``, change no result."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import put
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from two_layers import cache_size
from variants import marked

import jaxcompress as jc
from jaxcompress import formats, prune, quantize
from jaxcompress._mesh import on_any_mesh

RNG = np.random.default_rng(0)
PARAMS = {name: {"kernel": put(RNG.normal(size=(16, 8)))} for name in ("a", "b")}
COMPRESSORS = {
    "global": jc.magnitude_pruning(0.5, budget=prune.budgets.global_),
    "movement": jc.movement_pruning(0.5),
    "two of four": jc.magnitude_pruning(0.5, pattern=prune.patterns.NOfM(2, 4)),
    "groups": jc.weight_quantization(bits=4, granularity=jc.PerGroup(8)),
    "learned scale": jc.weight_quantization(bits=4, scale=quantize.scales.lsq()),
    "ternary": quantize.trained_ternary(),
    "floats in blocks": jc.weight_quantization(
        fmt=formats.E2M1, granularity=jc.PerGroup(8), scale=quantize.scales.two_level
    ),
    "sharing": jc.weight_sharing(4),
    "low rank": jc.low_rank(rank=2),
}
# Others of the same kinds, which compile for as long.
VARIANTS = ("movement", "groups", "floats in blocks", "two of four", "learned scale")
KINDS = {
    "explicit": (AxisType.Explicit,) * 2,
    "mixed": (AxisType.Auto, AxisType.Explicit),
    "auto": (AxisType.Auto,) * 2,
}


def mesh_of(kind):
    return jax.make_mesh((2, 2), ("data", "model"), axis_types=KINDS[kind])


def place(tree, mesh, spec):
    """Shard all matrices of a tree."""
    return jax.tree.map(
        lambda x: jax.device_put(
            x, NamedSharding(mesh, spec if jnp.ndim(x) == 2 else P())
        ),
        tree,
    )


def two_updates(c):
    def run(params):
        state = c.init(params)
        for _ in range(2):
            params, state = c.update(
                params, state, grads=jax.tree.map(jnp.tanh, params)
            )
        return params, state, c.apply(params, state)

    return run


def assert_close(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-5)


# Law 11 shards the first axis of every compressor.
@pytest.mark.parametrize(
    "spec",
    [pytest.param(P("model", None), marks=pytest.mark.slow), P(None, "model")],
    ids=str,
)
@pytest.mark.parametrize("name", marked(COMPRESSORS, slow=VARIANTS))
def test_explicit_axes_change_no_result(name, spec):
    c = COMPRESSORS[name]
    run = jax.jit(two_updates(c))
    wanted = run(PARAMS)
    params = place(PARAMS, mesh_of("explicit"), spec)
    got = run(params)
    assert_close(got, wanted)
    assert jax.tree.map(jax.typeof, got[2]) == jax.tree.map(jax.typeof, params)
    finalized = jc.dense(c.finalize(*got[:2]))
    assert_close(finalized, got[2])
    assert jax.tree.map(jax.typeof, finalized) == jax.tree.map(jax.typeof, params)


@pytest.mark.parametrize("context", [False, True], ids=["no context", "set_mesh"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_mesh_eager_and_jitted(kind, context):
    run = two_updates(COMPRESSORS["groups"])
    mesh = mesh_of(kind)
    wanted = run(PARAMS)
    with jax.set_mesh(mesh) if context else contextlib.nullcontext():
        params = place(PARAMS, mesh, P(None, "model"))
        assert_close(run(params), wanted)
        assert_close(jax.jit(run)(params), wanted)


def test_masks_and_scores_are_sharded_like_their_weights():
    mesh = mesh_of("explicit")
    params = {
        "a": place(PARAMS["a"], mesh, P("data", "model")),
        "b": place(PARAMS["b"], mesh, P(None, "model")),
    }
    c = COMPRESSORS["movement"]
    for init in (c.init, jax.jit(c.init)):
        state = init(params)
        matrices = [
            (jax.tree_util.keystr(path), x)
            for path, x in jax.tree_util.tree_flatten_with_path(state)[0]
            if x.ndim == 2
        ]
        assert matrices
        for path, x in matrices:
            layer = params["a" if "'a'" in path else "b"]["kernel"]
            assert x.sharding == layer.sharding, path


def test_unchanged_leaves_are_the_same_arrays():
    params = place({**PARAMS, "scale": jnp.ones(8)}, mesh_of("explicit"), P("model"))
    c = COMPRESSORS["groups"]
    view = c.apply(params, c.init(params))
    assert view["scale"] is params["scale"]
    assert view["a"]["kernel"] is not params["a"]["kernel"]


def test_a_result_without_a_like_argument_is_replicated():
    x = place(jnp.ones((16, 8)), mesh_of("explicit"), P("data", "model"))
    flat = jax.jit(on_any_mesh(lambda x: x.reshape(-1)))(x)
    assert jax.typeof(flat).sharding.spec == P(None)
    column = jax.jit(on_any_mesh(lambda x: x.max(1, keepdims=True)))(x)
    assert jax.typeof(column).sharding.spec == P("data", None)


def loss_fn(params, batch):
    hidden = jax.nn.relu(batch["x"] @ params["in"]["kernel"])
    sharding = jax.typeof(batch["x"]).sharding
    out = jnp.einsum(
        "nh,ho->no", hidden, params["out"]["kernel"],
        out_sharding=None if sharding.mesh.empty else sharding,
    )  # fmt: skip
    return jnp.mean((out - batch["y"]) ** 2)


@pytest.mark.parametrize(
    ("name", "micro_batches"),
    [
        ("global", 1),
        pytest.param("global", 2, marks=pytest.mark.slow),
        pytest.param("learned scale", 1, marks=pytest.mark.slow),
        ("learned scale", 2),
    ],
)
def test_training_is_the_same_and_compiles_once(name, micro_batches):
    mesh = mesh_of("explicit")
    c = COMPRESSORS[name]
    params = {"in": PARAMS["a"], "out": {"kernel": PARAMS["b"]["kernel"].T}}
    batch = {"x": jnp.asarray(RNG.normal(size=(8, 16))), "y": jnp.ones((8, 16))}
    sharded = (
        {
            "in": place(params["in"], mesh, P(None, "model")),
            "out": place(params["out"], mesh, P("model", None)),
        },
        place(batch, mesh, P("data", None)),
    )

    def trained(params, batch):
        init, step = jc.train_step(
            loss_fn, optax.adam(1e-2), c, micro_batches=micro_batches
        )
        state = init(params)
        for _ in range(2):
            state, metrics = step(state, batch)
        assert cache_size(step) == 1
        return metrics["loss"], state.params

    loss, after = trained(*sharded)
    assert_close((loss, after), trained(params, batch))
    assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, sharded[0])


def test_statistics_of_sharded_inputs():
    def fn(params, x):
        return x @ params["kernel"]

    def solved(params, x):
        stats = jc.observe(fn, params, [x, x], jc.program.statistics.gram())
        solver = quantize.gptq_quantization(4, granularity=jc.PerGroup(8))
        solve = jax.jit(lambda *p: jc.dense(jc.compress(solver, p[0], stats=p[1])))
        return stats, solve(params, stats)

    x = put(RNG.normal(size=(64, 16)))
    mesh = mesh_of("explicit")
    got = solved(
        place(PARAMS["a"], mesh, P(None, "model")), place(x, mesh, P("data", None))
    )
    assert_close(got, solved(PARAMS["a"], x))
