# SPDX-License-Identifier: Apache-2.0
"""Small networks of every framework and every control flow, for the tests of the bridge.

``MODELS[name](batch)`` makes one; parameters do not depend on the batch. ``unchanged``
sends a function through the bridge and back.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from draws import normal, put
from flax import nnx
from jax import lax

import jaxcompress as jc


class Model(NamedTuple):
    """A function of parameters and data, and the sites it should have, in order."""

    fn: Callable[..., Any]
    params: Any
    args: tuple[Any, ...]
    names: tuple[str, ...]


def integers(*shape, seed=0, scale=1.0):
    """Small integers as floats, whatever the scale: no order of a sum rounds them."""
    draw = np.random.default_rng(seed).integers(-3, 4, shape)
    return put(draw)


def clipped(x):
    """What bends as ``tanh`` does and keeps integers whole."""
    return jnp.clip(x, -3, 3)


def always(site):
    """Whatever its size, a product shall run on integers."""
    return True


def filled(shapes):
    """Random arrays for a tree of shapes: what initializers would compile for long."""

    def fill(path, x):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return put(np.zeros(x.shape), x.dtype)
        values = normal(*x.shape, seed=len(jax.tree_util.keystr(path)), scale=0.3)
        is_variance = "var" in jax.tree_util.keystr(path[-1:])
        return put(np.abs(values) + 0.5) if is_variance else values

    return jax.tree_util.tree_map_with_path(fill, shapes)


def unchanged(fn, **options):
    """The function rewritten by a rule that changes nothing."""

    def rule(site, op, operands, state):
        return op(*operands), state

    rewritten = jc.rewrite(fn, rule, **options)
    return lambda params, *args: rewritten(params, {}, *args)[0]


def exact(name):
    """A network and how to run it so that its bits do not depend on the compiler.

    Two programs that share an expression may be fused in two ways, which moves its last
    bits. Outside of ``jit`` every equation is a program of its own. A loop is not taken
    apart there, so networks with loops get integers, whose sums are exact in any order.
    """
    if name in ("loops", "nested_scans"):
        return MODELS[name](draw=integers, bend=clipped), jax.jit
    return MODELS[name](), lambda fn: fn


def assert_same_bits(tree, expected):
    """Same structure, dtypes and bits."""
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def initialized(module, *args, **kwargs):
    """Variables of a Linen module."""
    init = jax.eval_shape(lambda: module.init(jax.random.key(0), *args, **kwargs))
    return filled(init)


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        for features, strides in [(4, 1), (6, 2)]:
            x = nn.Conv(features, (3, 3), strides=strides, use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        return nn.Dense(5)(x.mean((1, 2)))


def linen_cnn(batch=2):
    model, x = CNN(), normal(batch, 6, 6, 3)
    names = ("params/Conv_0/kernel", "params/Conv_1/kernel", "params/Dense_0/kernel")
    return Model(model.apply, initialized(model, x), (x,), names)


def linen_cnn_training(batch=2):
    model = linen_cnn(batch)

    def fn(variables, x):
        return CNN().apply(variables, x, train=True, mutable=["batch_stats"])

    return model._replace(fn=fn)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(y)
        y = nn.gelu(nn.Dense(12, name="up")(nn.LayerNorm()(x)))
        return x + nn.Dense(8, name="down")(y), None


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(11, 8, name="embed")
        layers = nn.scan(
            nn.remat(Block, prevent_cse=False),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=3,
        )
        x, _ = layers(name="layers")(embed(tokens), None)
        return embed.attend(nn.LayerNorm(name="last")(x))


def linen_transformer(batch=2):
    tokens = put(np.arange(batch * 5).reshape(batch, 5) % 11, jnp.int32)
    model = Transformer()
    layer = "params/layers/"
    products = "Transformer/layers/attention/"
    names = (
        "params/embed/embedding",
        *(f"{layer}attention/{name}/kernel" for name in ("query", "key", "value")),
        f"{products}...qhd,...khd->...hqk/dot_general",
        f"{products}...hqk,...khd->...qhd/dot_general",
        *(f"{layer}{name}/kernel" for name in ("attention/out", "up", "down")),
        "params/embed/embedding#1",
    )
    return Model(model.apply, initialized(model, tokens), (tokens,), names)


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.linear = nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, x):
        return self.linear(nnx.relu(self.conv(x)).mean((1, 2)))


def nnx_cnn(batch=2):
    graph, state = nnx.split(nnx.eval_shape(lambda: NNXNet(nnx.Rngs(0))))

    def fn(state, x):
        return nnx.merge(graph, state)(x)

    names = ("conv/kernel", "linear/kernel")
    return Model(fn, filled(state), (normal(batch, 5, 5, 3),), names)


def equinox_mlp(batch=2):
    mlp = eqx.filter_eval_shape(lambda: eqx.nn.MLP(6, 3, 8, 2, key=jax.random.key(0)))
    shapes, static = eqx.partition(mlp, lambda x: isinstance(x, jax.ShapeDtypeStruct))

    def fn(params, x):
        return jax.vmap(eqx.combine(params, static))(x)

    names = tuple(f"layers/{i}/weight" for i in range(3))
    return Model(fn, filled(shapes), (normal(batch, 6),), names)


def haiku_mlp(batch=2):
    net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([8, 3])(x)))
    x = normal(batch, 6)
    params = filled(jax.eval_shape(net.init, jax.random.key(0), x))
    return Model(net.apply, params, (x,), ("mlp/~/linear_0/w", "mlp/~/linear_1/w"))


def loops(batch=2, draw=normal, bend=jnp.tanh):
    """Plain JAX: a masked weight, ``fori_loop``, ``cond`` and ``while_loop``."""
    params: Any = {name: draw(6, 6, seed=i, scale=0.3) for i, name in enumerate("bcd")}
    # The mask sorts before the kernel, and is as large: only its name tells.
    active = put(np.arange(36).reshape(6, 6) % 3 > 0)
    params["a"] = {"active": active, "kernel": draw(6, 6, seed=4, scale=0.3)}

    def fn(params, x):
        x = x @ (params["a"]["kernel"] * params["a"]["active"])
        x = lax.fori_loop(0, 3, lambda _, x: bend(x @ params["b"]), x)
        x = lax.cond(
            x.sum() > 0, lambda x: x @ params["c"], lambda x: x @ params["b"].T, x
        )

        def trip(carry):
            i, x = carry
            return i + 1, bend(x @ params["d"])

        return lax.while_loop(lambda carry: carry[0] < 2, trip, (0, x))[1]

    names = ("a/kernel", "b", "b#1", "c", "d")  # branch 0 is the one for False
    return Model(fn, params, (draw(batch, 6),), names)


@jax.custom_vjp
def guarded(x, w):
    """A product with a derivative rule of its own, that halves the gradient."""
    return x @ w


guarded.defvjp(
    lambda x, w: (x @ w, (x, w)), lambda res, g: (g @ res[1].T / 2, res[0].T @ g / 2)
)


def custom_rule(batch=2):
    params = {"first": normal(6, 6), "last": normal(6, 3, seed=1)}

    def fn(params, x):
        return jax.nn.relu(guarded(x, params["first"])) @ params["last"]

    return Model(fn, params, (normal(batch, 6),), ("last",))


class Dropped(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dropout(0.5, deterministic=False)(nn.relu(nn.Dense(8)(x)))
        return nn.Dense(3)(x)


def linen_dropout(batch=2):
    model, x = Dropped(), normal(batch, 6)
    shapes = jax.eval_shape(
        lambda: model.init(
            {"params": jax.random.key(0), "dropout": jax.random.key(0)}, x
        )
    )

    def fn(variables, key, x):
        return model.apply(variables, x, rngs={"dropout": key})

    names = ("params/Dense_0/kernel", "params/Dense_1/kernel")
    return Model(fn, filled(shapes), (jax.random.key(7), x), names)


class Convolutions(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(8, (3, 3), feature_group_count=2, name="grouped")(x))
        x = nn.relu(nn.Conv(8, (3, 3), feature_group_count=8, name="depthwise")(x))
        return nn.ConvTranspose(3, (3, 3), strides=(2, 2), name="transposed")(x)


def convolutions(batch=2):
    model, x = Convolutions(), normal(batch, 5, 5, 4)
    names = tuple(f"params/{n}/kernel" for n in ("grouped", "depthwise", "transposed"))
    return Model(model.apply, initialized(model, x), (x,), names)


def nested_scans(batch=2, draw=normal, bend=jnp.tanh):
    """A recurrent network: layers inside of time."""
    params = {
        "layers": {"in": draw(3, 4, 4, scale=0.4), "hidden": draw(3, 4, 4, seed=1)},
        "out": draw(4, 2, seed=2),
    }

    def fn(params, x):
        def layer(x, of_layer):
            w, h = of_layer
            h = bend(x @ w["in"] + h @ w["hidden"])
            return h, h

        def step(h, x):
            x, h = lax.scan(layer, x, (params["layers"], h))
            return h, x @ params["out"]

        start = jnp.zeros((3, x.shape[0], 4))
        return lax.scan(step, start, x.swapaxes(0, 1))[1]

    names = ("layers/in", "layers/hidden", "out")
    return Model(fn, params, (draw(batch, 5, 4),), names)


MODELS: dict[str, Callable[..., Model]] = {
    make.__name__: make
    for make in (
        linen_cnn,
        linen_cnn_training,
        linen_transformer,
        nnx_cnn,
        equinox_mlp,
        haiku_mlp,
        loops,
        custom_rule,
        linen_dropout,
        convolutions,
        nested_scans,
    )
}
