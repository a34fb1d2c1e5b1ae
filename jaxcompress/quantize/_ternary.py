# SPDX-License-Identifier: Apache-2.0
"""Trained ternary quantization: zero and two learned magnitudes per leaf."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .._combine import masked
from .._compressor import Compressor, Learned, PyTree
from .._refuse import refuse_unfit
from .._select import Where, is_weight
from .._signatures import name_defaults
from ..leaves import Codebook


class TernaryState(NamedTuple):
    """State of trained ternary quantization."""

    # Learned of float32 (2,) per leaf: the magnitudes below and above zero
    values: PyTree


@name_defaults
def trained_ternary(threshold: float = 0.05, *, where: Where = is_weight) -> Compressor:
    """Quantize weights to three values (TTQ): zero and two learned values per leaf.

    A weight becomes zero if its magnitude is at most ``threshold`` times the largest in
    its leaf. ``train_step`` trains the two magnitudes together with the weights. The
    gradient of a weight is scaled by the magnitude it is quantized to. ``finalize`` returns
    ``Codebook`` leaves.

    Args:
      threshold: in [0, 1), in units of the largest magnitude.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      ValueError: if the threshold is out of range; in ``init`` and ``finalize``, if a leaf
        has NaN or infinite values.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.array([[-1.0, -3.0], [0.1, 2.0]])}
      >>> jc.compress(jc.quantize.trained_ternary(), params)["kernel"].dense().tolist()
      [[-2.0, -2.0], [0.0, 2.0]]

    References:
      Zhu et al., 2016, https://arxiv.org/abs/1612.01064
    """
    if not 0 <= threshold < 1:
        raise ValueError(
            f"threshold must be in [0, 1) (the paper uses 0.05), got {threshold}."
        )

    def sign(x: jax.Array) -> jax.Array:
        wide = lax.stop_gradient(x).astype(jnp.float32)
        magnitude = jnp.abs(wide)
        return jnp.where(magnitude > threshold * jnp.max(magnitude), jnp.sign(wide), 0)

    def init(params: PyTree) -> TernaryState:
        refuse_unfit(params)

        def start(x: jax.Array) -> Learned:
            magnitude, code = jnp.abs(x.astype(jnp.float32)), sign(x)

            def mean(mask: jax.Array) -> jax.Array:
                count = jnp.sum(mask)
                total = jnp.sum(jnp.where(mask, magnitude, 0))
                return jnp.where(count > 0, total / jnp.maximum(count, 1), 1)

            return Learned(jnp.stack([mean(code < 0), mean(code > 0)]))

        return TernaryState(jax.tree.map(start, params))

    def centroids(values: jax.Array, dtype: Any) -> jax.Array:
        # Keep both positive, whatever the optimizer did, so the values stay sorted.
        down, up = jnp.maximum(jnp.abs(values), jnp.finfo(dtype).tiny)
        return jnp.stack([-down, jnp.zeros_like(up), up]).astype(dtype)

    def fake(x: jax.Array, learned: Learned) -> jax.Array:
        code = sign(x)
        values = centroids(learned.value, x.dtype)
        value = values[(code + 1).astype(jnp.int32)]
        slope = jnp.where(code == 0, 1, jnp.abs(lax.stop_gradient(value)))
        # The difference first: a float16 product with the slope could be infinite.
        return value + (x - lax.stop_gradient(x)) * slope.astype(x.dtype)

    def codes(x: jax.Array, learned: Learned) -> Codebook:
        return Codebook(
            codes=(sign(x) + 1).astype(jnp.uint8),
            centroids=centroids(learned.value, x.dtype),
        )

    def finalize(params: PyTree, state: TernaryState) -> PyTree:
        refuse_unfit(params)
        return jax.tree.map(codes, params, state.values)

    ternary = Compressor(
        init=init,
        apply=lambda params, state: jax.tree.map(fake, params, state.values),
        finalize=finalize,
    )
    return masked(ternary, where)
