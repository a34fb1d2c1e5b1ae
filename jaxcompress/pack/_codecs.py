# SPDX-License-Identifier: Apache-2.0
"""The codecs by name, and the choice of the smallest result.

A codec is a pair of pure functions between an array of unsigned bit patterns and bytes.
Bit patterns preserve the sign of a zero and the payload of a NaN.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from . import _bytes, _contexts, _lanes, _packed, _raw, _sparse, _symbols
from ._nested import Codec, smallest
from ._payload import Bytes, CorruptPayload, Unsupported

# On ties the first wins: the simplest codecs come first (see `smallest`). Deltas name a
# codec by its index, so only append.
CODECS = {
    "raw": Codec(_raw.encode, _raw.decode),
    "packed": Codec(_packed.encode, _packed.decode),
    "symbols": Codec(_symbols.encode, _symbols.decode),
    "bytes": Codec(_bytes.encode, _bytes.decode),
    "sparse": Codec(_sparse.encode, _sparse.decode),
    "gaps": Codec(_sparse.encode_gaps, _sparse.decode_gaps, allowance=0.0005),
    "contexts": Codec(_contexts.encode, _contexts.decode, allowance=-0.01),
    "lanes": Codec(_lanes.encode, _lanes.decode, allowance=_lanes.ALLOWANCE),
}

ALL = tuple(CODECS.values())

_PATTERNS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


# JAX dtypes whose elements take 1, 2, 4 or 8 bytes in memory, by name.
_DTYPES = {
    dtype.name: dtype
    for dtype in map(
        np.dtype,
        (
            *(jnp.bool_, jnp.int2, jnp.int4, jnp.int8, jnp.int16, jnp.int32, jnp.int64),
            *(jnp.uint2, jnp.uint4, jnp.uint8, jnp.uint16, jnp.uint32, jnp.uint64),
            *(jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64),
            *(jnp.float8_e3m4, jnp.float8_e4m3, jnp.float8_e4m3b11fnuz),
            *(jnp.float8_e4m3fn, jnp.float8_e4m3fnuz, jnp.float8_e5m2),
            *(jnp.float8_e5m2fnuz, jnp.float8_e8m0fnu, jnp.float4_e2m1fn),
        ),
    )
}


def parse_dtype(name: Any) -> np.dtype:
    """Return the dtype with this name.

    Raises:
      ValueError: if there is no such dtype, or it cannot be saved.
    """
    if not isinstance(name, str) or name not in _DTYPES:
        raise ValueError(
            f"dtype {name!s} cannot be saved (supported: {', '.join(_DTYPES)})."
        )
    return _DTYPES[name]


def encode(array: np.ndarray) -> tuple[str, bytes | bytearray]:
    """Encode with every codec and keep the smallest result.

    Returns:
      The name of the codec, and the payload.
    """
    if array.size == 0:
        return "raw", b""
    index, data = smallest(patterns(array), ALL)
    return tuple(CODECS)[index], data


def patterns(array: np.ndarray) -> np.ndarray:
    """Return bit patterns; a scalar becomes a vector, for codecs expect an axis."""
    return np.ascontiguousarray(array).view(_PATTERNS[array.dtype.itemsize])


def decode(
    name: str, data: Bytes, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    """Invert ``encode``, bit for bit.

    Raises:
      CorruptPayload: if the payload does not decode to this shape with this codec.
      Unsupported: if there is no such codec.
    """
    if name not in CODECS:
        raise Unsupported(
            f"codec {name!r} is unknown (known: {', '.join(CODECS)}); a newer jaxcompress "
            "may have written it"
        )
    if 0 in shape:
        if data:
            raise CorruptPayload("an empty array has a payload")
        return np.empty(shape, dtype)
    pattern = np.dtype(_PATTERNS[dtype.itemsize])
    bits = CODECS[name].decode(data, shape or (1,), pattern)
    if dtype == np.bool_ and bits.max() > 1:
        raise CorruptPayload("a bool must be 0 or 1")
    return bits.view(dtype).reshape(shape)
