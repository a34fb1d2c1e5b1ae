# SPDX-License-Identifier: Apache-2.0
"""The base class of compressed leaves, and ``dense``."""

from __future__ import annotations

import abc
from typing import Any

import jax
import numpy as np

from .._mesh import on_any_mesh


class Leaf(abc.ABC):
    """Base class of compressed leaves: a pytree node that represents one dense array.

    Invariants:

    1. ``dense()`` has the node's ``shape`` and ``dtype``. Equal children always give the
       same result, bit for bit.
    2. The node's arrays are its pytree children; everything else is static. So it passes
       through ``jit``, ``vmap``, ``scan`` and checkpoints.

    It is a class, not a protocol, because a user's module may have a field named
    ``dense``.
    """

    @abc.abstractmethod
    def dense(self) -> jax.Array:
        """Return the dense array that this node represents."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of ``dense()``."""

    @property
    @abc.abstractmethod
    def dtype(self) -> np.dtype:
        """Dtype of ``dense()``."""

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(self._not_an_array())

    def _not_an_array(self) -> str:
        return (
            f"a {type(self).__name__} is a compressed leaf, and a model computes with "
            "arrays. Decompress the tree first, inside jit: "
            "model.apply(jaxcompress.dense(params), x)."
        )

    # What a model does to an array: each would fail with a text that helps nobody.
    __array__ = __getitem__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __truediv__ = __rtruediv__ = __matmul__ = __rmatmul__ = __pow__ = __neg__ = _refuse

    # `jax.lax` looks for this attribute and does not call it; what it does not get, it
    # names by `str`.
    __jax_array__ = property(_refuse)

    def __str__(self) -> str:
        """Name the leaf, its shape and how to get an array, as errors of JAX show it."""
        shape = ",".join(map(str, self.shape))
        return (
            f"{type(self).__name__} of {np.dtype(self.dtype).name}[{shape}], a compressed "
            "leaf that jaxcompress.dense decompresses"
        )

    def __getattr__(self, name: str) -> Any:
        """Explain why the methods of an array are missing, such as ``astype``."""
        is_method = not name.startswith("_") and hasattr(jax.Array, name)
        more = f": {self._not_an_array()}" if is_method else ""
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{more}")

    @property
    def ndim(self) -> int:
        """Rank of ``dense()``."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements of ``dense()``."""
        return int(np.prod(self.shape, dtype=np.int64))


def is_leaf(x: Any) -> bool:
    """Return True for a compressed leaf; for ``is_leaf=`` of ``jax.tree`` functions."""
    return isinstance(x, Leaf)


@on_any_mesh
def dense(tree: Any) -> Any:
    """Decompress a tree: replace every compressed leaf by its dense array.

    It works inside ``jit``; then only the compressed arrays are sent to the device.

    Args:
      tree: any pytree, with or without compressed leaves.

    Returns:
      The tree with dense arrays only. Dense arrays are returned unchanged.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"Dense_0": {"kernel": jnp.eye(4), "bias": jnp.ones(4)}}
      >>> int8 = jc.compress(jc.weight_quantization(bits=8), params)
      >>> jc.dense(int8)["Dense_0"]["kernel"].dtype
      dtype('float32')
    """
    return jax.tree.map(lambda x: x.dense() if is_leaf(x) else x, tree, is_leaf=is_leaf)
