# SPDX-License-Identifier: Apache-2.0
"""Elements of HTML and SVG: every text and attribute is escaped."""

from __future__ import annotations

import html
import re

_UNPRINTABLE = re.compile(
    r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)
_VOID = frozenset({"br", "meta"})


class Markup(str):
    """Text that is markup already; any other text is escaped."""


def element(tag: str, /, *children: str, **attributes: str | float | None) -> Markup:
    """Make an element.

    Args:
      tag: its name.
      *children: markup, or text, which is escaped.
      **attributes: those that are not None. ``class_`` and ``for_`` lose the underscore;
        other underscores become hyphens.
    """
    shown = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{shown}>")
    return Markup(f"<{tag}{shown}>{join(*children)}</{tag}>")


def join(*children: str) -> Markup:
    """Join markup and text, which is escaped."""
    return Markup("".join(x if isinstance(x, Markup) else escape(x) for x in children))


def raw(tag: str, content: str) -> Markup:
    """Make a ``style`` or ``script`` element of a constant text."""
    return Markup(f"<{tag}>{content}</{tag}>")


def escape(text: str) -> str:
    """Escape text for HTML and SVG; what cannot be shown becomes a replacement mark."""
    return html.escape(_UNPRINTABLE.sub("\ufffd", text))


def _text(value: str | float) -> str:
    # A tenth of a pixel is enough, and equal numbers give equal text.
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return str(value)
