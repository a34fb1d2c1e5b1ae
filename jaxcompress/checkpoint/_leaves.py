# SPDX-License-Identifier: Apache-2.0
"""The leaves of a state as orbax stores them: by name, as arrays, with checksums."""

from __future__ import annotations

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._compressor import PyTree
from .._select import paths_and_leaves
from ._errors import CheckpointError

CHECKSUMS = "jaxcompress.checksums"  # stored as one more leaf, so it is never missing
# Precedes the checksums, so there is something to save even in an empty state.
_FORMAT = 1
_UNCHECKED = -1  # spread over several processes, none of which sees all of it


def named(tree: PyTree) -> dict[str, Any]:
    """Return the leaves by name: numbers as arrays, and PRNG keys as raw data.

    A flat dict keeps the checkpoint independent of container classes. Empty arrays are
    left out, because orbax rejects them and they hold nothing to save.

    Raises:
      CheckpointError: if two leaves have the same name, or one is not an array or a number.
    """
    paths, leaves, _ = paths_and_leaves(tree)
    names = [name_of(path) for path in paths]
    if len({*names, CHECKSUMS}) != len(names) + 1:
        twice = sorted({n for n in names if names.count(n) > 1 or n == CHECKSUMS})
        raise CheckpointError(
            f"leaf paths must be unique, but several leaves share a path: {twice}."
        )
    arrays = {n: _as_array(n, leaf) for n, leaf in zip(names, leaves, strict=True)}
    return {name: x for name, x in arrays.items() if np.prod(x.shape)}


def name_of(path: str) -> str:
    # Use dots, because orbax treats a slash as a folder.
    return path.replace("/", ".") or "tree"


def checksums(arrays: dict[str, Any]) -> np.ndarray:
    """Return the format and the CRC-32 of every array, in the order of their names.

    A checksum covers name, dtype, shape and bits. int64 ``(1 + arrays,)``.
    """
    sums = [_checksum(name, arrays[name]) for name in sorted(arrays)]
    return np.array([_FORMAT, *sums], np.int64)


def damaged(arrays: dict[str, Any], saved: np.ndarray) -> list[str]:
    """Name the arrays whose checksum is not the saved one."""
    actual = checksums(arrays)
    # An array may be spread over processes in only one of the two runs.
    is_known = (actual != _UNCHECKED) & (saved != _UNCHECKED)
    names = [CHECKSUMS, *sorted(arrays)]
    differs = is_known & (actual != saved)
    return [name for name, bad in zip(names, differs, strict=True) if bad]


def abstract(leaf: Any) -> Any:
    """Return what orbax needs to know to restore an array like this one."""
    if isinstance(leaf, jax.Array) and not leaf.committed:
        # Restore as NumPy. Orbax would commit the array to a device, so it could not be
        # combined with arrays of a mesh, and jitted functions would recompile.
        return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
    if isinstance(leaf, jax.Array):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return leaf


def convert_like(like: Any, value: Any) -> Any:
    """Return a restored array as the kind of leaf that ``like`` is."""
    if _is_key(like):
        return jax.random.wrap_key_data(value, impl=jax.random.key_impl(like))
    if isinstance(like, jax.Array):
        return jnp.asarray(value)
    if isinstance(like, np.generic):
        return np.asarray(value)[()]
    if isinstance(like, bool | int | float | complex):
        return type(like)(np.asarray(value).item())
    return value


def signature(x: Any) -> str:
    return f"{np.dtype(x.dtype).name}{list(x.shape)}"


def _as_array(name: str, leaf: Any) -> Any:
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return leaf
    if isinstance(leaf, np.ndarray | np.generic | bool | int | float | complex):
        array = np.asarray(leaf)
        if jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool:
            return array
        text = f"a {type(leaf).__name__} of dtype {array.dtype}"
    else:
        text = f"a {type(leaf).__name__}"
    raise CheckpointError(
        f"every leaf must be an array or a number, but {name!r} is {text}. Keep it out of "
        "the state, or convert it to an array."
    )


def _checksum(name: str, x: Any) -> int:
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return _UNCHECKED
    array = np.ascontiguousarray(x)
    start = zlib.crc32(f"{name}|{array.dtype.name}|{np.shape(x)}|".encode())
    return zlib.crc32(array.reshape(-1).view(np.uint8).data, start)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    )
