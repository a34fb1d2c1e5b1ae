# SPDX-License-Identifier: Apache-2.0
"""Links: channels that some leaves produce and other leaves consume."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._axes import Axis, normalize_axes
from ..._compressor import PyTree
from ..._select import closest, paths_and_leaves

ByPath = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Link:
    """Name the leaves that produce a set of channels and those that consume it.

    Equalization, SmoothQuant and AWQ divide the producers by ``s`` along their axes and
    multiply the consumers by ``s`` along theirs. This leaves the function unchanged if two
    things hold:

    - The link names *all* leaves that write to the channels and all that read them. If
      channels are added to others (a residual sum), everything else that writes to or
      reads from the sum belongs to the link, too.
    - The operations in between are linear in each channel or positively homogeneous: ReLU,
      leaky ReLU, pooling, dropout, reshapes, the product with a gate, attention between
      values and outputs. A GELU, a sigmoid or a normalization is not.

    ``verify_links`` checks both.

    An axis is an int, or a tuple if the channels span several axes: ``(1, 2)`` for heads
    and their features; ``(0, -1)`` for layers stacked by ``nn.scan`` and their features.
    All producers have the same number of channels. Consumers may have a multiple of it:

    - along the last (or only) of their axes ``k * n``, read as ``(k, n)``: a dense layer
      after a convolution whose NHWC output was flattened;
    - along an earlier axis, each channel ``k`` times in a row: value heads that are shared
      by ``k`` query heads.

    Attributes:
      producers: ``{path: axis}``: the kernel's output axis, its bias, and the scale and
        bias of a norm that comes last. Full paths, no globs.
      consumers: ``{path: axis}``: the contraction axis of the kernel. A depthwise
        convolution consumes along its output axis, and produces along it in the next link.

    Raises:
      ValueError: if one side is empty or not a mapping.

    Example:
      >>> import jaxcompress as jc
      >>> from jaxcompress.quantize.equivalent import Link
      >>> mlp = Link({"up/kernel": -1, "up/bias": 0}, {"down/kernel": 0})
      >>> norm = Link({"norm/scale": 0}, {"query/kernel": 0, "key/kernel": 0})
      >>> heads = Link({"v/kernel": (1, 2), "v/bias": (0, 1)}, {"out/kernel": (0, 1)})
      >>> print(heads)
      'v/kernel' -> 'out/kernel'
    """

    producers: Mapping[str, Axis]
    consumers: Mapping[str, Axis]

    def __post_init__(self) -> None:
        for side in ("producers", "consumers"):
            axes = getattr(self, side)
            if not isinstance(axes, Mapping) or not axes:
                raise ValueError(
                    f"{side} of a Link must be {{path: axis}} with at least one leaf, "
                    f"got {axes!r}."
                )

    def __str__(self) -> str:
        return f"{next(iter(self.producers))!r} -> {next(iter(self.consumers))!r}"


@dataclasses.dataclass(frozen=True)
class Bound:
    """A link resolved against the parameters.

    Attributes:
      name: the link as text.
      dims: number of channels along each of their axes.
      producers: ``{path: axes of the channels}``, in the order of ``dims``, from 0.
      consumers: likewise.
    """

    name: str
    dims: tuple[int, ...]
    producers: dict[str, tuple[int, ...]]
    consumers: dict[str, tuple[int, ...]]


def bind(links: Sequence[Link], params: PyTree) -> list[Bound]:
    """Resolve links against the parameters.

    Raises:
      TypeError: if ``links`` is not a sequence of links, or a leaf is not floating-point.
      ValueError: if a path does not exist (the closest is named), an axis is out of range,
        sizes do not match, or two links rescale the same channels of a leaf.
    """
    paths, leaves, _ = paths_and_leaves(params)
    by_path = dict(zip(paths, leaves, strict=True))
    bound = [_bind(link, by_path) for link in checked(links)]
    for side in ("producers", "consumers"):
        link_of_axis: dict[tuple[str, int], int] = {}
        for i, link in enumerate(bound):
            for path, axes in getattr(link, side).items():
                first = link_of_axis.setdefault((path, axes[-1]), i)
                if first != i:
                    raise ValueError(
                        f"{path!r} is among the {side} of two links along axis "
                        f"{axes[-1]}, {bound[first].name} and {link.name}. All leaves that "
                        "write to or read the same channels must be in one link: merge the "
                        "two."
                    )
    return bound


def checked(links: Sequence[Link]) -> tuple[Link, ...]:
    """Return links as a tuple.

    Raises:
      TypeError: if ``links`` is not a sequence of ``Link``.
      ValueError: if it is empty.
    """
    if isinstance(links, Link):
        raise TypeError("links must be a sequence of Link, got one Link; pass [link].")
    links = tuple(links)
    for link in links:
        if not isinstance(link, Link):
            raise TypeError(
                f"links must be a sequence of Link, got a {type(link).__name__} in it: "
                f"{link!r}."
            )
    if not links:
        raise ValueError("links must not be empty: nothing would be rescaled.")
    return links


def channel_axes(path: str, shape: Sequence[int], axis: Axis) -> tuple[int, ...]:
    """Normalize axes of a leaf to count from 0, in the given order.

    Raises:
      ValueError: if an axis is out of range or repeated, or there are none.
    """
    requested = (axis,) if isinstance(axis, int | np.integer) else tuple(axis)
    axes = tuple(normalize_axes(path, shape, a)[0] for a in requested)
    if not axes or len(set(axes)) < len(axes):
        raise ValueError(
            f"{path!r}: axis must be one axis or several distinct ones, got {requested}."
        )
    return axes


def spread(values: jax.Array, shape: Sequence[int], axes: tuple[int, ...]) -> jax.Array:
    """Lay out per-channel values along the axes of a leaf; other axes get length 1.

    Args:
      values: one value per channel, of the shape ``dims``.
      shape: shape of the leaf; its axes are multiples of ``dims``, as in ``Link``.
      axes: axes of the leaf, from 0, in the order of ``dims``.

    Example:
      >>> import jax.numpy as jnp
      >>> spread(jnp.array([1, 2]), (4, 3), (0,)).tolist()
      [[1], [2], [1], [2]]
      >>> spread(jnp.array([[1], [2]]), (4, 1), (0, 1)).tolist()
      [[1], [1], [2], [2]]
    """
    for i, axis in enumerate(axes):
        times = shape[axis] // values.shape[i]
        if times != 1 and i == len(axes) - 1:
            values = jnp.tile(values, (1,) * i + (times,))
        elif times != 1:
            values = jnp.repeat(values, times, axis=i)
    full = [n if axis in axes else 1 for axis, n in enumerate(shape)]
    return values.transpose(sorted(range(len(axes)), key=axes.__getitem__)).reshape(
        full
    )


def by_channel(
    leaf: jax.Array, dims: tuple[int, ...], axes: tuple[int, ...]
) -> jax.Array:
    """Reshape a leaf to ``(*dims, values)``: one channel's values along the last axis.

    Example:
      >>> import jax.numpy as jnp
      >>> by_channel(jnp.arange(4)[:, None], (2,), (0,)).tolist()
      [[0, 2], [1, 3]]
    """
    first = jnp.moveaxis(leaf, axes, range(len(axes)))
    split: list[int] = []
    for i, n in enumerate(dims):
        times = first.shape[i] // n
        split += [times, n] if i == len(dims) - 1 else [n, times]
    channels = [2 * i + (i == len(dims) - 1) for i in range(len(dims))]
    whole = first.reshape(*split, *first.shape[len(dims) :])
    return jnp.moveaxis(whole, channels, range(len(dims))).reshape(*dims, -1)


def rescale(
    leaves: ByPath, links: Sequence[Bound], scales: Sequence[jax.Array]
) -> ByPath:
    """Divide producers by the scales and multiply consumers, rounding each leaf once.

    Args:
      leaves: leaves by path.
      links: the links to rescale.
      scales: scales of each link, positive floats of the shape ``dims``.
    """

    def rescale_leaf(path: str, leaf: jax.Array) -> jax.Array:
        wide = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
        for link, s in zip(links, scales, strict=True):
            if path in link.producers:
                wide = wide / spread(s, leaf.shape, link.producers[path])
            if path in link.consumers:
                wide = wide * spread(s, leaf.shape, link.consumers[path])
        return wide.astype(leaf.dtype)

    touched = {p for link in links for p in (*link.producers, *link.consumers)}
    return {p: rescale_leaf(p, x) if p in touched else x for p, x in leaves.items()}


def unless_dead(scales: jax.Array) -> jax.Array:
    """Replace scales that are zero, infinite or NaN (dead channels) with 1."""
    return jnp.where((scales > 0) & jnp.isfinite(scales), scales, 1)


def _bind(link: Link, leaves: Mapping[str, Any]) -> Bound:
    name = str(link)
    producers = {p: _axes(p, leaves, a) for p, a in link.producers.items()}
    consumers = {p: _axes(p, leaves, a) for p, a in link.consumers.items()}
    first = next(iter(producers))
    dims = tuple(leaves[first].shape[a] for a in producers[first])
    for path, axes in (*producers.items(), *consumers.items()):
        shape = leaves[path].shape
        sizes = tuple(shape[a] for a in axes)
        if sizes == dims:
            continue
        fits = len(sizes) == len(dims) and not any(
            n == 0 or size % n for size, n in zip(sizes, dims, strict=True)
        )
        if path in producers or not fits:
            raise ValueError(
                f"{name}: {first!r} has {_product(dims)} channels along its axes "
                f"{producers[first]}, but {path!r} of shape {tuple(shape)} has "
                f"{_product(sizes)} along {axes}. Producers must have the same number, "
                "consumers the same number or a multiple. Check the axes of the link."
            )
    return Bound(name, dims, producers, consumers)


def _axes(path: str, leaves: Mapping[str, Any], axis: Axis) -> tuple[int, ...]:
    if path not in leaves:
        near = ", ".join(repr(p) for p in closest(path, list(leaves)))
        raise ValueError(
            f"no leaf {path!r}; closest: {near}. Links need full paths, no globs."
        )
    leaf = leaves[path]
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        raise TypeError(
            f"leaves of a link must be floating-point, {path!r} has dtype {leaf.dtype}."
        )
    return channel_axes(path, leaf.shape, axis)


def _product(sizes: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in sizes)
