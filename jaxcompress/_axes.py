# SPDX-License-Identifier: Apache-2.0
"""Which axes of a weight are its outputs, which are summed over, which stack layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ._names import outputs_come_first
from ._select import closest, matches
from ._warn import warn

Axis = int | tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Axes:
    """The role of each axis of a weight.

    A technique picks the role it needs: scales per channel follow ``outputs``, groups and
    N:M patterns lie along ``contraction``, and every stacked layer is treated on its own.
    Name as few roles as determine the rest: an axis that is not named takes the missing
    role, so ``Axes(outputs=-1)`` is enough for a Flax convolution.

    Attributes:
      outputs: axes along which the outputs lie.
      contraction: axes that the product sums over.
      layers: axes along which ``nn.scan`` or ``vmap`` stacks layers.
      channels: which one of the contraction axes holds the input channels, along which N:M
        hardware groups weights. None is the one next to the outputs: the input channels of
        convolutions in Flax ``(h, w, in, out)``, Equinox and torch ``(out, in, h, w)``.
        Name it for any other layout with several contraction axes.

    Example:
      >>> import jaxcompress as jc
      >>> int8 = jc.PerChannel(axes=jc.Axes(outputs=-1))
      >>> int8.scale_shape("Conv_0/kernel", (3, 3, 16, 32))
      (1, 1, 1, 32)
    """

    outputs: Axis | None = None
    contraction: Axis | None = None
    layers: Axis | None = None
    channels: int | None = None


AxesLike = Axes | Mapping[str, Axes] | None
"""``None`` reads the axes of a matrix from the name of the leaf. ``Axes`` holds for every
leaf. A mapping goes from paths or globs to ``Axes``; ``weight_axes(fn, params, *args)``
returns one."""


def check_axes(axes: AxesLike) -> None:
    """Refuse a value that does not describe axes.

    Raises:
      TypeError: naming the value and how to write what was probably meant.
    """
    if axes is None or isinstance(axes, Axes):
        return
    if isinstance(axes, Mapping):
        wrong = next((a for a in axes.values() if not isinstance(a, Axes)), None)
        if wrong is None:
            return
        raise TypeError(
            f"axes must map paths or globs to Axes, got {wrong!r}. Write "
            "{'Conv_*/kernel': Axes(outputs=-1)}."
        )
    raise TypeError(
        "axes must be None, Axes(...), {glob: Axes(...)} or weight_axes(fn, params, "
        f"*args), got {axes!r}. To name output axes write Axes(outputs=...); to name the "
        "axes that are summed over write Axes(contraction=...)."
    )


def warn_if_unmatched(axes: AxesLike, paths: Sequence[str]) -> None:
    """Warn if a mapping of axes has keys, and none of them matches a path.

    Some may match nothing, since one mapping serves several techniques.
    """
    if not isinstance(axes, Mapping) or not axes or not paths:
        return
    if all(_look_up(path, axes) is None for path in paths):
        key = next(iter(axes))
        near = ", ".join(map(repr, closest(key, list(paths))))
        warn(
            f"no key of axes= matches a selected leaf, so axes are read from names; the "
            f"first key is {key!r}, the closest leaves are {near}. Globs match whole paths."
        )


def output_axes(path: str, shape: Sequence[int], axes: AxesLike) -> tuple[int, ...]:
    """The output axes of a weight and those that stack layers, ascending.

    Args:
      path: path text of the leaf.
      shape: shape of the leaf.
      axes: the roles of its axes.

    Raises:
      ValueError: if the roles cannot be told, overlap, or are out of range.
    """
    roles = _resolve(path, shape, axes)
    return tuple(sorted({*roles[0], *roles[2]}))


def contraction_axes(
    path: str, shape: Sequence[int], axes: AxesLike
) -> tuple[int, ...]:
    """The axes of a weight that the product sums over, ascending.

    Args:
      path: path text of the leaf.
      shape: shape of the leaf.
      axes: the roles of its axes.

    Raises:
      ValueError: if the roles cannot be told, overlap, or are out of range.
    """
    return _resolve(path, shape, axes)[1]


def channel_axis(path: str, shape: Sequence[int], axes: AxesLike) -> int:
    """The contraction axis of a weight that holds the input channels.

    Args:
      path: path text of the leaf.
      shape: shape of the leaf.
      axes: the roles of its axes.

    Raises:
      ValueError: if the roles cannot be told, or the axis that is named is not one that
        the product sums over.
    """
    outputs, contraction, _ = _resolve(path, shape, axes)
    roles = _look_up(path, axes)
    if roles is None or roles.channels is None:
        # Of two that are equally near, the last.
        return min(
            contraction[::-1],
            key=lambda i: min((abs(i - o) for o in outputs), default=0),
        )
    (channels,) = normalize_axes(path, shape, roles.channels)
    if channels not in contraction:
        raise ValueError(
            f"{path!r}: channels must be one of the axes that are summed over, "
            f"{contraction}, got {roles}."
        )
    return channels


def layer_axes(path: str, shape: Sequence[int], axes: AxesLike) -> tuple[int, ...]:
    """The axes of a leaf that stack layers, ascending; empty unless they are named.

    Raises:
      ValueError: if an axis is out of range.
    """
    roles = _look_up(path, axes)
    layers = None if roles is None else roles.layers
    return () if layers is None else normalize_axes(path, shape, layers)


def _resolve(
    path: str, shape: Sequence[int], axes: AxesLike
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Output, contraction and layer axes of one leaf."""
    roles = _look_up(path, axes) or Axes()
    layers = () if roles.layers is None else normalize_axes(path, shape, roles.layers)
    rest = tuple(i for i in range(len(shape)) if i not in layers)
    if roles.outputs is None and roles.contraction is None:
        if len(rest) != 2:
            raise ValueError(_cannot_tell(path, shape, axes))
        outputs_first = outputs_come_first(path)
        outputs = rest[:1] if outputs_first else rest[1:]
        return outputs, tuple(i for i in rest if i not in outputs), layers
    named = [
        None if role is None else normalize_axes(path, shape, role)
        for role in (roles.outputs, roles.contraction)
    ]
    outputs, contraction = named
    if contraction is None:
        contraction = tuple(i for i in rest if i not in (outputs or ()))
    if outputs is None:
        outputs = tuple(i for i in rest if i not in contraction)
    overlap = set(outputs) & set(contraction)
    if overlap:
        raise ValueError(
            f"{path!r}: axis {min(overlap)} of {tuple(shape)} cannot be both an output "
            f"and summed over, got {roles}."
        )
    return outputs, contraction, layers


