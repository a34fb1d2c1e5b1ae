# SPDX-License-Identifier: Apache-2.0
"""Random arrays that no shape has to be compiled for.

``jax.random.normal`` compiles a program for each shape, and ``jnp.asarray`` one for each
shape that it copies or converts. Numbers drawn by NumPy and put on a device need none.
"""

import jax
import jax.numpy as jnp
import numpy as np


def put(x, dtype=jnp.float32):
    """An array of JAX with these numbers."""
    return jax.device_put(np.asarray(x).astype(dtype))


def normal(*shape, seed=0, scale=1.0, dtype=jnp.float32):
    """Normal numbers."""
    return put(scale * np.random.default_rng(seed).normal(size=shape), dtype)
