# SPDX-License-Identifier: Apache-2.0
"""Count the multiply-accumulates, bit operations and bytes of a function's products."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .._select import path_text
from .._table import table
from ..leaves import Codebook, LowRank, QArray, dense, is_leaf
from .activations._boundaries import Marked
from .activations._plan import Plan, make_plan
from .activations._quantizer import Policy
from .products._find import find
from .products._site import Opaque, Site, opaque_lines
from .trace._analyze import analyze
from .trace._graph import Node, Value


@dataclasses.dataclass(frozen=True, kw_only=True)
class SiteCount:
    """Cost of one product in one call of the function.

    Attributes:
      name: name of the site.
      macs: multiply-accumulates, including all trips of enclosing loops.
      density: fraction of nonzero weights; 1.0 if the weights are not known.
      bits: declared bits of the two operands: weights (or the left operand) and input.
        For leaves that the function joins into one weight, the mean over nonzero weights.
      weight_bytes: bytes of the nonzero weights at their declared bits; 0 for data times
        data, and for the second use of a leaf.
      activation_bytes: bytes read and written apart from weights, including all trips, at
        the bits of the policy or of the dtype.
      bit_ops: multiply-accumulates by nonzero weights, times the bits of both operands.
      weights: number of weights, zeros included; 0 where ``weight_bytes`` counts none.
      activations: numbers read and written apart from weights, including all trips.
    """

    name: str
    macs: int
    density: float
    bits: tuple[float, float]
    weight_bytes: float
    activation_bytes: float
    weights: int
    activations: int

    @property
    def effective_macs(self) -> float:
        """Multiply-accumulates by nonzero weights."""
        return self.macs * self.density

    @property
    def bit_ops(self) -> float:
        """Effective multiply-accumulates, times the bits of both operands."""
        return self.effective_macs * self.bits[0] * self.bits[1]


@dataclasses.dataclass(frozen=True)
class Count:
    """Cost of all products of a function; prints as a table.

    Nothing here is measured. The numbers are what ideal hardware needs, which exploits
    every zero and every saved bit. Simulated masks and fake quantization save nothing.

    Attributes:
      sites: one entry per product.
      other_bytes: bytes of parameters that no product multiplies by.
      other_weights: number of those parameters.
      unknown: names of sites in ``while`` loops, counted as one trip.
      opaque: parts that were not entered. Nothing in them is counted.
    """

    sites: tuple[SiteCount, ...]
    other_bytes: float
    other_weights: int
    unknown: tuple[str, ...]
    opaque: tuple[Opaque, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return sum(s.macs for s in self.sites)

    @property
    def effective_macs(self) -> float:
        """Multiply-accumulates by nonzero weights."""
        return sum(s.effective_macs for s in self.sites)

    @property
    def bit_ops(self) -> float:
        """Effective multiply-accumulates, times the bits of both operands."""
        return sum(s.bit_ops for s in self.sites)

    @property
    def weight_bytes(self) -> float:
        """Bytes of all parameters at their declared bits, without zero weights."""
        return sum(s.weight_bytes for s in self.sites) + self.other_bytes

    @property
    def activation_bytes(self) -> float:
        """Bytes that products read and write apart from weights."""
        return sum(s.activation_bytes for s in self.sites)

    def __str__(self) -> str:
        def row(name: str, x: SiteCount | Count, *middle: str) -> list[str]:
            numbers = (x.weight_bytes, x.activation_bytes, x.bit_ops)
            return [name, f"{x.macs:,}", *middle, *(f"{n:,.0f}" for n in numbers)]

        head = [
            "site",
            "MACs",
            "density",
            "bits",
            "weight B",
            "activation B",
            "bit ops",
        ]
        rows = [
            row(s.name, s, f"{s.density:.3f}", "x".join(f"{b:g}" for b in s.bits))
            for s in self.sites
        ]
        rows.append(row("total", self, "", ""))
        notes = [
            f"in a while loop, counted as one trip: {name}" for name in self.unknown
        ]
        return "\n".join([table([head, *rows]), *notes, *opaque_lines(self.opaque)])


def count(
    fn: Callable[..., Any],
    params: Any,
    *args: Any,
    policy: Policy | None = None,
    inline_custom: bool = False,
) -> Count:
    """Count the MACs, bit operations and bytes of a function, compressed or not.

    Use it to compare compressed models on paper. The function is traced, not run. Scans
    count every trip. All branches of a conditional count, although only one runs. Only
    products count; the operations between them are fused or cheap.

    Args:
      fn: ``(params, *args) -> out`` of dense parameters; see ``sites``.
      params: parameters of ``fn``, dense or compressed. Leaves declare their bits, and
        concrete leaves their zeros. For a masked tree pass the view. Shapes are enough
        for everything else.
      *args: arrays or shapes.
      policy: policy of ``quantize_activations`` that sets the bits of activations; None
        uses the bits of their dtypes.
      inline_custom: also enter functions with custom derivative rules.

    Warns:
      OpaqueWarning: if parts of the function are not entered.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"w": jnp.array([[1.0, 0.0], [0.0, 0.0]])}
      >>> counted = jc.count(lambda params, x: x @ params["w"], params, jnp.ones((8, 2)))
      >>> counted.macs, counted.effective_macs, counted.weight_bytes
      (32, 8.0, 4.0)
    """
    shapes = jax.eval_shape(dense, params)
    program = analyze(fn, shapes, args, inline_custom=inline_custom)
    plan = None if policy is None else make_plan(program, policy)
    index = plan.index if plan else find(program)
    index.warn("count")
    pairs, _ = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_leaf)
    leaves = {
        path_text(path): leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)
        for path, leaf in pairs
    }
    used: set[str] = set()
    rows = []
    for node, site in index.sites.items():
        rows.append(_count(node, site, leaves, plan, used))
        used.update(path for path, _ in site.parts)
    others = [leaf for path, leaf in leaves.items() if path not in used]
    return Count(
        sites=tuple(rows),
        other_bytes=sum(map(_bytes, others)),
        other_weights=sum(math.prod(leaf.shape) for leaf in others),
        unknown=tuple(s.name for s in index.sites.values() if s.trips is None),
        opaque=tuple(index.opaque),
    )


def _count(
    node: Node,
    site: Site,
    leaves: dict[str, Any],
    plan: Plan | None,
    used: set[str],
) -> SiteCount:
    trips = 1 if site.trips is None else site.trips
    bits = [_grid_bits(node, i, plan) for i in range(2)]
    density, weight_bytes, weights = 1.0, 0.0, 0
    moved = [(i, site.operands[i]) for i in range(2)]
    if site.weight is not None:
        own = [(path, share, leaves[path]) for path, share in site.parts]
        dense_shares = [share * _density(leaf) for _, share, leaf in own]
        density = sum(dense_shares)
        bits[site.weight] = _mean_bits(own, dense_shares)
        weight_bytes = sum(
            _bytes(leaf) * _density(leaf) for path, _, leaf in own if path not in used
        )
        weights = sum(math.prod(x.shape) for path, _, x in own if path not in used)
        moved = [(i, x) for i, x in moved if i != site.weight]
    if site.primitive == "gather":
        moved = []  # Indices are integers already.
    moved_bits = sum(math.prod(x.shape) * bits[i] for i, x in moved)
    moved_bits += math.prod(site.result.shape) * _result_bits(node, plan)
    numbers = sum(math.prod(x.shape) for x in [*(x for _, x in moved), site.result])
    # Report weights first, whichever operand they are.
    order = bits[::-1] if site.weight == 1 else bits
    return SiteCount(
        name=site.name,
        macs=site.macs * trips,
        density=density,
        bits=(order[0], order[1]),
        weight_bytes=weight_bytes,
        activation_bytes=moved_bits * trips / 8,
        weights=weights,
        activations=numbers * trips,
    )


def _mean_bits(
    parts: Sequence[tuple[str, float, Any]], dense_shares: Sequence[float]
) -> float:
    """Return the bits of a nonzero weight, or of any weight if all are zero."""
    weights = dense_shares if any(dense_shares) else [share for _, share, _ in parts]
    leaf_bits = [_bits(leaf) for _, _, leaf in parts]
    if len(set(leaf_bits)) == 1:  # without rounding
        return leaf_bits[0]
    total = sum(w * b for w, b in zip(weights, leaf_bits, strict=True))
    return total / sum(weights)


def _grid_bits(node: Node, operand: int, plan: Plan | None) -> float:
    mark = None if plan is None else plan.boundaries.grid(node, operand)
    return _bits_at(mark, node.ins[operand], plan)


def _result_bits(node: Node, plan: Plan | None) -> float:
    value, mark = node.outs[0], None
    if plan is not None:
        mark = plan.boundaries.at.get(plan.boundaries.fused(value))
    return _bits_at(mark, value, plan)


def _bits_at(mark: Marked | None, value: Value, plan: Plan | None) -> float:
    """Return the bits of a point's grid, or of the value's dtype without a point."""
    if mark is None or plan is None:
        return _dtype_bits(value.aval.dtype)
    return float(plan.points[mark.point.name][1].fmt.bits)


def _bits(leaf: Any) -> float:
    """Return the declared bits of a weight."""
    if isinstance(leaf, QArray):
        return leaf.bits
    if isinstance(leaf, LowRank):
        return _bits(leaf.left)
    if isinstance(leaf, Codebook):
        return math.ceil(math.log2(leaf.centroids.shape[-1]))
    return _dtype_bits(leaf.dtype)


def _dtype_bits(dtype: Any) -> float:
    if jnp.issubdtype(dtype, jnp.integer):
        return jnp.iinfo(dtype).bits  # int4 counts 4 bits, although it takes a byte.
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return 8 * jnp.dtype(dtype).itemsize  # of both parts; finfo gives one of them
    return jnp.finfo(dtype).bits if jnp.issubdtype(dtype, jnp.floating) else 8


def _bytes(leaf: Any) -> float:
    if isinstance(leaf, LowRank):
        return _bytes(leaf.left) + _bytes(leaf.right)
    return math.prod(leaf.shape) * _bits(leaf) / 8


def _density(leaf: Any) -> float:
    is_shape = jax.tree.map(lambda x: isinstance(x, jax.ShapeDtypeStruct), leaf)
    if any(jax.tree.leaves(is_shape)) or not leaf.size:
        return 1.0
    return float(jnp.count_nonzero(dense(leaf))) / leaf.size
