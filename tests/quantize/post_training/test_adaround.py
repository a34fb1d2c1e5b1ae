# SPDX-License-Identifier: Apache-2.0
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calibrated import layer, loss, singles
from draws import normal

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.quantize import fake_quant, to_qarray
from jaxcompress.quantize.post_training import adaround, reconstruct_block
from jaxcompress.quantize.scales import fixed


@pytest.mark.parametrize(("bits", "symmetric", "groups"), [(4, False, 1), (3, True, 4)])
def test_no_output_gets_worse_and_all_get_better(bits, symmetric, groups):
    w, h = layer(32, 8)
    fmt, shape = Int(bits, symmetric), (groups, 8)
    found, scale, zero = adaround(*singles(w, h), fmt=fmt, scale_shape=shape, steps=400)
    nearest = fake_quant(singles(w)[0], fmt, scale_shape=shape)
    losses = [
        [loss(v[:, [j]], w[:, [j]], h) for j in range(8)] for v in (found, nearest)
    ]
    assert (np.asarray(losses[0]) <= losses[1]).all()
    assert sum(losses[0]) < 0.8 * sum(losses[1])
    again = to_qarray(found, fmt, scale_shape=shape, scale=fixed(scale, zero))
    np.testing.assert_array_equal(again.dense(), found)
    # Up or down: next to what it was.
    step = np.repeat(np.asarray(scale), 32 // groups, axis=0)
    assert (np.abs(found - w) <= step * (1 + 1e-5)).all()


def test_most_of_what_the_best_rounding_gains_is_found():
    gains = []
    for seed in range(3):
        w, h = layer(9, 8, seed)
        found, scale, _ = adaround(*singles(w, h), fmt=Int(3))
        step = np.asarray(scale, np.float64)
        steps = np.floor(w / step)
        every = (np.reshape(up, (9, 1)) for up in itertools.product((0, 1), repeat=9))
        change = np.stack([np.clip(steps + up, -3, 3) * step - w for up in every])
        best = np.sum(change * (h @ change), 1).min(0).sum()
        nearest = loss(np.clip(np.round(w / step), -3, 3) * step, w, h)
        assert loss(found, w, h) >= best * (1 - 1e-5)
        gains.append((nearest - loss(found, w, h)) / (nearest - best))
    assert np.mean(gains) > 0.75


def test_pruned_weights_stay_zero():
    w, h = layer(32, 8)
    keep = np.abs(w) > 0.5
    masked = np.where(keep, w, 0)
    found, *_ = adaround(
        *singles(masked, h), fmt=Int(4), keep=jnp.asarray(keep), steps=300
    )
    assert not np.asarray(found)[~keep].any()
    nearest = fake_quant(singles(masked)[0], Int(4), scale_shape=(1, 8))
    assert loss(found, masked, h) < 0.8 * loss(nearest, masked, h)


def test_half_floats_and_weights_on_the_grid_already():
    w, h = layer(16, 4)
    narrow = singles(w)[0].astype(jnp.bfloat16)
    found, scale, _ = adaround(narrow, *singles(h), fmt=Int(4), steps=20)
    assert found.dtype == jnp.bfloat16
    grid = fixed(scale, None)
    again, *_ = adaround(found, *singles(h), fmt=Int(4), scale=grid, steps=20)
    np.testing.assert_array_equal(again, found)


def test_bad_arguments_are_refused():
    w, h = singles(*layer(8, 2))
    with pytest.raises(
        ValueError,
        match="must be Int.* with bits >= 2 .*gptq, which takes every format",
    ):
        adaround(w, h, jc.formats.NF4)
    with pytest.raises(ValueError, match="Int.* with bits >= 2"):
        adaround(w, h, Int(1))
    with pytest.raises(ValueError, match="at least 1, got steps=0"):
        adaround(w, h, Int(4), steps=0)
    with pytest.raises(ValueError, match="must be a fraction .* got warm_up=1"):
        adaround(w, h, Int(4), warm_up=1)
    with pytest.raises(ValueError, match="takes one matrix"):
        adaround(w, h[:3, :3], Int(4))


def block(p, x):
    """A residual block of two layers."""
    inner = jax.nn.relu(x @ p["a"]["kernel"] + p["a"]["bias"][None])
    return x + inner @ p["b"]["kernel"]


def made():
    params = {
        "a": {"kernel": normal(8, 16, seed=1), "bias": normal(16, seed=2)},
        "b": {"kernel": normal(16, 8, seed=3)},
    }
    return params, normal(4, 64, 8, seed=4)


def change(p, params, x, weight: Any = 1.0):
    return float(
        jnp.sum(
            weight
            * (
                jax.vmap(lambda x: block(jc.dense(p), x))(x)
                - jax.vmap(lambda x: block(params, x))(x)
            )
            ** 2
        )
    )


@pytest.mark.slow
def test_a_block_is_rounded_by_its_own_output():
    params, x = made()
    found = reconstruct_block(block, params, x, fmt=Int(3), steps=400)
    nearest = jc.compress(jc.weight_quantization(bits=3), params)
    assert change(found, params, x) < 0.6 * change(nearest, params, x)
    np.testing.assert_array_equal(found["a"]["bias"], params["a"]["bias"])
    for name in ("a", "b"):  # the same grid
        np.testing.assert_array_equal(
            found[name]["kernel"].scale, nearest[name]["kernel"].scale
        )
    # As good as each layer alone, by its own inputs, or better.
    stats = jc.observe(block, params, [x.reshape(-1, 8)], jc.program.statistics.gram())
    alone = {
        name: {
            "kernel": adaround(
                params[name]["kernel"], stats[name]["kernel"].gram, Int(3), steps=400
            )[0]
        }
        for name in ("a", "b")
    }
    alone["a"]["bias"] = params["a"]["bias"]
    assert change(found, params, x) < change(alone, params, x)


def test_targets_weights_selection_and_zeros():
    params, x = made()
    params["a"]["kernel"] = params["a"]["kernel"].at[::2].set(0)
    targets = jax.vmap(lambda x: block(params, x))(x)
    fisher = jnp.ones_like(targets).at[..., 0].set(1000.0)
    options = {"fmt": Int(2), "steps": 200, "where": "a/*l"}
    plain = reconstruct_block(block, params, (x,), targets, **options)
    weighted = reconstruct_block(block, params, (x,), targets, fisher=fisher, **options)
    assert not plain["a"]["kernel"].dense()[::2].any()
    assert plain["b"]["kernel"] is params["b"]["kernel"]
    assert change(weighted, params, x, fisher) < change(plain, params, x, fisher)


def test_a_block_that_cannot_be_is_refused():
    params, x = made()
    with pytest.raises(ValueError, match="'c/kernel' selected none"):
        reconstruct_block(block, params, x, fmt=Int(4), where="c/kernel")
    with pytest.raises(ValueError, match="must be Int.* with bits >= 2"):
        reconstruct_block(block, params, x, fmt=jc.formats.NF4)
