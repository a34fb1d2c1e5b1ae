# SPDX-License-Identifier: Apache-2.0
"""Loss and gradients of a batch, whole or in parts that add up to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ._compressor import PyTree, split_learned
from ._loss import Aux, Mean, Terms, call


class Taken(NamedTuple):
    """What a step takes from its batch."""

    model_state: PyTree
    metrics: dict[str, jax.Array]  # "loss", its terms by name, and those of the Aux
    view_grads: PyTree
    model_grads: list[PyTree]  # of what the model state has ``Learned``


def loss_and_grads(
    loss_fn: Callable[..., Any],
    view: PyTree,
    batch: PyTree,
    args: tuple[Any, ...],
    known: Mapping[str, Any],
    parts: int,
) -> Taken:
    """Loss, metrics, and the gradients at the view and at what the model state learns.

    Args:
      loss_fn: see ``train_step``.
      view: the compressed parameters.
      batch: whose leaves have the examples along their leading axes.
      args: what else the step was given.
      known: what the loss is given by keyword.
      parts: into how many micro-batches the batch is split.

    Raises:
      ValueError: if it does not split.
    """
    known = dict(known)
    model_state, rng = known.pop("model_state", None), known.pop("rng", None)

    def run(view: PyTree, part: _Part) -> tuple[Terms, Aux]:
        given = {"model_state": part.model_state, "rng": part.rng}
        given = {name: value for name, value in given.items() if value is not None}
        return call(loss_fn, view, part.batch, args, {**known, **given})

    def grads_of(part: _Part, weights: Terms) -> Any:
        learned, rebuild = split_learned(part.model_state)

        def loss_of(view: PyTree, learned: list[PyTree]) -> Any:
            terms, aux = run(view, part._replace(model_state=rebuild(learned)))
            shares = _shares(terms, weights, parts)
            loss = sum(shares.values(), start=jnp.zeros(()))
            metrics = _shares(aux.metrics, weights, parts)
            return loss, (aux.model_state, {"loss": loss, **shares, **metrics})

        both, aux = jax.grad(loss_of, argnums=(0, 1), has_aux=True)(view, learned)
        return *aux, *both

    if parts == 1:
        return Taken(*grads_of(_Part(batch, model_state, rng), {}))
    keys = None if rng is None else jax.random.split(rng, parts)
    split = jax.tree.map(lambda x: _split(x, parts), batch)

    def weights_of(
        carry: tuple[()], part: tuple[PyTree, Any]
    ) -> tuple[tuple[()], Terms]:
        terms, aux = run(view, _Part(part[0], model_state, part[1]))
        return carry, _weights({**aux.metrics, **terms})

    def body(model_state: PyTree, part: tuple[PyTree, Any]) -> tuple[PyTree, Any]:
        model_state, *out = grads_of(_Part(part[0], model_state, part[1]), weights)
        return model_state, tuple(out)

    # First the divisors, which every part must know. Nothing else of the loss is asked
    # for here, so the compiler drops the rest of it.
    _, weights = _sum(weights_of, (), (split, keys))
    model_state, total = _sum(body, model_state, (split, keys))
    return Taken(model_state, *total)


class _Part(NamedTuple):
    batch: PyTree
    model_state: PyTree
    rng: Any


def _weights(terms: Mapping[str, Any]) -> Terms:
    return {name: t.weight for name, t in terms.items() if isinstance(t, Mean)}


def _shares(terms: Mapping[str, Any], weights: Terms, parts: int) -> Terms:
    """What a part of the batch adds to the value of each term of the whole."""

    def share(name: str, term: Any) -> jax.Array:
        if not isinstance(term, Mean):
            return term / parts if parts > 1 else term
        return Mean(term.total, weights.get(name, term.weight)).value

    return {name: share(name, term) for name, term in terms.items()}


def _sum(body: Any, carry: PyTree, parts: PyTree) -> tuple[PyTree, PyTree]:
    """A scan that adds up what the body puts out."""
    first = jax.tree.map(lambda x: x[0], parts)
    out = jax.eval_shape(body, carry, first)[1]
    if not jax.tree.leaves(out):
        return carry, out

    def add(both: tuple[PyTree, PyTree], part: Any) -> Any:
        carry, out = body(both[0], part)
        return (carry, jax.tree.map(jnp.add, both[1], out)), None

    # In the carry: a stack of gradients would be as many times their size.
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), out)
    return lax.scan(add, (carry, zeros), parts)[0]


def _split(x: jax.Array, parts: int) -> jax.Array:
    if not x.shape or x.shape[0] % parts:
        raise ValueError(
            f"a batch leaf of shape {tuple(x.shape)} does not split into {parts} "
            "micro-batches along its leading axis."
        )
    return x.reshape(parts, x.shape[0] // parts, *x.shape[1:])
