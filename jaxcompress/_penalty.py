# SPDX-License-Identifier: Apache-2.0
"""Terms that a compressor adds to the loss, and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ._compressor import Compressor
from ._types import PyTree

Terms = dict[str, jax.Array]


def penalty_of(compressor: Compressor, params: PyTree, state: PyTree) -> jax.Array:
    """Return the sum of a compressor's penalty terms: float32 []."""
    return _total(_terms(compressor, params, state))


def penalty_and_grads(
    compressor: Compressor,
    params: PyTree,
    learned: list[PyTree],
    rebuild: Callable[[list[PyTree]], PyTree],
) -> tuple[Terms, tuple[PyTree, list[PyTree]]]:
    """Compute a compressor's penalty terms and the gradients of their sum.

    Args:
      compressor: one with a ``penalty``.
      params: raw parameters.
      learned: the ``Learned`` values of the state.
      rebuild: ``learned -> state``.

    Returns:
      The terms by name, and the gradients with respect to the parameters and the learned
      values.

    Raises:
      TypeError: if the penalty does not return a dict.
    """

    def total(params: PyTree, learned: list[PyTree]) -> tuple[jax.Array, Terms]:
        terms = _terms(compressor, params, rebuild(learned))
        return _total(terms), terms

    grads, terms = jax.grad(total, (0, 1), has_aux=True)(params, learned)
    return terms, grads


def add_terms(metrics: Mapping[str, jax.Array], terms: Terms) -> dict[str, jax.Array]:
    """Add penalty terms to the metrics of a step, and to their loss.

    Raises:
      ValueError: if the loss has a metric of the same name.
    """
    if taken := metrics.keys() & terms.keys():
        raise ValueError(
            f"the loss and the compressor both have a metric named {min(taken)!r}. "
            + (
                "Rename the one of the compressor's penalty."
                if "loss" in taken
                else "Rename the one of the loss."
            )
        )
    return {**metrics, **terms, "loss": metrics["loss"] + _total(terms)}


def _terms(compressor: Compressor, params: PyTree, state: PyTree) -> Any:
    if compressor.penalty is None:
        return {}
    terms = compressor.penalty(params, state)
    if not isinstance(terms, dict) or not all(isinstance(name, str) for name in terms):
        kind = "other keys" if isinstance(terms, dict) else f"a {type(terms).__name__}"
        raise TypeError(
            f"a compressor's penalty must return a dict {{name: scalar}}, got {kind}."
        )
    for name, term in terms.items():
        shape, dtype = getattr(term, "shape", ()), getattr(term, "dtype", type(term))
        if shape or not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"the penalty {name!r} must be a float scalar, got {dtype} of shape "
                f"{tuple(shape)}. Sum it up."
            )
    return terms


def _total(terms: Terms) -> jax.Array:
    return sum(terms.values(), start=jnp.zeros(()))
