# SPDX-License-Identifier: Apache-2.0

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal, put

import jaxcompress as jc
from jaxcompress._axes import contraction_axes
from jaxcompress.layerwise._matrices import batched, matrices


def stats(layers, groups, features):
    middle = (groups,) if groups > 1 else ()
    gram = jnp.zeros((*layers, *middle, features, features))
    return jc.program.statistics.Gram(jnp.zeros(layers, jnp.uint32), gram)


def numbered(*shape):
    return jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)


@pytest.mark.parametrize(
    ("path", "shape", "axes", "layers", "groups", "expected"),
    [
        ("kernel", (4, 3), None, (), 1, (1, 4, 3)),
        ("weight", (3, 4), None, (), 1, (1, 4, 3)),
        ("kernel", (3, 3, 2, 8), jc.Axes(contraction=(0, 1, 2)), (), 1, (1, 18, 8)),
        ("kernel", (3, 3, 2, 8), jc.Axes(contraction=(0, 1, 2)), (), 4, (4, 18, 2)),
        ("weight", (8, 2, 3, 3), jc.Axes(contraction=(1, 2, 3)), (), 4, (4, 18, 2)),
        ("kernel", (5, 4, 3), {"kernel": jc.Axes(contraction=1)}, (5,), 1, (5, 4, 3)),
        ("kernel", (2, 5, 4, 3), jc.Axes(contraction=-2), (2, 5), 1, (10, 4, 3)),
        (
            "kernel",
            (4, 2, 3),
            jc.Axes(contraction=0),
            (),
            1,
            (1, 4, 6),
        ),  # inputs, heads, features
        (
            "kernel",
            (2, 3, 4),
            jc.Axes(contraction=(0, 1)),
            (),
            1,
            (1, 6, 4),
        ),  # heads, features, outputs
        (
            "kernel",
            (6, 4, 3),
            jc.Axes(contraction=1),
            (),
            6,
            (6, 4, 3),
        ),  # a product for each of 6 experts
        ("kernel", (5, 6, 4, 3), jc.Axes(contraction=2), (5,), 6, (30, 4, 3)),
    ],
)
def test_a_weight_goes_there_and_back(path, shape, axes, layers, groups, expected):
    weight = numbered(*shape)
    layout = matrices(path, shape, stats(layers, groups, expected[1]), axes)
    split = layout.split(weight)
    assert split.shape == expected == (layout.batch, layout.features, expected[2])
    np.testing.assert_array_equal(layout.join(split), weight)


def test_features_are_in_the_order_of_the_leaf():
    kernel = numbered(3, 3, 2, 8)
    layout = matrices(
        "kernel", kernel.shape, stats((), 1, 18), jc.Axes(contraction=(0, 1, 2))
    )
    np.testing.assert_array_equal(layout.split(kernel)[0], kernel.reshape(18, 8))
    grouped = matrices(
        "kernel", kernel.shape, stats((), 2, 18), jc.Axes(contraction=(0, 1, 2))
    )
    second = kernel.reshape(18, 8)[:, 4:]
    np.testing.assert_array_equal(grouped.split(kernel)[1], second)


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match="'kernel' has shape .3, 3, 2, 8.*Pass axes="):
        matrices("kernel", (3, 3, 2, 8), stats((), 1, 18))
    with pytest.raises(
        ValueError, match="2 weights along .*have 18 features. Pass all"
    ):
        matrices("kernel", (3, 3, 2, 8), stats((), 1, 18), jc.Axes(contraction=-2))
    with pytest.raises(ValueError, match="'kernel'.*1 layer axes and 1 groups"):
        matrices("kernel", (4, 3, 5), stats((5,), 1, 4), jc.Axes(contraction=0))
    with pytest.raises(ValueError, match="0 layer axes and 3 groups"):
        matrices(
            "kernel", (3, 3, 2, 8), stats((), 3, 18), jc.Axes(contraction=(0, 1, 2))
        )


def test_axes_of_the_bridge_are_taken_as_they_are():
    def fn(params, x):
        return jnp.einsum("bhf,hfo->bo", x, params["out[0]"]["kernel"])

    params = {"out[0]": {"kernel": numbered(2, 3, 4)}}
    axes = jc.weight_axes(fn, params, jnp.ones((1, 2, 3)))
    assert set(axes) == {"out[0]/kernel"}
    assert contraction_axes("out[0]/kernel", (2, 3, 4), axes) == (0, 1)


def test_equal_shapes_are_solved_in_one_call():
    calls = []

    def solve(w, h):
        calls.append(w.shape)
        return h @ w, w.sum()

    problems = {
        "a": (numbered(1, 3, 2), numbered(1, 3, 3)),
        "b": (numbered(4, 5, 2), numbered(4, 5, 5)),
        "c": (-numbered(2, 3, 2), numbered(2, 3, 3)),
    }
    results = batched(solve, problems)
    assert list(results) == ["a", "b", "c"] and calls == [(3, 2), (5, 2)]
    for path, (w, h) in problems.items():
        product, total = jax.vmap(lambda w, h: (h @ w, w.sum()))(w, h)
        np.testing.assert_array_equal(results[path][0], product)
        np.testing.assert_array_equal(results[path][1], total)


