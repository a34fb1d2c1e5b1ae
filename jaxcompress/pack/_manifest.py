# SPDX-License-Identifier: Apache-2.0
"""Trees written as a manifest and payloads, and read from them.

The tensor of a leaf holds the payloads of its arrays, each prefixed with its size. The
checksum is computed from the decoded bytes, so it covers the decoder, too.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..leaves import Leaf
from . import _codecs, _nodes
from ._check import check
from ._leaf_types import LEAF_TYPES, name_of
from ._nodes import Node
from ._payload import Bytes, CorruptPayload, Reader, Unsupported, varint


class Tensor(NamedTuple):
    """A tensor of a file: how its payload is read, its size, and its checksum."""

    read: Callable[[], Bytes]
    size: int
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
                key: visit(node[key], _nodes.join(path, key))
                for key in _keys(node, path)
            }
        if type(node) in (list, tuple):
            items = (
                visit(item, _nodes.join(path, str(i))) for i, item in enumerate(node)
            )
            return [type(node).__name__, *items]
        leaf_node, payload, checksum = _write_leaf(node, path)
        name = _nodes.unused(path, checksums)
        checksums[name] = checksum
        put(name, payload)
        payload.clear()  # the closures of `_write_leaf` outlive it, until collected
        return leaf_node

    return visit(tree, ""), checksums


def read(
    tree_node: Any, tensors: Mapping[str, Tensor], max_bytes: int
) -> tuple[Any, list[Entry]]:
    """Invert ``write``: return the tree and one entry per leaf.

    Raises:
      CorruptPayload: if the file is inconsistent; the error names the tensor.
      Unsupported: if decoding needs too much memory or a newer version.
    """
    nodes = _nodes.leaves(tree_node)
    _nodes.check_claims(nodes, max_bytes)
    check_names(nodes, tensors)
    entries = [read_leaf(node, tensors) for node in nodes]
    return _nodes.rebuild(tree_node, (entry.leaf for entry in entries)), entries


def check_names(nodes: Sequence[Node], tensors: Mapping[str, Tensor]) -> None:
    """Raise ``CorruptPayload`` unless leaves and tensors have the same names."""
    names = {node.name for node in nodes}
    if missing := names - tensors.keys():
        raise CorruptPayload(f"tensor {min(missing)!r} is missing")
    if extra := tensors.keys() - names:
        raise CorruptPayload(f"tensor {min(extra)!r} does not belong to a leaf")


def read_leaf(node: Node, tensors: Mapping[str, Tensor]) -> Entry:
    """Decode a leaf; the errors of ``read`` name its tensor."""
    try:
        return _read_leaf(node.leaf, node.path, tensors[node.name])
    except ValueError as error:
        kind = Unsupported if isinstance(error, Unsupported) else CorruptPayload
        raise kind(f"tensor {node.name!r}: {error}") from error


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
        return _nodes.array_text(array, codec)

    try:
        leaf_node = visit(leaf)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"cannot save leaf {path!r}: {error}") from error
    return leaf_node, payload, checksum


def _read_leaf(leaf_node: Any, path: str, tensor: Tensor) -> Entry:
    decoding = _Decoding(Reader(tensor.read()))
    leaf = decoding.visit(leaf_node, inside=False)
    decoding.reader.finish()
    if decoding.checksum != tensor.checksum:
        raise CorruptPayload("the checksum is wrong")
    if isinstance(leaf, np.ndarray) and not _is_wide(leaf.dtype):
        leaf = jnp.asarray(leaf)
    kind = leaf_node[0] if isinstance(leaf_node, list) else "array"
    return Entry(path, kind, leaf, tuple(decoding.codecs), tensor.size)


class _Decoding:
    """The arrays of a leaf, read one after another."""

    # A class, because a closure that calls itself would keep the payload until collected.
    def __init__(self, reader: Reader) -> None:
        self.reader, self.codecs, self.checksum = reader, [], 0

    def visit(self, node: Any, *, inside: bool) -> Any:
        if node is None:
            return None
        if (found := _nodes.parse_array(node)) is not None:
            array = _codecs.decode(
                found.codec, self.reader.sized(), found.shape, found.dtype
            )
            if inside:
                _check_width(found.dtype)
            self.codecs.append(found.codec)
            self.checksum = _crc32(array, self.checksum)
            return array
        match node:
            case [str(name), list(children), *static] if name in LEAF_TYPES:
                parts = [self.visit(child, inside=True) for child in children]
                return LEAF_TYPES[name].close(parts, static)
        raise _nodes.unknown(node)


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
