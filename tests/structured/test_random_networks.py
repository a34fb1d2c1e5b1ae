# SPDX-License-Identifier: Apache-2.0
"""Random networks: whatever is built, slicing computes what masking computes."""

import jax
import jax.numpy as jnp
import numpy as np
from draws import normal
from examples import examples
from hypothesis import given, strategies as st

import jaxcompress as jc

X = normal(2, 3, 4)
WIDTH = 4


def dense(p, values, width=WIDTH):
    x = values[-1]
    return x @ p.weight((x.shape[-1], width))


def scaled(p, values):
    x = values[-1]
    return x * p.weight((1, 1, x.shape[-1])) + p.weight((1, 1, x.shape[-1]))


def added(p, values):
    x = values[-1]
    same = [v for v in values[:-1] if v.shape == x.shape] or [jnp.tanh(x)]
    return x + same[0]


def multiplied(p, values):
    x = values[-1]
    same = [v for v in values[:-1] if v.shape == x.shape] or [x]
    return x * same[-1]


def joined(p, values):
    return jnp.concatenate([values[-1], values[0]], -1)


def halved(p, values):
    x = values[-1]
    return x[..., : x.shape[-1] // 2] * jax.nn.sigmoid(x[..., x.shape[-1] // 2 :])


def padded(p, values):
    return jnp.pad(values[-1], ((0, 0), (0, 0), (1, 1)))


def shuffled(p, values):
    x = values[-1]
    pairs = x.reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
    return jnp.swapaxes(pairs, -1, -2).reshape(x.shape)


def mixed(p, values):
    """A product of data with data."""
    x = values[-1]
    scores = jax.nn.softmax(jnp.einsum("btc,bsc->bts", x, x))
    return jnp.einsum("bts,bsc->btc", scores, x)


def gated(p, values):
    x = values[-1]
    return x * jax.nn.softmax(x, -1)


def normalized(p, values):
    x = values[-1]
    y = x - x.mean(-1, keepdims=True)
    return y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + 1.0)


def rms(p, values):
    x = values[-1]
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1.0)


def indexed(p, values):
    x = values[-1]
    return x[..., jnp.arange(x.shape[-1])[::-1]] + jnp.arange(x.shape[-1])[None, None]


def accumulated(p, values):
    return jnp.cumsum(values[-1], -1)


def repeated(p, values):
    return jnp.tile(values[-1], (1, 1, 2))


def looped(p, values):
    x = values[-1]
    w = p.weight((x.shape[-1], x.shape[-1]))
    start = jnp.zeros((x.shape[0], x.shape[-1]))

    def step(h, x):
        h = jnp.tanh(h @ w) + x
        return h, h

    return jnp.swapaxes(jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))[1], 0, 1)


def activated(p, values):
    return jax.nn.gelu(values[-1])


def squashed(p, values):
    return jax.nn.sigmoid(values[-1])


OPERATIONS = [
    dense, scaled, added, multiplied, joined, halved, padded, shuffled, mixed, gated,
    normalized, rms, indexed, accumulated, repeated, looped, activated, squashed,
]  # fmt: skip


class Weights:
    """Parameters by number, made at the first call and read at later ones."""

    def __init__(self, params=None):
        self.given = params
        self.made = {}

    def weight(self, shape):
        name = f"w{len(self.made)}"
        if self.given is None:
            key = jax.random.fold_in(jax.random.key(3), len(self.made))
            self.made[name] = jax.random.normal(key, shape)
        else:
            self.made[name] = self.given[name]
        return self.made[name]


def network(operations):
    def run(weights, x):
        values = [dense(weights, [x])]
        for operation in operations:
            y = operation(weights, values)
            if y.shape[-1] % 2 == 0 and y.shape[-1] <= 16:
                values.append(y)
        return dense(weights, values, 2)

    weights = Weights()
    run(weights, X)
    return lambda params, x: run(Weights(params), x), weights.made


@examples(40)
@given(
    st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=7), st.integers(0, 99)
)
def test_sliced_equals_masked(operations, seed):
    fn, params = network([dense, *operations, dense])
    groups = jc.trace_axes(fn, params, X)
    rng = np.random.default_rng(seed)
    masks = {}
    for name, group in groups.prunable.items():
        keep = rng.random(group.size) < 0.6
        keep[rng.integers(group.size)] = True
        masks[name] = keep
    jc.structured.verify(fn, params, groups.plan(masks), X)


def test_which_operations_keep_their_channels_prunable():
    def prunable(operation):
        fn, params = network([operation])
        return sorted(g.size for g in jc.trace_axes(fn, params, X).prunable.values())

    for exact in (activated, squashed, rms, looped, mixed, scaled, repeated, joined):
        assert prunable(exact) == [WIDTH], exact
    assert prunable(shuffled) == [2, 2]  # both axes of the shuffle
    assert prunable(dense) == [WIDTH, WIDTH]
    for inexact in (normalized, gated, indexed, accumulated):
        assert prunable(inexact) == [], inexact
