# SPDX-License-Identifier: Apache-2.0
"""Pair layers: which student layer learns from, or starts as, which teacher layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._select import closest, map_with_path, paths_and_leaves

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def match(
    student_features: Any,
    teacher_features: Any,
    pairs: Mapping[str, str],
    loss: Loss | Mapping[str, Loss],
) -> dict[str, jax.Array]:
    """Apply a loss between named features of the student and of the teacher.

    Args:
      student_features: dict of arrays by name, or a tree of dicts and tuples, such as
        Flax's ``intermediates``, whose names are paths (``"block_0/__call__/0"``).
      teacher_features: the same for the teacher.
      pairs: ``{student name: teacher name}``.
      loss: function of student and teacher arrays, such as `hint`; or
        ``{student name: function}``, if pairs need different projectors.

    Returns:
      ``{student name: loss}``, with the shapes that the loss returns.

    Raises:
      ValueError: if there are no pairs, or a name does not exist (lists close names).

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> student = {"block_0": jnp.ones((2, 3)), "block_1": jnp.ones((2, 3))}
      >>> teacher = {f"block_{i}": i * jnp.ones((2, 3)) for i in range(4)}
      >>> pairs = {"block_0": "block_1", "block_1": "block_3"}
      >>> losses = jc.distill.match(student, teacher, pairs, jc.distill.hint)
      >>> {name: loss.tolist() for name, loss in losses.items()}
      {'block_0': [0.0, 0.0], 'block_1': [4.0, 4.0]}
    """
    if not pairs:
        raise ValueError("pairs must not be empty: name at least one pair of features.")
    students = _leaves_by_path(student_features)
    teachers = _leaves_by_path(teacher_features)
    losses = {name: loss for name in pairs} if callable(loss) else loss
    for name, teacher_name in pairs.items():
        _check_name(name, students, "the student's features")
        _check_name(teacher_name, teachers, "the teacher's features")
        _check_name(name, losses, "the losses")
    return {
        name: losses[name](students[name], teachers[teacher_name])
        for name, teacher_name in pairs.items()
    }


def from_teacher(student: Any, teacher: Any, layers: Mapping[str, str]) -> Any:
    """Initialize layers of the student with copies of layers of the teacher.

    Each pair of prefixes copies every leaf with the same path below both. The values
    are copies, so the student's parameters may be donated. If a path has two prefixes,
    the longer one wins.

    Args:
      student: parameters.
      teacher: parameters.
      layers: ``{student prefix: teacher prefix}``, made of whole path parts, such as
        ``{"layer_0": "layer_0", "layer_1": "layer_2", "head": "head"}``. The prefix
        ``""`` is the whole tree. For layers stacked along an axis, see `take_layers`.

    Returns:
      The student's parameters, with their structure, shapes and dtypes. Leaves without
      a counterpart are unchanged.

    Raises:
      ValueError: if a prefix matches no leaf (lists close ones), copies nothing, or
        leads to a leaf of another shape.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> teacher = {f"layer_{i}": {"kernel": i * jnp.ones((2, 2))} for i in range(4)}
      >>> student = {f"layer_{i}": {"kernel": jnp.zeros((2, 2))} for i in range(2)}
      >>> layers = {"layer_0": "layer_1", "layer_1": "layer_3"}
      >>> student = jc.distill.from_teacher(student, teacher, layers)
      >>> student["layer_1"]["kernel"].tolist()
      [[3.0, 3.0], [3.0, 3.0]]

    References:
      Sanh et al., DistilBERT, 2019, https://arxiv.org/abs/1910.01108
    """
    if not layers:
        raise ValueError(
            "layers must not be empty: name at least one pair of prefixes."
        )
    student_leaves, teacher_leaves = _leaves_by_path(student), _leaves_by_path(teacher)
    for prefix, teacher_prefix in layers.items():
        _check_prefix(prefix, student_leaves, "the student")
        _check_prefix(teacher_prefix, teacher_leaves, "the teacher")
    copied = set()

    def copy_leaf(path: str, leaf: Any) -> Any:
        prefix = max((p for p in layers if _has_prefix(path, p)), key=len, default=None)
        if prefix is None:
            return leaf
        rest = path[len(prefix) :].lstrip("/")
        source = "/".join(part for part in (layers[prefix], rest) if part)
        if source not in teacher_leaves:
            return leaf
        copied.add(prefix)
        if jnp.shape(leaf) != jnp.shape(teacher_leaves[source]):
            raise ValueError(
                "copied leaves must have equal shapes, got "
                f"{jnp.shape(leaf)} for {path!r} of the student and "
                f"{jnp.shape(teacher_leaves[source])} for {source!r} of the teacher. "
                "Remove the pair from `layers`."
            )
        return jnp.array(
            teacher_leaves[source], dtype=jnp.asarray(leaf).dtype, copy=True
        )

    started = map_with_path(copy_leaf, student)
    if idle := [prefix for prefix in layers if prefix not in copied]:
        prefix = idle[0]
        student_paths = [path for path in student_leaves if _has_prefix(path, prefix)]
        teacher_paths = [
            path for path in teacher_leaves if _has_prefix(path, layers[prefix])
        ]
        raise ValueError(
            f"every prefix must copy a leaf, but {prefix!r} of the student copied none "
            f"from {layers[prefix]!r} of the teacher. Either no paths below them are "
            "equal, or longer prefixes took them all. Student: "
            f"{_format_names(student_paths)}; teacher: {_format_names(teacher_paths)}."
        )
    return started


def take_layers(tree: Any, indices: Sequence[int], axis: int = 0) -> Any:
    """Keep selected layers of parameters that are stacked along an axis of every leaf.

    Use it on models built with ``nn.scan`` or a ``vmap`` of an initializer. Take layers
    of the teacher, then copy them into a stacked student with `from_teacher`.

    Args:
      tree: parameters with the layers along ``axis``: only the stacked part of the
        model.
      indices: layers to keep, in their new order, from 0; negative ones count from the
        end. An index may repeat.
      axis: the axis of the layers, in every leaf.

    Returns:
      A tree of the same structure, with ``len(indices)`` layers, as copies.

    Raises:
      ValueError: if nothing is taken, a leaf has no such axis, the leaves have
        different numbers of layers, or an index is out of range.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> teacher = {"kernel": jnp.arange(12.0).reshape(6, 2)}
      >>> jc.distill.take_layers(teacher, [0, -1])["kernel"].tolist()
      [[0.0, 1.0], [10.0, 11.0]]
    """
    leaves = _leaves_by_path(tree)
    if not leaves or len(indices) == 0:
        raise ValueError(
            "take_layers needs at least one index and one leaf, got "
            f"indices={indices} and {len(leaves)} leaves."
        )
    for path, leaf in leaves.items():
        if not -jnp.ndim(leaf) <= axis < jnp.ndim(leaf):
            raise ValueError(
                f"every leaf must have axis {axis}, got {path!r} of shape "
                f"{jnp.shape(leaf)}. Pass only the part of the tree with stacked layers."
            )
    first = next(iter(leaves))
    depth = jnp.shape(leaves[first])[axis]
    for path, leaf in leaves.items():
        if jnp.shape(leaf)[axis] != depth:
            raise ValueError(
                f"all leaves must have the same number of layers along axis {axis}, got "
                f"{depth} for {first!r} and {jnp.shape(leaf)[axis]} for {path!r}. Pass "
                "only the part of the tree with stacked layers."
            )
    if out_of_range := [i for i in indices if not -depth <= i < depth]:
        raise ValueError(
            f"indices must be in [-{depth}, {depth}), got {out_of_range[0]}."
        )
    layers = np.arange(depth)[list(indices)]
    return jax.tree.map(lambda leaf: jnp.take(leaf, layers, axis=axis), tree)


def _leaves_by_path(tree: Any) -> dict[str, Any]:
    paths, leaves, _ = paths_and_leaves(tree)
    return dict(zip(paths, leaves, strict=True))


def _has_prefix(path: str, prefix: str) -> bool:
    return prefix in ("", path) or path.startswith(prefix + "/")


def _format_names(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown + (", ..." if len(names) > 3 else "")


def _check_name(name: str, names: Mapping[str, Any], owner: str) -> None:
    if name not in names:
        near = _format_names(closest(name, list(names))) or "none, there are no names"
        raise ValueError(f"{name!r} must be a name in {owner}; closest: {near}.")


def _check_prefix(prefix: str, leaves: Mapping[str, Any], owner: str) -> None:
    if any(_has_prefix(path, prefix) for path in leaves):
        return
    # All prefixes that exist, to suggest close ones.
    parts = [path.split("/") for path in leaves]
    prefixes = {"/".join(p[:depth]) for p in parts for depth in range(1, len(p) + 1)}
    near = (
        _format_names(closest(prefix, sorted(prefixes))) or "none, there are no leaves"
    )
    raise ValueError(f"{prefix!r} must be a path prefix in {owner}; closest: {near}.")
