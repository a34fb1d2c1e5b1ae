# SPDX-License-Identifier: Apache-2.0
"""Choose which products of a packed tree run on integers, and run them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...formats import Int
from ...leaves import QArray, dense, is_leaf
from ...quantize import to_qarray
from ..activations._plan import Plan
from ..products._layout import Layout, layout
from ..products._site import Site
from ..trace._graph import Node
from ..trace._interpret import Frame, NodeHook
from ._product import MAX_SUMMED, Codes, as_codes, product

Pays = Callable[[Site], bool]
"""``site -> bool``: predicts whether a product is faster on integers than on floats."""


def large(site: Site) -> bool:
    """True for products with at least 2**20 weights and 8 rows: the default ``pays``.

    On the CPU of ``benchmarks/integer_products.py`` integers were faster for these sizes
    and slower below. Use ``measured`` to time the products on your own device.
    """
    if site.weight is None:
        return False
    weights = math.prod(site.operands[site.weight].shape)
    summed = site.contraction[1 - site.weight]
    x = site.operands[1 - site.weight].shape
    rows = math.prod(n for i, n in enumerate(x) if i not in summed)
    return weights >= 2**20 and rows >= 8


def always(site: Site) -> bool:
    """True for every product: run all products on integers that can."""
    del site
    return True


class Weight(NamedTuple):
    """A packed weight, with one leading axis per layer loop."""

    codes: jax.Array
    scale: jax.Array
    zero_point: jax.Array | None


@dataclasses.dataclass(frozen=True)
class Product:
    """A product that can run on integers.

    Attributes:
      node: node of the product.
      site: site of the product.
      layout: layout of its leaf.
      weight: the leaf.
      weight_format: format of the leaf.
      fmt: format of the quantized input.
      point: name of the point whose grid the input lies on; None gives every row its own
        range.
      plan: plan that the point belongs to.
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
    """Return the integer product of a site, or the reason why it runs on floats.

    Args:
      node: node of the product.
      site: site of the product.
      leaf: the leaf it multiplies by.
      plan: plan of the policy; None quantizes rows on the fly.
      pays: true for products that should run on integers if they can.
    """
    leaf_layout = _layout_of(node, site, leaf)
    if isinstance(leaf_layout, str):
        return leaf_layout
    grid = (None, Int(8)) if plan is None else _input_grid(node, site, plan)
    if isinstance(grid, str):
        return grid
    if not pays(site):
        return "it does not pay"
    point, fmt = grid
    weight = Weight(dense(leaf.codes), leaf.scale, leaf.zero_point)
    return Product(node, site, leaf_layout, weight, leaf.format, fmt, point, plan)


def _layout_of(node: Node, site: Site, leaf: Any) -> Layout | str:
    """Return the layout of a packed leaf, or why its codes cannot be multiplied."""
    if site.weight is None:
        return "data times data"
    if not isinstance(leaf, QArray):
        kind = f"a {type(leaf).__name__}" if is_leaf(leaf) else "dense"
        return f"the leaf is {kind}"
    if not isinstance(leaf.format, Int):
        return f"the leaf has the format {leaf.format}"
    if not isinstance(leaf.scale, jax.Array | jax.ShapeDtypeStruct):
        return "its scales are compressed themselves"
    if leaf.bits > 8:
        return f"the leaf has {leaf.bits} bits"
    if site.primitive != "dot_general":
        return "a convolution"
    leaf_layout = layout(node, site, leaf.shape)
    if isinstance(leaf_layout, str):
        return leaf_layout
    trail = node.ins[site.weight].trail
    if trail is None or not trail.exact:
        return "the parameter is changed before it is multiplied by"
    if leaf_layout.layers != tuple(range(len(leaf_layout.layers))):
        return "its layers are not stacked along its first axes"
    if any(leaf.scale.shape[i] != 1 for i in leaf_layout.inside):
        return "its scales vary along the axis that is summed over"
    if any(a not in (1, b) for a, b in zip(leaf.scale.shape, leaf.shape, strict=True)):
        return "its scales belong to groups of outputs"
    if leaf_layout.features > MAX_SUMMED:
        return f"int32 does not hold sums of {leaf_layout.features} products"
    return leaf_layout


def _input_grid(node: Node, site: Site, plan: Plan) -> tuple[str, Int] | str:
    """Return the point and format of the input's grid, or why it has no codes."""
    side = 1 - (site.weight or 0)
    mark = plan.boundaries.grid(node, side)
    if mark is None:
        return "the policy does not quantize its input"
    quantizer = plan.points[mark.point.name][1]
    fmt = quantizer.fmt
    if not isinstance(fmt, Int):
        return f"its input has the format {fmt}"
    if quantizer.rounding is not None:
        return "its input is rounded with a state"
    if fmt.bits > 8:
        return f"its input has {fmt.bits} bits"
    if mark.node is None and not quantizer.kept.is_kept:
        return "its input is on the dynamic grid of an earlier value"
    x = site.operands[side]

    def scale_of(state: Any, x: jax.Array) -> jax.Array:
        return dense(quantizer.chosen(state)(x, (), fmt)[0])

    scale_shape = jax.eval_shape(scale_of, quantizer.init(mark.point.name), x).shape
    if any(a not in (1, b) for a, b in zip(scale_shape, x.shape, strict=True)):
        return "its input is quantized in blocks"
    if any(scale_shape[i] != 1 for i in site.contraction[side]):
        return "the grid of its input varies along the axis that is summed over"
    return mark.point.name, fmt


