# SPDX-License-Identifier: Apache-2.0
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.numerics import output_error
from jaxcompress.quantize import (
    adaround_quantization,
    fake_quant,
    gptq_quantization,
    layerwise_quantization,
    to_qarray,
)
from jaxcompress.quantize.post_training import LayerwiseState, adaround, gptq, hqq

QUANTIZERS = {
    "gptq": gptq_quantization(3),
    "adaround": adaround_quantization(3, steps=60),
}


def fn(params, x):
    for name in ("Dense_0", "Dense_1"):
        x = jnp.tanh(x @ params[name]["kernel"] + params[name]["bias"][None])
    return x


@functools.cache
def two_layers(dtype=jnp.float32):
    params = {
        name: {"kernel": normal(8, 8, seed=i).astype(dtype), "bias": jnp.zeros(8)}
        for i, name in enumerate(["Dense_0", "Dense_1"])
    }
    x = normal(64, 8, seed=9) @ (jnp.eye(8) + 0.3 * normal(8, 8, seed=5))
    return params, jc.observe(fn, params, [x], jc.program.statistics.gram()), x


@functools.cache
def solved_by(name):
    params, stats, _ = two_layers()
    c = QUANTIZERS[name]
    return c, jax.jit(c.update)(params, c.init(params), stats=stats)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_statistics_solve_once_and_training_holds_the_scales(name):
    params, stats, x = two_layers()
    c, (moved, state) = solved_by(name)
    start = c.init(params)
    assert isinstance(start, LayerwiseState) and start.count == 0
    assert start.scales["Dense_0"]["bias"] is None
    nearest = jc.compress(jc.weight_quantization(bits=3), params)
    jax.tree.map(
        np.testing.assert_array_equal, c.apply(params, start), jc.dense(nearest)
    )

    assert state.count == 1
    view, shipped = c.apply(moved, state), c.finalize(moved, state)
    for layer in params:
        np.testing.assert_array_equal(view[layer]["kernel"], moved[layer]["kernel"])
        np.testing.assert_array_equal(
            shipped[layer]["kernel"].dense(), view[layer]["kernel"]
        )
        assert shipped[layer]["bias"] is moved[layer]["bias"]
    rows = [jnp.tanh(x @ params["Dense_0"]["kernel"]), x]

    def error(p, layer, rows):
        return float(
            jnp.sum((rows @ (p[layer]["kernel"] - params[layer]["kernel"])) ** 2)
        )

    dense = jc.dense(nearest)
    for layer, seen in zip(params, rows[::-1], strict=True):
        assert error(moved, layer, seen) < error(dense, layer, seen)

    trained = jax.tree.map(lambda p: p + 0.3, moved)
    same, after = c.update(trained, state, grads=trained)
    jax.tree.map(np.testing.assert_array_equal, (same, after), (trained, state))
    grad = jax.grad(lambda p: sum(map(jnp.sum, jax.tree.leaves(c.apply(p, state)))))(
        moved
    )
    np.testing.assert_array_equal(grad["Dense_0"]["kernel"], jnp.ones((8, 8)))


def test_a_leaf_is_solved_as_its_matrix_is():
    params, stats, _ = two_layers()
    for name, solve in (
        ("gptq", gptq),
        ("adaround", functools.partial(adaround, steps=60)),
    ):
        _, (moved, state) = solved_by(name)
        alone, scale, _ = solve(
            params["Dense_0"]["kernel"], stats["Dense_0"]["kernel"].gram, Int(3)
        )
        np.testing.assert_allclose(moved["Dense_0"]["kernel"], alone, rtol=1e-5)
        np.testing.assert_allclose(state.scales["Dense_0"]["kernel"], scale, rtol=1e-6)


@pytest.mark.slow  # `tests/test_laws.py` has it with scales of other shapes
def test_the_laws_are_kept():
    params, stats, _ = two_layers()
    c = gptq_quantization(4, symmetric=False, granularity=jc.PerGroup(4))
    held = jc.testing.check_compressor(c, params, extras={"stats": stats}, steps=1)
    assert set(held.values()) == {"held"}


def test_the_view_ships_after_it_was_solved():
    params, stats, _ = two_layers()
    c = gptq_quantization(4, symmetric=False, granularity=jc.PerGroup(4))
    update = jax.jit(c.update)
    moved, state = update(params, c.init(params), stats=stats)
    shipped = jc.dense(c.finalize(moved, state))
    jax.tree.map(np.testing.assert_array_equal, shipped, c.apply(moved, state))
    jax.tree.map(np.testing.assert_array_equal, shipped, moved)
    assert jax.tree.structure(state) == jax.tree.structure(c.init(params))


