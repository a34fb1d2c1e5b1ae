# SPDX-License-Identifier: Apache-2.0
"""Leaf paths, and the selection of the leaves that a technique compresses."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import DictKey, GetAttrKey, KeyPath

from ._names import is_table_or_scale, is_weight_name

Where = str | Callable[[str, Any], bool] | Any


def path_text(path: KeyPath) -> str:
    """Convert a key path to text, such as ``"Conv_0/kernel"``, in every framework.

    An ``nnx.State`` wraps each array in a variable. Its ``value`` key, the last, is left
    out.
    """
    wrapped = path[-1:] == (GetAttrKey("value"),) and isinstance(path[-2:][0], DictKey)
    keys = path[:-1] if wrapped else path
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def paths_and_leaves(tree: Any) -> tuple[list[str], list[Any], Any]:
    """Flatten a tree into path texts, leaves and the treedef."""
    pairs, treedef = jax.tree_util.tree_flatten_with_path(tree)
    return [path_text(path) for path, _ in pairs], [leaf for _, leaf in pairs], treedef


def map_with_path(fn: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Map like ``jax.tree.map``, but call ``fn`` with the path text first."""
    return jax.tree_util.tree_map_with_path(
        lambda path, *leaves: fn(path_text(path), *leaves), tree, *rest
    )


def is_weight(path: str, leaf: Any) -> bool:
    """True for leaves that a layer multiplies its input by: the default ``where``.

    The decision is by name, because rank says little (a bias is a matrix under
    ``nn.scan``). The last part of the path must be ``kernel`` (Flax), ``w``, ``w_i``,
    ``w_h`` (Haiku), ``weight``, ``weight_ih``, ``weight_hh`` (Equinox, torch) or a factor
    (``left``, ``right``), and the leaf must be a floating-point array of rank 2 or more.
    Dots separate parts too (``"layers.0.query.weight"``). Embeddings, biases and norm
    scales do not count: a ``weight`` does not if its layer is named after one, or, in
    the module of a library that keeps its layers in the tree, is of such a class.

    To decide by what the function does instead, pass ``where=weight_axes(fn, params,
    *args)``, which selects what is multiplied.

    Args:
      path: path text, such as ``"Dense_0/kernel"``.
      leaf: array, traced or not.
    """
    ndim = getattr(leaf, "ndim", 0)  # a module holds functions too
    return ndim >= 2 and is_weight_name(path, ndim) and _is_floating(leaf)


@dataclasses.dataclass(frozen=True)
class Selection:
    """The selected leaves of a tree, with methods to put them back.

    Attributes:
      tree: the tree with None, which JAX does not count as a leaf, in place of
        unselected leaves.
    """

    tree: Any
    _all: list[Any]
    _flags: list[bool]
    _treedef: Any

    def put(self, tree: Any) -> Any:
        """Return the whole tree, with the selected leaves taken from ``tree``.

        Args:
          tree: tree with the structure of ``self.tree``. A compressed leaf may replace an
            array.

        Raises:
          ValueError: if the structure differs.
        """
        try:
            new = iter(jax.tree.structure(self.tree).flatten_up_to(tree))
        except ValueError as error:
            raise ValueError(
                "a compressor must keep the structure of the parameter tree, but this "
                f"one changed it: {error}"
            ) from error
        merged = [
            next(new) if flag else old
            for flag, old in zip(self._flags, self._all, strict=True)
        ]
        return jax.tree.unflatten(self._treedef, merged)

    def like(self, tree: Any) -> Any:
        """Select the same leaves of another tree.

        The node at a leaf's position may be a subtree (statistics of the leaf) or None.
        A tree with another structure comes back unchanged.
        """
        try:
            leaves = self._treedef.flatten_up_to(tree)
        except ValueError:
            return tree
        return jax.tree.unflatten(self._treedef, _keep(leaves, self._flags))


def select(tree: Any, where: Where) -> Selection:
    """Select leaves of a tree by glob, by function or by a tree of bools.

    Args:
      tree: any pytree of arrays (Linen dict, FrozenDict, ``nnx.State``, Equinox module,
        nested lists and tuples).
      where: a glob that must match the whole path (``"*/kernel"``; ``*`` also crosses
        ``/``), a function ``(path, leaf) -> bool``, a result of ``weight_axes``, or a
        tree of bools like ``tree``.

    Raises:
      ValueError: if nothing is selected (the message names the closest paths), or if the
        bool tree has another structure than ``tree``.
      TypeError: if a selected leaf is not a floating-point array.
    """
    paths, leaves, treedef = paths_and_leaves(tree)
    flags = _flags(where, paths, leaves, treedef)
    if not any(flags):
        raise ValueError(_nothing_selected(where, paths))
    for flag, path, leaf in zip(flags, paths, leaves, strict=True):
        if flag and not _is_floating(leaf):
            raise TypeError(
                f"{path!r} was selected but has dtype {_dtype(leaf)}. Only floating-point "
                "leaves can be compressed; narrow `where`."
            )
    return Selection(
        tree=jax.tree.unflatten(treedef, _keep(leaves, flags)),
        _all=leaves,
        _flags=flags,
        _treedef=treedef,
    )


