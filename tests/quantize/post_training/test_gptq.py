# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calibrated import layer, loss, singles

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.prune.second_order import row_grid, sparsegpt
from jaxcompress.quantize import fake_quant, to_qarray
from jaxcompress.quantize.post_training import gptq
from jaxcompress.quantize.scales import absmax, fixed


def scale_of(rows, bits, symmetric):
    """Scales and zero points of the columns of some rows."""
    if symmetric:
        return np.abs(rows).max(0) / (2 ** (bits - 1) - 1), 0.0
    low, high = np.minimum(rows.min(0), 0), np.maximum(rows.max(0), 0)
    scale = (high - low) / (2**bits - 1)
    return scale, np.round(-low / scale)


def reference(
    w, h, bits, symmetric, *, group=None, order=None, keep=None, static=False
):
    """The algorithm as in the paper's derivation, in float64: one feature at a time.

    No factor and no blocks: after every feature its row and column are eliminated from
    the whole inverse.
    """
    features = len(w)
    group = features if group is None else group
    keep = np.ones(w.shape, bool) if keep is None else keep
    h = h.copy()
    diagonal = np.diag(h).copy()
    mean = diagonal[diagonal > 0].mean()
    h[np.diag_indices(features)] += np.where(diagonal > 0, 0.01 * mean, mean)
    inverse = np.linalg.inv(h)
    new, first = w.copy(), np.where(keep, w, 0)
    before = [
        scale_of(first[i : i + group], bits, symmetric)
        for i in range(0, features, group)
    ]
    grids = {}
    left = np.ones(features, bool)
    for k in range(features) if order is None else order:
        at = k // group
        if at not in grids:
            here = slice(at * group, (at + 1) * group)
            rows = np.where(keep, new, 0)[here]
            grids[at] = before[at] if static else scale_of(rows, bits, symmetric)
        scale, zero = grids[at]
        low, high = (
            (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
            if symmetric
            else (0, 2**bits - 1)
        )
        codes = np.clip(np.round(new[k] / scale) + zero, low, high)
        value = np.where(keep[k], (codes - zero) * scale, 0)
        error = (new[k] - value) / inverse[k, k]
        left[k] = False
        new[left] -= np.outer(inverse[left, k], error)
        inverse = inverse - np.outer(inverse[:, k], inverse[k]) / inverse[k, k]
        new[k] = value
    return new


@pytest.mark.parametrize(
    ("bits", "symmetric", "block"), [(3, True, 8), (4, False, 128)]
)
def test_it_is_the_algorithm_of_the_paper(bits, symmetric, block):
    w, h = layer(20, 6)
    found, scale, zero_point = gptq(
        *singles(w, h), fmt=Int(bits, symmetric), block=block
    )
    np.testing.assert_allclose(found, reference(w, h, bits, symmetric), atol=1e-4)
    assert scale.shape == (1, 6) and (zero_point is None) == symmetric


@pytest.mark.parametrize(("static", "block"), [(True, 8), (False, 2), (False, 8)])
def test_groups_are_scaled_when_the_pass_comes_to_them(static, block):
    w, h = layer(20, 6)
    found, scale, _ = gptq(
        *singles(w, h),
        fmt=Int(4),
        scale_shape=(5, 6),
        block=block,
        static_groups=static,
    )
    expected = reference(w, h, 4, True, group=4, static=static)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert scale.shape == (5, 6)


@pytest.mark.parametrize("groups", [1, 5])
def test_order_of_activations(groups):
    w, h = layer(20, 6)
    order = np.argsort(-np.diag(h), kind="stable")
    found, *_ = gptq(
        *singles(w, h), fmt=Int(4), scale_shape=(groups, 6), act_order=True, block=8
    )
    expected = reference(w, h, 4, True, group=20 // groups, order=order, static=True)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_without_groups_it_is_sparsegpt_that_prunes_nothing():
    w, h = singles(*layer(20, 6))
    fmt = Int(4, symmetric=False)
    found, *_ = gptq(w, h, fmt, block=8)
    expected, _ = sparsegpt(w, h, 0.0, quantize=row_grid(fmt)(w), block=8)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("bits", "groups"), [(3, 1), (4, 4)])
def test_outputs_change_less_than_by_rounding_to_nearest(bits, groups):
    shape, fmt = (groups, 16), Int(bits)
    losses = []
    for seed in range(4):
        w, h = layer(64, 16, seed)
        found = [
            fake_quant(singles(w)[0], fmt, scale_shape=shape),
            gptq(*singles(w, h), fmt=fmt, scale_shape=shape)[0],
            gptq(*singles(w, h), fmt=fmt, scale_shape=shape, act_order=True)[0],
        ]
        losses.append([loss(v, w, h) for v in found])
    nearest, plain, ordered = np.transpose(losses)
    assert (plain < nearest).all() and (ordered < nearest).all()
    assert plain.mean() < 0.7 * nearest.mean()
    assert ordered.mean() < 0.7 * nearest.mean()


@pytest.mark.parametrize(
    ("groups", "symmetric", "dtype"),
    [(1, True, jnp.bfloat16), (4, False, jnp.float32)],
)
def test_weights_are_on_the_grid_that_is_returned(groups, symmetric, dtype):
    w, h = singles(*layer(32, 6))
    fmt, shape = Int(4, symmetric), (groups, 6)
    found, scale, zero = gptq(w.astype(dtype), h, fmt, scale_shape=shape)
    assert found.dtype == dtype
    codes = to_qarray(found, fmt, scale_shape=shape, scale=fixed(scale, zero))
    np.testing.assert_array_equal(codes.dense(), found)


@pytest.mark.parametrize("groups", [1, 5])
def test_pruned_weights_stay_zero_and_are_made_up_for(groups):
    w, h = layer(20, 6)
    keep = np.abs(w) > 0.5
    shape = (groups, 6)
    found, scale, _ = gptq(
        *singles(w, h), fmt=Int(4), scale_shape=shape, keep=jnp.asarray(keep)
    )
    assert not np.asarray(found)[~keep].any()
    expected = reference(w, h, 4, True, group=20 // groups, keep=keep)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    pruned = np.where(keep, w, 0)
    nearest = fake_quant(singles(pruned)[0], Int(4), scale_shape=shape)
    assert loss(found, w, h) < 0.8 * loss(nearest, w, h)


def test_dead_features_are_rounded_to_nearest_and_change_nothing():
    w, h = layer(20, 6, dead=[3, 11])
    found, *grid = gptq(*singles(w, h), fmt=Int(4))
    nearest = fake_quant(singles(w)[0], Int(4), scale_shape=(1, 6))
    np.testing.assert_array_equal(
        found[jnp.array([3, 11])], nearest[jnp.array([3, 11])]
    )
    np.testing.assert_allclose(found, reference(w, h, 4, True), atol=1e-4)


def test_without_correlations_it_is_rounding_to_nearest():
    w, _ = singles(*layer(20, 6))
    found, *_ = gptq(w, 5 * jnp.eye(20), Int(4), block=8)
    np.testing.assert_array_equal(found, fake_quant(w, Int(4), scale_shape=(1, 6)))


def test_any_scale_and_one_for_all():
    w, h = singles(*layer(20, 6))

    def half(weights, shape, fmt):
        scale, zero_point = absmax(weights, shape, fmt)
        return scale / 2, zero_point

    for shape in ((1, 1), (5, 2)):
        found, scale, _ = gptq(w, h, Int(4), scale_shape=shape, scale=half)
        assert scale.shape == shape
        again = fake_quant(found, Int(4), scale_shape=shape, scale=fixed(scale, None))
        np.testing.assert_array_equal(again, found)


def test_it_is_mapped_over_layers():
    ws, hs = zip(*(layer(12, 4, seed) for seed in range(3)), strict=True)
    w, h = singles(np.stack(ws), np.stack(hs))
    found, scale, _ = jax.jit(
        jax.vmap(lambda w, h: gptq(w, h, Int(4), scale_shape=(3, 4)))
    )(w, h)
    for i in range(3):
        alone, alone_scale, _ = gptq(w[i], h[i], Int(4), scale_shape=(3, 4))
        np.testing.assert_allclose(found[i], alone, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(scale[i], alone_scale, rtol=1e-4)


def test_other_formats():
    w, h = layer(64, 16)
    fmt = jc.formats.NF4
    nearest = fake_quant(singles(w)[0], fmt, scale_shape=(1, 16))
    found, *_ = gptq(*singles(w, h), fmt=fmt)
    assert loss(found, w, h) < 0.8 * loss(nearest, w, h)


def test_what_does_not_fit_is_refused():
    w, h = singles(*layer(20, 6))
    with pytest.raises(ValueError, match="Use jax.vmap for several matrices"):
        gptq(w[None], h, Int(4))
    with pytest.raises(ValueError, match=r"second moments of shape \(5, 5\)"):
        gptq(w, h[:5, :5], Int(4))
    with pytest.raises(ValueError, match=r"must divide .* got scale_shape=\(3, 6\)"):
        gptq(w, h, Int(4), scale_shape=(3, 6))
