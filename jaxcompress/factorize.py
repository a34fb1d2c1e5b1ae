# SPDX-License-Identifier: Apache-2.0
"""Low-rank factorization of weights by truncated SVD."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from ._arguments import check_counts, check_whole
from ._combine import masked
from ._compressor import Compressor, PyTree, compress
from ._refuse import refuse_not_finite, refuse_unfit
from ._select import Where, is_weight, map_with_path, paths_and_leaves
from ._signatures import name_defaults
from ._warn import warn
from .leaves import LowRank
from .numerics import cond, one_program

__all__ = [
    "LowRankState",
    "factorize",
    "low_rank",
]


class LowRankState(NamedTuple):
    """State of ``low_rank``."""

    count: jax.Array  # int32 []: updates so far
    bases: PyTree  # (*rows, rank) per leaf, orthonormal columns; None if left dense


@name_defaults
def low_rank(
    *,
    rank: int | None = None,
    energy: float | None = None,
    split: int = 1,
    every: int = 100,
    where: Where = is_weight,
) -> Compressor:
    """Train weights to low rank, by projecting them onto leading singular vectors.

    The view is ``u @ (u.T @ w)``, where ``u`` holds the leading left singular vectors. An
    SVD refreshes ``u`` every few updates. The view is linear in ``w``, so its gradient is
    exact. ``finalize`` returns ``LowRank`` leaves.

    On a mesh, an SVD gathers each leaf: every device computes the whole of it, in about
    three times the memory of the whole leaf, and more devices do not make it faster. A
    leaf must therefore fit on one device. Raise ``every`` if the SVD takes too long; all
    other updates, and the view, keep the sharding of the leaf.

    Args:
      rank: rank of the product. Pass either ``rank`` or ``energy``.
      energy: fraction of the sum of squares to keep, in (0, 1]; each leaf gets the
        smallest rank that does. It determines shapes, so ``init`` needs concrete
        parameters.
      split: number of leading axes that form the rows of the matrix: 1 for a dense
        kernel, 3 for a Flax convolution.
      every: updates between two SVDs.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      ValueError: unless exactly one of ``rank`` and ``energy`` is set; in ``init``, if
        ``where`` selects nothing, the split is ambiguous, ``rank`` would not make a leaf
        smaller, or a leaf is empty; outside of jit, if a leaf has NaN or infinite values.
      TypeError: in ``init``, if ``energy`` is set and the parameters are traced.

    Warns:
      UserWarning: for leaves that stay dense, because two factors of the rank that
        ``energy`` requires would not be smaller.

    Example:
      >>> import jax, jaxcompress as jc
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (64, 32))}
      >>> factors = jc.compress(jc.low_rank(rank=4), params)["kernel"]
      >>> factors.left.shape, factors.right.shape
      ((64, 4), (4, 32))

    References:
      Denton et al., 2014, https://arxiv.org/abs/1404.0736
    """
    if (rank is None) == (energy is None):
        given = "neither" if rank is None else "both"
        raise ValueError(f"low_rank needs one of rank= and energy=, got {given}.")
    check_whole(rank=rank, split=split)
    check_counts(every=every)
    if rank is not None and rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}.")
    if energy is not None and not 0 < energy <= 1:
        raise ValueError(f"energy must be in (0, 1], got {energy}.")

    def init(params: PyTree) -> LowRankState:
        refuse_unfit(params)

        def basis(path: str, leaf: jax.Array) -> jax.Array | None:
            leaf_rank = _rank(path, leaf, split, rank, energy)
            return None if leaf_rank is None else _basis(leaf, split, leaf_rank)

        bases = map_with_path(basis, params)
        return LowRankState(jnp.zeros((), jnp.int32), bases)

    def check(params: PyTree, state: LowRankState) -> None:
        paths, _, treedef = paths_and_leaves(params)
        for path, basis in zip(paths, treedef.flatten_up_to(state.bases), strict=True):
            if basis is None:
                continue
            if basis.ndim == split + 1 and rank in (None, basis.shape[-1]):
                continue
            raise ValueError(
                f"the state holds a basis of shape {basis.shape} for {path!r}, which is "
                f"not that of rank={rank} and split={split}. Make the state with this "
                "compressor's init, or read it with the compressor that made it."
            )

    def apply(params: PyTree, state: LowRankState) -> PyTree:
        check(params, state)

        def view(leaf: jax.Array, basis: jax.Array | None) -> jax.Array:
            if basis is None:
                return leaf
            # The SVD gathers, so the basis is on every device. Adding a zero computed from
            # the leaf gives the product the sharding of the leaf.
            return _factors(leaf, basis).dense() + (leaf - leaf)

        return _map(view, params, state.bases)

    def update(
        params: PyTree, state: LowRankState, **extras: Any
    ) -> tuple[PyTree, LowRankState]:
        del extras

        def refresh(leaf: jax.Array, basis: jax.Array | None) -> jax.Array | None:
            return None if basis is None else _basis(leaf, split, basis.shape[-1])

        check(params, state)
        refuse_not_finite(params)
        count = state.count + 1
        bases = cond(
            count % every == 0,
            lambda: _map(refresh, params, state.bases),
            lambda: state.bases,
        )
        return params, LowRankState(count, bases)

    def finalize(params: PyTree, state: LowRankState) -> PyTree:
        def factors(leaf: jax.Array, basis: jax.Array | None) -> jax.Array | LowRank:
            return leaf if basis is None else _factors(leaf, basis)

        check(params, state)
        refuse_unfit(params)
        return _map(factors, params, state.bases)

    return masked(
        Compressor(init=init, apply=apply, update=update, finalize=finalize), where
    )


@name_defaults
def factorize(
    params: PyTree,
    *,
    rank: int | None = None,
    energy: float | None = None,
    split: int = 1,
    where: Where = is_weight,
) -> PyTree:
    """Replace weights by trainable low-rank factors, once, by a truncated SVD.

    Each weight becomes a ``LowRank`` leaf. Its factors have their own paths
    (``Dense_0/kernel/left``), so they can be trained, pruned and quantized. Call ``dense``
    inside the loss to multiply them.

    Args:
      params: concrete parameters.
      rank: as in ``low_rank``.
      energy: as in ``low_rank``.
      split: as in ``low_rank``.
      where: as in ``low_rank``.

    Example:
      >>> import jax, jaxcompress as jc
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (64, 32))}
      >>> thin = jc.factorize(params, rank=4)
      >>> int8 = jc.compress(jc.weight_quantization(bits=8), thin)
      >>> jc.dense(jc.dense(int8))["kernel"].shape
      (64, 32)
    """
    return compress(
        low_rank(rank=rank, energy=energy, split=split, where=where), params
    )


def _map(fn: Any, params: PyTree, bases: PyTree) -> PyTree:
    """Map over leaves and bases, where a basis may be None."""
    leaves, treedef = jax.tree.flatten(params)
    partners = treedef.flatten_up_to(bases)
    pairs = zip(leaves, partners, strict=True)
    return treedef.unflatten([fn(leaf, partner) for leaf, partner in pairs])


def _matrix(leaf: jax.Array, split: int) -> jax.Array:
    return leaf.reshape(math.prod(leaf.shape[:split]), -1)


def _factors(leaf: jax.Array, basis: jax.Array) -> LowRank:
    split = basis.ndim - 1
    columns = _matrix(basis, split)
    right = columns.T @ _matrix(leaf, split)
    return LowRank(left=basis, right=right.reshape(-1, *leaf.shape[split:]))


@one_program("split", "rank")
def _basis(leaf: jax.Array, split: int, rank: int) -> jax.Array:
    """Return the leading left singular vectors, shaped ``(*rows, rank)``."""
    wide = lax.stop_gradient(leaf).astype(jnp.promote_types(leaf.dtype, jnp.float32))
    # LAPACK never returns from an infinity. It stays visible in the product.
    wide = jnp.where(jnp.isfinite(wide), wide, 0)
    left = jnp.linalg.svd(_matrix(wide, split), full_matrices=False)[0]
    return left[:, :rank].reshape(*leaf.shape[:split], rank).astype(leaf.dtype)


def _rank(
    path: str, leaf: jax.Array, split: int, rank: int | None, energy: float | None
) -> int | None:
    if leaf.ndim > 2 and split == 1:
        raise ValueError(
            f"{path!r} has shape {tuple(leaf.shape)}, so its rows are ambiguous: pass "
            "split=, the number of leading axes that form the rows (3 for a Flax "
            "convolution)."
        )
    if not 0 < split < leaf.ndim:
        raise ValueError(
            f"split must be between 1 and ndim - 1 = {leaf.ndim - 1} for {path!r}, got "
            f"{split}."
        )
    rows, columns = _matrix(leaf, split).shape
    if rank is not None:
        if rank * (rows + columns) >= rows * columns:
            raise ValueError(
                f"rank must be below {rows * columns / (rows + columns):g} to make the "
                f"{rows} x {columns} matrix {path!r} smaller, got {rank}. Use a smaller "
                "rank, or leave this leaf out with `where=`."
            )
        return rank
    if isinstance(leaf, Tracer):
        raise TypeError(
            "low_rank(energy=...) needs concrete values, because they determine shapes: "
            "call init outside jit, or pass rank=."
        )
    matrix = np.asarray(_matrix(leaf, split), np.float64)
    squares = np.linalg.svd(matrix, compute_uv=False) ** 2
    is_enough = np.cumsum(squares) >= energy * squares.sum() * (1 - 1e-12)
    needed = int(np.argmax(is_enough)) + 1
    if needed * (rows + columns) >= rows * columns:
        warn(
            f"{path!r} stays dense: {energy:g} of its energy needs rank {needed}, and "
            f"factors of that rank are not smaller than the {rows} x {columns} matrix."
        )
        return None
    return needed
