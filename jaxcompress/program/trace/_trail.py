# SPDX-License-Identifier: Apache-2.0
"""The way from a parameter to where it is used: which of its axes lies along which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from ._compat import JaxprEqn, is_floating, places, reversed_axes, shape
from ._primitives import ELEMENTWISE, MOVES

Axes = tuple[tuple[int, ...] | None, ...]


class Trail(NamedTuple):
    """Where a parameter leaf lies in a value that is computed from parameters alone.

    Attributes:
      leaf: its place in the tree.
      axes: for each axis of the value the axes of the leaf that lie along it, outermost
        first: ``()`` where it has length 1 or repeats the leaf, None where it is unknown.
      exact: whether the value is the leaf itself, but for its layout and precision.
      whole: whether every element of the leaf is at the place that the axes say, changed
        perhaps; not so of a slice, or of a reversed leaf.
      layers: axes of the leaf that loops around have taken off, outermost loop first.
    """

    leaf: int
    axes: Axes
    exact: bool = True
    whole: bool = True
    layers: tuple[int, ...] = ()

    @classmethod
    def start(cls, leaf: int, shape: Sequence[int]) -> Trail:
        """At the parameter itself."""
        return cls(leaf, tuple((i,) for i in range(len(shape))))

    def without_first_axis(self) -> Trail:
        """Inside a scan over the first axis."""
        first, *axes = self.axes
        if first is None or len(first) != 1:  # repeated, merged or unknown
            return self._replace(axes=tuple(axes), exact=False, whole=False)
        return self._replace(axes=tuple(axes), layers=(*self.layers, *first))

    def with_first_axis(self) -> Trail:
        """Stacked by a scan: the new axis is none of the leaf's that is known."""
        return self._replace(axes=(None, *self.axes), exact=False, whole=False)


def follow(eqn: JaxprEqn, trails: Sequence[Trail | None], leaf: int) -> Trail | None:
    """The trail through one equation without data among its operands.

    Args:
      eqn: the equation.
      trails: of its operands.
      leaf: which leaf to follow where several meet.
    """
    name, result = eqn.primitive.name, shape(eqn.outvars[0])
    here = [
        (shape(atom), trail)
        for atom, trail in zip(eqn.invars, trails, strict=True)
        if trail is not None and trail.leaf == leaf
    ]
    # A maximum of the leaf, say, of which a scale is made, is the leaf no more.
    if not here or (name.startswith(("reduce_", "arg")) and name != "reduce_precision"):
        return None
    before, trail = here[0]
    # Nor is a scrambled one that no gradient goes through, as in a codebook.
    if name == "stop_gradient" and not trail.whole:
        return None
    if name in MOVES and len(eqn.invars) == 1:
        return trail._replace(
            axes=_moved(eqn, trail.axes),
            exact=trail.exact and _is_exact(eqn),
            whole=trail.whole and name != "rev",
        )
    if name in ("slice", "dynamic_slice") and len(before) == len(result):
        return trail._replace(exact=False, whole=False)
    same = [t for s, t in here if s == result]
    if same and name in ELEMENTWISE and _is_aligned(eqn):
        # Several may have come by different ways (a straight-through estimator's do).
        ways = zip(*(t.axes for t in same), strict=True)
        whole = all(t.whole for t in same)
        axes = tuple(map(_agreed, ways))
        return same[0]._replace(axes=axes, exact=False, whole=whole)
    return trail._replace(axes=(None,) * len(result), exact=False, whole=False)


def _is_exact(eqn: JaxprEqn) -> bool:
    """Whether a move changes no more than layout and precision."""
    if eqn.primitive.name != "convert_element_type":
        return eqn.primitive.name != "rev"
    aval: Any = eqn.outvars[0].aval
    return is_floating(aval) and jnp.finfo(aval.dtype).bits >= 16


def _agreed(ways: tuple[tuple[int, ...] | None, ...]) -> tuple[int, ...] | None:
    """What several ways say of one axis: a repeated or unknown one gives way."""
    told = {way for way in ways if way}
    if len(told) == 1:
        return told.pop()
    return () if not told and () in ways else None


def _is_aligned(eqn: JaxprEqn) -> bool:
    """Whether every operand has the result's shape, or repeats along its axes."""
    result = shape(eqn.outvars[0])
    return all(
        not own
        or (
            len(own) == len(result)
            and all(n in (1, m) for n, m in zip(own, result, strict=True))
        )
        for own in map(shape, eqn.invars)
    )


def _moved(eqn: JaxprEqn, axes: Axes) -> Axes:
    before, after = shape(eqn.invars[0]), shape(eqn.outvars[0])
    if eqn.primitive.name == "reshape":
        return _reshaped(before, axes, after)
    back = reversed_axes(eqn)
    return tuple(
        () if i is None or before[i] != n else None if i in back else axes[i]
        for i, n in zip(places(eqn), after, strict=True)
    )


def _reshaped(before: Sequence[int], axes: Axes, after: Sequence[int]) -> Axes:
    """Axes that a reshape merges are known; those it splits are not."""
    result: list[tuple[int, ...] | None] = []
    i = 0
    for size in after:
        if size == 1:
            result.append(())
            continue
        parts: list[tuple[int, ...] | None] = []
        have = 1
        while have < size and i < len(before):
            parts += [axes[i]] if before[i] != 1 else []
            have *= before[i]
            i += 1
        if have != size:  # split: nothing is known from here on
            return (*result, *(None,) * (len(after) - len(result)))
        result.append(parts[0] if len(parts) == 1 else _merged(parts))
    return tuple(result)


def _merged(parts: Sequence[tuple[int, ...] | None]) -> tuple[int, ...] | None:
    """Several axes as one; with a repeated one among them it repeats nothing evenly."""
    if not all(parts):
        return None
    return tuple(i for part in parts for i in part or ())