def operand(p: Product) -> Codes:
    """Return the weight of a product, for each layer: see ``product`` for the order.

    It is computed before all loops, so that what it costs is not paid in every trip.
    """

    def of_layer(w: Weight) -> Codes:
        return _weight_codes(w, p)

    for _ in p.layout.layers:
        of_layer = jax.vmap(of_layer)
    return of_layer(_layered(p))


def _layered(p: Product) -> Weight:
    """Return the weight of a product, with scales repeated for each layer."""

    def repeat(x: jax.Array) -> jax.Array:
        layers = p.weight.codes.shape[: len(p.layout.layers)]
        return jnp.broadcast_to(x, (*layers, *x.shape[len(p.layout.layers) :]))

    codes, scale, zero_point = p.weight
    return Weight(
        codes, repeat(scale), None if zero_point is None else repeat(zero_point)
    )


def hook(p: Product) -> NodeHook:
    """Make the hook of a product; the frame's constants hold its ``operand``."""
    side = 1 - (p.site.weight or 0)

    def run(op: Any, operands: list[Any], frame: Frame) -> Any:
        del op
        x = _input_codes(operands[side], p, frame)
        return product(
            x, frame.constants[p.site.name], p.site, stored_axes(p.node, p.site)
        )

    return NodeHook((p.site.name, *([p.point] if p.point else [])), run)


def _input_codes(x: jax.Array, p: Product, frame: Frame) -> Codes:
    """Quantize the data operand on its point's grid, or with one range per row."""
    if p.plan is None or p.point is None:
        return as_codes(rows_rounded(x, p.site, Int(8)))
    scale = p.plan.points[p.point][1].chosen(frame.state[p.point])
    return as_codes(to_qarray(x, p.fmt, scale=scale))


def _weight_codes(w: Weight, p: Product) -> Codes:
    """Bring scales to the operand's axes, and codes to the same axes as they are stored."""
    weight, stored = p.site.weight or 0, stored_axes(p.node, p.site)
    shape, summed = p.site.operands[weight].shape, p.site.contraction[weight]
    contraction = [i - len(p.layout.layers) for i in p.layout.inside]
    leaf_shape = [1 if i in contraction else n for i, n in enumerate(w.codes.shape)]
    scale_shape = tuple(1 if i in summed else n for i, n in enumerate(shape))

    def arrange(x: jax.Array) -> jax.Array:
        return as_operand(jnp.broadcast_to(x, leaf_shape), p, scale_shape)

    # No code moves unless the function reorders leaf axes that it merges into one.
    moved = w.codes.transpose(_leaf_order(p, stored))
    return as_codes(
        QArray(
            codes=moved.reshape([shape[i] for i in stored]),
            scale=arrange(w.scale),
            zero_point=None if w.zero_point is None else arrange(w.zero_point),
            format=p.weight_format,
            value_dtype=jnp.dtype(jnp.float32),
        )
    )


def as_operand(x: jax.Array, p: Product, shape: Sequence[int]) -> jax.Array:
    """Bring one layer of the leaf, or what is shaped like it, to the operand's axes."""
    rank = len(p.site.operands[p.site.weight or 0].shape)
    return x.transpose(_leaf_order(p, range(rank))).reshape(shape)


def stored_axes(node: Node, site: Site) -> tuple[int, ...]:
    """Return the axes of a product's weight operand in the order of the leaf's axes."""
    axes = _trail_axes(node, site)
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


def _leaf_order(p: Product, operand_axes: Iterable[int]) -> list[int]:
    """Return the axes of one layer of the leaf in the order of axes of the operand."""
    axes, depth = _trail_axes(p.node, p.site), len(p.layout.layers)
    order = [i - depth for a in operand_axes for i in axes[a]]
    # Axes of length 1 may have been dropped from the trail.
    rank = p.weight.codes.ndim - depth
    return order + [i for i in range(rank) if i not in order]


def _trail_axes(node: Node, site: Site) -> list[tuple[int, ...]]:
    """Return which axes of the leaf lie in each axis of the operand; none if not known."""
    weight = site.weight or 0
    trail, rank = node.ins[weight].trail, len(site.operands[weight].shape)
    return [a or () for a in (trail.axes if trail else ((),) * rank)]


def rows_rounded(x: jax.Array, site: Site, fmt: Int) -> QArray:
    """Quantize the data operand of a site with one range per row."""
    return to_qarray(x, fmt, scale_shape=scales(site, 1 - (site.weight or 0)))


def columns_rounded(w: jax.Array, site: Site, fmt: Int, order: Sequence[int]) -> QArray:
    """Quantize the weight operand of a site with one range per output, axes in an order."""
    shape = scales(site, site.weight or 0)
    return to_qarray(w.transpose(order), fmt, scale_shape=[shape[i] for i in order])


def scales(site: Site, side: int) -> tuple[int, ...]:
    """Return the scale shape of an operand: 1 along contraction axes."""
    summed = site.contraction[side]
    shape = site.operands[side].shape
    return tuple(1 if i in summed else n for i, n in enumerate(shape))