def matches(pattern: str, path: str) -> bool:
    """True if a glob matches the whole path. ``*`` also matches ``/``; case counts.

    A bracket is the start of a class of characters, or itself: ``"blocks[0].*"`` matches
    ``"blocks0.weight"`` and ``"blocks[0].weight"``. Every path matches itself.
    """
    return fnmatch.fnmatchcase(path, pattern) or (
        "[" in pattern and fnmatch.fnmatchcase(path, pattern.replace("[", "[[]"))
    )


def _dtype(leaf: Any) -> Any:
    # `result_type` rejects the dtype of typed PRNG keys.
    return leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)


def _is_floating(leaf: Any) -> bool:
    return jnp.issubdtype(_dtype(leaf), jnp.floating)


def _keep(leaves: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    return [x if flag else None for x, flag in zip(leaves, flags, strict=True)]


def _flags(
    where: Where, paths: list[str], leaves: list[Any], treedef: Any
) -> list[bool]:
    if isinstance(where, str):
        return [matches(where, path) for path in paths]
    if where is is_weight:
        not_multiplied = _paths_in_tables_and_scales(treedef, leaves)
        return [
            path not in not_multiplied and is_weight(path, leaf)
            for path, leaf in zip(paths, leaves, strict=True)
        ]
    if callable(where):
        flags = [where(p, x) for p, x in zip(paths, leaves, strict=True)]
        return [_flag(flag, p) for flag, p in zip(flags, paths, strict=True)]
    flags, structure = jax.tree.flatten(where)
    if structure != treedef:
        raise ValueError(
            "`where` must be a glob, a function (path, leaf) -> bool, or a tree of bools "
            "with the structure of the parameters, got another structure:\n"
            f"  where:      {structure}\n"
            f"  parameters: {treedef}"
        )
    return [_flag(flag, path) for flag, path in zip(flags, paths, strict=True)]


def _flag(flag: Any, path: str) -> bool:
    if isinstance(flag, str) or jnp.ndim(flag):
        raise TypeError(
            f"`where` must give True or False for each leaf, for {path!r} it gives a "
            f"{type(flag).__name__}."
        )
    return bool(flag)


def _paths_in_tables_and_scales(treedef: Any, leaves: Sequence[Any]) -> set[str]:
    """Paths of the own arrays of embeddings and norms that are themselves in the tree."""
    nodes, _ = jax.tree_util.tree_flatten_with_path(
        jax.tree.unflatten(treedef, leaves),
        is_leaf=lambda x: is_table_or_scale(type(x)),
    )
    return {
        path_text((*outer, *inner))
        for outer, node in nodes
        if is_table_or_scale(type(node))
        for inner, _ in jax.tree_util.tree_flatten_with_path(node)[0]
        if "/" not in path_text(inner).removesuffix("/value")
    }


def _nothing_selected(where: Where, paths: list[str]) -> str:
    if not paths:
        return "there is nothing to select from: the tree has no leaves."
    if isinstance(where, str):
        near = ", ".join(repr(path) for path in closest(where, paths))
        return (
            f"{where!r} selected none of {len(paths)} leaves; closest: {near}. "
            "Globs match the whole path."
        )
    name = getattr(where, "__name__", "a tree of bools")
    shown = ", ".join(repr(path) for path in paths[:5])
    more = ", ..." if len(paths) > 5 else ""
    return (
        f"{name} selected none of {len(paths)} leaves ({shown}{more}). Pass `where=` with "
        "a glob such as '*/embedding', a function (path, leaf) -> bool, or a bool tree."
    )


def closest(pattern: str, paths: list[str]) -> list[str]:
    """Return the three paths most similar to a glob, for messages about no match."""

    def similarity(path: str) -> float:
        whole = difflib.SequenceMatcher(None, pattern.strip("*/"), path).ratio()
        tails = pattern.rsplit("/", 1)[-1], path.rsplit("/", 1)[-1]
        return whole + difflib.SequenceMatcher(None, *tails).ratio()

    return sorted(paths, key=similarity, reverse=True)[:3]
