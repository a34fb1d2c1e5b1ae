# SPDX-License-Identifier: Apache-2.0
"""Which axis of a weight is its output, and which one is summed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ._select import matches

Axis = int | tuple[int, ...]
AxisOrMap = Axis | Mapping[str, Axis] | None


def output_axes(path: str, shape: Sequence[int], axis: AxisOrMap) -> tuple[int, ...]:
    """The axes along which the outputs of a weight lie, as non-negative numbers.

    Rank says little: ``(3, 64, 64)`` is a one-dimensional convolution, or three dense
    layers stacked by ``nn.scan``. So only matrices have a default, by name: the last
    axis of ``kernel`` and ``w``, the first of Equinox's ``weight``.

    Args:
      path: path text of the leaf, for its name and for messages.
      shape: shape of the leaf.
      axis: None for the default, an axis, several axes, or ``{glob: axis}``.

    Raises:
      ValueError: if the default is ambiguous or an axis is out of range.
    """
    chosen = _chosen(path, axis)
    if chosen is None:
        _needs_rank_two(path, shape, "the output axis")
        return (0,) if path.rsplit("/", 1)[-1] == "weight" else (1,)
    return _normalized(path, shape, chosen)


def contraction_axis(path: str, shape: Sequence[int], axis: AxisOrMap) -> int:
    """The axis of a weight that is summed over, as a non-negative number.

    Args:
      path: path text of the leaf, for its name and for messages.
      shape: shape of the leaf.
      axis: None for the default (a matrix's axis that is not its output), an axis, or
        ``{glob: axis}``.

    Raises:
      ValueError: if the default is ambiguous, or it is not one axis, or out of range.
    """
    axes = contraction_axes(path, shape, axis)
    if len(axes) != 1:
        raise ValueError(f"{path!r}: one contraction axis is needed, not {axes}.")
    return axes[0]


def contraction_axes(
    path: str, shape: Sequence[int], axis: AxisOrMap
) -> tuple[int, ...]:
    """All axes of a weight that are summed over, ascending, as non-negative numbers.

    Args:
      path: path text of the leaf, for its name and for messages.
      shape: shape of the leaf.
      axis: None for the default (a matrix's axis that is not its output), an axis,
        several axes, or ``{glob: axis}``.

    Raises:
      ValueError: if the default is ambiguous or an axis is out of range.
    """
    chosen = _chosen(path, axis)
    if chosen is None:
        _needs_rank_two(path, shape, "the contraction axis")
        return (1 - output_axes(path, shape, None)[0],)
    return _normalized(path, shape, chosen)


def chosen_axes(path: str, shape: Sequence[int], axis: AxisOrMap) -> tuple[int, ...]:
    """The axes that are named for a leaf, as non-negative numbers; none where none is.

    Raises:
      ValueError: if an axis is out of range.
    """
    chosen = _chosen(path, axis)
    return () if chosen is None else _normalized(path, shape, chosen)


def _chosen(path: str, axis: AxisOrMap) -> Axis | None:
    if isinstance(axis, Mapping):
        return next((a for glob, a in axis.items() if matches(glob, path)), None)
    return axis


def _normalized(path: str, shape: Sequence[int], axis: Axis) -> tuple[int, ...]:
    axes = (axis,) if isinstance(axis, int | np.integer) else tuple(axis)
    for a in axes:
        if not -len(shape) <= a < len(shape):
            raise ValueError(
                f"{path!r} has shape {tuple(shape)}: there is no axis {a}."
            )
    return tuple(sorted({int(a) % len(shape) for a in axes}))


def _needs_rank_two(path: str, shape: Sequence[int], what: str) -> None:
    if len(shape) != 2:
        raise ValueError(
            f"{path!r} has shape {tuple(shape)}: {what} of a leaf of rank {len(shape)} "
            "cannot be told from its rank. Pass axis=: for a Flax convolution the "
            "outputs are axis -1 and the inputs axis -2; for layers stacked by nn.scan "
            "add their axis, as in (0, -1). axis={'Conv_*/kernel': -1} names leaves; "
            "jaxcompress.program.weight_axes reads all of them from the function."
        )
