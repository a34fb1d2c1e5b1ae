# SPDX-License-Identifier: Apache-2.0
"""Networks of many kinds whose channels can be pruned, tiny."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from draws import normal, put
from flax import nnx
from jax import lax

IMAGES = normal(2, 8, 8, 3, seed=1)
TOKENS = put(np.arange(12).reshape(2, 6) % 11, jnp.int32)
SIGNALS = normal(2, 5, 4, seed=2)


@dataclasses.dataclass
class Case:
    """A network, and the sizes of the groups that can be pruned."""

    fn: Callable[..., Any]
    params: Any
    args: tuple[Any, ...]
    prunable: list[int]


def filled(shapes, seed=7):
    """Random numbers for a tree of shapes, without a program for each of them.

    No zero or one could hide a mistake, and vectors (variances) are positive.
    """
    rng = np.random.default_rng(seed)

    def fill(leaf):
        normal = rng.normal(size=leaf.shape)
        if leaf.ndim == 1:
            values = 0.2 + 0.5 * abs(normal)
        else:
            values = normal / np.sqrt(np.prod(leaf.shape[:-1]))
        return put(values, leaf.dtype)

    return jax.tree.map(fill, shapes)


def linen(module, x, prunable):
    params = filled(jax.eval_shape(module.init, jax.random.key(0), x))
    return Case(lambda v, x: module.apply(v, x), params, (x,), prunable)


def norm():
    return nn.BatchNorm(use_running_average=True)


class Vgg(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(nn.relu(nn.Conv(4, (3, 3))(x)), (2, 2), (2, 2))
        x = nn.avg_pool(nn.gelu(norm()(nn.Conv(6, (3, 3))(x))), (2, 2), (2, 2))
        x = nn.relu(nn.Dense(8)(x.reshape(x.shape[0], -1)))
        return nn.Dense(3)(x)


class ResNet(nn.Module):
    zero_padded: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.relu(norm()(nn.Conv(4, (3, 3), use_bias=False)(x)))
        for features, stride in ((4, 1), (8, 2), (8, 1)):
            y = nn.relu(norm()(nn.Conv(features, (3, 3), (stride, stride))(x)))
            y = norm()(nn.Conv(features, (3, 3))(y))
            if features != x.shape[-1] and self.zero_padded:
                x = jnp.pad(x[:, ::2, ::2], [(0, 0), (0, 0), (0, 0), (2, 2)])
            elif features != x.shape[-1]:
                x = norm()(nn.Conv(features, (1, 1), (stride, stride))(x))
            x = nn.relu(x + y)
        return nn.Dense(3)(x.mean((1, 2)))


class MobileNet(nn.Module):
    """Inverted residual with a depthwise convolution, squeeze-and-excite, groups."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu6(nn.Conv(4, (3, 3))(x))
        y = nn.relu6(norm()(nn.Conv(8, (1, 1))(x)))
        y = nn.relu6(nn.Conv(8, (3, 3), feature_group_count=8)(y))
        squeezed = nn.silu(nn.Dense(3)(y.mean((1, 2))))
        y = y * nn.sigmoid(nn.Dense(8)(squeezed))[:, None, None]
        x = x + nn.Conv(4, (1, 1))(y)
        x = nn.hard_swish(nn.Conv(6, (3, 3), feature_group_count=2)(x))
        return nn.Dense(3)(x.mean((1, 2)))


class DenseNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3))(x)
        for _ in range(2):
            y = nn.relu(norm()(x))
            x = jnp.concatenate([x, nn.Conv(4, (3, 3))(y)], -1)
        x = nn.Conv(6, (1, 1))(nn.leaky_relu(norm()(x)))
        x = nn.glu(nn.Dense(8)(x[:, ::4, ::4].reshape(x.shape[0], -1)))
        return nn.Dense(3)(x)


class UNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        skip = nn.relu(nn.Conv(4, (3, 3))(x))
        x = nn.relu(nn.Conv(6, (3, 3), (2, 2))(skip))
        x = nn.elu(nn.ConvTranspose(5, (2, 2), (2, 2))(x))
        x = nn.relu(nn.Conv(4, (3, 3))(jnp.concatenate([skip, x], -1)))
        return nn.Conv(2, (1, 1))(x)


class Block(nn.Module):
    fused: bool = False

    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm()(x)
        if self.fused:
            q, k, v = jnp.split(nn.Dense(24)(y), 3, -1)
            q, k, v = (z.reshape(*z.shape[:2], 2, 4) for z in (q, k, v))
            z = nn.dot_product_attention(q, k, v).reshape(*x.shape[:2], 8)
            x = x + nn.Dense(8)(z)
        else:
            x = x + nn.MultiHeadDotProductAttention(2)(y, y)
        y = nn.Dense(12)(nn.LayerNorm()(x))
        return x + nn.Dense(8)(nn.gelu(y))


class Transformer(nn.Module):
    fused: bool = False
    scanned: bool = False

    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(11, 8)
        x = embed(tokens)
        x = x + self.param("position", nn.initializers.normal(0.1), (1, 6, 8))
        if self.scanned:
            step = nn.remat(Block)

            class Step(nn.Module):
                @nn.compact
                def __call__(self, x, _):
                    return step()(x), None

            scan = nn.scan(
                Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
            )
            x, _ = scan()(x, None)
        else:
            x = Block(self.fused)(x)
        return embed.attend(nn.LayerNorm()(x))  # tied weights


