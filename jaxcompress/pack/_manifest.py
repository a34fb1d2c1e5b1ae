# SPDX-License-Identifier: Apache-2.0
"""Trees as JSON: what is where in the file.

A node of the manifest is one of

    null                                      None
    {"Dense_0": node, ...}                    a dict, its keys sorted
    ["list", node, ...], ["tuple", node, ...]
    "float32[784,300]bytes"                   an array: dtype, shape, codec
    ["QArray", [array, ...], static, ...]     a compressed leaf and its fields, in the
                                              order of `_leaf_types.py`

Every array and every outermost compressed leaf is one tensor of the file. The tensor is
named by its path and holds the payloads of its arrays, each with its size in front. Its
checksum is that of the decoded bytes, so it covers the decoder too.
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
    """What one tensor of the file holds."""

    payload: bytes
    checksum: int


class Entry(NamedTuple):
    """One leaf of a file, decoded.

    Attributes:
      path: of the leaf in the tree, such as ``"Dense_0/kernel"``.
      kind: ``"array"``, or the name of the compressed leaf.
      leaf: the leaf.
      codecs: of each of its arrays, in order.
      nbytes: size of its payload in the file.
    """

    path: str
    kind: str
    leaf: Any
    codecs: tuple[str, ...]
    nbytes: int


def write(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Turn a tree into its JSON node and its tensors by name.

    Raises:
      TypeError: for a key that is no string, or a leaf that is no array.
      ValueError: for arrays of 64 bits while JAX works with 32.
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
        described, payload, checksum = _write_leaf(node, path)
        tensors[_unused(path, tensors)] = Tensor(payload, checksum)
        return described

    return visit(tree, ""), tensors


def read(
    node: Any, tensors: Mapping[str, Tensor], max_bytes: int
) -> tuple[Any, list[Entry]]:
    """Inverse of ``write``: the tree, and its leaves one by one.

    Raises:
      CorruptPayload: if anything does not fit; it names the tensor.
      Unsupported: if decoding takes too much memory, or what this version lacks.
    """
    left, budget = dict(tensors), _Budget(max_bytes)
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
        if name not in left:
            raise CorruptPayload(f"tensor {name!r} is missing")
        try:
            entries.append(_read_leaf(node, path, left.pop(name), budget))
        except ValueError as error:
            kind = Unsupported if isinstance(error, Unsupported) else CorruptPayload
            raise kind(f"tensor {name!r}: {error}") from error
        return entries[-1].leaf

    tree = visit(node, "")
    if left:
        raise CorruptPayload(f"tensor {min(left)!r} belongs to no leaf")
    return tree, entries


class _Budget:
    """Counts decoded bytes before they are allocated."""

    def __init__(self, max_bytes: int) -> None:
        self._max = self._left = max_bytes

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._left -= math.prod(shape) * dtype.itemsize
        # Even an empty array must not have axes that no array can have.
        spread = math.prod(max(1, n) for n in shape)
        if self._left < 0 or spread > 1 << 48:
            raise Unsupported(
                f"decoding it takes more than max_bytes={self._max}; pass a larger "
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
        codec, payload = _codecs.encode(array)
        payloads.append(sized(payload))
        checksum = zlib.crc32(array.tobytes(), checksum)
        return f"{array.dtype.name}[{','.join(map(str, array.shape))}]{codec}"

    try:
        described = visit(leaf)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"cannot save leaf {path!r}: {error}") from error
    return described, b"".join(payloads), checksum


def _read_leaf(described: Any, path: str, tensor: Tensor, budget: _Budget) -> Entry:
    reader, codecs, checksum = Reader(tensor.payload), [], 0

    def visit(node: Any) -> Any:
        nonlocal checksum
        match node:
            case None:
                return None
            case str() if found := _ARRAY.fullmatch(node):
                dtype = _codecs.parse_dtype(found[1])
                shape = tuple(int(n) for n in found[2].split(",") if n)
                budget.take(shape, dtype)
                array = _codecs.decode(found[3], reader.sized(), shape, dtype)
                _check_width(dtype)
                codecs.append(found[3])
                checksum = zlib.crc32(array.tobytes(), checksum)
                return array
            case [str(name), list(children), *static] if name in LEAF_TYPES:
                return LEAF_TYPES[name].close([visit(c) for c in children], static)
        raise CorruptPayload(f"the manifest says {str(node)[:80]!r}, which is unknown")

    leaf = visit(described)
    reader.finish()
    if checksum != tensor.checksum:
        raise CorruptPayload("the checksum is wrong")
    if isinstance(leaf, np.ndarray):
        leaf = jnp.asarray(leaf)
    kind = described[0] if isinstance(described, list) else "array"
    return Entry(path, kind, leaf, tuple(codecs), len(tensor.payload))


def _concrete(node: Any) -> np.ndarray:
    """The array as NumPy has it; refuses what could not come back the same."""
    if isinstance(node, Tracer):
        raise TypeError("it is traced; save outside jit.")
    if not isinstance(node, jax.Array | np.ndarray | np.generic):
        raise TypeError(
            f"{type(node).__name__} is no array. Make a number one with jnp.asarray; "
            "leave functions and settings out, as eqx.filter(tree, eqx.is_array) does."
        )
    if jnp.issubdtype(node.dtype, jax.dtypes.prng_key):
        raise TypeError(
            "it is a typed PRNG key; save jax.random.key_data(key) instead."
        )
    _check_width(_codecs.parse_dtype(node.dtype.name))
    array = np.asarray(node)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _check_width(dtype: np.dtype) -> None:
    """Refuse 64-bit arrays where JAX would cut them to 32."""
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise Unsupported(
            f"{dtype} needs jax.config.update('jax_enable_x64', True); without it JAX "
            "arrays have at most 32 bits."
        )


def _keys(node: Mapping[Any, Any], path: str) -> list[str]:
    for key in node:
        if not isinstance(key, str):
            raise TypeError(
                f"the dict at {path!r} has the key {key!r}; only strings can be saved as "
                "keys. Use str(key), or a list."
            )
        try:
            key.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"the key {key!r} at {path!r} is no valid text."
            ) from error
    return sorted(node)


def _join(path: str, key: str) -> str:
    return f"{path}/{key}" if path else key


def _unused(path: str, names: Any) -> str:
    """The path, told apart from equal ones (``{"a/b": x, "a": {"b": y}}``) by quotes."""
    # The second name is the one that safetensors keeps for itself.
    while path in names or path == "__metadata__":
        path += "'"
    return path
