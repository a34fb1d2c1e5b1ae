# SPDX-License-Identifier: Apache-2.0
"""The default scale is the one that suits the format."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcompress as jc
from jaxcompress import formats
from jaxcompress.formats import Levels
from jaxcompress.formats._levels import _find_rms_level
from jaxcompress.quantize import scales, to_qarray

W = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32) * 0.02


def posit(exponent_bits, bits=8):
    """The values of a posit, from its definition: a regime, an exponent, a fraction."""
    positive = []
    for code in range(1, 2 ** (bits - 1)):
        text = f"{code:0{bits - 1}b}"
        run = len(text) - len(text.lstrip(text[0]))
        regime = run - 1 if text[0] == "1" else -run
        rest = text[run + 1 :]
        exponent = int(rest[:exponent_bits].ljust(exponent_bits, "0") or "0", 2)
        fraction = rest[exponent_bits:]
        mantissa = 1 + (int(fraction, 2) / 2 ** len(fraction) if fraction else 0)
        positive.append(mantissa * 2.0 ** (regime * 2**exponent_bits + exponent))
    return (*(-v for v in sorted(positive, reverse=True)), 0.0, *sorted(positive))


def error_at(scale, values):
    table = np.asarray(values)
    middles = (table[1:] + table[:-1]) / 2
    return np.sqrt(
        np.mean((table[np.searchsorted(middles, W / scale)] * scale - W) ** 2)
    )


@pytest.mark.parametrize("exponent_bits", [0, 1, 2])
def test_a_posit_gets_nearly_the_best_scale(exponent_bits):
    fmt = Levels(posit(exponent_bits))
    best = min(error_at(s, fmt.values) for s in np.geomspace(1e-4, 1, 400))
    c = jc.weight_quantization(fmt=fmt, granularity=jc.PerTensor())
    found = jc.dense(jc.compress(c, {"kernel": jnp.asarray(W)}))["kernel"]
    assert np.sqrt(np.mean((found - W) ** 2)) <= 1.15 * best
    largest = np.abs(W).max() / fmt.high
    assert error_at(largest, fmt.values) > 10 * best
    given = to_qarray(jnp.asarray(W), fmt, scale=scales.absmax)
    np.testing.assert_allclose(given.scale, largest, rtol=1e-6)


@pytest.mark.parametrize(
    "fmt",
    [
        formats.NF4,
        *map(formats.powers_of_two, (2, 4, 7)),
        *map(formats.additive_powers_of_two, (2, 5, 7)),
    ],
    ids=lambda fmt: str(len(fmt.values)),
)
def test_a_format_that_fills_its_range_keeps_absmax(fmt):
    assert fmt.rms_level == 0.0 == _find_rms_level(fmt.values)
    assert Levels(fmt.values) == fmt
    default, given = (
        to_qarray(jnp.asarray(W), fmt, scale_shape=(1, 32), scale=scale)
        for scale in (scales.suited, scales.absmax)
    )
    jax.tree.map(np.testing.assert_array_equal, default, given)


def test_what_a_format_says_is_taken_and_saved(tmp_path):
    fmt = Levels(posit(1), rms_level=2.0)
    assert fmt != Levels(posit(1))
    shipped = jc.compress(jc.weight_quantization(fmt=fmt), {"kernel": jnp.asarray(W)})
    expected = np.sqrt(np.mean(np.float64(W) ** 2, 0)) / 2
    np.testing.assert_allclose(shipped["kernel"].scale[0], expected, rtol=1e-5)
    jc.save(tmp_path / "file", shipped)
    assert jc.load(tmp_path / "file")["kernel"].format == fmt
    with pytest.raises(ValueError, match="rms_level must be .* got -1"):
        Levels((0, 1), rms_level=-1.0)


def test_zeros_and_units_do_not_move_the_root_mean_square():
    pruned = jnp.asarray(np.where(np.abs(W) > 0.01, W, 0))
    expected = np.sqrt(np.mean(np.float64(pruned[pruned != 0]) ** 2))
    for unit in (1.0, 2.0**-100, 2.0**100):
        scale, _ = scales.rms()(pruned * unit, (1, 1), formats.NF4)
        np.testing.assert_allclose(scale.ravel() / unit, [expected], rtol=1e-5)  # pyright: ignore[reportAttributeAccessIssue]
    assert scales.rms()(jnp.zeros((4, 4)), (1, 1), formats.NF4)[0].tolist() == [[1.0]]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="level must be positive, got 0"):
        scales.rms(0)
    with pytest.raises(ValueError, match="rms needs a format without a zero point"):
        to_qarray(pruned, formats.Int(4, False), scale=scales.rms())


def test_the_laws_hold_for_a_format_with_a_scale_of_its_own():
    c = jc.weight_quantization(fmt=Levels(posit(1)))
    jc.testing.check_compressor(c, {"kernel": jnp.asarray(W)}, rounding=1e-5)
