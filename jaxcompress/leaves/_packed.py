# SPDX-License-Identifier: Apache-2.0
"""Packed codes: several codes of 1, 2 or 4 bits per byte."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..formats import Int
from ..numerics import one_program
from ._codebook import Codebook
from ._leaf import Leaf, is_leaf
from ._qarray import QArray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedCodes(Leaf):
    """Store codes of 1, 2 or 4 bits packed into bytes along the last axis.

    XLA stores an int4 in a whole byte on most devices. Packed codes take 0.5, 0.25 or
    0.125 bytes each, and unpacking fuses with the operation that reads them.

    Invariants:

    1. Byte ``j`` of a row holds the codes ``j * k`` to ``j * k + k - 1``, the first in its
       lowest bits, with ``k = 8 // bits``; the row ends with zero bits.
    2. Leading axes are those of the codes, so ``vmap`` and ``scan`` work over stacked
       codes.

    Attributes:
      data: uint8 ``(..., ceil(n / k))``.
      size_of_row: n, the number of codes along the last axis (static).
      bits: 1, 2 or 4 (static).
      code_dtype: int8 or uint8 (static). One bit of int8 is a sign: -1 or 1.
    """

    data: jax.Array
    size_of_row: int = dataclasses.field(metadata={"static": True})
    bits: int = dataclasses.field(metadata={"static": True})
    code_dtype: np.dtype = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, codes: jax.Array, bits: int) -> PackedCodes:
        """Pack codes into bytes.

        Args:
          codes: int8 or uint8, of rank 1 or more. Each must fit in ``bits`` bits (two's
            complement); with one bit of int8 each must be -1 or 1.
          bits: 1, 2 or 4.

        Raises:
          ValueError: if the codes or the bits are anything else.

        Example:
          >>> import jax.numpy as jnp, jaxcompress as jc
          >>> packed = jc.PackedCodes.of(jnp.array([-7, 0, 3], jnp.int8), 4)
          >>> packed.data.nbytes, packed.dense().tolist()
          (2, [-7, 0, 3])
        """
        if bits not in (1, 2, 4) or codes.dtype not in (jnp.int8, jnp.uint8):
            raise ValueError(
                "PackedCodes needs 1, 2 or 4 bits and int8 or uint8 codes, got bits="
                f"{bits} and {codes.dtype}."
            )
        if not codes.ndim:
            raise ValueError("codes must have rank 1 or more, got a scalar.")
        packed = cls(
            data=_pack(codes, bits),
            size_of_row=codes.shape[-1],
            bits=bits,
            code_dtype=codes.dtype,
        )
        if not isinstance(codes, Tracer) and not bool(
            jnp.array_equal(packed.dense(), codes)
        ):
            raise ValueError(
                f"codes must fit in {bits} bits (-1 or 1 for one bit of int8), got "
                f"codes from {int(codes.min())} to {int(codes.max())}."
            )
        return packed

    def dense(self) -> jax.Array:
        """Unpack the codes, in ``code_dtype``."""
        is_signed = self.code_dtype == jnp.int8
        return _unpack(self.data, self.bits, self.size_of_row, is_signed)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the codes."""
        return (*self.data.shape[:-1], self.size_of_row)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the codes."""
        return np.dtype(self.code_dtype)


@one_program("bits")
def _pack(codes: jax.Array, bits: int) -> jax.Array:
    are_signs = bits == 1 and codes.dtype == jnp.int8
    pattern = ((codes > 0) if are_signs else codes).astype(jnp.uint8)
    pattern = pattern & jnp.uint8(2**bits - 1)
    count, row = 8 // bits, codes.shape[-1]
    widths = [(0, 0)] * (codes.ndim - 1) + [(0, -row % count)]
    padded = jnp.pad(pattern, widths)
    split = padded.reshape(*codes.shape[:-1], -(-row // count), count)
    return jnp.sum(split << _shifts(bits, split.ndim), -1, dtype=jnp.uint8)


@one_program("bits", "size_of_row", "is_signed")
def _unpack(data: jax.Array, bits: int, size_of_row: int, is_signed: bool) -> jax.Array:
    split = data[..., None] >> _shifts(bits, data.ndim + 1)
    rows, padded = data.shape[:-1], data.shape[-1] * (8 // bits)
    codes = split.reshape(*rows, padded)[..., :size_of_row]
    if not is_signed:
        return codes & jnp.uint8(2**bits - 1)
    if bits == 1:
        return ((codes & 1).astype(jnp.int8) * 2 - 1).astype(jnp.int8)
    # Shifting up and down again extends the sign.
    up = jnp.int8(8 - bits)
    return (codes.astype(jnp.int8) << up) >> up


def _shifts(bits: int, rank: int) -> jax.Array:
    """Return the bit shifts of the codes in a byte, along the last of ``rank`` axes."""
    shifts = jnp.arange(8 // bits, dtype=jnp.uint8) * jnp.uint8(bits)
    return shifts.reshape((1,) * (rank - 1) + (-1,))


def pack_codes(tree: Any) -> Any:
    """Pack the codes of quantized leaves to save device memory at inference.

    Codes of up to 1, 2 and 4 bits take an eighth, a quarter and half a byte of device
    memory; wider codes are unchanged. The codes are unpacked where they are used. Signs
    with exact zeros among them (pruned weights) take two bits.

    Args:
      tree: any pytree; leaves other than ``QArray`` and ``Codebook`` are unchanged.

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
        fits_byte = leaf.codes.dtype in (jnp.int8, jnp.uint8)
        if bits > 4 or not leaf.codes.ndim or not fits_byte:
            return leaf
        width = 4 if bits > 2 else bits
        return dataclasses.replace(leaf, codes=PackedCodes.of(leaf.codes, width))

    return jax.tree.map(pack, tree, is_leaf=is_leaf)


def _bits_of(leaf: QArray) -> int:
    fmt = leaf.format
    if not (isinstance(fmt, Int) and fmt.binary):
        return leaf.bits
    zeros = jnp.any(leaf.codes == 0)
    # Unknown under jit: leave room for the third symbol.
    return 2 if isinstance(zeros, Tracer) or bool(zeros) else 1
