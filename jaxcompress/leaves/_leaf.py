# SPDX-License-Identifier: Apache-2.0
"""What every compressed leaf has: a dense value, a shape and a dtype."""

from __future__ import annotations

import abc
from typing import Any

import jax
import numpy as np


class Leaf(abc.ABC):
    """A pytree node that stands for one dense array.

    Invariants:

    1. ``dense()`` has the node's ``shape`` and ``dtype``, and is the same, bit for
       bit, whenever it is called on equal children.
    2. The node's arrays are its pytree children; everything else about it is static,
       so it passes through ``jit``, ``vmap``, ``scan`` and checkpoints.

    A nominal class and not a protocol: a user's module may well have a field that is
    called ``dense``.
    """

    @abc.abstractmethod
    def dense(self) -> jax.Array:
        """The array this node stands for."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of ``dense()``."""

    @property
    @abc.abstractmethod
    def dtype(self) -> np.dtype:
        """Dtype of ``dense()``."""

    @property
    def ndim(self) -> int:
        """Rank of ``dense()``."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements of ``dense()``."""
        return int(np.prod(self.shape, dtype=np.int64))


def is_leaf(x: Any) -> bool:
    """Whether ``x`` is a compressed leaf (for ``is_leaf=`` of the tree functions)."""
    return isinstance(x, Leaf)


def dense(tree: Any) -> Any:
    """Replace every compressed leaf of a tree by the dense array it stands for.

    Works inside ``jit``, so that the compressed arrays are what travels to the device.

    Args:
      tree: any pytree, with or without compressed leaves.

    Returns:
      The tree with dense arrays only. Arrays that were dense come back as they are.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"Dense_0": {"kernel": jnp.eye(4), "bias": jnp.ones(4)}}
      >>> int8 = jc.compress(jc.weight_quantization(bits=8), params)
      >>> jc.dense(int8)["Dense_0"]["kernel"].dtype
      dtype('float32')
    """
    return jax.tree.map(lambda x: x.dense() if is_leaf(x) else x, tree, is_leaf=is_leaf)
