# SPDX-License-Identifier: Apache-2.0
"""Images that nobody took: what a teacher is sure of, by gradient descent from noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxcompress import distill

SMOOTH = 0.01  # weight of the total variation, beside the cross-entropy of the label
RATE = 0.05  # of Adam; pixels are from 0 to 1


def inventor(
    logits_of: Callable[[Any, jax.Array], jax.Array], steps: int
) -> Callable[..., jax.Array]:
    """A function ``(params, start, labels) -> images``, to be compiled.

    Args:
      logits_of: ``(params, images) -> logits`` of the teacher.
      steps: of gradient descent.
    """

    def loss(x: jax.Array, params: Any, labels: jax.Array) -> jax.Array:
        cross = optax.losses.softmax_cross_entropy_with_integer_labels(
            logits_of(params, x), labels
        )
        return cross + SMOOTH * distill.total_variation(x)

    def invent(params: Any, start: jax.Array, labels: jax.Array) -> jax.Array:
        tx, box = optax.adam(RATE), lambda x: jnp.clip(x, 0, 1)
        return distill.invert(loss, start, tx, steps, params, labels, project=box)[0]

    return invent
