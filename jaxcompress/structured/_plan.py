# SPDX-License-Identifier: Apache-2.0
"""Plans: which indices of which axes are kept, as plain data."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .._arguments import check_kind
from .._atomic import write_bytes
from .._select import paths_and_leaves
from ..program.axes import Mask

_FORMAT = "jaxcompress plan 1"


class PlanError(ValueError):
    """A plan is damaged, or does not fit the parameters or the function."""


class Plan(Mapping[tuple[str, int], Mask]):
    """Which channels to keep: ``{(leaf, axis): bool [n]}``, as plain data.

    A plan fits every function of the same parameters: in training and in evaluation mode,
    at any batch size. Axes that lose nothing are not listed.

    Args:
      masks: true for the indices that are kept, by leaf path and axis.
      shapes: shape of every leaf of the unpruned parameters.
      removed: leaves that go altogether, with their block. They are kept in the tree as
        arrays of size 0.

    Raises:
      PlanError: if a mask does not have the length of its axis, or keeps nothing.

    Example:
      >>> import numpy as np, jaxcompress as jc
      >>> keep = np.array([True, False, True])
      >>> plan = jc.structured.Plan({("kernel", 1): keep}, {"kernel": (4, 3)})
      >>> plan.widths
      {'kernel': (4, 2)}
      >>> jc.structured.Plan.from_json(plan.to_json()) == plan
      True
    """

    def __init__(
        self,
        masks: Mapping[tuple[str, int], Any],
        shapes: Mapping[str, tuple[int, ...]],
        removed: Iterable[str] = (),
    ):
        self.shapes = {path: tuple(shape) for path, shape in shapes.items()}
        self.removed = frozenset(removed)
        unknown = sorted(self.removed - set(self.shapes))
        if unknown:
            raise PlanError(f"a plan removes {unknown[0]!r}, which is unknown")
        self._masks: dict[tuple[str, int], Mask] = {}
        for (path, axis), values in masks.items():
            mask = np.asarray(values)
            shape = self.shapes.get(path)
            if shape is None or not 0 <= axis < len(shape):
                raise PlanError(
                    f"a plan names axis {axis} of {path!r}, which is unknown"
                )
            if mask.dtype != bool or mask.shape != (shape[axis],):
                raise PlanError(
                    f"the mask of axis {axis} of {path!r} must be bool "
                    f"[{shape[axis]}], got {mask.dtype} {list(mask.shape)}"
                )
            if mask.size and not mask.any():
                raise PlanError(
                    f"a plan must keep at least one index of axis {axis} of {path!r}"
                )
            if not mask.all():
                self._masks[path, axis] = mask

    def __getitem__(self, key: tuple[str, int]) -> Mask:
        return self._masks[key]

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Plan)
            and self.shapes == other.shapes
            and self.removed == other.removed
            and self._masks.keys() == other._masks.keys()
            and all(np.array_equal(m, other[key]) for key, m in self._masks.items())
        )

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        lines = [
            f"  {path}: {self.shapes[path]} -> {size}"
            for path, size in self.widths.items()
        ]
        return "\n".join(["Plan(", *lines, ")"])

    @property
    def widths(self) -> dict[str, tuple[int, ...]]:
        """New shape of every leaf that loses indices."""
        return {
            path: self.shape(path)
            for path, shape in self.shapes.items()
            if self.shape(path) != shape
        }

    def __or__(self, other: Plan) -> Plan:
        """Do both: remove what either plan removes.

        Raises:
          PlanError: if they are plans for other parameters.
        """
        if not isinstance(other, Plan):
            return NotImplemented
        if self.shapes != other.shapes:
            raise PlanError("the plans are for parameters of different shapes")
        masks = dict(self._masks)
        for key, mask in other.items():
            masks[key] = masks[key] & mask if key in masks else mask
        return Plan(masks, self.shapes, self.removed | other.removed)

    def shape(self, path: str) -> tuple[int, ...]:
        """Return the new shape of a leaf."""
        if path in self.removed:
            return (0,) * len(self.shapes[path])
        return tuple(
            int(self._masks[path, i].sum()) if (path, i) in self._masks else n
            for i, n in enumerate(self.shapes[path])
        )

    @property
    def parameters(self) -> int:
        """Number of parameters that are left."""
        return sum(int(np.prod(self.shape(path))) for path in self.shapes)

    def to_json(self) -> str:
        """Return the plan as JSON text: the kept indices of each axis."""
        kept = [
            [path, axis, np.flatnonzero(mask).tolist()]
            for (path, axis), mask in self._masks.items()
        ]
        shapes = {path: list(shape) for path, shape in self.shapes.items()}
        removed = sorted(self.removed)
        body = {"format": _FORMAT, "shapes": shapes, "kept": kept, "removed": removed}
        return json.dumps({**body, "crc32": _checksum(body)})

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan from JSON text.

        Raises:
          PlanError: if the text is not a whole, undamaged plan.
        """
        try:
            body = json.loads(text)
            checksum = body.pop("crc32")
            if body["format"] != _FORMAT:
                raise PlanError(f"not a plan of this version: {body['format']!r}")
            if checksum != _checksum(body):
                raise PlanError("the plan is damaged: its checksum does not fit")
            shapes = {path: tuple(shape) for path, shape in body["shapes"].items()}
            masks = {}
            for path, axis, kept in body["kept"]:
                masks[path, axis] = np.isin(np.arange(shapes[path][axis]), kept)
            removed = list(body["removed"])
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, PlanError):
                raise
            raise PlanError(f"not a plan of jaxcompress: {error!r}") from error
        return cls(masks, shapes, removed)

    def save(self, path: str | Path) -> None:
        """Write the plan to a JSON file; the file is complete or absent.

        Raises:
          OSError: if the file cannot be written.
        """
        write_bytes(Path(path), self.to_json().encode())

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan from a JSON file.

        Raises:
          PlanError: if the file is not a whole, undamaged plan.
          OSError: if it cannot be read.
        """
        try:
            return cls.from_json(Path(path).read_text())
        except UnicodeDecodeError as error:
            raise PlanError(f"{str(path)!r} is not a plan of jaxcompress") from error


def check_plan(plan: Any, call: str) -> None:
    """Raise a ``TypeError`` if an argument is not a plan; ``call`` names the order."""
    check_kind(plan, Plan, call, "a Plan")


def _checksum(body: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(body).encode())


def shapes_of(params: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of every leaf of a tree, by path."""
    paths, leaves, _ = paths_and_leaves(params)
    return {p: tuple(leaf.shape) for p, leaf in zip(paths, leaves, strict=True)}
