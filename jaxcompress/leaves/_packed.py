# SPDX-License-Identifier: Apache-2.0
"""Codes of 1, 2 or 4 bits, several in a byte."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..formats import Int
from ._codebook import Codebook
from ._leaf import Leaf, is_leaf
from ._qarray import QArray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedCodes(Leaf):
    """Whole numbers of few bits, side by side along the last axis.

    XLA gives an int4 a byte on most devices; this is 0.5, 0.25 or 0.125 bytes a code in
    memory, and unpacking fuses with what reads the codes.

    Invariants:

    1. Byte ``j`` of a row holds the codes ``j * k`` to ``j * k + k - 1``, the first in its
       lowest bits, with ``k = 8 // bits``; the row ends with zero bits.
    2. Leading axes are the codes' own, so ``vmap`` and ``scan`` go over stacked codes.

    Attributes:
      data: uint8 ``(..., ceil(n / k))``.
      size_of_row: n, the codes along the last axis (static).
      bits: 1, 2 or 4 (static).
      code_dtype: int8 or uint8 (static). One bit of int8 is a sign: -1 or 1.
    """

    data: jax.Array
    size_of_row: int = dataclasses.field(metadata={"static": True})
    bits: int = dataclasses.field(metadata={"static": True})
    code_dtype: np.dtype = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, codes: jax.Array, bits: int) -> PackedCodes:
        """Pack codes.

        Args:
          codes: int8 or uint8, of rank 1 or more; each fits in ``bits`` bits (two's
            complement), or is -1 or 1 where one bit of int8 is asked for.
          bits: 1, 2 or 4.

        Raises:
          ValueError: for other codes.

        Example:
          >>> import jax.numpy as jnp, jaxcompress as jc
          >>> packed = jc.PackedCodes.of(jnp.array([-7, 0, 3], jnp.int8), 4)
          >>> packed.data.nbytes, packed.dense().tolist()
          (2, [-7, 0, 3])
        """
        if bits not in (1, 2, 4) or codes.dtype not in (jnp.int8, jnp.uint8):
            raise ValueError(
                f"{bits} bits of {codes.dtype} cannot be packed: 1, 2 or 4 bits of int8 "
                "or uint8 can."
            )
        if not codes.ndim:
            raise ValueError("a scalar has no axis to pack along.")
        signs = bits == 1 and codes.dtype == jnp.int8
        pattern = ((codes > 0) if signs else codes).astype(jnp.uint8)
        pattern = pattern & jnp.uint8(2**bits - 1)
        count, row = 8 // bits, codes.shape[-1]
        widths = [(0, 0)] * (codes.ndim - 1) + [(0, -row % count)]
        padded = jnp.pad(pattern, widths)
        split = padded.reshape(*codes.shape[:-1], -(-row // count), count)
        data = jnp.sum(split << _shifts(bits, split.ndim), -1, dtype=jnp.uint8)
        packed = cls(data=data, size_of_row=row, bits=bits, code_dtype=codes.dtype)
        if not isinstance(codes, Tracer) and not bool(
            jnp.array_equal(packed.dense(), codes)
        ):
            raise ValueError(
                f"codes from {int(codes.min())} to {int(codes.max())} do not fit in "
                f"{bits} bits; a sign has no zero."
            )
        return packed

    def dense(self) -> jax.Array:
        """The codes, in ``code_dtype``."""
        split = self.data[..., None] >> _shifts(self.bits, self.data.ndim + 1)
        rows, number = self.data.shape[:-1], self.data.shape[-1] * (8 // self.bits)
        codes = split.reshape(*rows, number)[..., : self.size_of_row]
        if self.code_dtype != jnp.int8:
            return codes & jnp.uint8(2**self.bits - 1)
        if self.bits == 1:
            return ((codes & 1).astype(jnp.int8) * 2 - 1).astype(jnp.int8)
        # Up and down again, which repeats the sign.
        up = jnp.int8(8 - self.bits)
        return (codes.astype(jnp.int8) << up) >> up

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the codes."""
        return (*self.data.shape[:-1], self.size_of_row)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the codes."""
        return np.dtype(self.code_dtype)


def _shifts(bits: int, rank: int) -> jax.Array:
    """Of the codes in a byte, along the last of so many axes."""
    shifts = jnp.arange(8 // bits, dtype=jnp.uint8) * jnp.uint8(bits)
    return shifts.reshape((1,) * (rank - 1) + (-1,))


def pack_codes(tree: Any) -> Any:
    """Pack the codes of a tree's quantized leaves to whole fractions of a byte.

    Codes of up to 1, 2 and 4 bits take an eighth, a quarter and half a byte in the memory
    of the device; wider ones stay as they are. The codes are unpacked where they are
    used. Signs among which are exact zeros (pruned weights) take two bits.

    Args:
      tree: any pytree; leaves other than ``QArray`` and ``Codebook`` are left alone.

    Returns:
      The tree with the same ``dense`` value, bit for bit.

    Example:
      >>> import jax, jaxcompress as jc
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (64, 64))}
      >>> int4 = jc.compress(jc.weight_quantization(bits=4), params)
      >>> int4["kernel"].codes.nbytes, jc.pack_codes(int4)["kernel"].codes.data.nbytes
      (4096, 2048)
    """

    def pack(leaf: Any) -> Any:
        if not isinstance(leaf, QArray | Codebook) or isinstance(leaf.codes, Leaf):
            return leaf
        if isinstance(leaf, QArray):
            bits = _bits_of(leaf)
        else:
            bits = max(1, (len(leaf.centroids) - 1).bit_length())
        bytes_ = leaf.codes.dtype in (jnp.int8, jnp.uint8)
        if bits > 4 or not leaf.codes.ndim or not bytes_:
            return leaf
        width = 4 if bits > 2 else bits
        return dataclasses.replace(leaf, codes=PackedCodes.of(leaf.codes, width))

    return jax.tree.map(pack, tree, is_leaf=is_leaf)


def _bits_of(leaf: QArray) -> int:
    fmt = leaf.format
    if not (isinstance(fmt, Int) and fmt.binary):
        return leaf.bits
    zeros = jnp.any(leaf.codes == 0)
    # Not known under jit: room for the third symbol.
    return 2 if isinstance(zeros, Tracer) or bool(zeros) else 1
