# SPDX-License-Identifier: Apache-2.0
"""Two dense layers, a batch and a compressor, for the tests of training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from draws import normal

import jaxcompress as jc

PARAMS = {
    "a": {"kernel": normal(8, 6), "bias": jnp.zeros(6)},
    "b": {"kernel": normal(6, 4, seed=1), "bias": jnp.zeros(4)},
}
BATCH = {
    "x": normal(12, 8, seed=2),
    "y": normal(12, 4, seed=3),
}


def forward(p, x):
    return (
        jax.nn.relu(x @ p["a"]["kernel"] + p["a"]["bias"][None]) @ p["b"]["kernel"]
        + p["b"]["bias"][None]
    )


def loss_fn(p, batch):
    return jnp.mean((forward(p, batch["x"]) - batch["y"]) ** 2)


def small():
    schedule = optax.polynomial_schedule(0.0, 0.8, 3, 10)
    return jc.chain(
        jc.magnitude_pruning(schedule, every=2), jc.weight_quantization(bits=4)
    )


def cache_size(jitted):
    return jitted._cache_size()


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
