# SPDX-License-Identifier: Apache-2.0
"""Quantized arrays of other libraries: to and from qwix's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .formats import E2M1, E4M3, E5M2, NF4, Format, Int
from .leaves import QArray, dense, scales_as_floats

# qwix's logical types by name, and the dtypes it holds their codes in. Its integers use
# the whole range of two's complement, with a zero point in it where they are asymmetric.
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
    """A quantized leaf as a ``qwix.QArray`` of the same values.

    Args:
      leaf: of integers of 2 to 8 bits, NF4, E4M3, E5M2 or E2M1.

    Returns:
      A ``qwix.QArray``. It has the dtype of its scales, so a bfloat16 leaf comes out as
      float32.

    Raises:
      ImportError: without qwix.
      TypeError: for a format that qwix does not have.

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
            f"qwix has no {fmt}; it has {', '.join(_FORMATS)}. Give it `dense(leaf)`."
        )
    if zero_point is not None:
        codes, zero_point = (
            _shifted(x, -(2 ** (leaf.bits - 1))) for x in (codes, zero_point)
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
    """A ``qwix.QArray`` as a leaf of the same values, which ``save`` can write.

    Args:
      array: a ``qwix.QArray``.

    Raises:
      TypeError: for another object, or a type that is not known here.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> int8 = jc.quantize.to_qarray(jnp.array([0.5, -1.0]), jc.formats.Int(8))
      >>> back = jc.interchange.from_qwix(jc.interchange.to_qwix(int8))
      >>> bool((back.dense() == int8.dense()).all())
      True
    """
    if not all(hasattr(array, n) for n in ("qvalue", "scale", "zero_point", "qtype")):
        raise TypeError(f"a {type(array).__name__} is no qwix.QArray.")
    name = array.qtype if isinstance(array.qtype, str) else np.dtype(array.qtype).name
    if name not in _FORMATS:
        raise TypeError(
            f"the type {name!r} of qwix is not known ({', '.join(_FORMATS)})."
        )
    fmt, _ = _FORMATS[name]
    codes, zero_point = array.qvalue, array.zero_point
    if zero_point is not None:
        bits = int(fmt.bits)
        fmt = Int(bits, symmetric=False)
        codes, zero_point = (_shifted(x, 2 ** (bits - 1)) for x in (codes, zero_point))
    elif fmt == E2M1:
        codes = fmt.encode(codes.astype(jnp.float32))
    return QArray(
        codes=codes.astype(fmt.dtype),
        scale=scales_as_floats(array.scale, array.scale.dtype),
        zero_point=None if zero_point is None else zero_point.astype(fmt.dtype),
        format=fmt,
        value_dtype=np.dtype(array.scale.dtype),
    )


def _shifted(codes: jax.Array, by: int) -> jax.Array:
    return codes.astype(jnp.int32) + by


def _same_codes(a: Format, b: Format) -> bool:
    if isinstance(a, Int) and isinstance(b, Int):
        # A narrow range is a part of the whole one; a zero point is the array's business.
        return bool(a.bits == b.bits) and not a.binary
    return a == b


def _qwix() -> Any:
    try:
        import qwix
    except ImportError as error:
        raise ImportError(
            "qwix is not installed; it comes with `pip install jaxcompress[qwix]`."
        ) from error
    return qwix
