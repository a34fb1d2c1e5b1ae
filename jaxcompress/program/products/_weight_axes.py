# SPDX-License-Identifier: Apache-2.0
"""The role of each axis of every weight, read from the products that it feeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..._axes import Axes, channel_axis
from ..._table import table
from ..trace import _compat
from ..trace._analyze import analyze
from ._find import find
from ._layout import Layout, layout


class WeightAxes(Mapping[str, Axes]):
    """The axes of the weights of a function, by path, for ``axes=`` and ``where=``.

    Attributes:
      unknown: the leaves whose axes could not be read, or that are used in two ways, each
        with the reason.
    """

    def __init__(self, axes: Mapping[str, Axes], unknown: Mapping[str, str]):
        self._axes = dict(axes)
        self.unknown = dict(unknown)

    def __getitem__(self, path: str) -> Axes:
        return self._axes[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._axes)

    def __len__(self) -> int:
        return len(self._axes)

    def __call__(self, path: str, leaf: Any) -> bool:
        """True if the function multiplies by the leaf: pass the object as ``where=``."""
        del leaf
        return path in self._axes

    def __repr__(self) -> str:
        rows = [
            (path, str(a.outputs), str(a.contraction), str(a.layers or "-"))
            for path, a in self.items()
        ]
        lines = table([("leaf", "outputs", "contraction", "layers"), *rows])
        return "\n".join(
            [lines, *(f"{path}: unknown, {why}" for path, why in self.unknown.items())]
        )


def weight_axes(
    fn: Callable[..., Any], params: Any, *args: Any, inline_custom: bool = False
) -> WeightAxes:
    """Read from a function which axes of its weights are outputs and which are summed.

    Rank does not tell: ``(3, 64, 64)`` is a one-dimensional convolution, or three dense
    layers in a scan. The products that a leaf feeds do. Everything that takes ``axes=``
    takes the result: scales per channel follow the outputs, groups and N:M patterns lie
    along the contraction, stacked layers are treated one by one.

    Args:
      fn: ``(params, *args) -> out``; see ``sites``.
      params: a tree of arrays or shapes.
      *args: trees of arrays or shapes.
      inline_custom: look into functions with derivative rules of their own.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.ones((4, 2, 3))}  # inputs, heads, features
      >>> def fn(params, x):
      ...     return jnp.einsum("bi,ihf->bhf", x, params["kernel"])
      >>> axes = jc.weight_axes(fn, params, jnp.ones((8, 4)))
      >>> axes["kernel"]
      Axes(outputs=(1, 2), contraction=(0,), layers=(), channels=None)
      >>> int8 = jc.weight_quantization(bits=8, granularity=jc.PerChannel(axes=axes))
      >>> jc.compress(int8, params)["kernel"].scale.shape
      (1, 2, 3)
    """
    program = analyze(fn, params, args, inline_custom=inline_custom)
    found = find(program)
    found.warn("weight_axes")
    shapes = dict(zip(program.paths, program.leaves, strict=True))
    roles: dict[str, Axes] = {}
    unknown: dict[str, str] = {}
    for node, site in found.sites.items():
        if site.leaf is None or site.primitive == "gather":
            continue
        product = layout(node, site, shapes[site.leaf].shape)
        if not isinstance(product, Layout):
            unknown.update(dict.fromkeys([path for path, _ in site.parts], product))
            unknown[site.leaf] = product
            continue
        axes = _axes_of(site.leaf, shapes[site.leaf].shape, product)
        if roles.setdefault(site.leaf, axes) != axes:
            unknown[site.leaf] = (
                f"{site.name!r} sums over other axes than its first use"
            )
    return WeightAxes({p: a for p, a in roles.items() if p not in unknown}, unknown)


def _axes_of(path: str, shape: tuple[int, ...], product: Layout) -> Axes:
    outside = {*product.inside, *product.layers}
    axes = Axes(
        outputs=tuple(i for i in range(len(shape)) if i not in outside),
        contraction=product.inside,
        layers=tuple(product.layers),
    )
    channels = _channels(product)
    # Named only where it is not what the others already say.
    if channels is None or channels == channel_axis(path, shape, axes):
        return axes
    return dataclasses.replace(axes, channels=channels)


def _channels(product: Layout) -> int | None:
    """The last axis that a product sums over; of a convolution, the input channels."""
    node = product.node
    if product.site.primitive == "dot_general" or not product.inside:
        return product.inside[-1] if product.inside else None
    trail = node.ins[1].trail
    axes = trail.axes[_compat.convolution(node.eqn).rhs_spec[1]] if trail else None
    return axes[-1] if axes else None
