# SPDX-License-Identifier: Apache-2.0
"""The manifest: the structure of the tree as JSON.

A node of the manifest is one of

    null                                      None
    {"Dense_0": node, ...}                    a dict, its keys sorted
    ["list", node, ...], ["tuple", node, ...]
    "float32[784,300]bytes"                   an array: dtype, shape, codec
    ["QArray", [array, ...], static, ...]     a compressed leaf and its fields, in the
                                              order of `_leaf_types.py`

Every array and every outermost compressed leaf is one tensor of the file. The tensor is
named by its path and holds the payloads of its arrays, each prefixed with its size. The
checksum is computed from the decoded bytes, so it covers the decoder, too.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..leaves import Leaf
from . import _codecs
from ._leaf_types import LEAF_TYPES, name_of
from ._payload import CorruptPayload, Reader, Unsupported, sized

_ARRAY = re.compile(r"(\w+)\[((?:[0-9]{1,18}(?:,[0-9]{1,18}){0,31})?)\](\w+)", re.ASCII)


class Tensor(NamedTuple):
    """Payload and checksum of one tensor in the file."""

    payload: bytes
    checksum: int


class Entry(NamedTuple):
    """Describe one decoded leaf of a file.

    Attributes:
      path: path of the leaf in the tree, such as ``"Dense_0/kernel"``.
      kind: ``"array"``, or the type name of the compressed leaf.
      leaf: the decoded leaf.
      codecs: codec names of its arrays, in order.
      nbytes: size of its payload in the file.
    """

    path: str
    kind: str
    leaf: Any
    codecs: tuple[str, ...]
    nbytes: int


def write(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Convert a tree to its JSON node and its tensors by name.

    Raises:
      TypeError: if a key is not a string, or a leaf is not an array.
      ValueError: for 64-bit arrays while JAX uses 32 bits.
    """
    tensors: dict[str, Tensor] = {}

    def visit(node: Any, path: str) -> Any:
        if node is None:
            return None
        if isinstance(node, Mapping):
            return {
                key: visit(node[key], _join(path, key)) for key in _keys(node, path)
            }
        if type(node) in (list, tuple):
            items = (visit(item, _join(path, str(i))) for i, item in enumerate(node))
            return [type(node).__name__, *items]
        leaf_node, payload, checksum = _write_leaf(node, path)
        tensors[_unused(path, tensors)] = Tensor(payload, checksum)
        return leaf_node

    return visit(tree, ""), tensors


def read(
    node: Any, tensors: Mapping[str, Tensor], max_bytes: int
) -> tuple[Any, list[Entry]]:
    """Invert ``write``: return the tree and one entry per leaf.

    Raises:
      CorruptPayload: if the file is inconsistent; the error names the tensor.
      Unsupported: if decoding needs too much memory or a newer version.
    """
    unread, budget = dict(tensors), _Budget(max_bytes)
    names: set[str] = set()
    entries: list[Entry] = []

    def visit(node: Any, path: str) -> Any:
        if node is None:
            return None
        if isinstance(node, dict):
            return {key: visit(item, _join(path, key)) for key, item in node.items()}
        if isinstance(node, list) and node and node[0] in ("list", "tuple"):
            items = [
                visit(item, _join(path, str(i))) for i, item in enumerate(node[1:])
            ]
            return items if node[0] == "list" else tuple(items)
        name = _unused(path, names)
        names.add(name)
        if name not in unread:
            raise CorruptPayload(f"tensor {name!r} is missing")
        try:
            entries.append(_read_leaf(node, path, unread.pop(name), budget))
        except ValueError as error:
            kind = Unsupported if isinstance(error, Unsupported) else CorruptPayload
            raise kind(f"tensor {name!r}: {error}") from error
        return entries[-1].leaf

    tree = visit(node, "")
    if unread:
        raise CorruptPayload(f"tensor {min(unread)!r} does not belong to a leaf")
    return tree, entries


class _Budget:
    """Count decoded bytes before they are allocated."""

    def __init__(self, max_bytes: int) -> None:
        self._max = self._left = max_bytes

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._left -= math.prod(shape) * dtype.itemsize
        # An empty array must not have impossibly large axes either.
        extent = math.prod(max(1, n) for n in shape)
        if self._left < 0 or extent > 1 << 48:
            raise Unsupported(
                f"decoding it needs more than max_bytes={self._max}; pass a larger "
                "max_bytes= if you trust the file"
            )


