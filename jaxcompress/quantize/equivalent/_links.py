# SPDX-License-Identifier: Apache-2.0
"""Links: channels that some leaves produce and others consume, and can be rescaled."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._axes import Axis, output_axes
from ..._compressor import PyTree
from ..._select import closest, paths_and_leaves

ByPath = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Link:
    """Channels between layers: who produces them, and who reads them.

    Dividing the producers by ``s`` along their axes and multiplying the consumers by it
    along theirs leaves the function as it is, if these are *all* leaves that write to the
    channels and all that read them, and what lies between is linear in each channel or
    positively homogeneous: ReLU, leaky ReLU, pooling, dropout, reshapes, the product with
    a gate, attention between values and outputs. A GELU, a sigmoid or a normalization
    between is not; and where channels are added to others (a residual sum), everything
    else that writes to or reads from the sum belongs to the link. ``verify_links`` tells.

    An axis is an int, or several for channels along several axes: ``(1, 2)`` for heads and
    their features; ``(0, -1)`` for layers stacked by ``nn.scan`` and their features.
    Producers have as many channels each. Consumers may have a multiple of them:

    - along the last (or only) of their axes ``k * n``, read as ``(k, n)``: a dense layer
      after a convolution whose NHWC output was flattened;
    - along an axis before, each one ``k`` times in a row: heads of values that are shared
      by ``k`` heads of queries.

    Attributes:
      producers: ``{path: axis}``: the kernel's output axis, its bias, and the scale and
        bias of a norm that comes last. Whole paths, no globs.
      consumers: ``{path: axis}``: the axis of the kernel that is summed over. A depthwise
        convolution consumes along its output axis, and produces along it in the next link.

    Raises:
      ValueError: if one side is empty.

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
                    f"a link has {side}: give {{path: axis}} with one leaf or more, not "
                    f"{axes!r}. What nothing else makes up for cannot be rescaled."
                )

    def __str__(self) -> str:
        return f"{next(iter(self.producers))!r} -> {next(iter(self.consumers))!r}"


@dataclasses.dataclass(frozen=True)
class Bound:
    """A link whose leaves were found.

    Attributes:
      name: the link, in words.
      dims: how many channels there are, along each of their axes.
      producers: by path, the axes of the channels, in the order of ``dims``, from 0.
      consumers: likewise.
    """

    name: str
    dims: tuple[int, ...]
    producers: dict[str, tuple[int, ...]]
    consumers: dict[str, tuple[int, ...]]


def bind(links: Sequence[Link], params: PyTree) -> list[Bound]:
    """Find the leaves of links.

    Raises:
      TypeError: if it is no sequence of links, or a leaf is not of floats.
      ValueError: for a path that is not there (naming the closest), an axis out of range,
        sizes that do not fit, and where two links rescale the same channels of a leaf.
    """
    paths, leaves, _ = paths_and_leaves(params)
    known = dict(zip(paths, leaves, strict=True))
    bound = [_bind(link, known) for link in checked(links)]
    for side in ("producers", "consumers"):
        taken: dict[tuple[str, int], int] = {}
        for i, link in enumerate(bound):
            for path, axes in getattr(link, side).items():
                first = taken.setdefault((path, axes[-1]), i)
                if first != i:
                    raise ValueError(
                        f"{path!r} is among the {side} of two links along axis "
                        f"{axes[-1]}, {bound[first].name} and {link.name}. Channels are "
                        "rescaled at once for all that write to them and read them: make "
                        "one link of the two."
                    )
    return bound


def checked(links: Sequence[Link]) -> tuple[Link, ...]:
    """Links as a tuple.

    Raises:
      TypeError: for anything else.
      ValueError: if there are none.
    """
    if isinstance(links, Link):
        raise TypeError("links is one Link; give a sequence of them: [link].")
    links = tuple(links)
    for link in links:
        if not isinstance(link, Link):
            raise TypeError(
                f"links holds a {type(link).__name__}, not a Link: {link!r}."
            )
    if not links:
        raise ValueError("there are no links: nothing would be rescaled.")
    return links


def channel_axes(path: str, shape: Sequence[int], axis: Axis) -> tuple[int, ...]:
    """Axes of a leaf counted from 0, in the order given.

    Raises:
      ValueError: for an axis out of range, the same one twice, or none.
    """
    chosen = (axis,) if isinstance(axis, int | np.integer) else tuple(axis)
    axes = tuple(output_axes(path, shape, a)[0] for a in chosen)
    if not axes or len(set(axes)) < len(axes):
        raise ValueError(
            f"{path!r}: {chosen} is neither an axis nor several different."
        )
    return axes


def spread(values: jax.Array, shape: Sequence[int], axes: tuple[int, ...]) -> jax.Array:
    """Values of channels along the axes of a leaf; 1 long along the others.

    Args:
      values: one for each channel, of the shape ``dims``.
      shape: of the leaf, whose axes are multiples of ``dims`` as ``Link`` says.
      axes: of the leaf, from 0, in the order of ``dims``.

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
    """A leaf as ``(*dims, values)``: all that belongs to one channel along the last axis.

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
      leaves: by path.
      links: those that are rescaled.
      scales: of each, positive floats of the shape ``dims``.
    """

    def one(path: str, leaf: jax.Array) -> jax.Array:
        wide = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
        for link, s in zip(links, scales, strict=True):
            if path in link.producers:
                wide = wide / spread(s, leaf.shape, link.producers[path])
            if path in link.consumers:
                wide = wide * spread(s, leaf.shape, link.consumers[path])
        return wide.astype(leaf.dtype)

    touched = {p for link in links for p in (*link.producers, *link.consumers)}
    return {p: one(p, x) if p in touched else x for p, x in leaves.items()}


def unless_dead(scales: jax.Array) -> jax.Array:
    """Scales, with 1 for what is zero, infinite or NaN: channels that carry nothing."""
    return jnp.where((scales > 0) & jnp.isfinite(scales), scales, 1)


def _bind(link: Link, known: Mapping[str, Any]) -> Bound:
    name = str(link)
    producers = {p: _axes(p, known, a) for p, a in link.producers.items()}
    consumers = {p: _axes(p, known, a) for p, a in link.consumers.items()}
    first = next(iter(producers))
    dims = tuple(known[first].shape[a] for a in producers[first])
    for path, axes in (*producers.items(), *consumers.items()):
        shape = known[path].shape
        sizes = tuple(shape[a] for a in axes)
        if sizes == dims:
            continue
        fits = len(sizes) == len(dims) and not any(
            n == 0 or have % n for have, n in zip(sizes, dims, strict=True)
        )
        if path in producers or not fits:
            raise ValueError(
                f"{name}: {first!r} has {_product(dims)} channels along its axes "
                f"{producers[first]}, and {path!r} of shape {tuple(shape)} has "
                f"{_product(sizes)} along {axes}. Producers have as many each, consumers "
                "as many or a multiple; is it the right axis?"
            )
    return Bound(name, dims, producers, consumers)


def _axes(path: str, known: Mapping[str, Any], axis: Axis) -> tuple[int, ...]:
    if path not in known:
        near = ", ".join(repr(p) for p in closest(path, list(known)))
        raise ValueError(
            f"there is no leaf {path!r}; closest: {near}. Paths are whole, no globs."
        )
    leaf = known[path]
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        raise TypeError(
            f"{path!r} has dtype {leaf.dtype}; only floating-point leaves can be rescaled."
        )
    return channel_axes(path, leaf.shape, axis)


def _product(sizes: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in sizes)
