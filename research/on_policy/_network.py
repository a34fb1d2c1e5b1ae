# SPDX-License-Identifier: Apache-2.0
"""A gated recurrent network that reads and writes characters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Params = dict[str, jax.Array]


def initial(seed: int, classes: int, width: int) -> Params:
    """Random parameters, of numpy: what a seed means does not change with JAX."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, size: float) -> jax.Array:
        return jnp.asarray(size * rng.normal(size=shape), jnp.float32)

    return {
        "characters": normal(classes, 3 * width, size=0.3),
        "recurrent": normal(width, 3 * width, size=width**-0.5),
        "bias": jnp.zeros(3 * width),
        "output": normal(width, classes, size=width**-0.5),
        "output_bias": jnp.zeros(classes),
    }


def start(params: Params, batch: int) -> jax.Array:
    """The state before anything was read: ``(batch, width)``."""
    return jnp.zeros((batch, params["output"].shape[0]))


def step(
    params: Params, state: jax.Array, token: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Read a character ``(batch,)``; the new state and logits ``(batch, classes)``."""
    state = _read(params, state, token)
    return state, _logits(params, state)


def logits(params: Params, tokens: jax.Array) -> jax.Array:
    """Logits ``(batch, length, classes)`` of what follows each character."""

    def body(state: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = _read(params, state, token)
        return state, state

    # On a CPU most of the time would go into starting the passes of the loop.
    _, states = lax.scan(body, start(params, len(tokens)), tokens.T, unroll=4)
    return _logits(params, jnp.swapaxes(states, 0, 1))


def _logits(params: Params, state: jax.Array) -> jax.Array:
    products = state @ params["output"]
    return products + jnp.broadcast_to(params["output_bias"], products.shape)


def _read(params: Params, state: jax.Array, token: jax.Array) -> jax.Array:
    """The gated recurrent unit of Cho et al., 2014."""
    read = params["characters"][token]
    read = read + jnp.broadcast_to(params["bias"], read.shape)
    reset, keep, new = jnp.split(read, 3, axis=-1)
    of_reset, of_keep, of_new = jnp.split(state @ params["recurrent"], 3, axis=-1)
    reset, keep = jax.nn.sigmoid(reset + of_reset), jax.nn.sigmoid(keep + of_keep)
    return keep * state + (1 - keep) * jnp.tanh(new + reset * of_new)
