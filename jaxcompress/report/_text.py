# SPDX-License-Identifier: Apache-2.0
"""Numbers as people read them."""

from __future__ import annotations

MISSING = "–"
_PREFIXES = [(1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p")]


def joules_text(value: float) -> str:
    """Format an energy, such as ``"12.3 µJ"``."""
    for scale, prefix in _PREFIXES:
        if abs(value) >= scale:
            return f"{value / scale:.3g} {prefix}J"
    return f"{value:.3g} J"


def milliseconds_text(seconds: float) -> str:
    """Format a time, such as ``"2.000 ms"``."""
    return f"{1e3 * seconds:.3f} ms"


def count_text(value: float) -> str:
    """Format a number with commas, without a fraction."""
    return f"{value:,.0f}"


def short_text(value: float) -> str:
    """Format a number in few characters, such as ``"12.3k"``."""
    for scale, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:.3g}{suffix}"
    return f"{value:.3g}"


def shape_text(shape: tuple[int, ...]) -> str:
    """Format a shape, such as ``"784x300"``."""
    return "x".join(map(str, shape)) or "scalar"
