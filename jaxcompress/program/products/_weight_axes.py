# SPDX-License-Identifier: Apache-2.0
"""The axes of each weight that are summed over: read from its products, not guessed."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..trace._analyze import analyze
from ._find import find
from ._layout import Layout, layout


class WeightAxes(NamedTuple):
    """The axes of the weights of a function, by path.

    Attributes:
      outputs: all axes that are not summed over: those of the outputs, and those along
        which layers are stacked; for ``PerChannel(axis=axes.outputs)``.
      contraction: the axes that are summed over; for ``PerGroup(64, axis=...)`` and
        ``NOfM(2, 4, axis=...)``, where it is one axis.
      unknown: leaves whose axes could not be read, or that are used in two ways; and why.
    """

    outputs: Mapping[str, tuple[int, ...]]
    contraction: Mapping[str, tuple[int, ...]]
    unknown: Mapping[str, str]


def weight_axes(
    fn: Callable[..., Any], params: Any, *args: Any, inline_custom: bool = False
) -> WeightAxes:
    """Read from a function which axes of its weights are summed over.

    Rank does not tell: ``(3, 64, 64)`` is a one-dimensional convolution, or three dense
    layers in a scan. The products that a leaf feeds do.

    Args:
      fn: ``(params, *args) -> out``; see ``sites``.
      params: a tree of arrays or shapes.
      *args: trees likewise.
      inline_custom: look into functions with derivative rules of their own.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.ones((4, 2, 3))}  # inputs, heads, features
      >>> def fn(params, x):
      ...     return jnp.einsum("bi,ihf->bhf", x, params["kernel"])
      >>> axes = jc.program.weight_axes(fn, params, jnp.ones((8, 4)))
      >>> axes.outputs, axes.contraction
      ({'kernel': (1, 2)}, {'kernel': (0,)})
      >>> int8 = jc.weight_quantization(bits=8, granularity=jc.PerChannel(axes.outputs))
      >>> jc.compress(int8, params)["kernel"].scale.shape
      (1, 2, 3)
    """
    program = analyze(fn, params, args, inline_custom=inline_custom)
    found = find(program)
    found.warn("weight_axes")
    shapes = dict(zip(program.paths, program.leaves, strict=True))
    inside: dict[str, tuple[int, ...]] = {}
    unknown: dict[str, str] = {}
    for node, site in found.sites.items():
        if site.leaf is None or site.primitive == "gather":
            continue
        known = layout(node, site, shapes[site.leaf].shape)
        if not isinstance(known, Layout):
            unknown[site.leaf] = known
        elif inside.setdefault(site.leaf, known.inside) != known.inside:
            unknown[site.leaf] = (
                f"{site.name!r} sums over other axes than its first use"
            )
    kept = {path: axes for path, axes in inside.items() if path not in unknown}
    # A path stands for itself, whatever is in it, where globs are taken.
    outputs = {
        glob.escape(path): tuple(
            i for i in range(len(shapes[path].shape)) if i not in axes
        )
        for path, axes in kept.items()
    }
    contraction = {glob.escape(path): axes for path, axes in kept.items()}
    return WeightAxes(outputs, contraction, unknown)
