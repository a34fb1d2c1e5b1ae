# SPDX-License-Identifier: Apache-2.0
"""One pass over the features of a layer in which later features absorb earlier errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..numerics import EXACT, inverse_hessian

Begin = Callable[[jax.Array, jax.Array, Any], Any]
"""``(rows, diagonal, inputs) -> decision``, called when the pass reaches a group: its
current rows, float32 (size, outputs), and the diagonal of the factor, float32 (size,)."""

Settle = Callable[[Any, jax.Array, jax.Array], jax.Array]
"""``(decision, k, row) -> row``: final weights of feature ``k`` of a group, (outputs,)."""


def sweep(
    w: jax.Array,
    h: jax.Array,
    damping: float | jax.Array,
    given: Any,
    begin: Begin,
    settle: Settle,
    *,
    size: int,
    block: int,
) -> tuple[jax.Array, Any]:
    """Round or prune features in order; spread the error of each over the later ones.

    With the Cholesky factor ``H^-1 = U^T U``, row j changes by the error of row k, in
    units of ``U_kk``, times ``U_k,j``. This changes the outputs least. Rows within a
    block are updated one by one; later rows once per block, by one product.

    Args:
      w: float (features, outputs).
      h: float (features, features): ``X^T X`` of the inputs.
      damping: see ``numerics.inverse_hessian``.
      given: a tree of arrays with one entry for each of ``number(features, size, block)``
        groups; ``begin`` receives its entry.
      begin: called once per group.
      settle: called once per feature.
      size: features in a group. The last group may have fewer; its missing rows are zero.
      block: features in a block, a multiple of ``size``.

    Returns:
      float32 (features, outputs), and the decisions of ``begin``, stacked over the groups.

    References:
      Frantar et al., 2022, https://arxiv.org/abs/2210.17323
    """
    features, outputs = w.shape
    blocks, per_block = number(features, size, block) * size // block, block // size
    missing = blocks * block - features
    upper = jnp.linalg.cholesky(inverse_hessian(h, damping)).T
    # Pad with features that are independent of all others.
    upper = jax.scipy.linalg.block_diag(upper, jnp.eye(missing))
    start = jnp.pad(w.astype(jnp.float32), ((0, missing), (0, 0)))

    def of_block(all_rows: jax.Array, at: Any) -> tuple[jax.Array, Any]:
        first, given_here = at
        rows = lax.dynamic_slice_in_dim(all_rows, first, block)
        factor = lax.dynamic_slice_in_dim(upper, first, block)
        square = lax.dynamic_slice_in_dim(factor, first, block, 1)
        rows, errors, decisions = _block(rows, square, given_here, begin, settle, size)
        # The factor is zero before the block; the block itself is overwritten.
        push = jnp.matmul(factor.T, errors, precision=EXACT)
        all_rows = lax.dynamic_update_slice_in_dim(all_rows - push, rows, first, 0)
        return all_rows, (rows, decisions)

    firsts = jnp.arange(blocks) * block
    given = jax.tree.map(lambda x: x.reshape(blocks, per_block, *x.shape[1:]), given)
    _, (rows, decisions) = lax.scan(of_block, start, (firsts, given))
    decisions = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), decisions)
    return rows.reshape(-1, outputs)[:features], decisions


def number(features: int, size: int, block: int) -> int:
    """Number of groups after the last block is padded."""
    return -(-features // block) * (block // size)


def _block(
    rows: jax.Array,
    factor: jax.Array,
    given: Any,
    begin: Begin,
    settle: Settle,
    size: int,
) -> tuple[jax.Array, jax.Array, Any]:
    """One block of features, group by group and row by row.

    Args:
      rows: float32 (block, outputs).
      factor: float32 (block, block), upper triangular.
      given: of each group.
      begin: once a group.
      settle: once a row.
      size: rows of a group; divides the block.

    Returns:
      The new rows; their errors in units of the factor, float32 (block, outputs); and
      the decisions for each group.
    """
    diagonal = jnp.diagonal(factor)

    def group(carry: Any, at: Any) -> tuple[Any, Any]:
        first, given_here = at
        here = lax.dynamic_slice_in_dim(carry[0], first, size)
        decisions = begin(
            here, lax.dynamic_slice_in_dim(diagonal, first, size), given_here
        )

        def row(k: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[Any, Any]:
            rows, errors = carry
            value, known = rows[first + k], factor[first + k]
            new = settle(decisions, k, value)
            error = (value - new) / diagonal[first + k]
            rows = (rows - known[:, None] * error[None]).at[first + k].set(new)
            return rows, errors.at[first + k].set(error)

        return lax.fori_loop(0, size, row, carry), decisions

    firsts = jnp.arange(len(rows) // size) * size
    carry = rows, jnp.zeros_like(rows)
    (rows, errors), decisions = lax.scan(group, carry, (firsts, given))
    return rows, errors, decisions
