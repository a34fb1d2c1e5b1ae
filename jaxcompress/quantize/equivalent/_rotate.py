# SPDX-License-Identifier: Apache-2.0
"""Hadamard rotations of links, which spread the outliers of a channel over many."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..._compressor import Compressor
from ..._warn import warn
from ...numerics import EXACT
from ._compressors import move_once
from ._links import Bound, ByPath, Link, spread

# A kernel with a larger share of exact zeros was pruned; a smaller one is chance.
_SPARSE = 0.01
_RADIX = 16


def hadamard(x: jax.Array, axis: int = -1) -> jax.Array:
    """Apply the Walsh-Hadamard transform along an axis: orthonormal and self-inverse.

    It takes ``n log n`` operations. If the length n is not a power of two, the axis is
    split into consecutive blocks, as long as the largest power of two that divides n; each
    block is transformed on its own.

    Args:
      x: float array; 16-bit floats are summed in float32.
      axis: axis to transform.

    Returns:
      Array of the shape and dtype of ``x``.

    Raises:
      TypeError: if ``x`` is not floating-point.
      ValueError: if n is odd and not 1.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> jc.quantize.equivalent.hadamard(jnp.array([0.0, 0.0, 8.0, 0.0])).tolist()
      [4.0, 4.0, -4.0, -4.0]
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"hadamard needs a floating-point array, got {x.dtype}.")
    n = x.shape[axis]
    block = n & -n  # the largest power of two that divides it
    if block <= 1 and n != 1:
        raise ValueError(
            f"axis {axis} of shape {x.shape} must have an even length, got the odd length "
            f"{n}. Pad it to an even length, best to a power of two."
        )
    return _blockwise(x, axis % x.ndim, block)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _blockwise(x: jax.Array, axis: int, block: int) -> jax.Array:
    """Transform consecutive blocks along an axis."""
    y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    # A Hadamard matrix is a Kronecker product of small ones. One matrix product for four
    # bits of the index compiles to less, and runs faster, than four butterfly steps.
    stride = 1
    while stride < block:
        size = min(_RADIX, block // stride)
        split = y.reshape(*before, -1, size, stride, *after)
        matrix = jnp.asarray(_sylvester(size), y.dtype)
        mixed = jnp.tensordot(split, matrix, axes=(axis + 1, 0), precision=EXACT)
        y, stride = jnp.moveaxis(mixed, -1, axis + 1), stride * size
    return (y.reshape(x.shape) * (1 / math.sqrt(block))).astype(x.dtype)


def _sylvester(n: int) -> np.ndarray:
    """Return the n x n Hadamard matrix: the sign (i, j) is the parity of ``i & j``."""
    index = np.arange(n)
    both = index[:, None] & index[None]
    return np.array([[1 - 2 * (int(k).bit_count() % 2) for k in row] for row in both])


def hadamard_rotation(
    links: Sequence[Link], *, key: jax.Array | None = None
) -> Compressor:
    """Rotate the channels of links to remove outlier channels before quantization.

    With a Hadamard matrix H and ``Q = diag(signs) H``, the producers become ``W Q`` along
    their axes and the consumers ``Q^T W``. The function stays the same if the operations in
    between are *linear* and the same for all channels: nothing; attention between values
    and outputs (rotated within each head, if a head's features are the last axis of the
    link); a residual stream and its RMS norms, if their scales were multiplied into the
    consumers. Do not rotate across a ReLU, a gate, a norm's scale or a mean subtraction.
    ``verify_links(..., rotated=True)`` checks it.

    The first update moves the parameters; the view is always the parameters. Rotation
    *destroys zeros*: prune after rotating, or not at all.

    Args:
      links: which channels to rotate. The last axis of each link is rotated, separately
        for each index of its other axes, in blocks as long as the largest power of two
        that divides its length.
      key: PRNG key of the random signs. None uses no signs; the mean over channels then
        becomes an outlier.

    Raises:
      ValueError: in ``init``, if a link does not fit the parameters, has an odd number of
        channels, or has no kernel on one of its sides.

    Warns:
      UserWarning: in ``init`` and in an update that is not traced, if a kernel has zeros.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> from jaxcompress.quantize.equivalent import Link, hadamard_rotation
      >>> params = {"v": jnp.ones((4, 4)).at[0, 1].set(9.0), "o": jnp.ones((4, 1))}
      >>> link = Link({"v": 1}, {"o": 0})
      >>> new = jc.compress(hadamard_rotation([link], key=jax.random.key(0)), params)
      >>> bool(jnp.abs(new["v"]).max() <= 6)
      True
      >>> bool(jnp.allclose(new["v"] @ new["o"], params["v"] @ params["o"], atol=1e-5))
      True

    References:
      Ashkboos et al., 2024, https://arxiv.org/abs/2404.00456; Chee et al., 2023,
      https://arxiv.org/abs/2307.13304
    """

    def move(bound: list[Bound], leaves: ByPath) -> ByPath:
        return rotate(leaves, bound, signs_of(bound, key))

    return move_once(links, move, what="nothing is rotated", check=_check)


def signs_of(bound: Sequence[Bound], key: jax.Array | None) -> list[jax.Array]:
    """Draw random signs for each link's channels, float32 ``dims``; ones without a key."""
    if key is None:
        return [jnp.ones(link.dims) for link in bound]
    return [
        jax.random.rademacher(jax.random.fold_in(key, i), link.dims, jnp.float32)
        for i, link in enumerate(bound)
    ]


def rotate(
    leaves: ByPath, links: Sequence[Bound], signs: Sequence[jax.Array]
) -> ByPath:
    """Rotate both sides of links, rounding each leaf once."""

    def rotate_leaf(path: str, leaf: jax.Array) -> jax.Array:
        wide = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
        for link, sign in zip(links, signs, strict=True):
            # Outputs are rows and inputs are columns, so Q and Q^T act alike on both.
            for side in (link.producers, link.consumers):
                if path in side:
                    wide = wide * spread(sign, leaf.shape, side[path])
                    wide = _transform(wide, side[path][-1], link.dims[-1])
        return wide.astype(leaf.dtype)

    touched = {p for link in links for p in (*link.producers, *link.consumers)}
    return {p: rotate_leaf(p, x) if p in touched else x for p, x in leaves.items()}


def _transform(x: jax.Array, axis: int, n: int) -> jax.Array:
    """Transform runs of n: a consumer may have a multiple of the channels."""
    split = x.reshape(*x.shape[:axis], -1, n, *x.shape[axis + 1 :])
    return hadamard(split, axis + 1).reshape(x.shape)


def _check(bound: list[Bound], leaves: ByPath) -> None:
    for link in bound:
        if link.dims[-1] % 2 and link.dims[-1] != 1:
            raise ValueError(
                f"{link.name}: a Hadamard rotation needs an even number of channels, got "
                f"{link.dims[-1]}. Pad them, or leave this link out."
            )
        for side, axes in (("producer", link.producers), ("consumer", link.consumers)):
            kernels = [p for p, a in axes.items() if leaves[p].ndim > len(a)]
            if not kernels:
                raise ValueError(
                    f"{link.name}: at least one {side} must be a kernel, with axes "
                    "besides the channels. The scale of a norm cannot be rotated: multiply "
                    "it into the kernels that read it, and link the leaves that produce "
                    "the norm's input."
                )
            for path in kernels:
                _warn_of_zeros(path, leaves[path])


def _warn_of_zeros(path: str, leaf: jax.Array) -> None:
    if isinstance(leaf, Tracer) or not isinstance(leaf, jax.Array) or not leaf.size:
        return
    share = float(jnp.mean(leaf == 0))
    if share > _SPARSE:
        warn(
            f"{path!r} has {share:.0%} zeros, which a rotation destroys: rotate before "
            "pruning, or leave this leaf out of the links."
        )
