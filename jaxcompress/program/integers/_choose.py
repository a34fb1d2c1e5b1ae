# SPDX-License-Identifier: Apache-2.0
"""Products on integers: which sites of a packed tree can be some, and how they run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...formats import Int
from ...leaves import QArray, dense, is_leaf
from ...quantize import to_qarray
from ..activations._quantize import Plan
from ..products._layout import Layout, layout
from ..products._site import Site
from ..trace._graph import Node
from ..trace._interpret import Frame, NodeHook
from ._product import MAX_SUMMED, Codes, as_codes, product

Pays = Callable[[Site], bool]
"""Whether a product is faster on integers than on floats, as far as can be known."""


def large(site: Site) -> bool:
    """Whether a product has a million weights or more, and 8 rows or more.

    There the integers won on the CPU this was measured on (see
    ``benchmarks/integer_products.py``), and lost with less of either; ``measured`` asks
    the device at hand instead.
    """
    if site.weight is None:
        return False
    weights = math.prod(site.operands[site.weight].shape)
    summed = site.contraction[1 - site.weight]
    x = site.operands[1 - site.weight].shape
    rows = math.prod(n for i, n in enumerate(x) if i not in summed)
    return weights >= 2**20 and rows >= 8


def always(site: Site) -> bool:
    """Whatever its size, a product shall run on integers."""
    del site
    return True


class Weight(NamedTuple):
    """A packed weight, as the hook of its site sees it; a leading axis for each layer."""

    codes: jax.Array
    scale: jax.Array
    zero_point: jax.Array | None


@dataclasses.dataclass(frozen=True)
class Product:
    """A product that can run on integers.

    Attributes:
      node: where it is.
      site: what is known of it.
      layout: how its leaf lies in it.
      weight: the leaf.
      weight_format: of the leaf.
      fmt: how its input is quantized.
      point: on whose grid that lies; None: every row has a range of its own.
      plan: that the point is from.
    """

    node: Node
    site: Site
    layout: Layout
    weight: Weight
    weight_format: Int
    fmt: Int
    point: str | None
    plan: Plan | None


def choose(
    node: Node, site: Site, leaf: Any, plan: Plan | None, pays: Pays
) -> Product | str:
    """The product of a site on integers, or why it runs on floats.

    Args:
      node: where it is.
      site: what is known of it.
      leaf: the leaf it multiplies by.
      plan: of the policy; None: rows are quantized on the fly.
      pays: whether a product that can be one shall be one.
    """
    known = _weight(node, site, leaf)
    if isinstance(known, str):
        return known
    grid = (None, Int(8)) if plan is None else _grid(node, site, plan)
    if isinstance(grid, str):
        return grid
    if not pays(site):
        return "it does not pay"
    point, fmt = grid
    weight = Weight(dense(leaf.codes), leaf.scale, leaf.zero_point)
    return Product(node, site, known, weight, leaf.format, fmt, point, plan)


def _weight(node: Node, site: Site, leaf: Any) -> Layout | str:
    """How a leaf lies in its product, or why its codes cannot be multiplied by."""
    if site.weight is None:
        return "data times data"
    if not isinstance(leaf, QArray):
        kind = f"a {type(leaf).__name__}" if is_leaf(leaf) else "dense"
        return f"the leaf is {kind}"
    if not isinstance(leaf.format, Int):
        return f"the leaf is of the format {leaf.format}"
    if not isinstance(leaf.scale, jax.Array | jax.ShapeDtypeStruct):
        return "its scales are compressed themselves"
    if leaf.bits > 8:
        return f"the leaf has {leaf.bits} bits"
    if site.primitive != "dot_general":
        return "a convolution"
    known = layout(node, site, leaf.shape)
    if isinstance(known, str):
        return known
    trail = node.ins[site.weight].trail
    if trail is None or not trail.exact:
        return "the parameter is changed before it is multiplied by"
    if known.layers != tuple(range(len(known.layers))):
        return "its layers are not stacked along its first axes"
    if any(leaf.scale.shape[i] != 1 for i in known.inside):
        return "its scales vary along the axis that is summed over"
    if any(a not in (1, b) for a, b in zip(leaf.scale.shape, leaf.shape, strict=True)):
        return "its scales belong to groups of outputs"
    if known.features > MAX_SUMMED:
        return f"int32 does not hold sums of {known.features} products"
    return known


def _grid(node: Node, site: Site, plan: Plan) -> tuple[str, Int] | str:
    """The point whose grid the input is on and its format, or why it has no codes."""
    side = 1 - (site.weight or 0)
    mark = plan.boundaries.grid(node, side)
    if mark is None:
        return "the policy does not quantize its input"
    way = plan.points[mark.point.name][1]
    if not isinstance(way.fmt, Int):
        return f"its input is of the format {way.fmt}"
    if way.rounding is not None:
        return "its input is rounded with a state"
    if way.fmt.bits > 8:
        return f"its input has {way.fmt.bits} bits"
    if mark.node is None and not way.kept.is_kept:
        return "its input is on the dynamic grid of an earlier value"
    x = site.operands[side]
    fmt = way.fmt

    def scale_of(state: Any, x: jax.Array) -> jax.Array:
        return dense(way.chosen(state)(x, (), fmt)[0])

    own = jax.eval_shape(scale_of, way.init(mark.point.name), x).shape
    if any(a not in (1, b) for a, b in zip(own, x.shape, strict=True)):
        return "the grid of its input is one of blocks"
    if any(own[i] != 1 for i in site.contraction[side]):
        return "the grid of its input varies along the axis that is summed over"
    return mark.point.name, way.fmt


def layered(p: Product) -> Weight:
    """The weight of a product, its scales repeated for each layer."""

    def along(x: jax.Array) -> jax.Array:
        layers = p.weight.codes.shape[: len(p.layout.layers)]
        return jnp.broadcast_to(x, (*layers, *x.shape[len(p.layout.layers) :]))

    codes, scale, zero_point = p.weight
    return Weight(
        codes, along(scale), None if zero_point is None else along(zero_point)
    )


def hook(p: Product) -> NodeHook:
    """Runs a product on integers; its weight is given under the name of its site."""
    side = 1 - (p.site.weight or 0)

    def run(op: Any, operands: list[Any], frame: Frame) -> Any:
        del op
        w = _operand(frame.given[p.site.name], p)
        return product(_input(operands[side], p, frame), w, p.site)

    return NodeHook((p.site.name, *([p.point] if p.point else [])), run)


def _input(x: jax.Array, p: Product, frame: Frame) -> Codes:
    """The data operand as codes: of its point's grid, or of a range for every row."""
    if p.plan is None or p.point is None:
        return as_codes(rows_rounded(x, p.site, Int(8)))
    chosen = p.plan.points[p.point][1].chosen(frame.state[p.point])
    return as_codes(to_qarray(x, p.fmt, scale=chosen))


