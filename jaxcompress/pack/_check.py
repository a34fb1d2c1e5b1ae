# SPDX-License-Identifier: Apache-2.0
"""The invariants of compressed leaves, checked on what a file holds.

``dense`` reads codes as indices, and JAX accepts an index out of bounds: it would
silently become another value. Leaves may be stacked (by ``vmap``, for ``scan``): then all
children have further leading axes.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from ..formats import Float, Format, Int, Levels
from ..leaves import Codebook, Leaf, LowRank, PackedCodes, QArray, SparseArray


def check(leaf: Leaf) -> None:
    """Raise a ``ValueError`` that says which invariant a leaf breaks."""
    match leaf:
        case QArray():
            _check_quantized(leaf)
        case Codebook():
            _check_codebook(leaf)
        case PackedCodes():
            _check_packed(leaf)
        case LowRank():
            _check_factors(leaf)
        case SparseArray():
            _check_sparse(leaf)


def _check_quantized(leaf: QArray) -> None:
    codes, scale, zero_point = leaf.codes, leaf.scale, leaf.zero_point
    _need(_is_array(codes) and codes.dtype == leaf.format.dtype, leaf, "codes",
          f"{leaf.format.dtype} codes", codes)  # fmt: skip
    _need(_is_array(scale) and jnp.issubdtype(scale.dtype, jnp.floating), leaf,
          "scale", "floats", scale)  # fmt: skip
    tiles = len(scale.shape) == len(codes.shape) and all(
        n == m or (n and m % n == 0)
        for n, m in zip(scale.shape, codes.shape, strict=True)
    )
    _need(tiles, leaf, "scale", f"a shape that divides {codes.shape}", scale)
    whole = zero_point is None or (
        jnp.issubdtype(zero_point.dtype, jnp.integer)
        and zero_point.shape == scale.shape
    )
    _need(whole, leaf, "zero_point", f"None or integers {scale.shape}", zero_point)
    low, high = _code_range(leaf.format)
    _check_range(leaf, _codes_of(codes), low, high)


def _check_codebook(leaf: Codebook) -> None:
    codes, table = leaf.codes, leaf.centroids
    integers = _is_array(codes) and jnp.issubdtype(codes.dtype, jnp.unsignedinteger)
    _need(integers, leaf, "codes", "unsigned integers", codes)
    lead = len(table.shape) - 1
    fits = lead >= 0 and table.shape[:-1] == codes.shape[:lead]
    _need(fits, leaf, "centroids", "a vector (for each stacked leaf)", table)
    _check_range(leaf, _codes_of(codes), 0, table.shape[-1] - 1)
    with np.errstate(invalid="ignore"):  # of damaged or infinite values
        steps = np.diff(np.asarray(table, np.float64), axis=-1)
    if bool((steps < 0).any()):
        raise ValueError("the centroids of a Codebook must be sorted")


def _check_packed(leaf: PackedCodes) -> None:
    per_byte = 8 // leaf.bits
    shape = getattr(leaf.data, "shape", ())
    fits = (
        _is_array(leaf.data)
        and leaf.data.dtype == jnp.uint8
        and len(shape) > 0
        and shape[-1] == -(-leaf.size_of_row // per_byte)
    )
    _need(fits, leaf, "data", f"bytes for rows of {leaf.size_of_row} codes", leaf.data)
    _need(leaf.code_dtype in (np.int8, np.uint8), leaf, "code_dtype", "int8 or uint8",
          leaf.code_dtype)  # fmt: skip
    used = leaf.size_of_row % per_byte * leaf.bits
    if used and (np.asarray(leaf.data)[..., -1] >> used).any():
        raise ValueError("the rows of PackedCodes must end with zero bits")


def _check_factors(leaf: LowRank) -> None:
    left, right = leaf.left, leaf.right
    both = _is_array(left) and _is_array(right) and left.shape and right.shape
    # The rank follows the axes by which leaves are stacked, if they are.
    fits = both and any(
        left.shape[:i] == right.shape[:i] and left.shape[-1] == right.shape[i]
        for i in range(min(len(left.shape), len(right.shape)))
    )
    _need(fits, leaf, "right", "the rank of left as its first axis", right)


def _check_sparse(leaf: SparseArray) -> None:
    bits = int(np.bitwise_count(np.asarray(leaf.bitmask)).sum())
    _need(getattr(leaf.values, "shape", None) == (bits,), leaf, "values",
          f"one value for each of the {bits} bits that are set", leaf.values)  # fmt: skip


def _check_range(leaf: Leaf, codes: np.ndarray, low: int, high: int) -> None:
    if codes.size == 0:
        return
    least, most = int(codes.min()), int(codes.max())
    if least < low or most > high:
        raise ValueError(
            f"the codes of a {type(leaf).__name__} must be from {low} to {high}, got "
            f"{least} to {most}"
        )


def _code_range(fmt: Format) -> tuple[int, int]:
    """Return the smallest and the largest code; floats of whole bytes are all values."""
    match fmt:
        case Int():
            return int(fmt.low), int(fmt.high)
        case Levels():
            return 0, len(fmt.values) - 1
        case Float() if fmt.bits < 8:
            return 0, 2**fmt.bits - 1
    return 0, 0


def _codes_of(codes: Any) -> np.ndarray:
    """Return codes as an array; codes that are floats have no range to check."""
    array = np.asarray(codes.dense() if isinstance(codes, Leaf) else codes)
    return array if np.issubdtype(array.dtype, np.integer) else array[:0].astype(int)


def _is_array(child: Any) -> bool:
    return hasattr(child, "shape") and hasattr(child, "dtype")


def _need(holds: Any, leaf: Leaf, name: str, what: str, got: Any) -> None:
    if not holds:
        text = f"{got.dtype}{list(got.shape)}" if _is_array(got) else repr(got)
        raise ValueError(
            f"{name} of a {type(leaf).__name__} must be {what}, got {text}"
        )
