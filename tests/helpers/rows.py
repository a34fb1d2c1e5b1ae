# SPDX-License-Identifier: Apache-2.0
"""Whose rows are observed, and where they lie in the leaf: what tests hold it against.

A product is linear in its weight, so its Jacobian knows both: column i is what comes out
where weight i is one and the others are zero, that is, the rows that it multiplies.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from draws import put

from jaxcompress.program import observing
from jaxcompress.program.statistics import Gram, Moments, gram, max_magnitude, moments

STATS = {"m": max_magnitude(), "s": moments(), "g": gram()}


def integers(*shape, seed=0):
    """Integers as floats: neither they nor their products round in a sum."""
    draw = np.random.default_rng(seed).integers(-50, 51, shape)
    return put(draw)


def seen(product, shape, x, stats):
    """Statistics of the inputs of ``product(w, x)``."""
    params = {"w": integers(*shape, seed=1)}
    observer = observing(lambda p, x: product(p["w"], x), stats)

    def run(params, x):  # as one program, which compiles faster than its parts
        _, state = observer.update(params, observer.init(params, x), x)
        return observer.read(params, state, x)["w"]

    return jax.jit(run)(params, x)


def columns(product, shape, x):
    """Of each weight what comes out where it is one and the others are zero."""
    jacobian = jax.jit(jax.jacfwd(product))(jnp.zeros(shape), x)
    return np.asarray(jacobian, np.float64).reshape(-1, *shape)


def check(product, shape, x, unfold):
    """Every statistic against the Jacobian.

    Args:
      product: ``(w, x) -> out``.
      shape: of w.
      x: data.
      unfold: reshapes an array like w to ``(groups, outputs, features)``.
    """
    found = seen(product, shape, x, STATS)
    out = columns(product, shape, x)

    assert jnp.broadcast_shapes(found["m"].shape, shape) == shape
    np.testing.assert_array_equal(
        np.broadcast_to(found["m"], shape), np.abs(out).max(0)
    )
    squares = np.broadcast_to(found["s"].norm, shape) ** 2
    np.testing.assert_allclose(squares, (out**2).sum(0), rtol=1e-5)
    sums = np.broadcast_to(found["s"].count * found["s"].mean, shape)
    np.testing.assert_allclose(sums, out.sum(0), rtol=1e-5, atol=1e-3)

    g, o, f = unfold(np.zeros(shape)).shape
    assert found["g"].gram.shape == ((f, f) if g == 1 else (g, f, f))
    # No outputs share a row of the result, so between them there is nothing.
    expected = np.einsum(
        "gfh,gk,op->gofkph",
        np.asarray(found["g"].gram).reshape(g, f, f),
        np.eye(g),
        np.eye(o),
    )
    flat = np.stack([unfold(row) for row in out])
    np.testing.assert_array_equal(np.einsum("ngof,nkph->gofkph", flat, flat), expected)


def axes(*inside, batch=()):
    """An unfolding by axes of the leaf."""

    def unfold(w):
        outputs = [i for i in range(w.ndim) if i not in inside and i not in batch]
        sizes = [[w.shape[i] for i in part] for part in (batch, outputs, inside)]
        w = w.transpose(*batch, *outputs, *inside)
        return w.reshape([int(np.prod(part)) for part in sizes])

    return unfold


def groups(count, kernel=(0, 1, 2)):
    """An unfolding by groups of outputs, which are the last axis."""

    def unfold(w):
        w = axes(*kernel)(w)
        return w.reshape(count, w.shape[1] // count, w.shape[2])

    return unfold


def expected(rows, names="msg"):
    """What ``STATS`` say of rows that are written out."""
    rows = np.asarray(rows, np.float64).reshape(-1, rows.shape[-1])
    count: Any = np.uint32(len(rows))
    gram: Any = rows.T @ rows
    squares: Any = np.diagonal(gram)[:, None]
    mean: Any = rows.mean(0)[:, None]
    var: Any = rows.var(0)[:, None]
    found = {
        "m": np.abs(rows).max(0)[:, None],
        "s": Moments(count, mean, var),
        "g": Gram(count, gram, squares),
    }
    return {name: found[name] for name in names}


def equal(a, b):
    """Same structure and values."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def close(a, b):
    """Same structure, and values but for rounding."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), a, b
    )


def of_layer(found, i):
    """What stands at one layer of a stack."""
    return jax.tree.map(lambda x: x[i], found)


def linen(module, name="kernel") -> Callable[..., Any]:
    """A Linen module with one parameter."""
    return lambda w, x: module.apply({"params": {name: w}}, x)


def conv(features=4, size=(3, 2), **options):
    """A Linen convolution."""
    return linen(nn.Conv(features, size, use_bias=False, **options))


def transposed(**options):
    """A transposed one."""
    return linen(nn.ConvTranspose(2, (3, 2), strides=(2, 1), use_bias=False, **options))
