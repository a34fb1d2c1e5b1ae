# SPDX-License-Identifier: Apache-2.0
"""Sparse leaves: the non-zeros of an array and a bitmask of their positions."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._select import Where, is_weight, select
from .._signatures import name_defaults
from ._leaf import Leaf


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseArray(Leaf):
    """Store a sparse array as a bitmask and its non-zero values, in row-major order.

    Invariants:

    1. ``bitmask`` holds one bit per element, most significant bit first, padded with
       zeros to whole bytes. Exactly ``len(values)`` bits are set.
    2. ``values`` holds the elements at the set bits. A bit is set if the element is not
       zero, so ``dense()`` restores the array (a negative zero becomes zero).

    It takes ``nnz * itemsize + size / 8`` bytes: for float32, less than dense from 1/32
    sparsity on. It saves memory but not time: ``dense()`` rebuilds the array.

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
        """Compress a concrete array to its non-zeros.

        Args:
          array: array of any shape and dtype. It must not be traced, because the number
            of non-zeros determines the shape of the result.

        Raises:
          TypeError: if the array is traced.
        """
        if isinstance(array, Tracer):
            raise TypeError(
                "SparseArray.from_dense needs a concrete array, because the number of "
                "non-zeros is a shape. Call it outside jit."
            )
        flat = np.asarray(array).ravel()
        nonzero = flat != 0
        return cls(
            values=jnp.asarray(flat[nonzero]),
            bitmask=jnp.asarray(np.packbits(nonzero)),
            dense_shape=tuple(array.shape),
        )

    def dense(self) -> jax.Array:
        """Rebuild the array: values where the bits are set, zeros elsewhere."""
        if self.values.size == 0:
            return jnp.zeros(self.dense_shape, self.values.dtype)
        is_set = jnp.unpackbits(self.bitmask, count=self.size).astype(bool)
        index = jnp.maximum(jnp.cumsum(is_set) - 1, 0)
        flat = jnp.where(is_set, self.values[index], jnp.zeros((), self.values.dtype))
        return flat.reshape(self.dense_shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ``dense()``."""
        return self.dense_shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of ``values``."""
        return np.dtype(self.values.dtype)


@name_defaults
def sparsify(tree: Any, where: Where = is_weight) -> Any:
    """Convert pruned leaves to ``SparseArray`` leaves where that saves memory.

    Args:
      tree: a concrete pytree, for instance ``pruner.finalize(params, state)``.
      where: a glob on the path, a ``(path, leaf) -> bool``, or a bool tree.

    Returns:
      The tree; leaves that are too dense to gain from it are unchanged.

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
        is_smaller = sparse.values.nbytes + sparse.bitmask.nbytes < leaf.nbytes
        return sparse if is_smaller else leaf

    selection = select(tree, where)
    return selection.put(jax.tree.map(convert, selection.tree))
