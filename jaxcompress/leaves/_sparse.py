# SPDX-License-Identifier: Apache-2.0
"""The non-zeros of an array, and one bit an element that says where they are."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._select import Where, is_weight, select
from ._leaf import Leaf


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseArray(Leaf):
    """A sparse array: a bitmask and the values under it, in row-major order.

    Invariants:

    1. ``bitmask`` holds one bit an element, most significant bit first, padded with
       zeros to whole bytes. Exactly ``len(values)`` bits are set.
    2. ``values`` holds the elements at the set bits. A bit is set where the element
       is not zero, so ``dense()`` restores the array (a negative zero becomes zero).

    It takes ``nnz * itemsize + size / 8`` bytes: below dense from 1/32 sparsity on for
    float32. It saves memory and is no speed claim: ``dense()`` rebuilds the array.

    Attributes:
      values: ``(nnz,)``.
      bitmask: uint8 ``(ceil(size / 8),)``.
      dense_shape: shape of ``dense()`` (static).
    """

    values: jax.Array
    bitmask: jax.Array
    dense_shape: tuple[int, ...] = dataclasses.field(metadata={"static": True})

    @classmethod
    def from_dense(cls, array: jax.Array) -> SparseArray:
        """Keep the non-zeros of a concrete array.

        Args:
          array: of any shape and dtype, not traced: the number of non-zeros decides
            the shape of the result.
        """
        if isinstance(array, Tracer):
            raise TypeError(
                "SparseArray.from_dense needs a concrete array: the number of non-zeros "
                "is a shape. Call it outside jit."
            )
        flat = np.asarray(array).ravel()
        kept = flat != 0
        return cls(
            values=jnp.asarray(flat[kept]),
            bitmask=jnp.asarray(np.packbits(kept)),
            dense_shape=tuple(array.shape),
        )

    def dense(self) -> jax.Array:
        """Put the values back where the bits are set, zeros elsewhere."""
        if self.values.size == 0:
            return jnp.zeros(self.dense_shape, self.values.dtype)
        kept = jnp.unpackbits(self.bitmask, count=self.size).astype(bool)
        index = jnp.maximum(jnp.cumsum(kept) - 1, 0)
        flat = jnp.where(kept, self.values[index], jnp.zeros((), self.values.dtype))
        return flat.reshape(self.dense_shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ``dense()``."""
        return self.dense_shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of ``values``."""
        return np.dtype(self.values.dtype)


def sparsify(tree: Any, where: Where = is_weight) -> Any:
    """Turn the selected dense leaves into ``SparseArray`` leaves, where that is smaller.

    Args:
      tree: a concrete pytree, for instance ``pruner.finalize(params, state)``.
      where: a glob on the path, a ``(path, leaf) -> bool``, or a bool tree.

    Returns:
      The tree; leaves too dense to gain from it stay as they are.

    Raises:
      ValueError: if ``where`` selects nothing.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (64, 64))}
      >>> sparse = jc.sparsify(jc.compress(jc.magnitude_pruning(0.9), params))
      >>> sum(x.nbytes for x in jax.tree.leaves(sparse)), params["kernel"].nbytes
      (2152, 16384)
    """

    def convert(leaf: jax.Array) -> jax.Array | SparseArray:
        sparse = SparseArray.from_dense(leaf)
        smaller = sparse.values.nbytes + sparse.bitmask.nbytes < leaf.nbytes
        return sparse if smaller else leaf

    selection = select(tree, where)
    return selection.put(jax.tree.map(convert, selection.tree))
