# SPDX-License-Identifier: Apache-2.0
"""Paths and selection: which leaves of a parameter tree a technique acts on."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import DictKey, GetAttrKey, KeyPath

Where = str | Callable[[str, Any], bool] | Any

# The names that Flax, Haiku and Equinox give to the arrays that layers multiply by,
# and the factors that `factorize` makes of them.
_WEIGHT_NAMES = ("kernel", "w", "weight", "left", "right")


def path_text(path: KeyPath) -> str:
    """A key path as text, the same for every framework: ``"Conv_0/kernel"``.

    An ``nnx.State`` wraps each array in a variable; its ``value`` is no part of the name.
    """
    keys = [
        key
        for before, key in zip((None, *path), path, strict=False)
        if not (key == GetAttrKey("value") and isinstance(before, DictKey))
    ]
    return jax.tree_util.keystr(tuple(keys), simple=True, separator="/")


def paths_and_leaves(tree: Any) -> tuple[list[str], list[Any], Any]:
    """Flatten a tree into path texts, leaves and the treedef."""
    pairs, treedef = jax.tree_util.tree_flatten_with_path(tree)
    return [path_text(path) for path, _ in pairs], [leaf for _, leaf in pairs], treedef


def map_with_path(fn: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """``jax.tree.map``, where ``fn`` gets the path text before the leaves."""
    return jax.tree_util.tree_map_with_path(
        lambda path, *leaves: fn(path_text(path), *leaves), tree, *rest
    )


def is_weight(path: str, leaf: Any) -> bool:
    """Whether a leaf is one that a layer multiplies its input by.

    By name, since rank says little (a bias is a matrix under ``nn.scan``): the last
    part of the path is ``kernel`` (Flax), ``w`` (Haiku), ``weight`` (Equinox) or a
    factor of one (``left``, ``right``), and the leaf is a floating-point array of rank
    2 or more. Embeddings, biases and the scales of norms are not.

    Args:
      path: path text such as ``"Dense_0/kernel"``.
      leaf: an array, traced or not.
    """
    return (
        path.rsplit("/", 1)[-1] in _WEIGHT_NAMES
        and jnp.ndim(leaf) >= 2
        and _is_floating(leaf)
    )


@dataclasses.dataclass(frozen=True)
class Selection:
    """The selected leaves of a tree, and the way back.

    Attributes:
      tree: the tree with None (which JAX takes for no leaf) at the unselected ones.
    """

    tree: Any
    _all: list[Any]
    _flags: list[bool]
    _treedef: Any

    def put(self, tree: Any) -> Any:
        """The whole tree again, with what stands in ``tree`` at the selected leaves.

        Args:
          tree: of the structure of ``self.tree``; a compressed leaf may stand where an
            array stood.
        """
        try:
            new = iter(jax.tree.structure(self.tree).flatten_up_to(tree))
        except ValueError as error:
            raise ValueError(
                "a compressor keeps the structure of the tree it is given, and this one "
                f"did not: {error}"
            ) from error
        merged = [
            next(new) if flag else old
            for flag, old in zip(self._flags, self._all, strict=True)
        ]
        return jax.tree.unflatten(self._treedef, merged)

    def like(self, tree: Any) -> Any:
        """Select the same leaves of another tree, where it has the same structure.

        What stands at a leaf may be a tree of its own (statistics of it), or None.
        """
        try:
            leaves = self._treedef.flatten_up_to(tree)
        except ValueError:
            return tree
        return jax.tree.unflatten(self._treedef, _keep(leaves, self._flags))


def select(tree: Any, where: Where) -> Selection:
    """Select leaves of a tree.

    Args:
      tree: any pytree of arrays (Linen dict, FrozenDict, ``nnx.State``, Equinox module,
        nested lists and tuples).
      where: a glob that must match the whole path (``"*/kernel"``; ``*`` also crosses
        ``/``), a function ``(path, leaf) -> bool``, or a tree of bools like ``tree``.

    Raises:
      ValueError: if nothing is selected (naming the closest paths), or if a bool tree
        has another structure.
      TypeError: if a selected leaf is not a floating-point array.
    """
    paths, leaves, treedef = paths_and_leaves(tree)
    flags = _flags(where, paths, leaves, treedef)
    if not any(flags):
        raise ValueError(_nothing_selected(where, paths))
    for flag, path, leaf in zip(flags, paths, leaves, strict=True):
        if flag and not _is_floating(leaf):
            raise TypeError(
                f"{path!r} was selected but has dtype {_dtype(leaf)}; only floating-point "
                "leaves can be compressed. Narrow `where`."
            )
    return Selection(
        tree=jax.tree.unflatten(treedef, _keep(leaves, flags)),
        _all=leaves,
        _flags=flags,
        _treedef=treedef,
    )


def matches(pattern: str, path: str) -> bool:
    """Whether a glob matches a whole path. ``*`` crosses ``/``; case counts."""
    return fnmatch.fnmatchcase(path, pattern)


def _dtype(leaf: Any) -> Any:
    # Typed PRNG keys have a dtype that `result_type` refuses.
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
    if callable(where):
        return [bool(where(p, x)) for p, x in zip(paths, leaves, strict=True)]
    flags, structure = jax.tree.flatten(where)
    if structure != treedef:
        raise ValueError(
            "`where` is neither a glob, nor a function, nor a tree of bools with the "
            f"structure of the parameters:\n  where:      {structure}\n"
            f"  parameters: {treedef}"
        )
    return [bool(flag) for flag in flags]


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
    """The three paths that are most like a glob that matched none."""

    def likeness(path: str) -> float:
        whole = difflib.SequenceMatcher(None, pattern.strip("*/"), path).ratio()
        tails = pattern.rsplit("/", 1)[-1], path.rsplit("/", 1)[-1]
        return whole + difflib.SequenceMatcher(None, *tails).ratio()

    return sorted(paths, key=likeness, reverse=True)[:3]
