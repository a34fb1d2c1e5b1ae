# SPDX-License-Identifier: Apache-2.0
"""Marks in a state that say what it was made for, so that nothing else reads it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .formats import Format, Int

Origin = dict[str, jax.Array]
"""One key, which says what a state was made for; its value says nothing. A key is part of
the structure: it is checked while a program is traced, costs a compiled step nothing, and
is part of the name under which any checkpoint stores the state."""

_TRACED = "-traced"


def make_origin(maker: str, fmt: Format | None = None) -> Origin:
    """Mark a new state.

    Args:
      maker: what the state belongs to, such as ``"lsq"``.
      fmt: the number format, if the state means something else with another one.
    """
    return {_key(maker, fmt): jnp.zeros((), jnp.int8)}


def check_origin(origin: Origin, maker: str, fmt: Format | None = None) -> None:
    """Refuse a state that was made for something else, also under ``jit``.

    Formats with traced bits pass: their levels are not known.

    Args:
      origin: the mark of the state.
      maker: see ``make_origin``.
      fmt: see ``make_origin``.

    Raises:
      ValueError: naming what the state was made for, and what reads it.
    """
    made, read = next(iter(origin)), _key(maker, fmt)
    is_known = not (made.endswith(_TRACED) or read.endswith(_TRACED))
    if made == read or (not is_known and made.split("-")[0] == maker):
        return
    raise ValueError(
        f"the state was made for {made!r}, but is read as {read!r}, where its numbers mean "
        "something else. Make the state with this compressor's init, or read it with the "
        "compressor that made it."
    )


def _key(maker: str, fmt: Format | None) -> str:
    if fmt is not None and isinstance(fmt.high, jax.Array):
        return maker + _TRACED
    return maker if fmt is None else f"{maker}-{format_name(fmt)}"


def format_name(fmt: Format) -> str:
    """Name a format by its levels: the same text in every process."""
    if isinstance(fmt, Int):
        kind = "int" if fmt.symmetric else "uint"
        usual = fmt.narrow is None or fmt.narrow == fmt.symmetric
        return f"{kind}{fmt.bits}" + ("" if usual else f"_from_{fmt.low}")
    name = getattr(fmt, "name", None) or type(fmt).__name__.lower() + str(fmt.bits)
    return f"{name}_to_{float(fmt.high):g}"
