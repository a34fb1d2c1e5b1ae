# SPDX-License-Identifier: Apache-2.0
"""Ternary and binary weights: their values, their gradients, and that they train."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from bitwise import same, same_tree
from draws import put

import jaxcompress as jc
from jaxcompress.quantize import trained_ternary
from jaxcompress.quantize.gradients import clipped
from jaxcompress.quantize.scales import absmax, lsq, mean_above, mse, unit


def signs(w, threshold=0.05):
    return np.where(np.abs(w) > threshold * np.abs(w).max(), np.sign(w), 0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_three_values_of_the_means_of_both_sides(dtype):
    w = jax.random.normal(jax.random.key(0), (12, 5)).astype(dtype).at[0, 0].set(0)
    c = trained_ternary()
    params = {"kernel": w}
    state = c.init(params)
    view = c.apply(params, state)["kernel"]
    wide = np.asarray(w, np.float64)
    code = signs(wide)
    up, down = wide[code > 0].mean(), wide[code < 0].mean()
    np.testing.assert_allclose(
        np.float64(view), np.where(code > 0, up, np.where(code < 0, down, 0)), rtol=1e-2
    )
    shipped = c.finalize(params, state)
    same(shipped["kernel"].dense(), view)
    same(jax.jit(c.apply)(params, state)["kernel"], view)
    packed = jc.pack_codes(shipped)["kernel"]
    assert packed.codes.data.nbytes == 12 * 2 and packed.codes.bits == 2
    same(packed.dense(), view)


def test_the_gradients_are_those_of_the_paper():
    w = jnp.array([[-1.0, -3.0, 0.1], [0.0, 2.0, 4.0]])
    c = trained_ternary(0.05)
    state = c.init({"kernel": w})
    down, up = state.values["kernel"].value
    cotangent = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])

    def total(w, state):
        return jnp.sum(cotangent * c.apply({"kernel": w}, state)["kernel"])

    to_w, to_state = jax.grad(total, (0, 1))(w, state)
    # Equation 8: scaled by the magnitude of its side, by 1 at zero.
    slope = jnp.array([[down, down, 1.0], [1.0, up, up]])
    np.testing.assert_allclose(to_w, cotangent * slope)
    # Equation 7, with the sign of the lower value: its magnitude is what is learned.
    np.testing.assert_allclose(to_state.values["kernel"].value, [-3.0, 11.0])


def test_an_optimizer_that_oversteps_leaves_the_values_in_order():
    w = {"kernel": jnp.array([[-1.0, 0.0, 2.0]])}
    c = trained_ternary()
    for value in ([-0.5, 0.3], [0.0, 0.0], [0.7, -2.0]):
        state = jax.tree.map(lambda _, v=value: jnp.array(v), c.init(w))
        q = c.finalize(w, state)["kernel"]
        assert (jnp.diff(q.centroids) > 0).all() and q.dense()[0, 1] == 0


@pytest.mark.parametrize("w", [[[0.0, 0.0]], [[1.0, 2.0]], [[-1.0, -2.0]]])
def test_leaves_without_one_side(w):
    c = trained_ternary()
    params = {"kernel": jnp.array(w)}
    state = c.init(params)
    view = c.apply(params, state)["kernel"]
    mean = np.mean(w)
    np.testing.assert_allclose(view, np.full((1, 2), mean))
    grads = jax.grad(lambda s: jnp.sum(c.apply(params, s)["kernel"]))(state)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("spoiled", [jnp.nan, jnp.inf])
def test_what_is_not_finite_is_named(spoiled):
    params = {"layer": {"kernel": jnp.array([[1.0, spoiled, -2.0]])}}
    good = {"layer": {"kernel": jnp.array([[1.0, 0.0, -2.0]])}}
    c = trained_ternary()
    with pytest.raises(ValueError, match="'layer/kernel' holds NaN or infinite"):
        c.init(params)
    with pytest.raises(ValueError, match="'layer/kernel' holds NaN or infinite"):
        c.finalize(params, c.init(good))


def test_other_thresholds_are_refused():
    for make in (trained_ternary, mean_above):
        for threshold in (-0.1, 1.0, float("nan")):
            with pytest.raises(ValueError, match=r"threshold must be in \[0, 1\)"):
                make(threshold)


def test_the_scale_of_ternary_weight_networks():
    w = np.float32(np.random.default_rng(0).normal(size=(400, 3)))
    c = jc.weight_quantization(bits=2, scale=mean_above())
    q = jc.compress(c, {"kernel": jnp.asarray(w)})["kernel"]
    size = np.abs(w)
    delta = 0.7 * size.mean(0)
    alpha = [column[column > d].mean() for column, d in zip(size.T, delta, strict=True)]
    np.testing.assert_allclose(q.scale[0], alpha, rtol=1e-5)
    # What becomes zero is about what the paper's threshold says.
    paper = size <= delta
    assert (np.asarray(q.codes == 0) == paper).mean() > 0.9
    for bits in (3, 8):
        with pytest.raises(ValueError, match="mean_above scales ternary weights"):
            c = jc.weight_quantization(bits=bits, scale=mean_above())
            jc.compress(c, {"kernel": jnp.asarray(w)})


def digits():
    """Ten classes around prototypes, of the size of scikit-learn's digits."""
    draw = np.random.default_rng(0)
    prototypes = draw.uniform(0, 1, (10, 64)) > 0.5
    label = draw.integers(0, 10, 400)
    x = prototypes[label] + 0.4 * draw.normal(size=(400, 64))
    return jnp.asarray(x - 0.5, jnp.float32), jnp.asarray(label)


