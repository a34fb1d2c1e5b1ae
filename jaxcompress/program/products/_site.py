# SPDX-License-Identifier: Apache-2.0
"""What is said of a site, and of what could not be looked into."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from ._table import table


@dataclasses.dataclass(frozen=True)
class Opaque:
    """A part of a program that is run as it is and not looked into.

    Attributes:
      name: name stack and primitive.
      products: how many matrix products and convolutions it holds; None if that cannot
        be told.
      reason: why it was not entered.
    """

    name: str
    products: int | None
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Site:
    """One matrix product, convolution or embedding look-up.

    Attributes:
      name: path of the parameter leaf that it multiplies by (``"params/Dense_0/kernel"``;
        ``#1`` for a second use of the leaf); for a product of two data arrays, such as
        QK^T, the name stack and the primitive.
      leaf: that path without the number; None for data times data.
      primitive: ``"dot_general"``, ``"conv_general_dilated"`` or ``"gather"``.
      operands: shapes and dtypes of the two operands.
      result: shape and dtype of the result.
      weight: which operand comes from parameters, 0 or 1; None where neither does.
      contraction: for each operand the axes that are summed over, paired in order. (For
        a convolution those of the kernel; of its input only the features.)
      batch: for each operand the batch axes, paired likewise.
      leaf_contraction: axes of the *leaf* that are summed over, ascending; None where the
        leaf's way to this operand could not be followed (a reshape that splits an axis).
      leaf_outputs: axes of the leaf along which the outputs lie, likewise.
      layers: lengths of the scans around it that run over layers, outermost first. State
        that belongs to the site has these leading axes.
      trips: how often it runs in one call of the function: the product of all trip
        counts around it; None inside a ``while``, whose count only the run can tell.
      macs: multiply-accumulates of one trip, without those by inserted zeros.
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


@dataclasses.dataclass(frozen=True)
class Sites(Sequence[Site]):
    """The sites of a program in the order they run, and what was not looked into.

    Indexed by number or by name; printed as a table.

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
        raise KeyError(f"{key!r} is none of the sites {[s.name for s in self.found]}")

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
    """One line for each opaque part."""
    return [
        f"not entered: {o.name} "
        f"({'an unknown number of' if o.products is None else o.products} products): "
        f"{o.reason}"
        for o in opaque
    ]


def _shape(struct: jax.ShapeDtypeStruct) -> str:
    return f"{struct.dtype.name}{list(struct.shape)}".replace(" ", "")
