# SPDX-License-Identifier: Apache-2.0
"""Convert quantized arrays to and from other libraries: qwix."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .formats import E2M1, E4M3, E5M2, NF4, Format, Int
from .leaves import QArray, dense, scales_as_floats

__all__ = [
    "from_qwix",
    "to_qwix",
]

# qwix's logical types by name, and the dtypes of their codes. Its integers use the full
# range of two's complement; asymmetric ones have a zero point within that range.
_FORMATS: dict[str, tuple[Format, str]] = {
    **{
        f"int{b}": (Int(b, narrow=False), f"int{4 if b < 5 else 8}")
        for b in range(2, 9)
    },
    "nf4": (NF4, "uint4"),
    "float8_e4m3fn": (E4M3, "float8_e4m3fn"),
    "float8_e5m2": (E5M2, "float8_e5m2"),
    "float4_e2m1fn": (E2M1, "float4_e2m1fn"),
}


def to_qwix(leaf: QArray) -> Any:
    """Convert a quantized leaf to a ``qwix.QArray`` with the same values.

    Args:
      leaf: leaf with integers of 2 to 8 bits, NF4, E4M3, E5M2 or E2M1.

    Returns:
      A ``qwix.QArray``. Its dtype is that of its scales, so a bfloat16 leaf becomes
      float32.

    Raises:
      ImportError: if qwix is not installed.
      TypeError: if qwix does not support the format.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> int8 = jc.quantize.to_qarray(jnp.array([0.5, -1.0]), jc.formats.Int(8))
      >>> jc.interchange.to_qwix(int8).qvalue.tolist()
      [64, -127]
    """
    qwix = _qwix()
    fmt, zero_point = leaf.format, leaf.zero_point
    codes = dense(leaf.codes)
    name = next((n for n, (f, _) in _FORMATS.items() if _same_codes(fmt, f)), None)
    if name is None:
        raise TypeError(
            f"leaf must have a format of qwix ({', '.join(_FORMATS)}), got {fmt}. Pass "
            "`dense(leaf)` to qwix instead."
        )
    if zero_point is not None:
        codes, zero_point = (
            _shift(x, -(2 ** (leaf.bits - 1))) for x in (codes, zero_point)
        )
    if fmt == E2M1:
        codes = fmt.decode(codes, jnp.float32)
    dtype = _FORMATS[name][1]
    return qwix.QArray(
        qvalue=codes.astype(dtype),
        scale=scales_as_floats(leaf.scale, leaf.dtype),
        zero_point=None if zero_point is None else zero_point.astype(dtype),
        qtype=name,
    )


def from_qwix(array: Any) -> QArray:
    """Convert a ``qwix.QArray`` to a leaf with the same values, for example to save it.

    Args:
      array: a ``qwix.QArray``.

    Raises:
      TypeError: if it is not a ``qwix.QArray``, or its type is not supported.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> int8 = jc.quantize.to_qarray(jnp.array([0.5, -1.0]), jc.formats.Int(8))
      >>> back = jc.interchange.from_qwix(jc.interchange.to_qwix(int8))
      >>> bool((back.dense() == int8.dense()).all())
      True
    """
    if not all(hasattr(array, n) for n in ("qvalue", "scale", "zero_point", "qtype")):
        raise TypeError(f"array must be a qwix.QArray, got a {type(array).__name__}.")
    name = array.qtype if isinstance(array.qtype, str) else np.dtype(array.qtype).name
    if name not in _FORMATS:
        raise TypeError(
            f"the qwix type must be one of {', '.join(_FORMATS)}; got {name!r}."
        )
    fmt, _ = _FORMATS[name]
    codes, zero_point = array.qvalue, array.zero_point
    if zero_point is not None:
        bits = int(fmt.bits)
        fmt = Int(bits, symmetric=False)
        codes, zero_point = (_shift(x, 2 ** (bits - 1)) for x in (codes, zero_point))
    elif fmt == E2M1:
        codes = fmt.encode(codes.astype(jnp.float32))
    return QArray(
        codes=codes.astype(fmt.dtype),
        scale=scales_as_floats(array.scale, array.scale.dtype),
        zero_point=None if zero_point is None else zero_point.astype(fmt.dtype),
        format=fmt,
        value_dtype=np.dtype(array.scale.dtype),
    )


def _shift(codes: jax.Array, by: int) -> jax.Array:
    return codes.astype(jnp.int32) + by


def _same_codes(a: Format, b: Format) -> bool:
    if isinstance(a, Int) and isinstance(b, Int):
        # A narrow range is part of the full one; the array holds any zero point.
        return bool(a.bits == b.bits) and not a.binary
    return a == b


def _qwix() -> Any:
    try:
        import qwix
    except ImportError as error:
        raise ImportError(
            "qwix is not installed; run `pip install jaxcompress[qwix]`."
        ) from error
    return qwix
