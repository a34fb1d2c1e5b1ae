# SPDX-License-Identifier: Apache-2.0
"""Loss and gradients of a batch, computed at once or accumulated over micro-batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from ._compressor import split_learned
from ._loss import Aux, LossFn, Mean, Terms, call
from ._select import paths_and_leaves
from ._types import PyTree


class LossAndGrads(NamedTuple):
    """Metrics and gradients of one batch, and the new model state."""

    model_state: PyTree
    metrics: dict[str, jax.Array]  # "loss", its terms by name, and the metrics of Aux
    view_grads: PyTree
    model_grads: list[PyTree]  # gradients of the ``Learned`` values in the model state


def loss_and_grads(
    loss_fn: LossFn,
    view: PyTree,
    batch: PyTree,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    parts: int,
) -> LossAndGrads:
    """Compute loss, metrics and gradients of a batch, micro-batch by micro-batch.

    The gradients are those at the view and at the ``Learned`` values in the model state.

    Args:
      loss_fn: see ``train_step``.
      view: the compressed parameters.
      batch: tree of arrays with the examples along the leading axis.
      args: further positional arguments of the step.
      kwargs: keyword arguments of the loss.
      parts: number of micro-batches.

    Raises:
      ValueError: if the batch is empty or does not divide into that many micro-batches.
    """
    for path, leaf in zip(*paths_and_leaves(batch)[:2], strict=True):
        if jnp.ndim(leaf) and not leaf.shape[0]:
            raise ValueError(f"the batch is empty: {path!r} has shape {leaf.shape}.")
    kwargs = dict(kwargs)
    model_state, rng = kwargs.pop("model_state", None), kwargs.pop("rng", None)

    def run(view: PyTree, part: _Part) -> tuple[Terms, Aux]:
        own = {"model_state": part.model_state, "rng": part.rng}
        own = {name: value for name, value in own.items() if value is not None}
        return call(loss_fn, view, part.batch, args, {**kwargs, **own})

    def grads_of(part: _Part, weights: Terms) -> Any:
        learned, rebuild = split_learned(part.model_state)

        def loss_of(view: PyTree, learned: list[PyTree]) -> Any:
            terms, aux = run(view, part._replace(model_state=rebuild(learned)))
            shares = _shares(terms, weights, parts)
            loss = sum(shares.values(), start=jnp.zeros(()))
            metrics = _shares(aux.metrics, weights, parts)
            return loss, (aux.model_state, {"loss": loss, **shares, **metrics})

        grads, aux = jax.grad(loss_of, argnums=(0, 1), has_aux=True)(view, learned)
        return *aux, *grads

    if parts == 1:
        return LossAndGrads(*grads_of(_Part(batch, model_state, rng), {}))
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

    # Every part needs the total weights, so sum those first. Only the weights are used
    # here, so the compiler drops the rest of the loss.
    _, weights = _scan_sum(weights_of, (), (split, keys))
    model_state, total = _scan_sum(body, model_state, (split, keys))
    return LossAndGrads(model_state, *total)


class _Part(NamedTuple):
    batch: PyTree
    model_state: PyTree
    rng: Any


def _weights(terms: Mapping[str, Any]) -> Terms:
    return {name: t.weight for name, t in terms.items() if isinstance(t, Mean)}


def _shares(terms: Mapping[str, Any], weights: Terms, parts: int) -> Terms:
    """Return what one micro-batch contributes to each term of the whole batch."""

    def share(name: str, term: Any) -> jax.Array:
        if not isinstance(term, Mean):
            return term / parts if parts > 1 else term
        return Mean(term.total, weights.get(name, term.weight)).value

    return {name: share(name, term) for name, term in terms.items()}


def _scan_sum(body: Any, carry: PyTree, parts: PyTree) -> tuple[PyTree, PyTree]:
    """Scan over parts and sum the outputs of the body."""
    first = jax.tree.map(lambda x: x[0], parts)
    out = jax.eval_shape(body, carry, first)[1]
    if not jax.tree.leaves(out):
        return carry, out

    def add(carry_and_sum: tuple[PyTree, PyTree], part: Any) -> Any:
        carry, total = carry_and_sum
        carry, out = body(carry, part)
        return (carry, jax.tree.map(jnp.add, total, out)), None

    # Sum in the carry: stacked gradients would take `parts` times the memory.
    zeros = jax.tree.map(
        lambda s: lax.full(s.shape, 0, s.dtype, sharding=s.sharding), out
    )
    return lax.scan(add, (carry, zeros), parts)[0]


def _split(x: jax.Array, parts: int) -> jax.Array:
    if not x.shape or x.shape[0] % parts:
        raise ValueError(
            "the leading axis of every batch leaf must be divisible by "
            f"micro_batches={parts}, got a leaf of shape {tuple(x.shape)}."
        )
    shape = (parts, x.shape[0] // parts, *x.shape[1:])
    sharding = jax.typeof(x).sharding
    if all(
        axis is None for axis in sharding.spec
    ):  # also on a mesh without explicit axes
        return x.reshape(shape)
    # Every part is spread over the devices as the batch was.
    spec = PartitionSpec(None, *sharding.spec)
    return x.reshape(shape, out_sharding=NamedSharding(sharding.mesh, spec))
