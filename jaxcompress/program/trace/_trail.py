# SPDX-License-Identifier: Apache-2.0
"""Trails: follow the axes of a parameter to the place where it is used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from ._compat import JaxprEqn, is_floating, places, reversed_axes, shape
from ._primitives import ELEMENTWISE, MOVES

Axes = tuple[tuple[int, ...] | None, ...]


class Trail(NamedTuple):
    """The axes of a parameter leaf in a value that is computed from parameters alone.

    Attributes:
      leaf: index of the leaf in the tree.
      axes: for each axis of the value, the axes of the leaf that lie along it, outermost
        first; ``()`` if the axis has length 1 or repeats the leaf, None if unknown.
      exact: True if the value equals the leaf up to layout and precision.
      whole: True if every element of the leaf, possibly changed, is at the position that
        ``axes`` gives. False for a slice or a reversed leaf.
      layers: axes of the leaf that enclosing loops have removed, outermost loop first.
    """

    leaf: int
    axes: Axes
    exact: bool = True
    whole: bool = True
    layers: tuple[int, ...] = ()

    @classmethod
    def start(cls, leaf: int, shape: Sequence[int]) -> Trail:
        """Return the trail of the parameter itself."""
        return cls(leaf, tuple((i,) for i in range(len(shape))))

    def without_first_axis(self) -> Trail:
        """Return the trail inside a scan over the first axis."""
        first, *axes = self.axes
        if first is None or len(first) != 1:  # repeated, merged or unknown
            return self._replace(axes=tuple(axes), exact=False, whole=False)
        return self._replace(axes=tuple(axes), layers=(*self.layers, *first))

    def with_first_axis(self) -> Trail:
        """Return the trail after a scan stacks the value along a new, unknown axis."""
        return self._replace(axes=(None, *self.axes), exact=False, whole=False)


def follow(eqn: JaxprEqn, trails: Sequence[Trail | None], leaf: int) -> Trail | None:
    """Follow a trail through one equation whose operands do not depend on data.

    Args:
      eqn: the equation.
      trails: trails of its operands.
      leaf: index of the leaf to follow if several leaves meet.
    """
    name, result = eqn.primitive.name, shape(eqn.outvars[0])
    operands = [
        (shape(atom), trail)
        for atom, trail in zip(eqn.invars, trails, strict=True)
        if trail is not None and trail.leaf == leaf
    ]
    # A reduction ends the trail: a maximum, from which a scale is made, is not the leaf.
    is_reduction = name.startswith(("reduce_", "arg")) and name != "reduce_precision"
    if not operands or is_reduction:
        return None
    before, trail = operands[0]
    # So does a reordered leaf without a gradient, as in a codebook.
    if name == "stop_gradient" and not trail.whole:
        return None
    if name in MOVES and len(eqn.invars) == 1:
        return trail._replace(
            axes=_move_axes(eqn, trail.axes),
            exact=trail.exact and _is_exact(eqn),
            whole=trail.whole and name != "rev",
        )
    if name in ("slice", "dynamic_slice") and len(before) == len(result):
        return trail._replace(exact=False, whole=False)
    aligned = [t for s, t in operands if s == result]
    if aligned and name in ELEMENTWISE and _is_aligned(eqn):
        # Operands may have different trails, as in a straight-through estimator.
        candidates = zip(*(t.axes for t in aligned), strict=True)
        whole = all(t.whole for t in aligned)
        axes = tuple(map(_agree, candidates))
        return aligned[0]._replace(axes=axes, exact=False, whole=whole)
    return trail._replace(axes=(None,) * len(result), exact=False, whole=False)


def _is_exact(eqn: JaxprEqn) -> bool:
    """True if a move changes only layout and precision."""
    if eqn.primitive.name != "convert_element_type":
        return eqn.primitive.name != "rev"
    aval: Any = eqn.outvars[0].aval
    return is_floating(aval) and jnp.finfo(aval.dtype).bits >= 16


def _agree(candidates: tuple[tuple[int, ...] | None, ...]) -> tuple[int, ...] | None:
    """Combine what several trails say about one axis.

    Repeated and unknown axes yield to a known one.
    """
    known = {axes for axes in candidates if axes}
    if len(known) == 1:
        return known.pop()
    return () if not known and () in candidates else None


def _is_aligned(eqn: JaxprEqn) -> bool:
    """True if every operand has the result's shape, or repeats along its axes."""
    result = shape(eqn.outvars[0])
    return all(
        not own
        or (
            len(own) == len(result)
            and all(n in (1, m) for n, m in zip(own, result, strict=True))
        )
        for own in map(shape, eqn.invars)
    )


def _move_axes(eqn: JaxprEqn, axes: Axes) -> Axes:
    before, after = shape(eqn.invars[0]), shape(eqn.outvars[0])
    if eqn.primitive.name == "reshape":
        return _reshape_axes(before, axes, after)
    reversed_ = reversed_axes(eqn)
    return tuple(
        () if i is None or before[i] != n else None if i in reversed_ else axes[i]
        for i, n in zip(places(eqn), after, strict=True)
    )


def _reshape_axes(before: Sequence[int], axes: Axes, after: Sequence[int]) -> Axes:
    """Follow axes through a reshape; merged axes are known, split axes are not."""
    result: list[tuple[int, ...] | None] = []
    i = 0
    for size in after:
        if size == 1:
            result.append(())
            continue
        parts: list[tuple[int, ...] | None] = []
        merged_size = 1
        while merged_size < size and i < len(before):
            parts += [axes[i]] if before[i] != 1 else []
            merged_size *= before[i]
            i += 1
        if merged_size != size:  # An axis is split, so the rest is unknown.
            return (*result, *(None,) * (len(after) - len(result)))
        result.append(parts[0] if len(parts) == 1 else _merge_axes(parts))
    return tuple(result)


def _merge_axes(parts: Sequence[tuple[int, ...] | None]) -> tuple[int, ...] | None:
    """Merge several axes; unknown if any of them is unknown or repeats the leaf."""
    if not all(parts):
        return None
    return tuple(i for part in parts for i in part or ())
