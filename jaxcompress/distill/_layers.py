# SPDX-License-Identifier: Apache-2.0
"""Which layer of the student learns from, or starts as, which layer of the teacher."""

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
        Flax's ``intermediates``, where a name is a path (``"block_0/__call__/0"``).
      teacher_features: the same of the teacher.
      pairs: ``{student name: teacher name}``.
      loss: function of student and teacher arrays, such as `hint`; or
        ``{student name: function}``, where pairs need projectors of their own.

    Returns:
      ``{student name: loss}``, of the shapes that the loss gives.

    Raises:
      ValueError: if there are no pairs, or a name is missing (naming near ones).

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
        raise ValueError("`pairs` is empty: no features would be matched.")
    students = _by_path(student_features)
    teachers = _by_path(teacher_features)
    losses = {name: loss for name in pairs} if callable(loss) else loss
    for name, other in pairs.items():
        _known(name, students, "the student's features")
        _known(other, teachers, "the teacher's features")
        _known(name, losses, "the losses")
    return {
        name: losses[name](students[name], teachers[other])
        for name, other in pairs.items()
    }


def from_teacher(student: Any, teacher: Any, layers: Mapping[str, str]) -> Any:
    """Start layers of the student as layers of the teacher.

    Every leaf of the student below a prefix gets the values of the leaf of the teacher
    that has the same path below the other prefix. The values are copies, so that the
    student's may be donated. Of two prefixes that a path has, the longer counts.

    Args:
      student: parameters.
      teacher: parameters.
      layers: ``{student prefix: teacher prefix}``: whole parts of paths, such as
        ``{"layer_0": "layer_0", "layer_1": "layer_2", "head": "head"}``. The prefix
        ``""`` is the whole tree. For layers stacked along an axis, see `take_layers`.

    Returns:
      The student's parameters, in their structure, shapes and dtypes. Leaves without a
      counterpart are as they were.

    Raises:
      ValueError: if a prefix is of no leaf (naming near ones), copies nothing, or leads
        to a leaf of another shape.

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
        raise ValueError("`layers` is empty: nothing would be copied.")
    ours, theirs = _by_path(student), _by_path(teacher)
    for prefix, other in layers.items():
        _known_prefix(prefix, ours, "the student")
        _known_prefix(other, theirs, "the teacher")
    copied = set()

    def start(path: str, leaf: Any) -> Any:
        prefix = max((p for p in layers if _below(path, p)), key=len, default=None)
        if prefix is None:
            return leaf
        rest = path[len(prefix) :].lstrip("/")
        source = "/".join(part for part in (layers[prefix], rest) if part)
        if source not in theirs:
            return leaf
        copied.add(prefix)
        if jnp.shape(leaf) != jnp.shape(theirs[source]):
            raise ValueError(
                f"{path!r} of the student is {jnp.shape(leaf)} and {source!r} of the "
                f"teacher {jnp.shape(theirs[source])}: only layers of one shape can be "
                "copied. Leave it out of `layers`."
            )
        return jnp.array(theirs[source], dtype=jnp.asarray(leaf).dtype, copy=True)

    started = map_with_path(start, student)
    if idle := [prefix for prefix in layers if prefix not in copied]:
        prefix = idle[0]
        below = [path for path in ours if _below(path, prefix)]
        other = [path for path in theirs if _below(path, layers[prefix])]
        raise ValueError(
            f"{prefix!r} of the student got nothing from {layers[prefix]!r} of the "
            f"teacher: no paths agree below them, or longer prefixes took all. Student: "
            f"{_some(below)}; teacher: {_some(other)}."
        )
    return started


def take_layers(tree: Any, indices: Sequence[int], axis: int = 0) -> Any:
    """Keep some of the layers that are stacked along an axis of every leaf.

    ``nn.scan`` and ``vmap`` of an initializer stack layers so. With the layers of a
    teacher kept, `from_teacher` puts them into a student that is stacked, too.

    Args:
      tree: parameters with the layers along ``axis``: the stacked part of the model only.
      indices: layers to keep, in their new order, from 0; negative ones count from the
        end. One may be taken more than once.
      axis: the axis of the layers, of every leaf.

    Returns:
      A tree of the same structure, with ``len(indices)`` layers, as copies.

    Raises:
      ValueError: if nothing would be taken, a leaf has no such axis, the leaves have
        different numbers of layers, or an index is out of range.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> teacher = {"kernel": jnp.arange(12.0).reshape(6, 2)}
      >>> jc.distill.take_layers(teacher, [0, -1])["kernel"].tolist()
      [[0.0, 1.0], [10.0, 11.0]]
    """
    leaves = _by_path(tree)
    if not leaves or len(indices) == 0:
        raise ValueError(f"indices={indices} of {len(leaves)} leaves take nothing.")
    for path, leaf in leaves.items():
        if not -jnp.ndim(leaf) <= axis < jnp.ndim(leaf):
            raise ValueError(
                f"{path!r} {jnp.shape(leaf)} has no axis {axis}: pass only the part of "
                "the tree whose layers are stacked."
            )
    first = next(iter(leaves))
    depth = jnp.shape(leaves[first])[axis]
    for path, leaf in leaves.items():
        if jnp.shape(leaf)[axis] != depth:
            raise ValueError(
                f"{first!r} has {depth} layers along axis {axis} and {path!r} "
                f"{jnp.shape(leaf)[axis]}: pass only the part of the tree whose layers "
                "are stacked."
            )
    if wrong := [i for i in indices if not -depth <= i < depth]:
        raise ValueError(f"index {wrong[0]} is none of {depth} layers.")
    taken = np.arange(depth)[list(indices)]
    return jax.tree.map(lambda leaf: jnp.take(leaf, taken, axis=axis), tree)


def _by_path(tree: Any) -> dict[str, Any]:
    paths, leaves, _ = paths_and_leaves(tree)
    return dict(zip(paths, leaves, strict=True))


def _below(path: str, prefix: str) -> bool:
    return prefix in ("", path) or path.startswith(prefix + "/")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown + (", ..." if len(names) > 3 else "")


def _known(name: str, among: Mapping[str, Any], of: str) -> None:
    if name not in among:
        near = _some(closest(name, list(among))) or "none, there are no names"
        raise ValueError(f"{name!r} is not among {of}; closest: {near}.")


def _known_prefix(prefix: str, leaves: Mapping[str, Any], of: str) -> None:
    if any(_below(path, prefix) for path in leaves):
        return
    # The parts of paths down to every depth: what a prefix could have been.
    parts = [path.split("/") for path in leaves]
    prefixes = {"/".join(p[:depth]) for p in parts for depth in range(1, len(p) + 1)}
    near = _some(closest(prefix, sorted(prefixes))) or "none, there are no leaves"
    raise ValueError(f"{prefix!r} is a prefix of no leaf of {of}; closest: {near}.")
