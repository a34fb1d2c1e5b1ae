# SPDX-License-Identifier: Apache-2.0
"""Which indices of the axes of a program are kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ._axis import Axis, atoms, find

Mask = np.ndarray
"""bool [n]: true for the indices that are kept."""


class Conflict(ValueError):
    """A mask does not fit the axes it is meant for."""


class Kept:
    """Which indices of the atomic axes are kept."""

    def __init__(self) -> None:
        self._masks: dict[Axis, Mask] = {}

    def set(
        self, axis: Axis, mask: Mask, check: Callable[[Axis], None] | None = None
    ) -> None:
        """Set the mask of an axis, and with it those of its atomic axes.

        Args:
          axis: the axis.
          mask: bool [size].
          check: called with each atomic axis that loses indices; it may refuse.

        Raises:
          Conflict: if the mask is not a product (or sequence) of masks of its parts, or
            differs from what was set before.
        """
        axis = find(axis)
        if axis.kind == "sequence":
            start = 0
            for part in axis.parts:
                self.set(part, mask[start : start + part.size], check)
                start += part.size
        elif axis.kind == "product":
            grid = mask.reshape([part.size for part in axis.parts])
            everything = range(grid.ndim)
            for i, part in enumerate(axis.parts):
                others = tuple(j for j in everything if j != i)
                self.set(part, np.asarray(grid.any(others)), check)
            if not np.array_equal(self.mask(axis), mask):
                sizes = "x".join(str(part.size) for part in axis.parts)
                raise Conflict(
                    f"the program reshapes this axis to {sizes}, so a mask must keep "
                    "whole slices of that shape, and this one does not"
                )
        else:
            if check is not None and not mask.all():
                check(axis)
            before = self._masks.setdefault(axis, mask)
            if not np.array_equal(before, mask):
                raise Conflict("two masks of coupled axes differ")

    def mask(self, axis: Axis) -> Mask:
        """Return the mask of an axis: bool [size]."""
        axis = find(axis)
        if axis.kind is None:
            mask = self._masks.get(axis)
            return np.ones(axis.size, bool) if mask is None else mask
        parts = [self.mask(part) for part in axis.parts]
        if axis.kind == "sequence":
            return np.concatenate(parts)
        whole = parts[0]
        for part in parts[1:]:
            whole = np.logical_and.outer(whole, part).ravel()
        return whole

    def size(self, axis: Axis) -> int:
        """Return how many indices of an axis are kept."""
        axis = find(axis)
        if axis.kind is None:
            mask = self._masks.get(axis)
            return axis.size if mask is None else int(mask.sum())
        sizes = [self.size(part) for part in axis.parts]
        return sum(sizes) if axis.kind == "sequence" else int(np.prod(sizes))

    def is_whole(self, axis: Axis) -> bool:
        """True if every index of an axis is kept."""
        return not self._masks or all(
            atom not in self._masks or bool(self._masks[atom].all())
            for atom in atoms(axis)
        )
