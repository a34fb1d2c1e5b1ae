# SPDX-License-Identifier: Apache-2.0
import functools
from typing import Any

import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from examples import examples
from flax import nnx
from linked import close, compress

from jaxcompress.quantize import cross_layer_equalization, fold_batch_norm
from jaxcompress.quantize.equivalent import Fold, Link, verify_folds, verify_links


class Net(nn.Module):
    """Convolutions with and without a bias, norms with and without a scale or a bias."""

    use_scale: bool = True
    use_bias: bool = True

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(6, (3, 3), use_bias=not self.use_bias)(x)
        x = nn.relu(self.norm()(x))
        x = nn.Conv(6, (3, 3), feature_group_count=6)(x)
        x = nn.relu(self.norm()(x))
        x = x.reshape(len(x), -1)
        x = nn.relu(self.norm()(nn.Dense(5)(x)))
        return nn.Dense(3)(x)

    def norm(self):
        return nn.BatchNorm(
            use_running_average=True, use_scale=self.use_scale, use_bias=self.use_bias
        )


FOLDS = [
    Fold("Conv_0/kernel", "BatchNorm_0"),
    Fold("Conv_1/kernel", "BatchNorm_1", bias="Conv_1/bias"),
    Fold("Dense_0/kernel", "BatchNorm_2", bias="Dense_0/bias"),
]


