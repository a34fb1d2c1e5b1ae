# SPDX-License-Identifier: Apache-2.0
"""Descriptions of the sites of a program, and of the parts that were not entered."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from ..._table import table


@dataclasses.dataclass(frozen=True)
class Opaque:
    """A part of a program that runs unchanged because it could not be entered.

    Attributes:
      name: name stack and primitive.
      products: number of matrix products and convolutions in it; None if unknown.
      reason: why it was not entered.
    """

    name: str
    products: int | None
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Site:
    """One matrix product, convolution or embedding look-up in a function.

    Attributes:
      name: path of the parameter leaf that it multiplies by (``"params/Dense_0/kernel"``;
        ``#1`` for the second use of a leaf). For a product of two data arrays, such as
        QK^T, the name stack and the primitive.
      leaf: path of the leaf, without the number; None for data times data. If the function
        joins several leaves into one weight, the largest of them.
      primitive: ``"dot_general"``, ``"conv_general_dilated"`` or ``"gather"``.
      operands: shapes and dtypes of the two operands.
      result: shape and dtype of the result.
      weight: index of the operand that comes from parameters, 0 or 1; None if neither
        does.
      contraction: contraction axes of each operand, paired in order. For a convolution,
        all contraction axes of the kernel, but only the feature axis of the input.
      batch: batch axes of each operand, paired in order.
      leaf_contraction: contraction axes of the *leaf*, ascending; None if the leaf's axes
        could not be traced to this operand (a reshape that splits an axis).
      leaf_outputs: output axes of the leaf, ascending; None as above.
      layers: lengths of the enclosing scans over layers, outermost first. State of the
        site has these leading axes.
      trips: runs per call of the function, the product of all enclosing trip counts; None
        inside a ``while`` loop, whose count is known only at run time.
      macs: multiply-accumulates of one trip, not counting those with inserted zeros.
      parts: every leaf that the weight is made of, with its share of the elements. More
        than one if the function concatenates or stacks leaves, such as the kernels of
        queries, keys and values; empty for data times data.
    """

    name: str
    leaf: str | None
    primitive: str
    operands: tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]
    result: jax.ShapeDtypeStruct
    weight: int | None
    contraction: tuple[tuple[int, ...], tuple[int, ...]]
    batch: tuple[tuple[int, ...], tuple[int, ...]]
    leaf_contraction: tuple[int, ...] | None
    leaf_outputs: tuple[int, ...] | None
    layers: tuple[int, ...]
    trips: int | None
    macs: int
    parts: tuple[tuple[str, float], ...] = ()


@dataclasses.dataclass(frozen=True)
class Sites(Sequence[Site]):
    """The sites of a function in execution order; index by number or name, or print.

    Attributes:
      found: the sites.
      opaque: the parts that were not entered.
    """

    found: tuple[Site, ...]
    opaque: tuple[Opaque, ...]

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Site]:
        return iter(self.found)

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return self.found[key]
        for site in self.found:
            if site.name == key:
                return site
        raise KeyError(
            f"no site named {key!r}; the sites are {[s.name for s in self.found]}."
        )

    def __str__(self) -> str:
        rows = [
            [
                s.name,
                s.primitive,
                f"{_shape(s.operands[0])} x {_shape(s.operands[1])}",
                _shape(s.result),
                "?" if s.trips is None else str(s.trips),
                f"{s.macs * (s.trips or 1):,}",
            ]
            for s in self.found
        ]
        head = ["site", "primitive", "operands", "result", "trips", "MACs"]
        return "\n".join([table([head, *rows]), *opaque_lines(self.opaque)])


def opaque_lines(opaque: Sequence[Opaque]) -> list[str]:
    """Describe each opaque part in one line."""
    return [
        f"not entered: {o.name} "
        f"({'an unknown number of' if o.products is None else o.products} products): "
        f"{o.reason}"
        for o in opaque
    ]


def _shape(struct: jax.ShapeDtypeStruct) -> str:
    return f"{struct.dtype.name}{list(struct.shape)}".replace(" ", "")