def vit():
    class Vit(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(8, (4, 4), (4, 4))(x)
            x = x.reshape(x.shape[0], -1, 8)
            token = self.param("token", nn.initializers.normal(0.1), (1, 1, 8))
            token = jnp.broadcast_to(token, (x.shape[0], 1, 8))
            x = Block()(jnp.concatenate([token, x], 1))
            return nn.Dense(3)(nn.LayerNorm()(x)[:, 0])

    return linen(Vit(), IMAGES, [2, 4, 4, 8, 12])


def grouped_query():
    """Four query heads share two heads of keys and values."""

    def fn(p, x):
        q = jnp.einsum("btd,dhk->bthk", x, p["q"]).reshape(*x.shape[:2], 2, 2, 3)
        k, v = (jnp.einsum("btd,dhk->bthk", x, p[n]) for n in ("k", "v"))
        scores = jnp.einsum("bthgk,bshk->bhgts", q, k)
        z = jnp.einsum("bhgts,bshk->bthgk", jax.nn.softmax(scores), v)
        z = z.reshape(*x.shape[:2], 12)
        return jnp.maximum(z @ p["o"], 0) @ p["out"]

    shapes = {"q": (4, 4, 3), "k": (4, 2, 3), "v": (4, 2, 3), "o": (12, 5)}
    return plain(fn, {**shapes, "out": (5, 3)}, SIGNALS, [2, 2, 3, 3, 5])


def mixture():
    """Mixture of experts with dense dispatch."""

    def fn(p, x):
        weights = jax.nn.softmax(x @ p["router"])
        h = jax.nn.silu(jnp.einsum("btd,edf->btef", x, p["up"]))
        y = jnp.einsum("btef,efd->bted", h, p["down"])
        y = jnp.einsum("bted,bte->btd", y, weights)
        return y @ p["out"]

    shapes = {"router": (4, 3), "up": (3, 4, 6), "down": (3, 6, 5), "out": (5, 2)}
    return plain(fn, shapes, SIGNALS, [5, 6])


def plain(fn, shapes, x, prunable):
    rows = {n: jax.ShapeDtypeStruct(s, jnp.float32) for n, s in shapes.items()}
    return Case(fn, filled(rows), (x,), prunable)


def recurrent(cell, prunable):
    class Recurrent(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(jnp.asarray(nn.RNN(cell(6))(x))[:, -1])

    return linen(Recurrent(), SIGNALS, prunable)


def by_hand():
    """A loop, a branch, and a derivative rule of the function's own."""

    @jax.custom_vjp
    def halved(x):
        return 0.5 * x

    halved.defvjp(lambda x: (halved(x), x), lambda x, g: (3.0 * g * (x > 0),))

    def fn(p, x):
        h = halved(x @ p["up"])
        h = lax.fori_loop(0, 3, lambda i, h: jnp.tanh(h @ p["mix"]), h)
        h = lax.cond(x.sum() > 0, lambda h: 2.0 * h, lambda h: jnp.maximum(h, 0.0), h)
        return h @ p["down"]

    return plain(fn, {"up": (4, 6), "mix": (6, 6), "down": (6, 2)}, SIGNALS, [6])


def of_nnx():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
            self.norm = nnx.GroupNorm(6, num_groups=2, rngs=rngs)
            self.mid = nnx.Conv(4, 6, (3, 3), rngs=rngs)
            self.out = nnx.Linear(6, 2, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.mid(nnx.relu(self.conv(x))))
            return self.out(self.norm(x).mean((1, 2)))

    graph, shapes = nnx.split(nnx.eval_shape(lambda: Net(nnx.Rngs(0))))
    state = filled(shapes)
    return Case(lambda s, x: nnx.merge(graph, s)(x), state, (IMAGES,), [2, 3, 4])


def of_equinox():
    mlp = eqx.filter_eval_shape(eqx.nn.MLP, 4, 2, 6, 2, key=jax.random.key(0))
    shapes, static = eqx.partition(mlp, lambda x: isinstance(x, jax.ShapeDtypeStruct))

    def fn(params, x):
        return jax.vmap(eqx.combine(params, static))(x)

    return Case(fn, filled(shapes), (SIGNALS[0],), [6, 6])


CASES: dict[str, Callable[[], Case]] = {
    "vgg": lambda: linen(Vgg(), IMAGES, [4, 6, 8]),
    "resnet": lambda: linen(ResNet(), IMAGES, [4, 4, 8, 8, 8]),
    "resnet, padded shortcut": lambda: linen(
        ResNet(zero_padded=True), IMAGES, [2, 2, 4, 4, 8, 8]
    ),
    "mobilenet": lambda: linen(MobileNet(), IMAGES, [2, 2, 3, 3, 8]),
    "densenet": lambda: linen(DenseNet(), IMAGES, [4, 4, 4, 4, 6]),
    "u-net": lambda: linen(UNet(), IMAGES, [4, 4, 5, 6]),
    "transformer": lambda: linen(Transformer(), TOKENS, [2, 4, 4, 8, 12]),
    "transformer, fused": lambda: linen(
        Transformer(fused=True), TOKENS, [2, 4, 4, 8, 12]
    ),
    "transformer, scanned": lambda: linen(
        Transformer(scanned=True), TOKENS, [2, 3, 4, 4, 8, 12]
    ),
    "vit": vit,
    "grouped-query attention": grouped_query,
    "mixture of experts": mixture,
    "lstm": lambda: recurrent(nn.OptimizedLSTMCell, [6]),
    "gru": lambda: recurrent(nn.GRUCell, [6]),
    "by hand": by_hand,
    "nnx": of_nnx,
    "equinox": of_equinox,
}