def _write_leaf(leaf: Any, path: str) -> tuple[Any, bytes, int]:
    payloads, checksum = [], 0

    def visit(node: Any) -> Any:
        nonlocal checksum
        if node is None:
            return None
        if isinstance(node, Leaf):
            name = name_of(node)
            children, static = LEAF_TYPES[name].open(node)
            return [name, [visit(child) for child in children], *static]
        array = _concrete(node)
        if node is not leaf:
            _check_width(array.dtype)
        codec, payload = _codecs.encode(array)
        payloads.append(sized(payload))
        checksum = zlib.crc32(array.tobytes(), checksum)
        return f"{array.dtype.name}[{','.join(map(str, array.shape))}]{codec}"

    try:
        leaf_node = visit(leaf)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"cannot save leaf {path!r}: {error}") from error
    return leaf_node, b"".join(payloads), checksum


def _read_leaf(leaf_node: Any, path: str, tensor: Tensor, budget: _Budget) -> Entry:
    reader, codecs, checksum = Reader(tensor.payload), [], 0

    def visit(node: Any) -> Any:
        nonlocal checksum
        match node:
            case None:
                return None
            case str() if match := _ARRAY.fullmatch(node):
                dtype = _codecs.parse_dtype(match[1])
                shape = tuple(int(n) for n in match[2].split(",") if n)
                budget.take(shape, dtype)
                array = _codecs.decode(match[3], reader.sized(), shape, dtype)
                if node is not leaf_node:
                    _check_width(dtype)
                codecs.append(match[3])
                checksum = zlib.crc32(array.tobytes(), checksum)
                return array
            case [str(name), list(children), *static] if name in LEAF_TYPES:
                return LEAF_TYPES[name].close([visit(c) for c in children], static)
        raise CorruptPayload(f"the manifest has an unknown node {str(node)[:80]!r}")

    leaf = visit(leaf_node)
    reader.finish()
    if checksum != tensor.checksum:
        raise CorruptPayload("the checksum is wrong")
    if isinstance(leaf, np.ndarray) and not _is_wide(leaf.dtype):
        leaf = jnp.asarray(leaf)
    kind = leaf_node[0] if isinstance(leaf_node, list) else "array"
    return Entry(path, kind, leaf, tuple(codecs), len(tensor.payload))


def _concrete(node: Any) -> np.ndarray:
    """Convert to NumPy; raise for arrays that could not be restored exactly."""
    if isinstance(node, Tracer):
        raise TypeError("it is traced; call save outside jit.")
    if not isinstance(node, jax.Array | np.ndarray | np.generic):
        raise TypeError(
            f"leaves must be arrays, got {type(node).__name__}. Convert numbers with "
            "jnp.asarray; remove functions and settings, for example with "
            "eqx.filter(tree, eqx.is_array)."
        )
    if jnp.issubdtype(node.dtype, jax.dtypes.prng_key):
        raise TypeError(
            "it is a typed PRNG key; save jax.random.key_data(key) instead."
        )
    _codecs.parse_dtype(node.dtype.name)  # raises if it cannot be stored
    array = np.asarray(node)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _check_width(dtype: np.dtype) -> None:
    """Raise for 64-bit parts of a compressed leaf if JAX would truncate them."""
    if _is_wide(dtype):
        raise Unsupported(
            f"{dtype} needs jax.config.update('jax_enable_x64', True); without it JAX "
            "arrays have at most 32 bits. Or cast it first, such as x.astype(np.int32)."
        )


def _is_wide(dtype: np.dtype) -> bool:
    """True if JAX would truncate such an array to 32 bits."""
    return jax.dtypes.canonicalize_dtype(dtype) != dtype


def _keys(node: Mapping[Any, Any], path: str) -> list[str]:
    for key in node:
        if not isinstance(key, str):
            raise TypeError(
                f"dict keys must be strings, the dict at {path!r} has the key {key!r}. "
                "Use str(key), or a list."
            )
        try:
            key.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"the key {key!r} at {path!r} is not valid text; rename it."
            ) from error
    return sorted(node)


def _join(path: str, key: str) -> str:
    return f"{path}/{key}" if path else key


def _unused(path: str, names: Any) -> str:
    """Make a path unique by appending quotes, as for ``{"a/b": x, "a": {"b": y}}``."""
    # safetensors reserves the name "__metadata__".
    while path in names or path == "__metadata__":
        path += "'"
    return path