SQUARE = {"kernel": normal(8, 8, seed=5), "bias": jnp.zeros(8)}
ROWS = put(np.asarray(normal(64, 8, seed=6)) * np.arange(1.0, 9.0))
TORCH = jc.Axes(contraction=1)


def torch_layer(params, x):
    """A kernel of torch's layout, (out, in), under a name that says (in, out)."""
    return x @ params["kernel"].T + params["bias"][None]


def needs_gram(axes):
    return {
        "gptq": jc.quantize.gptq_quantization(bits=4, axes=axes),
        "adaround": jc.quantize.adaround_quantization(bits=4, steps=2, axes=axes),
        "sparsegpt": jc.prune.sparsegpt_pruning(0.5, axes=axes),
        "obs": jc.prune.obs_pruning(0.5, axes=axes),
    }


@pytest.mark.parametrize("name", needs_gram(None))
def test_square_statistics_of_the_other_axis_are_refused(name):
    stats = jc.observe(torch_layer, SQUARE, [ROWS], jc.program.statistics.gram())
    wrong = needs_gram(None)[name]
    with pytest.raises(ValueError, match=r"'kernel'.*axes \(1,\).*not \(0,\)"):
        jc.compress(wrong, SQUARE, stats=stats)
    with pytest.raises(ValueError, match="weight_axes"):  # traced, too
        jax.eval_shape(wrong.update, SQUARE, wrong.init(SQUARE), stats=stats)
    right = needs_gram(jc.weight_axes(torch_layer, SQUARE, ROWS))[name]
    mirrored = {**SQUARE, "kernel": SQUARE["kernel"].T}
    plain = jc.observe(
        lambda p, x: x @ p["kernel"], mirrored, [ROWS], jc.program.statistics.gram()
    )
    new = jc.dense(jc.compress(right, SQUARE, stats=stats))["kernel"]
    other = jc.dense(jc.compress(wrong, mirrored, stats=plain))["kernel"]
    np.testing.assert_allclose(new, other.T, atol=1e-6)


def test_square_means_and_magnitudes_of_the_other_axis_are_refused():
    kinds = jc.program.statistics
    means = jc.observe(torch_layer, SQUARE, [ROWS], kinds.moments())
    with pytest.raises(ValueError, match=r"axes \(1,\).*not \(0,\)"):
        jc.quantize.post_training.bias_correction(SQUARE, SQUARE, means)
    again = jc.quantize.post_training.bias_correction(SQUARE, SQUARE, means, axes=TORCH)
    np.testing.assert_array_equal(again["bias"], 0)
    link = jc.quantize.equivalent.Link({"bias": 0}, {"kernel": 0})
    absmax = jc.observe(torch_layer, SQUARE, [ROWS], kinds.max_magnitude())
    with pytest.raises(ValueError, match=r"axes \(1,\).*not \(0,\)"):
        jc.compress(jc.quantize.smooth_quant([link]), SQUARE, absmax=absmax)
    grams = jc.observe(torch_layer, SQUARE, [ROWS], kinds.gram())
    awq = jc.quantize.awq([link], jc.formats.Int(3), granularity=jc.PerTensor())
    with pytest.raises(ValueError, match=r"axes \(1,\).*not \(0,\)"):
        jc.compress(awq, SQUARE, stats=grams)


def test_statistics_say_where_their_features_lie():
    """Squares lie along the leaf, over layers of a scan and groups of a convolution."""

    def conv(params, x):
        return jax.lax.conv_general_dilated(
            x, params["w"], (1,), "SAME", feature_group_count=2,
            dimension_numbers=("NWC", "WIO", "NWC"),
        )  # fmt: skip

    def scan(params, x):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, params["w"])[0]

    x = normal(5, 6, 4, seed=7)
    kernel = {"w": jnp.ones((3, 2, 6))}
    of_conv = jc.observe(conv, kernel, [x], jc.program.statistics.gram())["w"]
    assert of_conv.squares.shape == (3, 2, 6)
    layers = {"w": normal(3, 4, 4, seed=8)}
    of_scan = jc.observe(scan, layers, [x[0]], jc.program.statistics.gram())["w"]
    assert of_scan.squares.shape == (3, 4, 1)
    rows = x[0]
    for layer, w in enumerate(layers["w"]):
        np.testing.assert_allclose(
            of_scan.squares[layer, :, 0], (rows**2).sum(0), rtol=1e-5
        )
        rows = rows @ w