def network(params, x):
    for name in ("first", "second"):
        layer = params[name]
        x = x @ layer["kernel"] + layer["bias"][None]
        x = jax.nn.relu(x) if name == "first" else x
    return x


def start():
    draw = np.random.default_rng(1)
    return {
        name: {
            "kernel": put(draw.normal(size=shape) / shape[0] ** 0.5),
            "bias": jnp.zeros(shape[1]),
        }
        for name, shape in {"first": (64, 32), "second": (32, 10)}.items()
    }


def cross_entropy(params, batch):
    x, label = batch
    logits = network(params, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()


WAYS = {
    "signs": jc.weight_quantization(bits=1),
    "signs, clipped": jc.weight_quantization(bits=1, gradient=clipped, scale=unit),
    "signs, learned": jc.weight_quantization(bits=1, scale=lsq()),
    "ternary, largest": jc.weight_quantization(bits=2, scale=absmax),
    "ternary, mean": jc.weight_quantization(bits=2, scale=mean_above()),
    "ternary, learned": jc.weight_quantization(bits=2, scale=lsq()),
    "ternary, searched": jc.weight_quantization(bits=2, scale=mse(every=20)),
    "trained ternary": trained_ternary(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WAYS)
def test_weights_of_one_and_two_bits_learn(name):
    batch = digits()
    c = WAYS[name]
    init, step = jc.train_step(cross_entropy, optax.adam(0.01), c)
    state = init(start())
    for _ in range(60):
        state, _ = step(state, batch)
    shipped = jc.dense(c.finalize(state.params, state.compression))
    same_tree(shipped, c.apply(state.params, state.compression))
    accuracy = (network(shipped, batch[0]).argmax(1) == batch[1]).mean()
    assert accuracy > 0.95
    kernel = shipped["first"]["kernel"]
    assert jnp.mean(kernel != 0) > 0.1  # unlike in qwix, where all int1 are zero


@pytest.mark.parametrize("size", [1e4, pytest.param(1e-4, marks=pytest.mark.slow)])
def test_half_floats_of_any_magnitude_train_what_ships(size):
    normal = jax.random.normal(jax.random.key(0), (16, 8))
    params = {"kernel": (normal * size).astype(jnp.float16)}
    c = trained_ternary()
    state = c.init(params)
    view, pullback = jax.vjp(lambda p: c.apply(p, state), params)
    shipped = jc.dense(c.finalize(params, state))
    np.testing.assert_array_equal(view["kernel"], shipped["kernel"])
    one = jax.tree.map(jnp.ones_like, params)
    assert jnp.isfinite(pullback(one)[0]["kernel"]).all()
