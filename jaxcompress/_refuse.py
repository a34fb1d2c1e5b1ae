# SPDX-License-Identifier: Apache-2.0
"""Refuse leaves that no technique can compress, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from ._select import map_with_path
from .numerics import one_program


def refuse_unfit(params: Any) -> None:
    """Raise if a leaf is empty or not a float array, or if a concrete one is not finite.

    Every technique that computes a representation from the values (codes, centroids,
    factors, scales, a solution) calls it in ``init`` and ``finalize``. Traced values pass:
    under jit, NaN and infinity stay visible in the view.

    Raises:
      TypeError: if a leaf is not a floating-point array; the error names it.
      ValueError: if it is empty, or has NaN or infinite values.
    """

    def check(path: str, x: Any) -> None:
        dtype = jnp.result_type(x)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"leaves must be floating-point arrays, {path!r} has dtype {dtype}. Leave "
                "it out with `where=`."
            )
        if not jnp.size(x):
            raise ValueError(
                f"leaves must not be empty, {path!r} has shape {jnp.shape(x)}. Leave it "
                "out with `where=`."
            )

    map_with_path(check, params)
    refuse_not_finite(params)


def refuse_not_finite(params: Any) -> None:
    """Raise if a concrete leaf has NaN or infinite values.

    Raises:
      ValueError: if so; the error names the leaf.
    """
    refuse_values(
        params,
        is_not_finite,
        lambda path: (
            f"{path!r} holds NaN or infinite values, which cannot be compressed. Check "
            "whether the training diverged or a division by zero slipped in."
        ),
    )


def is_not_finite(x: jax.Array) -> jax.Array:
    """Return where an array has NaN or infinite values: bools of its shape."""
    return ~jnp.isfinite(x)


def refuse_values(
    tree: Any,
    is_bad: Callable[[jax.Array], jax.Array],
    describe: Callable[[str], str],
) -> None:
    """Raise if a concrete float array has a bad value; traced values pass.

    Args:
      tree: tree of arrays.
      is_bad: array to bools of the same shape. Each function is compiled, so pass one of
        a module and not a new lambda.
      describe: path text of the leaf to the text of the error.

    Raises:
      ValueError: with the text of the first leaf that has a bad value.
    """

    def check(path: str, x: jax.Array) -> None:
        if isinstance(x, Tracer) or not jnp.issubdtype(x.dtype, jnp.inexact):
            return
        any_bad = _any_bad(is_bad, x)
        # Inside a traced function this is a tracer even for concrete values.
        if not isinstance(any_bad, Tracer) and bool(any_bad):
            raise ValueError(describe(path))

    map_with_path(check, tree)


@one_program("is_bad")
def _any_bad(is_bad: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    return jnp.any(is_bad(x))
