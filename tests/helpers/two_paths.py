# SPDX-License-Identifier: Apache-2.0
"""A small network with a residual sum and two widths that can be pruned."""

import jax
import jax.numpy as jnp

import jaxcompress as jc


def make(inputs=4, stream=8, hidden=12, outputs=3):
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = {
        "in": (inputs, stream), "up": (stream, hidden), "down": (hidden, stream),
        "out": (stream, outputs),
    }  # fmt: skip
    return {
        name: {"kernel": jax.random.normal(key, shape)}
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def fn(params, x):
    """The network: a residual block between two dense layers."""
    kernels = {name: layer["kernel"] for name, layer in params.items()}
    h = x @ kernels["in"]
    h = h + jnp.maximum(h @ kernels["up"], 0) @ kernels["down"]
    return h @ kernels["out"]


X = jax.random.normal(jax.random.key(9), (5, 4))
PARAMS = make()
GROUPS = jc.trace_axes(fn, PARAMS, X)
