# SPDX-License-Identifier: Apache-2.0
"""Initialize a student from a slice of its teacher: selected units of some axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._select import closest, map_with_path, paths_and_leaves

Plan = Mapping[tuple[str, int], Any]


def take_slices(params: Any, plan: Plan) -> Any:
    """Cut selected units out of the teacher, to initialize a smaller student.

    Use it for students cut by hand. After structured pruning, ``structured.slice_params``
    also slices optimizer and model state.

    The plan lists, per axis of a leaf, which entries stay. A unit has entries in several
    leaves (a column of its own kernel, its bias, the rows of the next kernel), so the plan
    names all of them. If the removed units are dead, the small network computes the same
    function as the teacher.

    Args:
      params: the teacher's parameters.
      plan: a ``structured.Plan``, or ``{(path, axis): keep}`` with bools ``(n,)`` along
        the axis, or integer indices to take entries in any order. Negative axes count
        from the end.

    Returns:
      A tree of the same structure with smaller leaves. Leaves that the plan does not
      name are copied.

    Raises:
      ValueError: if a path does not exist (lists close ones), an axis does not exist or
        is named twice, bools have the wrong length, or nothing would be left.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> teacher = {"in": jnp.ones((4, 3)), "bias": jnp.ones(3), "out": jnp.ones((3, 2))}
      >>> keep = jnp.array([True, False, True])
      >>> plan = {("in", 1): keep, ("bias", 0): keep, ("out", 0): keep}
      >>> student = jc.distill.take_slices(teacher, plan)
      >>> student["in"].shape, student["bias"].shape, student["out"].shape
      ((4, 2), (2,), (2, 2))
    """
    paths, leaves, _ = paths_and_leaves(params)
    shapes = {path: jnp.shape(leaf) for path, leaf in zip(paths, leaves, strict=True)}
    indices_by_path: dict[str, dict[int, np.ndarray]] = {}
    for (path, axis), keep in plan.items():
        if path not in shapes:
            near = (
                ", ".join(map(repr, closest(path, paths)))
                or "none, there are no leaves"
            )
            raise ValueError(
                f"plan must name existing leaves, got {path!r}; closest: {near}."
            )
        ndim = len(shapes[path])
        if not -ndim <= axis < ndim:
            raise ValueError(
                "plan must name existing axes, got axis "
                f"{axis} of {path!r} with shape {shapes[path]}."
            )
        axes_taken = indices_by_path.setdefault(path, {})
        if axis % ndim in axes_taken:
            raise ValueError(
                f"plan must name each axis once, got axis {axis} of {path!r} twice."
            )
        axes_taken[axis % ndim] = _to_indices(keep, shapes[path][axis], path, axis)

    def slice_leaf(path: str, leaf: Any) -> jax.Array:
        leaf = jnp.array(leaf, copy=True)
        for axis, indices in indices_by_path.get(path, {}).items():
            leaf = jnp.take(leaf, indices, axis=axis)
        return leaf

    return map_with_path(slice_leaf, params)


def _to_indices(keep: Any, size: int, path: str, axis: int) -> np.ndarray:
    keep = np.asarray(keep)
    name = f"axis {axis} of {path!r}, which has {size} entries"
    if keep.ndim != 1 or keep.dtype.kind not in "biu":
        raise ValueError(
            f"plan must have a vector of bools or integers for {name}, got {keep.dtype} "
            f"{keep.shape}."
        )
    if keep.dtype == bool:
        if len(keep) != size:
            raise ValueError(
                f"plan must have one bool per entry, got {len(keep)} bools for {name}."
            )
        keep = np.flatnonzero(keep)
    if not len(keep):
        raise ValueError(f"plan must keep at least one entry of {name}.")
    if (keep < -size).any() or (keep >= size).any():
        raise ValueError(f"plan must use indices in [-{size}, {size}) for {name}.")
    return keep % size