def _look_up(path: str, axes: AxesLike) -> Axes | None:
    if not isinstance(axes, Mapping):
        return axes
    if path in axes:  # a path stands for itself, whatever characters it has
        return axes[path]
    return next((a for glob, a in axes.items() if matches(glob, path)), None)


def normalize_axes(path: str, shape: Sequence[int], axis: Axis) -> tuple[int, ...]:
    """Axes of a leaf as ascending non-negative numbers.

    Raises:
      ValueError: if an axis is out of range.
    """
    axes = (axis,) if isinstance(axis, int | np.integer) else tuple(axis)
    for a in axes:
        if not -len(shape) <= a < len(shape):
            raise ValueError(
                f"{path!r} has shape {tuple(shape)}: there is no axis {a}."
            )
    return tuple(sorted({int(a) % len(shape) for a in axes}))


def _cannot_tell(path: str, shape: Sequence[int], axes: AxesLike) -> str:
    reason = getattr(axes, "unknown", {}).get(path)
    because = f" weight_axes could not read them: {reason}." if reason else ""
    if isinstance(axes, Mapping) and not reason and _look_up(path, axes) is None:
        because = (
            f" No key of axes= matches this path; the first is {next(iter(axes))!r}."
        )
    return (
        f"{path!r} has shape {tuple(shape)}: its output and contraction axes cannot be "
        f"told from its rank, {len(shape)}.{because} Pass axes= to whatever takes it, the "
        "granularity, pattern or technique: jaxcompress.weight_axes(fn, params, *args) "
        "reads them from the function; or name them, as in "
        f"PerChannel(axes={{{path!r}: Axes(outputs=...)}}). A Flax convolution has "
        "outputs=-1, an Equinox convolution outputs=0; for layers stacked by nn.scan add "
        "layers=0."
    )
