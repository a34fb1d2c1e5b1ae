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
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..leaves import Leaf
from . import _codecs
from ._check import check
from ._leaf_types import LEAF_TYPES, name_of
from ._payload import Bytes, CorruptPayload, Reader, Unsupported, varint

_ARRAY = re.compile(r"(\w+)\[((?:[0-9]{1,18}(?:,[0-9]{1,18}){0,31})?)\](\w+)", re.ASCII)


class Tensor(NamedTuple):
    """Payload and checksum of one tensor in the file."""

    payload: Bytes
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


Put = Callable[[str, list[bytes | bytearray]], None]


def write(tree: Any, put: Put) -> tuple[Any, dict[str, int]]:
    """Convert a tree to its JSON node and the checksums of its tensors by name.

    Args:
      tree: the tree.
      put: takes the name and the payload of each tensor, in parts, when it is coded.

    Raises:
      TypeError: if a key is not a string, or a leaf is not an array.
      ValueError: for 64-bit arrays while JAX uses 32 bits.
    """
    checksums: dict[str, int] = {}

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
        name = _unused(path, checksums)
        checksums[name] = checksum
        put(name, payload)
        payload.clear()  # the closures of `_write_leaf` outlive it, until collected
        return leaf_node

    return visit(tree, ""), checksums


def read(
    node: Any, tensors: Mapping[str, Tensor], max_bytes: int
) -> tuple[Any, list[Entry]]:
    """Invert ``write``: return the tree and one entry per leaf.

    Raises:
      CorruptPayload: if the file is inconsistent; the error names the tensor.
      Unsupported: if decoding needs too much memory or a newer version.
    """
    _check_claims(node, max_bytes)
    unread = dict(tensors)
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
            entries.append(_read_leaf(node, path, unread.pop(name)))
        except ValueError as error:
            kind = Unsupported if isinstance(error, Unsupported) else CorruptPayload
            raise kind(f"tensor {name!r}: {error}") from error
        return entries[-1].leaf

    tree = visit(node, "")
    if unread:
        raise CorruptPayload(f"tensor {min(unread)!r} does not belong to a leaf")
    return tree, entries


def _check_claims(node: Any, max_bytes: int) -> None:
    """Refuse a file whose arrays are too large, before any of them is allocated."""
    left, names = max_bytes, set()

    def visit(node: Any, path: str) -> None:
        nonlocal left
        if isinstance(node, dict):
            for key, item in node.items():
                visit(item, _join(path, key))
        elif isinstance(node, list) and node and node[0] in ("list", "tuple"):
            for i, item in enumerate(node[1:]):
                visit(item, _join(path, str(i)))
        elif node is not None:
            names.add(name := _unused(path, names))
            for shape, dtype in _claims(node):
                left -= math.prod(shape) * dtype.itemsize
                # An empty array must not have impossibly large axes either.
                extent = math.prod(max(1, n) for n in shape)
                if left < 0 or extent > 1 << 48:
                    raise Unsupported(
                        f"tensor {name!r}: decoding it needs more than "
                        f"max_bytes={max_bytes}; pass a larger max_bytes= if you trust "
                        "the file"
                    )

    visit(node, "")


def _claims(leaf_node: Any) -> Iterator[tuple[tuple[int, ...], np.dtype]]:
    """Yield the shapes and dtypes in a leaf; what is malformed is refused later."""
    match leaf_node:
        case str() if match := _ARRAY.fullmatch(leaf_node):
            try:
                yield _parse_shape(match[2]), _codecs.parse_dtype(match[1])
            except ValueError:
                return
        case [str(), list(children), *_]:
            for child in children:
                yield from _claims(child)


def _parse_shape(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(",") if n)


def _write_leaf(leaf: Any, path: str) -> tuple[Any, list[bytes | bytearray], int]:
    payload: list[bytes | bytearray] = []
    checksum = 0

    def visit(node: Any) -> Any:
        nonlocal checksum
        if node is None:
            return None
        if isinstance(node, Leaf):
            name = name_of(node)
            children, static = LEAF_TYPES[name].open(node)
            check(node)
            return [name, [visit(child) for child in children], *static]
        array = _concrete(node)
        if node is not leaf:
            _check_width(array.dtype)
        codec, data = _codecs.encode(array)
        payload.extend((varint(len(data)), data))
        checksum = _crc32(array, checksum)
        return f"{array.dtype.name}[{','.join(map(str, array.shape))}]{codec}"

    try:
        leaf_node = visit(leaf)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"cannot save leaf {path!r}: {error}") from error
    return leaf_node, payload, checksum


def _read_leaf(leaf_node: Any, path: str, tensor: Tensor) -> Entry:
    reader, codecs, checksum = Reader(tensor.payload), [], 0

    def visit(node: Any) -> Any:
        nonlocal checksum
        match node:
            case None:
                return None
            case str() if match := _ARRAY.fullmatch(node):
                dtype = _codecs.parse_dtype(match[1])
                shape = _parse_shape(match[2])
                array = _codecs.decode(match[3], reader.sized(), shape, dtype)
                if node is not leaf_node:
                    _check_width(dtype)
                codecs.append(match[3])
                checksum = _crc32(array, checksum)
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


def _crc32(array: np.ndarray, start: int) -> int:
    """Continue a checksum with the bytes of an array, in row-major order."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return zlib.crc32(flat.view(np.uint8).data, start) if flat.size else start


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
    if isinstance(node, jax.Array):
        _check_reach(node)
    array = np.asarray(node)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _check_reach(array: jax.Array) -> None:
    """Raise if parts of an array are only on devices of other processes."""
    if not (array.is_fully_addressable or array.is_fully_replicated):
        raise ValueError(
            f"parts of its {array.sharding} are on devices of other processes. Gather "
            "the tree first, in every process: jax.experimental.multihost_utils."
            "process_allgather(tree, tiled=True); then save it in one of them."
        )


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
