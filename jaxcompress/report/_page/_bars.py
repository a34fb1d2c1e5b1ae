# SPDX-License-Identifier: Apache-2.0
"""Bars by leaf: the bytes in the file, and the multiply-accumulates of a call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...program import Count
from .._size import Size
from .._text import shape_text, short_text
from ._markup import Markup, element, join

_WIDTH, _ROW, _BAR = 520.0, 34.0, 9.0
_MOST = 30


class _Row(NamedTuple):
    """A bar and what belongs to it."""

    name: str
    note: str
    whole: float
    part: float  # the bound, or what is not zero
    text: str


def bytes_by_leaf(size: Size) -> Markup | None:
    """Draw the bytes of each leaf, and its order-0 bound as a mark."""
    rows = [
        _Row(
            leaf.path,
            f"{shape_text(leaf.shape)} {leaf.fmt}, {leaf.density or 0:.1%} not zero",
            leaf.nbytes,
            leaf.bound_bytes,
            f"{leaf.nbytes:,} bytes",
        )
        for leaf in size.leaves
    ]
    return _draw("Bytes by leaf", rows, bound=True)


def macs_by_site(counted: Count) -> Markup | None:
    """Draw the multiply-accumulates of each product, and those by nonzero weights."""
    rows = [
        _Row(
            site.name,
            f"{site.bits[0]:g} x {site.bits[1]:g} bits, "
            f"{short_text(site.effective_macs)} by nonzero weights",
            site.macs,
            site.effective_macs,
            f"{short_text(site.macs)} MACs",
        )
        for site in counted.sites
    ]
    return _draw("Multiply-accumulates by product", rows, bound=False)


def _draw(title: str, rows: Sequence[_Row], *, bound: bool) -> Markup | None:
    most = max((max(row.whole, row.part) for row in rows), default=0)
    if not most:
        return None
    shown = sorted(rows, key=lambda row: -row.whole)[:_MOST]
    parts = []
    for i, row in enumerate(shown):
        top = i * _ROW
        length, part = (_WIDTH * x / most for x in (row.whole, row.part))
        y = top + 18
        parts += [
            element("text", _short(row.name), x=0, y=top + 13),
            element("text", row.text, x=_WIDTH, y=top + 13, text_anchor="end"),
            _bar(_WIDTH, y, "track"),
            _bar(length, y, "bytes" if bound else "macs"),
        ]
        if bound:
            at = min(max(part, 1.0), _WIDTH - 1)
            parts.append(
                element("line", x1=at, x2=at, y1=y - 2, y2=y + _BAR + 2, class_="bound")
            )
        else:
            parts.append(_bar(part, y, "effective"))
        parts[-1] = element(
            "g", element("title", f"{row.name}: {row.text}, {row.note}"), parts[-1]
        )
    picture = element(
        "svg",
        element("title", f"{title}: {_spoken(shown)}"),
        *parts,
        viewBox=f"0 0 {_WIDTH:g} {_ROW * len(shown):g}",
        role="img",
        xmlns="http://www.w3.org/2000/svg",
    )
    key = (
        "line: order-0 bound (of floats, their raw size)"
        if bound
        else "dark: by nonzero weights"
    )
    left = len(rows) - len(shown)
    more = f"; {left} smaller ones are not shown" if left else ""
    return element(
        "figure",
        element("h3", title),
        picture,
        element("figcaption", join(key, more)),
    )


def _bar(length: float, y: float, kind: str) -> Markup:
    return element("rect", x=0, y=y, width=length, height=_BAR, rx=2, class_=kind)


def _short(name: str) -> str:
    return name if len(name) <= 52 else "…" + name[-51:]


def _spoken(rows: Sequence[_Row]) -> str:
    return "; ".join(f"{row.name} {row.text}" for row in rows[:5])
