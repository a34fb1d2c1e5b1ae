# SPDX-License-Identifier: Apache-2.0
"""One pass over the features of a layer: what is behind makes up for what is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..numerics import EXACT, inverse_hessian

Begin = Callable[[jax.Array, jax.Array, Any], Any]
"""``(rows, diagonal, given) -> found``: what is decided when the pass comes to a group,
float32 (size, outputs) as they are by then, with float32 (size,) of the factor."""

Settle = Callable[[Any, jax.Array, jax.Array], jax.Array]
"""``(found, k, row) -> row``: the final weights of feature ``k`` of a group, (outputs,)."""


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
    """Settle features in order; spread the error of each over those behind it.

    With the Cholesky factor ``H^-1 = U^T U``, the error of row k in units of ``U_kk``
    times ``U_k,j`` is what row j gives up for it: the least change of the outputs. Rows of
    a block are changed one by one, the others once a block, by a product.

    Args:
      w: float (features, outputs).
      h: float (features, features): ``X^T X`` of the inputs.
      damping: see ``numerics.inverse_hessian``.
      given: a tree of arrays with one entry for each of ``number(features, size, block)``
        groups; what ``begin`` is given.
      begin: once a group.
      settle: once a feature.
      size: features of a group. The last one may have fewer; its other rows are zero.
      block: features of a block, a multiple of ``size``.

    Returns:
      float32 (features, outputs); and what ``begin`` found, stacked over the groups.

    References:
      Frantar et al., 2022, https://arxiv.org/abs/2210.17323
    """
    features, outputs = w.shape
    blocks, per_block = number(features, size, block) * size // block, block // size
    missing = blocks * block - features
    upper = jnp.linalg.cholesky(inverse_hessian(h, damping)).T
    # Made whole by features that go with no other.
    upper = jax.scipy.linalg.block_diag(upper, jnp.eye(missing))
    start = jnp.pad(w.astype(jnp.float32), ((0, missing), (0, 0)))

    def of_block(all_rows: jax.Array, at: Any) -> tuple[jax.Array, Any]:
        first, given_here = at
        rows = lax.dynamic_slice_in_dim(all_rows, first, block)
        factor = lax.dynamic_slice_in_dim(upper, first, block)
        square = lax.dynamic_slice_in_dim(factor, first, block, 1)
        rows, errors, found = _block(rows, square, given_here, begin, settle, size)
        # Zero in front of the block, as the factor is; the block itself is set.
        push = jnp.matmul(factor.T, errors, precision=EXACT)
        all_rows = lax.dynamic_update_slice_in_dim(all_rows - push, rows, first, 0)
        return all_rows, (rows, found)

    firsts = jnp.arange(blocks) * block
    given = jax.tree.map(lambda x: x.reshape(blocks, per_block, *x.shape[1:]), given)
    _, (rows, found) = lax.scan(of_block, start, (firsts, given))
    found = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)
    return rows.reshape(-1, outputs)[:features], found


def number(features: int, size: int, block: int) -> int:
    """How many groups there are once the last block is made whole."""
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
      The new rows; errors in units of the factor, float32 (block, outputs); and what was
      found for each group.
    """
    diagonal = jnp.diagonal(factor)

    def group(carry: Any, at: Any) -> tuple[Any, Any]:
        first, given_here = at
        here = lax.dynamic_slice_in_dim(carry[0], first, size)
        found = begin(here, lax.dynamic_slice_in_dim(diagonal, first, size), given_here)

        def row(k: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[Any, Any]:
            rows, errors = carry
            value, known = rows[first + k], factor[first + k]
            new = settle(found, k, value)
            error = (value - new) / diagonal[first + k]
            rows = (rows - known[:, None] * error[None]).at[first + k].set(new)
            return rows, errors.at[first + k].set(error)

        return lax.fori_loop(0, size, row, carry), found

    firsts = jnp.arange(len(rows) // size) * size
    carry = rows, jnp.zeros_like(rows)
    (rows, errors), found = lax.scan(group, carry, (firsts, given))
    return rows, errors, found
