# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import put

import jaxcompress as jc
from jaxcompress import prune


def draw(seed, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    shapes = {"a": (4, 3), "b": (3, 2)}
    tree = {k: {"kernel": rng.normal(size=s)} for k, s in shapes.items()}
    tree = jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)
    # `masked` gives None where a leaf is not selected.
    return {**tree, "bias": None}


PARAMS, OTHER = draw(0), draw(1)
TOTAL = sum(
    float(np.abs(np.float64(p) * np.float64(g)).sum())
    for p, g in zip(jax.tree.leaves(PARAMS), jax.tree.leaves(OTHER), strict=True)
)


@pytest.mark.parametrize(
    ("score", "extra", "formula"),
    [
        (prune.scores.magnitude, None, lambda w, _: np.abs(w)),
        (prune.scores.saliency, "grads", lambda w, g: np.abs(w * g)),
        (prune.scores.snip, "grads", lambda w, g: np.abs(w * g) / TOTAL),
        (prune.scores.grasp, "hessian_gradient", lambda w, h: w * h),
        (prune.scores.synflow, "flow", lambda w, r: np.abs(w * r)),
        (prune.scores.obd, "fisher", lambda w, f: w**2 * f / 2),
    ],
)
def test_every_formula_and_who_needs_what(score, extra, formula):
    extras = {"unknown": 1, "value": 0.5, **({extra: OTHER} if extra else {})}
    scores = jax.jit(lambda p, e: score(p, **e))(PARAMS, extras)
    assert jax.tree.structure(scores) == jax.tree.structure(PARAMS)
    for s, w, x in zip(*map(jax.tree.leaves, (scores, PARAMS, OTHER)), strict=True):
        expected = formula(np.float64(w), np.float64(x))
        np.testing.assert_allclose(s, expected, rtol=1e-6)
    if extra:
        pruner = prune.prune(0.5, score=score)
        name = f"the score '{score.__name__}' needs {extra}=...: pass it to pruner"
        for missing in ({}, {extra: None}):
            with pytest.raises(TypeError, match=name):
                jc.compress(pruner, PARAMS, **missing)
        state = pruner.init(PARAMS)  # everything is kept until the first drawing
        assert all(m.all() for m in jax.tree.leaves(state.masks))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("score", [prune.scores.saliency, prune.scores.grasp])
def test_products_of_half_floats_are_exact(score, dtype):
    w = {"kernel": jnp.asarray([[1e-4, -3e-4], [1.01, 7.0]], dtype)}
    g = {"kernel": jnp.asarray([[1e-4, 2e-4], [0.99, -3.0]], dtype)}
    extras = {name: g for name in ("grads", "hessian_gradient", "flow")}
    (scores,) = jax.tree.leaves(score(w, **extras))
    exact = np.float64(w["kernel"]) * np.float64(g["kernel"])
    assert scores.dtype == jnp.float32 and jnp.all(scores != 0)
    np.testing.assert_array_equal(np.abs(scores), np.abs(exact).astype(np.float32))
    np.testing.assert_array_equal(prune.scores.obd(w, fisher=g)["kernel"] != 0, True)


def test_synflow_beside_the_gradient_that_train_step_passes():
    found = prune.scores.synflow(PARAMS, flow=OTHER, grads=PARAMS)
    jax.tree.map(
        np.testing.assert_array_equal, found, prune.scores.synflow(PARAMS, flow=OTHER)
    )


def test_biases_are_left_out_through_masked():
    params = {"kernel": PARAMS["a"]["kernel"], "bias": jnp.ones(3)}
    grads = {"kernel": OTHER["a"]["kernel"], "bias": jnp.full(3, jnp.nan)}
    for score in (prune.scores.saliency, prune.scores.snip):
        pruner = jc.masked(prune.prune(0.5, score=score), jc.is_weight)
        small = jc.compress(pruner, params, grads=grads)
        assert small["bias"] is params["bias"]
        product = np.abs(np.asarray(params["kernel"] * grads["kernel"]))
        kept = np.argsort(product.ravel())[6:]
        assert set(np.flatnonzero(small["kernel"])) == set(kept.tolist())


def test_random_numbers_stay_and_masks_are_monotone():
    score = prune.scores.random(jax.random.key(3))
    first, again = score(PARAMS, grads=1), jax.jit(score)(OTHER)
    for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.min() >= 0 and x.max() < 1 and x.dtype == jnp.float32
    a, b = (first[k]["kernel"].ravel()[:6] for k in "ab")
    assert not (a == b).any()
    other = prune.scores.random(jax.random.key(4))(PARAMS)
    assert not (other["a"]["kernel"] == first["a"]["kernel"]).any()

    pruner = prune.prune(lambda count: count / 10, score=score)
    update = jax.jit(pruner.update)
    state = jax.jit(pruner.init)(PARAMS)
    for step in range(1, 9):
        before = state.masks
        _, state = update(draw(step), state)
        for mask, old in zip(*map(jax.tree.leaves, (state.masks, before)), strict=True):
            assert not (mask & ~old).any()
            assert int((~mask).sum()) == round(mask.size * step / 10)


def test_random_numbers_have_the_sharding_of_the_leaf():
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec(None, "x")
    place = jax.sharding.NamedSharding(mesh, spec)
    whole = {"kernel": jnp.ones((8, 16))}
    score = prune.scores.random(jax.random.key(0))
    drawn = jax.block_until_ready(jax.jit(score)(jax.device_put(whole, place)))
    assert drawn["kernel"].sharding.is_equivalent_to(place, 2)
    np.testing.assert_array_equal(drawn["kernel"], score(whole)["kernel"])


