# SPDX-License-Identifier: Apache-2.0
"""A student that starts as a part of its teacher: some units of some axes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._select import closest, map_with_path, paths_and_leaves

Plan = Mapping[tuple[str, int], Any]


def take_slices(params: Any, plan: Plan) -> Any:
    """Keep some units of the teacher: the student of a structured plan, ready to train.

    A plan says for an axis of a leaf which entries stay. A unit has an entry in several
    leaves (a column of its own kernel, its bias, the rows of the next kernel), so the
    plan names all of them. Where the units that go are dead, the small network is the
    teacher.

    Args:
      params: the teacher's parameters.
      plan: ``{(path, axis): keep}`` with bools ``(n,)`` of the axis, or integers, to take
        entries in an order of your own. Negative axes count from the end.

    Returns:
      A tree of the same structure with smaller leaves; those that the plan does not name
      are copies.

    Raises:
      ValueError: if a path is not there (naming near ones), an axis does not exist, is
        named twice, its bools do not fit, or nothing would be left.

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
    taken: dict[str, dict[int, np.ndarray]] = {}
    for (path, axis), keep in plan.items():
        if path not in shapes:
            near = (
                ", ".join(map(repr, closest(path, paths)))
                or "none, there are no leaves"
            )
            raise ValueError(f"{path!r} of the plan is no leaf; closest: {near}.")
        ndim = len(shapes[path])
        if not -ndim <= axis < ndim:
            raise ValueError(f"{path!r} {shapes[path]} has no axis {axis}.")
        of_leaf = taken.setdefault(path, {})
        if axis % ndim in of_leaf:
            raise ValueError(f"the plan names axis {axis} of {path!r} twice.")
        of_leaf[axis % ndim] = _indices(keep, shapes[path][axis], path, axis)

    def sliced(path: str, leaf: Any) -> jax.Array:
        leaf = jnp.array(leaf, copy=True)
        for axis, indices in taken.get(path, {}).items():
            leaf = jnp.take(leaf, indices, axis=axis)
        return leaf

    return map_with_path(sliced, params)


def _indices(keep: Any, size: int, path: str, axis: int) -> np.ndarray:
    keep = np.asarray(keep)
    where = f"axis {axis} of {path!r}, which has {size} entries"
    if keep.ndim != 1 or keep.dtype.kind not in "biu":
        raise ValueError(
            f"the plan of {where} is {keep.dtype} {keep.shape}, no vector."
        )
    if keep.dtype == bool:
        if len(keep) != size:
            raise ValueError(f"the plan has {len(keep)} bools for {where}.")
        keep = np.flatnonzero(keep)
    if not len(keep):
        raise ValueError(f"the plan leaves nothing of {where}.")
    if (keep < -size).any() or (keep >= size).any():
        raise ValueError(f"the plan takes entries that are not there from {where}.")
    return keep % size