def _operand(given: Weight, p: Product) -> Codes:
    """The weight as codes, laid out as the operand of its site."""
    weight, depth = p.site.weight or 0, len(p.layout.layers)
    trail = p.node.ins[weight].trail
    shape, summed = p.site.operands[weight].shape, p.site.contraction[weight]
    order = [i - depth for a in (trail.axes if trail else ()) for i in a or ()]
    # Axes of length 1 may have been dropped on the way.
    order += [i for i in range(given.codes.ndim) if i not in order]
    inside = [i - depth for i in p.layout.inside]
    wide = [1 if i in inside else n for i, n in enumerate(given.codes.shape)]
    thin = tuple(1 if i in summed else n for i, n in enumerate(shape))

    def along(x: jax.Array) -> jax.Array:
        return jnp.broadcast_to(x, wide).transpose(order).reshape(thin)

    return as_codes(
        QArray(
            codes=given.codes.transpose(order).reshape(shape),
            scale=along(given.scale),
            zero_point=None if given.zero_point is None else along(given.zero_point),
            format=p.weight_format,
            value_dtype=jnp.dtype(jnp.float32),
        )
    )


def rows_rounded(x: jax.Array, site: Site, fmt: Int) -> QArray:
    """The data operand of a site, every row rounded to the grid of its own range."""
    return to_qarray(x, fmt, scale_shape=scales(site, 1 - (site.weight or 0)))


def columns_rounded(w: jax.Array, site: Site, fmt: Int) -> QArray:
    """The weight operand of a site, rounded likewise: a range for every output."""
    return to_qarray(w, fmt, scale_shape=scales(site, site.weight or 0))


def scales(site: Site, side: int) -> tuple[int, ...]:
    """How many scales an operand has along each axis: one where it is summed over."""
    summed = site.contraction[side]
    shape = site.operands[side].shape
    return tuple(1 if i in summed else n for i, n in enumerate(shape))