def trained(net, x, dtype=jnp.float32):
    """Variables as after training: nothing is 0 or 1."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), x)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path)
        values = normal(*leaf.shape, seed=sum(map(ord, name)))
        return (jnp.abs(values) + 0.1 if "var" in name else values).astype(dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def folded(variables, folds, epsilon=1e-5) -> Any:
    new = fold_batch_norm(
        variables["params"], variables["batch_stats"], folds, epsilon=epsilon
    )
    return dict(zip(("params", "batch_stats"), new, strict=True))


@pytest.mark.parametrize("use_scale", [True, False])
@pytest.mark.parametrize("use_bias", [True, False])
def test_folding_keeps_the_function(use_scale, use_bias):
    net, x = Net(use_scale, use_bias), normal(4, 4, 4, 2)
    variables = trained(net, x)
    first = (
        FOLDS[0] if use_bias else Fold("Conv_0/kernel", "BatchNorm_0", "Conv_0/bias")
    )
    new = folded(variables, [first, *FOLDS[1:]])
    assert jax.tree.structure(new) == jax.tree.structure(variables)
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, variables)
    close(net.apply(variables, x), net.apply(new, x))
    for i in range(3):
        stats = new["batch_stats"][f"BatchNorm_{i}"]
        assert (stats["mean"] == 0).all()
        np.testing.assert_allclose(stats["var"], 1, rtol=2e-5)
        if use_scale:
            assert (new["params"][f"BatchNorm_{i}"]["scale"] == 1).all()
    again = folded(new, [first, *FOLDS[1:]])
    jax.tree.map(lambda a, b: close(a, b), new, again)


def test_folding_is_the_formula_of_the_paper():
    net, x = Net(), normal(4, 4, 4, 2)
    variables = trained(net, x)
    new = folded(variables, FOLDS)
    p, s = variables["params"], variables["batch_stats"]["BatchNorm_1"]
    norm = jax.tree.map(np.float64, p["BatchNorm_1"])
    g = norm["scale"] / np.sqrt(np.float64(s["var"]) + 1e-5)
    close(np.float64(p["Conv_1"]["kernel"]) * g, new["params"]["Conv_1"]["kernel"])
    whole = (np.float64(p["Conv_1"]["bias"]) - s["mean"]) * g + norm["bias"]
    parts = new["params"]["Conv_1"]["bias"] + new["params"]["BatchNorm_1"]["bias"]
    close(whole, parts)


def test_links_go_across_what_was_folded():
    net, x = Net(), normal(4, 4, 4, 2)
    new = folded(trained(net, x), FOLDS)

    def fn(params, x):
        return net.apply({"params": params, "batch_stats": new["batch_stats"]}, x)

    links = [
        Link({"Conv_0/kernel": -1, "BatchNorm_0/bias": 0}, {"Conv_1/kernel": -1}),
        Link(
            {"Conv_1/kernel": -1, "Conv_1/bias": 0, "BatchNorm_1/bias": 0},
            {"Dense_0/kernel": 0},
        ),
    ]
    verify_links(fn, new["params"], links, x)
    equal = compress(cross_layer_equalization(links), new["params"])
    close(fn(new["params"], x), fn(equal, x))
    with pytest.raises(ValueError, match="'Conv_0/kernel' -> 'Conv_1/kernel' changes"):
        verify_links(
            lambda p, x: net.apply(
                {"params": p, "batch_stats": trained(net, x)["batch_stats"]}, x
            ),
            new["params"],
            links,
            x,
        )


def test_jit_and_16_bits():
    net, x = Net(), normal(4, 4, 4, 2)
    variables = trained(net, x, jnp.bfloat16)
    new = jax.jit(lambda v: folded(v, FOLDS))(variables)
    assert jax.tree.map(lambda a: a.dtype, new) == jax.tree.map(
        lambda a: a.dtype, variables
    )
    close(net.apply(variables, x), net.apply(new, x), rtol=0.05)


class Block(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(2, 6, (3, 3), rngs=rngs)
        self.bn = nnx.BatchNorm(6, epsilon=1e-3, use_running_average=True, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.bn(self.conv(x)))


def test_nnx():
    graph, params, stats = nnx.split(Block(), nnx.Param, nnx.BatchStat)
    params = jax.tree.map(lambda a: a + normal(*a.shape), params)
    stats = jax.tree.map(lambda a: a + 0.5, stats)
    x = normal(3, 4, 4, 2)
    fold = Fold("conv/kernel", "bn", bias="conv/bias")
    new = fold_batch_norm(params, stats, [fold], epsilon=1e-3)
    out, after = (nnx.merge(graph, *state)(x) for state in ((params, stats), new))
    close(out, after)


@examples(10)
@hypothesis.given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4), data=st.data()
)
def test_along_any_axes(shape, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    n = shape[axis]
    params = {"w": normal(*shape), "n": {"scale": normal(n), "bias": normal(n, seed=1)}}
    stats = {"n": {"mean": normal(n, seed=2), "var": jnp.abs(normal(n, seed=3))}}
    new, _ = fold_batch_norm(params, stats, [Fold("w", "n", axis=axis)], epsilon=1e-3)
    g = np.asarray(params["n"]["scale"] / jnp.sqrt(stats["n"]["var"] + 1e-3))
    wanted = np.moveaxis(np.moveaxis(np.asarray(params["w"]), axis, -1) * g, -1, axis)
    close(wanted, new["w"])


def test_layers_stacked_by_a_scan():
    params = {"w": normal(3, 4, 5), "n": {"scale": normal(3, 5), "bias": normal(3, 5)}}
    stats = {"n": {"mean": normal(3, 5, seed=2), "var": jnp.abs(normal(3, 5, seed=3))}}
    new, _ = fold_batch_norm(
        params, stats, [Fold("w", "n", axis=(0, -1))], epsilon=1e-3
    )
    g = params["n"]["scale"] / jnp.sqrt(stats["n"]["var"] + 1e-3)
    close(params["w"] * g[:, None], new["w"])


@pytest.mark.parametrize(
    ("fold", "message"),
    [
        (Fold("Conv_0/kernal", "BatchNorm_0"), "in params; closest: 'Conv_0/kernel'"),
        (Fold("Conv_0/kernel", "BatchNorm"), "in batch_stats; closest: 'BatchNorm_0/mean'"),
        (Fold("Conv_1/kernel", "BatchNorm_1"), "has the bias .* bias='Conv_1/bias'"),
        (Fold("Conv_0/kernel", "BatchNorm_2"), "Check that the norm reads this layer"),
        (Fold("Conv_0/kernel", "BatchNorm_0", axis=0), "has .3,. along its axes .0,."),
        (Fold("Conv_0/kernel", "BatchNorm_0", axis=7), "there is no axis 7"),
        (Fold("Conv_0/kernel", "BatchNorm_0", bias="Dense_0/bias"), "the norm reads this"),
    ],
)  # fmt: skip
def test_careless_folds_are_told(fold, message):
    variables = trained(Net(), normal(4, 4, 4, 2))
    with pytest.raises(ValueError, match=message):
        folded(variables, [fold])


def test_other_mistakes_are_told():
    variables = trained(Net(), normal(4, 4, 4, 2))
    with pytest.raises(ValueError, match="'Conv_0/kernel' is folded twice"):
        folded(variables, [FOLDS[0], FOLDS[0]])
    with pytest.raises(ValueError, match="'BatchNorm_1/mean' is folded twice"):
        folded(variables, [FOLDS[1], Fold("Conv_0/kernel", "BatchNorm_1")])
    with pytest.raises(TypeError, match="must be a sequence of Fold, got one Fold"):
        folded(variables, FOLDS[0])
    with pytest.raises(ValueError, match="epsilon must be .* got -1"):
        folded(variables, FOLDS, epsilon=-1)
    with pytest.raises(ValueError, match="no bias can absorb the mean"):
        fold_batch_norm(
            {"kernel": jnp.ones((2, 2))},
            {"norm": {"mean": jnp.ones(2), "var": jnp.ones(2)}},
            [Fold("kernel", "norm")],
            epsilon=1e-5,
        )


class Square(nn.Module):
    """Layers of one size, so that shapes tell nothing apart."""

    @nn.compact
    def __call__(self, x):
        norm = functools.partial(nn.BatchNorm, use_running_average=True)
        x = nn.relu(norm()(nn.Conv(4, (3, 3), use_bias=False)(x)))
        x = nn.ConvTranspose(4, (3, 3), use_bias=False, transpose_kernel=True)(x)
        x = nn.relu(norm()(x))
        return nn.Dense(3)(x.reshape(len(x), -1))


SQUARE = [
    Fold("Conv_0/kernel", "BatchNorm_0"),
    Fold("ConvTranspose_0/kernel", "BatchNorm_1", axis=-2),
]
CARELESS = {
    "swapped norms": (
        [
            Fold("Conv_0/kernel", "BatchNorm_1"),
            Fold("ConvTranspose_0/kernel", "BatchNorm_0", axis=-2),
        ],
        1e-5,
        "'BatchNorm_1' into 'Conv_0/kernel' changes the output",
    ),
    "another epsilon": (SQUARE, 1e-2, "or its epsilon is not 0.01"),
    "a somewhat larger epsilon": (
        SQUARE,
        1e-3,
        "'Conv_0/kernel' changes .* is not 0.001",
    ),
    "the inputs of a transposed kernel": (
        [SQUARE[0], Fold("ConvTranspose_0/kernel", "BatchNorm_1")],
        1e-5,
        "into 'ConvTranspose_0/kernel' changes .* axis=-1 is not the output axis",
    ),
}


def in_two(params, batch_stats, x):
    return Square().apply({"params": params, "batch_stats": batch_stats}, x)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_right_folds_are_verified(dtype):
    x = normal(4, 4, 4, 4)
    variables = trained(Square(), x, dtype)
    params, stats = variables["params"], variables["batch_stats"]
    verify_folds(in_two, params, stats, SQUARE, x, epsilon=1e-5)
    checked = fold_batch_norm(params, stats, SQUARE, epsilon=1e-5, fn=in_two, args=(x,))
    alone = fold_batch_norm(params, stats, SQUARE, epsilon=1e-5)
    jax.tree.map(np.testing.assert_array_equal, checked, alone)


@pytest.mark.parametrize("name", CARELESS)
def test_folds_that_fit_by_shape_alone_are_refused(name):
    folds, epsilon, message = CARELESS[name]
    x = normal(4, 4, 4, 4)
    variables = trained(Square(), x)
    params, stats = variables["params"], variables["batch_stats"]
    fold_batch_norm(params, stats, folds, epsilon=epsilon)  # nothing to see here
    with pytest.raises(ValueError, match=message):
        fold_batch_norm(params, stats, folds, epsilon=epsilon, fn=in_two, args=[x])
    with pytest.raises(ValueError, match=message):
        verify_folds(in_two, params, stats, folds, x, epsilon=epsilon)
