# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from linked import NETWORKS, close, compress

import jaxcompress as jc
from jaxcompress.quantize import smooth_quant
from jaxcompress.quantize.equivalent import Link


def normed(params, x):
    """A norm whose output has channels with outliers, and two layers that read it."""
    x = x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True))
    x = x * params["scale"][None]
    return x @ params["q"] + 0.5 * x @ params["k"]


def normed_params(dtype=jnp.float32):
    scale = jnp.ones(16).at[jnp.array([2, 11])].set(jnp.array([60.0, 90.0]))
    q, k = normal(16, 8, seed=1), normal(16, 8, seed=2)
    return jax.tree.map(lambda a: a.astype(dtype), {"scale": scale, "q": q, "k": k})


NORM_LINK = Link({"scale": 0}, {"q": 0, "k": 0})


def absmax_of(fn, params, x):
    return jc.observe(fn, params, [x], jc.program.statistics.max_magnitude())


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8, 1.0])
def test_smoothing_is_the_formula_of_the_paper(alpha):
    params, x = normed_params(), normal(32, 16)
    seen = absmax_of(normed, params, x)
    new = jax.jit(
        lambda p, seen: jc.compress(smooth_quant([NORM_LINK], alpha), p, absmax=seen)
    )(params, seen)
    inputs = x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True)) * params["scale"][None]
    top = np.abs(np.asarray(inputs, np.float64)).max(0)
    weights = np.concatenate([params["q"], params["k"]], axis=1)
    s = top**alpha / np.abs(weights).max(1) ** (1 - alpha)
    close(params["scale"] / s, new["scale"])
    close(params["q"] * s[:, None], new["q"])
    close(normed(params, x), normed(new, x))
    again = compress(
        smooth_quant([NORM_LINK], alpha), new, absmax=absmax_of(normed, new, x)
    )
    jax.tree.map(close, new, again)


def test_smoothing_lowers_the_error_of_w8a8():
    params, x = normed_params(), normal(128, 16)
    quantized = jc.quantize_activations(normed)
    rows = jc.PerChannel(axes=jc.Axes(outputs=1))
    int8 = jc.weight_quantization(
        bits=8, where=lambda path, leaf: leaf.ndim == 2, granularity=rows
    )
    smooth = jc.chain(smooth_quant([NORM_LINK]), int8)
    errors = []
    for c in (int8, smooth):
        seen = absmax_of(normed, params, x)
        new = jc.dense(compress(c, params, absmax=seen))
        _, found = quantized.calibrate(new, quantized.init(new, x), x)
        out, _ = quantized.frozen(new, found, x)
        errors.append(float(jnp.linalg.norm(out - normed(params, x))))
    assert errors[1] < errors[0] / 2


def test_smoothing_leaves_dead_channels_alone():
    params, x = normed_params(), normal(8, 16).at[:, 4].set(0)
    params["q"], params["k"] = params["q"].at[7].set(0), params["k"].at[7].set(0)
    seen = absmax_of(normed, params, x)
    for alpha in (0.0, 0.5, 1.0):
        new = compress(smooth_quant([NORM_LINK], alpha), params, absmax=seen)
        for channel in (4, 7):
            np.testing.assert_array_equal(
                new["scale"][channel], params["scale"][channel]
            )
            np.testing.assert_array_equal(new["q"][channel], params["q"][channel])


def test_smoothing_behind_a_convolution_and_a_stack():
    for name in ("cnn", "stacked", "attention"):
        fn, make, links, shape = NETWORKS[name]
        params, x = make(), normal(*shape, seed=7)
        links = [k for k in links if "depth/kernel" not in k.consumers]
        seen = absmax_of(fn, params, x)
        new = compress(smooth_quant(links), params, absmax=seen)
        close(fn(params, x), fn(new, x))
        if name == "cnn":
            continue  # a leaf in two links: the second changes what the first has seen
        again = compress(smooth_quant(links), new, absmax=absmax_of(fn, new, x))
        jax.tree.map(lambda a, b: close(a, b, 1e-4), new, again)


def test_smoothing_bf16():
    params, x = normed_params(jnp.bfloat16), normal(8, 16)
    seen = absmax_of(normed, params, x)
    new = compress(smooth_quant([NORM_LINK]), params, absmax=seen)
    assert new["q"].dtype == jnp.bfloat16
    close(normed(params, x), normed(new, x), rtol=0.02)


def test_what_was_never_given_evidence_warns():
    with pytest.warns(
        UserWarning, match="nothing is smoothed: no update was given absmax"
    ):
        jc.compress(smooth_quant([NORM_LINK]), normed_params())


def test_careless_use_is_told():
    params, smooth = normed_params(), smooth_quant([NORM_LINK])
    state, x = smooth.init(params), normal(8, 16)
    with pytest.raises(
        ValueError, match="'k' is selected, but absmax= has nothing there"
    ):
        smooth.update(
            params, state, absmax={"scale": None, "q": jnp.ones(1), "k": None}
        )
    with pytest.raises(ValueError, match="absmax= must be a tree like the parameters"):
        smooth.update(params, state, absmax={"q": jnp.ones(1)})
    grams = jc.observe(normed, params, [x], jc.program.statistics.gram())
    with pytest.raises(ValueError, match="absmax= has a Gram there"):
        smooth.update(params, state, absmax=grams)
    wrong = {"scale": None, "q": jnp.ones((5, 1)), "k": jnp.ones((16, 1))}
    with pytest.raises(
        ValueError,
        match="absmax= must broadcast to 'q' of shape .16, 8., got shape .5, 1.",
    ):
        smooth.update(params, state, absmax=wrong)
    with pytest.raises(ValueError, match="alpha must be between 0 and 1, got 2"):
        smooth_quant([NORM_LINK], 2)
    with pytest.raises(ValueError, match="no leaf 'scale'; closest"):
        jc.masked(smooth, lambda path, leaf: leaf.ndim == 2).init(params)