def test_wanda_of_dense_layers_and_with_norms_of_ones_own():
    x = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    kernel = PARAMS["a"]["kernel"]
    params = {"kernel": kernel, "bias": jnp.zeros(3)}

    def fn(params, x):
        return x @ params["kernel"] + params["bias"][None]

    stats = jc.observe(fn, params, list(x), jc.program.statistics.moments())
    norms = np.sqrt((x.reshape(-1, 4) ** 2).sum(0))[:, None]
    expected = np.abs(kernel) * norms
    with pytest.raises(ValueError, match="'bias' has no input statistics"):
        prune.scores.wanda(params, stats=stats)
    only = {**params, "bias": None}
    found = prune.scores.wanda(only, stats=stats)["kernel"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    by_hand = prune.scores.wanda(only, stats={"kernel": norms, "bias": None})["kernel"]
    np.testing.assert_allclose(by_hand, expected, rtol=1e-6)
    reached = prune.scores.activation(only, stats=stats)["kernel"]
    np.testing.assert_allclose(reached, np.broadcast_to(norms, (4, 3)), rtol=1e-5)
    half = {**only, "kernel": kernel.astype(jnp.bfloat16)}
    assert prune.scores.wanda(half, stats=stats)["kernel"].dtype == jnp.float32
    pruner = jc.masked(prune.prune(0.5, score=prune.scores.wanda), jc.is_weight)
    small = jc.compress(pruner, params, stats=stats)["kernel"]
    kept = np.argsort(expected.ravel())[6:]
    assert set(np.flatnonzero(small)) == set(kept.tolist())


def test_wanda_of_convolutions_and_scanned_layers():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 5, 6, 3)).astype(np.float32)
    params = {
        "conv": {"kernel": put(rng.normal(size=(2, 3, 3, 4)))},
        "stack": {"kernel": put(rng.normal(size=(3, 4, 4)))},
    }

    def layer(h, kernel):
        return jnp.tanh(h @ kernel), h

    def forward(params, x):
        kernel = params["conv"]["kernel"]
        numbers = ("NHWC", "HWIO", "NHWC")
        h = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=numbers
        )
        return jax.lax.scan(layer, h.mean((1, 2)), params["stack"]["kernel"])

    stats = jc.observe(
        forward, params, [jnp.asarray(x)], jc.program.statistics.moments()
    )
    scores = jax.jit(prune.scores.wanda)(params, stats=stats)
    conv = np.zeros((2, 3, 3, 1))
    for i in range(2):
        for j in range(3):
            seen = x[:, i : i + 4, j : j + 4]
            conv[i, j, :, 0] = np.sqrt((seen**2).sum((0, 1, 2)))
    inputs = np.asarray(jax.jit(forward)(params, x)[1])  # layers, rows, features
    stack = np.sqrt((inputs**2).sum(1))[:, :, None]
    for name, norms in (("conv", conv), ("stack", stack)):
        expected = np.abs(params[name]["kernel"]) * norms
        np.testing.assert_allclose(scores[name]["kernel"], expected, rtol=1e-4)


def test_statistics_of_another_kind_are_refused():
    params, x = {"kernel": jnp.ones((4, 3))}, jnp.ones((2, 4))
    gram = jc.observe(
        lambda p, x: x @ p["kernel"], params, [x], jc.program.statistics.gram()
    )
    for score in (prune.scores.wanda, prune.scores.activation):
        with pytest.raises(
            ValueError, match="'kernel': stats must come from .* got statistics of gram"
        ):
            score(params, stats=gram)
        with pytest.raises(TypeError, match="needs stats=..."):
            jc.compress(prune.prune(0.5, score=score), params)


def test_snip_keeps_what_matters_wherever_it_is():
    pruner = prune.prune(0.5, score=prune.scores.snip, budget=prune.budgets.global_)
    grads = {**OTHER, "b": {"kernel": 1e-3 * OTHER["b"]["kernel"]}}
    small = jc.compress(pruner, PARAMS, grads=grads)
    saliency = np.abs(PARAMS["b"]["kernel"] * OTHER["b"]["kernel"])
    kept = np.asarray(small["b"]["kernel"] != 0)
    assert kept.sum() == 1 and kept.ravel()[saliency.argmax()]  # its largest is left
    assert int((small["a"]["kernel"] != 0).sum()) == 9


@pytest.mark.parametrize("where", ["params", "grads"])
def test_a_nan_is_named_outside_of_jit_and_stays_visible_inside(where):
    trees = {"params": PARAMS, "grads": OTHER}
    tree = trees[where]
    kernel = tree["b"]["kernel"].at[1, 1].set(jnp.nan)
    trees[where] = {**tree, "b": {"kernel": kernel}}
    pruner = prune.prune(0.5, score=prune.scores.saliency)
    _, state = jax.jit(pruner.update)(
        trees["params"], pruner.init(PARAMS), grads=trees["grads"]
    )
    assert state.masks["b"]["kernel"][1, 1]
    with pytest.raises(ValueError, match="'b/kernel' contains NaN"):
        jc.compress(pruner, trees["params"], grads=trees["grads"])


@pytest.mark.parametrize("dtype", [jnp.float8_e4m3fn, jnp.float64])
def test_a_dtype_that_cannot_be_ranked_is_named(dtype):
    with jax.enable_x64(True):
        kernel = jnp.ones((4, 6), jnp.float32)
        params = {"a": {"kernel": kernel}, "b": {"kernel": kernel.astype(dtype)}}
        with pytest.raises(TypeError, match="'b/kernel' has scores of dtype float"):
            jc.magnitude_pruning(0.5).init(params)
