# SPDX-License-Identifier: Apache-2.0
"""The network of the study: three convolutions and a dense layer, each with a norm."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax


class ConvNet(nn.Module):
    """Strided convolutions and a dense layer.

    A norm follows every product, the last one too: what follows a norm does not depend on
    how large the weights before it are, so that weights of plus and minus 1 can be
    compared with others.
    """

    classes: int
    widths: Sequence[int] = (16, 32, 64)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images ``(n, h, w, c)`` to logits ``(n, classes)``."""
        for i, width in enumerate(self.widths):
            size, stride = ((3, 3), (2, 2)) if i else ((5, 5), (3, 3))
            x = nn.Conv(width, size, strides=stride, use_bias=False)(x)
            x = nn.relu(nn.LayerNorm()(x))
        x = nn.Dense(self.classes)(x.reshape(len(x), -1))
        return nn.LayerNorm()(x)
