# SPDX-License-Identifier: Apache-2.0
"""The structure of a tree as JSON, which is what a manifest holds.

A node of the manifest is one of

    null                                      None
    {"Dense_0": node, ...}                    a dict, its keys sorted
    ["list", node, ...], ["tuple", node, ...]
    "float32[784,300]bytes"                   an array: dtype, shape, codec
    ["QArray", [array, ...], static, ...]     a compressed leaf and its fields, in the
                                              order of `_leaf_types.py`

Every array and every outermost compressed leaf is one tensor of the file, named by its
path.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _codecs
from ._payload import CorruptPayload, Unsupported

_ARRAY = re.compile(r"(\w+)\[((?:[0-9]{1,18}(?:,[0-9]{1,18}){0,31})?)\](\w+)", re.ASCII)


class Node(NamedTuple):
    """A leaf of the tree: its path, the name of its tensor, and its node."""

    path: str
    name: str
    leaf: Any


class ArrayNode(NamedTuple):
    """What a manifest says of one array."""

    dtype: np.dtype
    shape: tuple[int, ...]
    codec: str


def parse_array(node: Any) -> ArrayNode | None:
    """Return what a node says of an array; None if it is no array.

    Raises:
      ValueError: if the dtype is unknown.
    """
    if not isinstance(node, str) or not (match := _ARRAY.fullmatch(node)):
        return None
    shape = tuple(int(n) for n in match[2].split(",") if n)
    return ArrayNode(_codecs.parse_dtype(match[1]), shape, match[3])


def array_text(array: np.ndarray, codec: str) -> str:
    """Invert ``parse_array``."""
    return f"{array.dtype.name}[{','.join(map(str, array.shape))}]{codec}"


def leaves(tree_node: Any) -> list[Node]:
    """Return the leaves of a manifest, in the order of the tree."""
    names: set[str] = set()
    found: list[Node] = []

    def visit(node: Any, path: str) -> None:
        if isinstance(node, dict):
            for key, item in node.items():
                visit(item, join(path, key))
        elif _is_sequence(node):
            for i, item in enumerate(node[1:]):
                visit(item, join(path, str(i)))
        elif node is not None:
            names.add(name := unused(path, names))
            found.append(Node(path, name, node))

    visit(tree_node, "")
    return found


def rebuild(tree_node: Any, values: Iterator[Any]) -> Any:
    """Return the tree, with the next value in place of each of its ``leaves``."""
    if tree_node is None:
        return None
    if isinstance(tree_node, dict):
        return {key: rebuild(item, values) for key, item in tree_node.items()}
    if _is_sequence(tree_node):
        items = [rebuild(item, values) for item in tree_node[1:]]
        return items if tree_node[0] == "list" else tuple(items)
    return next(values)


def arrays(leaf_node: Any) -> Iterator[ArrayNode]:
    """Yield the arrays of a leaf, in order.

    Raises:
      ValueError: if a dtype is unknown.
    """
    if (array := parse_array(leaf_node)) is not None:
        yield array
    elif isinstance(leaf_node, list) and len(leaf_node) > 1:
        children = leaf_node[1] if isinstance(leaf_node[1], list) else []
        for child in children:
            yield from arrays(child)


def sparse_values(leaf_node: Any) -> set[int]:
    """Return which of the ``arrays`` are values of a sparse array; their masks follow."""
    found: set[int] = set()
    count = 0

    def visit(node: Any) -> None:
        nonlocal count
        match node:
            case ["SparseArray", [str(), str()]]:
                found.add(count)
                count += 2
            case str():
                count += 1
            case [_, list(children), *_]:
                for child in children:
                    visit(child)

    visit(leaf_node)
    return found


def check_claims(nodes: Sequence[Node], max_bytes: int) -> None:
    """Refuse leaves that are too large together, before any of them is allocated.

    Raises:
      Unsupported: if they are; the error names the first tensor that no longer fits.
    """
    left = max_bytes
    for node in nodes:
        try:
            claims = list(arrays(node.leaf))
        except ValueError:
            continue  # refused when it is read, by a message that says why
        for array in claims:
            left -= math.prod(array.shape) * array.dtype.itemsize
            # An empty array must not have impossibly large axes either.
            extent = math.prod(max(1, n) for n in array.shape)
            if left < 0 or extent > 1 << 48:
                raise Unsupported(
                    f"tensor {node.name!r}: decoding it needs more than "
                    f"max_bytes={max_bytes}; pass a larger max_bytes= if you trust "
                    "the file"
                )


def join(path: str, key: str) -> str:
    """Append a key to a path."""
    return f"{path}/{key}" if path else key


def unused(path: str, names: Container[str]) -> str:
    """Make a path unique by appending quotes, as for ``{"a/b": x, "a": {"b": y}}``."""
    # safetensors reserves the name "__metadata__".
    while path in names or path == "__metadata__":
        path += "'"
    return path


def unknown(node: Any) -> CorruptPayload:
    """Return the error for a node that is nothing known."""
    return CorruptPayload(f"the manifest has an unknown node {str(node)[:80]!r}")


def _is_sequence(node: Any) -> bool:
    return isinstance(node, list) and bool(node) and node[0] in ("list", "tuple")