def test_shipping_what_was_never_solved_warns():
    params, _, _ = two_layers()
    with pytest.warns(
        UserWarning, match="rounded to nearest: no update was given stats="
    ):
        shipped = jc.compress(gptq_quantization(4), params)
    nearest = jc.compress(jc.weight_quantization(bits=4), params)
    jax.tree.map(np.testing.assert_array_equal, shipped, nearest)


def convolution(features, groups) -> Any:
    model = nn.Conv(features, (3, 3), feature_group_count=groups, use_bias=False)
    params = {"kernel": normal(3, 3, 4 // groups, features)}
    return (lambda p, x: model.apply({"params": p}, x)), params, normal(4, 5, 5, 4)


@pytest.mark.parametrize("groups", [2])
def test_convolutions_are_solved_group_by_group(groups):
    fn, params, x = convolution(6, groups)
    stats = jc.observe(fn, params, [x], jc.program.statistics.gram())
    c = gptq_quantization(4, axes=jc.Axes(contraction=(0, 1, 2)))
    moved, state = jax.jit(c.update)(params, c.init(params), stats=stats)
    assert state.scales["kernel"].shape == (1, 1, 1, 6)
    hs = stats["kernel"].gram.reshape(groups, *(36 // groups,) * 2)
    split = [
        np.split(np.asarray(k["kernel"]).reshape(-1, 6), groups, axis=1)
        for k in (params, moved)
    ]
    for w, found, h in zip(*split, hs, strict=True):
        np.testing.assert_allclose(found, gptq(w, h, Int(4))[0], rtol=1e-4, atol=1e-5)
    before = fn(
        jc.dense(
            jc.compress(
                jc.weight_quantization(
                    bits=4, granularity=jc.PerChannel(axes=jc.Axes(outputs=-1))
                ),
                params,
            )
        ),
        x,
    )
    assert jnp.sum((fn(moved, x) - fn(params, x)) ** 2) < jnp.sum(
        (before - fn(params, x)) ** 2
    )


def layers():
    params = {"kernel": normal(3, 8, 8)}

    def fn(params, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["kernel"])[
            0
        ]

    return params, jc.observe(fn, params, [normal(64, 8)], jc.program.statistics.gram())


@pytest.mark.slow
def test_layers_of_a_scan_have_scales_of_their_own_unless_they_share_them():
    params, stats = layers()
    groups = jc.PerGroup(4, axes=jc.Axes(contraction=1))
    cases: Any = (
        (gptq_quantization(4, axes=jc.Axes(contraction=1)), {}, (3, 1, 8)),
        (
            gptq_quantization(4, axes=jc.Axes(contraction=1), granularity=groups),
            {"scale_shape": (2, 8)},
            (3, 2, 8),
        ),
    )
    for c, options, shape in cases:
        moved, state = jax.jit(c.update)(params, c.init(params), stats=stats)
        assert state.scales["kernel"].shape == shape
        for i in range(3):
            w, h = params["kernel"][i], stats["kernel"].gram[i]
            alone, scale, _ = gptq(w, h, Int(4), **options)
            grid = {"scale_shape": (1, 8), **options}
            nearest = to_qarray(w, Int(4), **grid)
            if output_error(alone, w, h) > output_error(nearest.dense(), w, h):
                alone, scale = nearest.dense(), nearest.scale
            np.testing.assert_allclose(moved["kernel"][i], alone, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(state.scales["kernel"][i], scale, rtol=1e-4)
    c = gptq_quantization(4, axes=jc.Axes(contraction=1), granularity=jc.PerTensor())
    start = c.init(params)
    moved, state = jax.jit(c.update)(params, start, stats=stats)
    np.testing.assert_array_equal(state.scales["kernel"], start.scales["kernel"])
    np.testing.assert_array_equal(c.apply(moved, state)["kernel"], moved["kernel"])
    nearest = fake_quant(params["kernel"], Int(4))
    hs = stats["kernel"].gram

    def error(w):
        change = w - params["kernel"]
        return jnp.sum(change * (hs @ change))

    assert error(moved["kernel"]) < error(nearest)


def test_equinox_weights_are_transposed():
    params, stats, _ = two_layers()
    _, (moved, state) = solved_by("gptq")
    flipped = {"weight": params["Dense_0"]["kernel"].T}
    known = stats["Dense_0"]["kernel"]
    known = {"weight": known._replace(squares=known.squares.T)}
    found, after = gptq_quantization(3).update(
        flipped, gptq_quantization(3).init(flipped), stats=known
    )
    np.testing.assert_allclose(found["weight"].T, moved["Dense_0"]["kernel"], rtol=1e-5)
    assert after.scales["weight"].shape == (8, 1)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_after_pruning_zeros_stay_zero(name):
    params, stats, _ = two_layers()
    c = jc.chain(jc.magnitude_pruning(0.5), QUANTIZERS[name])
    moved, state = jax.jit(c.update)(params, c.init(params), stats=stats)
    shipped = c.finalize(moved, state)
    for layer in params:
        pruned = jnp.abs(params[layer]["kernel"]) < jnp.median(
            jnp.abs(params[layer]["kernel"])
        )
        assert not shipped[layer]["kernel"].codes[pruned].any()
        np.testing.assert_array_equal(
            shipped[layer]["kernel"].dense(), c.apply(moved, state)[layer]["kernel"]
        )


def test_zeros_may_be_filled_in():
    kernel = normal(16, 8, seed=3)
    sparse = {"kernel": jnp.where(jnp.abs(kernel) < 0.5, 0, kernel)}
    x = normal(64, 1) + 0.5 * normal(64, 16, seed=1)
    stats = {"kernel": jc.program.statistics.Gram(jnp.uint32(64), x.T @ x)}
    zeros = sparse["kernel"] == 0
    for keep in (True, False):
        c = gptq_quantization(2, keep_zeros=keep)
        moved, _ = jax.jit(c.update)(sparse, c.init(sparse), stats=stats)
        assert bool((moved["kernel"][zeros] == 0).all()) == keep


def test_half_floats_other_scales_and_formats():
    params, stats, _ = two_layers(jnp.bfloat16)
    for c in (
        gptq_quantization(4, granularity=jc.PerGroup(4), act_order=True, scale=hqq()),
        gptq_quantization(fmt=jc.formats.NF4),
    ):
        moved, state = jax.jit(c.update)(params, c.init(params), stats=stats)
        kernel = moved["Dense_0"]["kernel"]
        assert kernel.dtype == jnp.bfloat16
        assert state.scales["Dense_0"]["kernel"].dtype == jnp.float32
        shipped = c.finalize(moved, state)["Dense_0"]["kernel"]
        np.testing.assert_array_equal(shipped.dense(), kernel)


def test_any_solver():
    def nearest(w, h, keep, grid, choose):
        shape = grid[0].shape
        assert choose is jc.quantize.scales.suited and keep.shape == w.shape
        return fake_quant(w, Int(4), scale_shape=shape, scale=lambda *_: grid), grid

    c = jc.masked(
        layerwise_quantization(Int(4), granularity=jc.PerChannel(), solve=nearest),
        "*/kernel",
    )
    params, stats, _ = two_layers()
    small = jc.compress(c, params, stats=stats)
    expected = jc.compress(jc.weight_quantization(bits=4), params)
    jax.tree.map(np.testing.assert_array_equal, jc.dense(small), jc.dense(expected))


def test_what_is_missing_or_broken_is_named():
    params, stats, _ = two_layers()
    c = gptq_quantization(4)
    state = c.init(params)
    partly = {**stats, "Dense_1": {"kernel": None, "bias": None}}
    with pytest.raises(
        ValueError,
        match="'Dense_1/kernel' is selected, but stats= has nothing.*observe",
    ):
        c.update(params, state, stats=partly)
    with pytest.raises(ValueError, match="stats= must be a tree like the parameters"):
        c.update(params, state, stats={"Dense_0": partly["Dense_0"]})
    broken = jax.tree.map(lambda x: x, stats)
    gram = stats["Dense_1"]["kernel"].gram.at[0, 0].set(jnp.nan)
    broken["Dense_1"]["kernel"] = stats["Dense_1"]["kernel"]._replace(gram=gram)
    with pytest.raises(
        ValueError, match="statistics of 'Dense_1/kernel' are not finite.*NaN"
    ):
        c.update(params, state, stats=broken)
    alike = jnp.ones((64, 8))  # features, exactly
    singular = jc.observe(fn, params, [alike], jc.program.statistics.gram())
    with pytest.raises(
        ValueError, match="'Dense_0/kernel' are not finite.*damping above 0"
    ):
        undamped = gptq_quantization(4, damping=0.0)
        undamped.update(params, state, stats=singular)
    with pytest.raises(
        ValueError, match="group size must divide axis 0 of .8, 8., of length 8, got 3"
    ):
        gptq_quantization(4, granularity=jc.PerGroup(3)).init(params)
    with pytest.raises(ValueError, match="contraction axes cannot be told"):
        gptq_quantization(4).init({"kernel": normal(3, 3, 2, 4)})
