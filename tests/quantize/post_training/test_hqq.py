# SPDX-License-Identifier: Apache-2.0
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import put

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.numerics import reduce_tiles
from jaxcompress.quantize import fake_quant
from jaxcompress.quantize.post_training import hqq
from jaxcompress.quantize.scales import absmax


def cost(w, fmt, shape, scale, p=0.7):
    near = fake_quant(w, fmt, scale_shape=shape, scale=scale)
    return reduce_tiles(jnp.sum, jnp.abs(w - near) ** p, shape)


def scales(*args) -> Any:
    return hqq()(*args)


def heavy(*shape, seed=0):
    """Weights with outliers."""
    return put(np.random.default_rng(seed).standard_t(4, shape))


@pytest.mark.parametrize(
    ("bits", "symmetric", "shape"),
    [(2, True, (1, 6)), (3, True, (4, 6)), (3, False, (1, 6)), (4, True, (1, 1))],
)
def test_no_tile_is_worse_and_most_are_better(bits, symmetric, shape):
    w, fmt = heavy(64, 6), Int(bits, symmetric)
    before, after = (cost(w, fmt, shape, s) for s in (absmax, hqq()))
    assert (after <= before * (1 + 1e-6)).all()
    assert (after < before).mean() > 0.5


def test_it_follows_the_size_of_the_weights():
    w = heavy(64, 6)
    scale, _ = scales(w, (1, 6), Int(3))
    scaled, _ = scales(1024 * w, (1, 6), Int(3))  # a power of two: nothing is rounded
    np.testing.assert_array_equal(scaled, 1024 * scale)


def test_outliers_are_clipped():
    w = heavy(256, 1).clip(-3, 3).at[0].set(8.0)
    scale, _ = scales(w, (1, 1), Int(3))
    assert scale[0, 0] < 0.8 * np.asarray(absmax(w, (1, 1), Int(3))[0])[0, 0]
    before, after = (cost(w, Int(3), (1, 1), s) for s in (absmax, hqq()))
    assert after < 0.9 * before


@pytest.mark.parametrize("symmetric", [True, False])
def test_zero_stays_zero_and_zero_points_are_codes(symmetric):
    w = heavy(32, 4).at[::2].set(0)
    fmt = Int(4, symmetric)
    scale, zero_point = scales(w, (1, 4), fmt)
    near = fake_quant(w, fmt, scale_shape=(1, 4), scale=hqq())
    assert not near[::2].any() and (scale > 0).all()
    if zero_point is not None:
        np.testing.assert_array_equal(
            zero_point, jnp.clip(jnp.round(zero_point), 0, 15)
        )


def test_tiles_of_zeros_and_single_values():
    w = jnp.zeros((4, 2)).at[1, 1].set(3.0)
    for fmt in (Int(4), Int(1)):
        near = fake_quant(w, fmt, scale_shape=(1, 2), scale=hqq())
        np.testing.assert_allclose(near, w, rtol=1e-6)


def test_it_ships_what_is_trained():
    params = {"kernel": heavy(32, 4)}
    c = jc.weight_quantization(bits=3, scale=hqq())
    state = c.init(params)
    view, shipped = jax.jit(lambda p: (c.apply(p, state), c.finalize(p, state)))(params)
    np.testing.assert_array_equal(view["kernel"], shipped["kernel"].dense())
    eager = scales(params["kernel"], (1, 4), Int(3))[0]
    np.testing.assert_allclose(np.asarray(shipped["kernel"].scale), eager, rtol=1e-5)


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="p must be in .0, 1., got p=2"):
        hqq(p=2)
    with pytest.raises(ValueError, match="at least 1, got iterations=0"):
        hqq(0)
