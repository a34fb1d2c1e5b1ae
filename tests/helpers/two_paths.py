# SPDX-License-Identifier: Apache-2.0
"""A small network with a residual sum and two widths that can be pruned."""

import jax.numpy as jnp
from draws import normal

import jaxcompress as jc


def make(inputs=4, stream=8, hidden=12, outputs=3):
    shapes = {
        "in": (inputs, stream), "up": (stream, hidden), "down": (hidden, stream),
        "out": (stream, outputs),
    }  # fmt: skip
    return {
        name: {"kernel": normal(*shape, seed=seed)}
        for seed, (name, shape) in enumerate(shapes.items())
    }


def fn(params, x):
    """The network: a residual block between two dense layers."""
    kernels = {name: layer["kernel"] for name, layer in params.items()}
    h = x @ kernels["in"]
    h = h + jnp.maximum(h @ kernels["up"], 0) @ kernels["down"]
    return h @ kernels["out"]


X = normal(5, 4, seed=9)
PARAMS = make()
GROUPS = jc.trace_axes(fn, PARAMS, X)
