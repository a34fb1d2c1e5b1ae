# SPDX-License-Identifier: Apache-2.0
"""Return values of a loss function: a scalar, a weighted ``Mean``, or named terms."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from ._types import PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean kept as a sum and a weight, so unequal micro-batches average exactly.

    Return it from a loss function when micro-batches hold unequal numbers of tokens,
    labels or real examples. The plain average of their means would be wrong.
    ``train_step`` adds the sums, adds the weights, and then divides. Give the mask twice,
    to the loss and to the mean: ``Mean.of(distill.kl(s, t, where=real), real)``.

    Attributes:
      total: the weighted sum, a float scalar.
      weight: the sum of the weights, a scalar. No gradient flows to it.
    """

    total: ArrayLike
    weight: ArrayLike

    @classmethod
    def of(cls, values: jax.Array, where: jax.Array | None) -> Mean:
        """Average values, such as the losses of examples or tokens, over real entries.

        ``where`` has no default: a loss that was given one returns zeros where nothing
        counts, and a mean that does not know of them would average them in. If all
        values count, ``values.mean()`` is exact for micro-batches too.

        Args:
          values: float array of any shape.
          where: bools, or non-negative weights, of the same shape: the ``where`` of the
            loss. None weights all values equally. Values with weight zero may be
            anything, including NaN.

        Raises:
          ValueError: if the shapes differ.

        Example:
          >>> import jax.numpy as jnp, jaxcompress as jc
          >>> losses, real = jnp.array([1.0, 3.0, jnp.nan]), jnp.array([True, True, False])
          >>> float(jc.Mean.of(losses, real).value)
          2.0
        """
        # bfloat16 would round the sum, and any count above 256.
        values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
        if where is None:
            return cls(jnp.sum(values), jnp.asarray(values.size, values.dtype))
        if where.shape != values.shape:
            raise ValueError(
                f"where must have one weight per value: the shape of values is "
                f"{values.shape}, got {where.shape}."
            )
        weights = lax.stop_gradient(where).astype(values.dtype)
        weighted = jnp.where(weights != 0, values, 0) * weights
        return cls(jnp.sum(weighted), jnp.sum(weights))

    @property
    def value(self) -> jax.Array:
        """The mean, or 0 if the weight is 0."""
        weight = lax.stop_gradient(jnp.asarray(self.weight))
        return jnp.asarray(self.total) / jnp.where(weight == 0, 1, weight)


class Aux(NamedTuple):
    """Extra results of a loss function: ``return loss, Aux(metrics=..., ...)``."""

    # Scalars are averaged over micro-batches; a Mean covers the whole batch exactly.
    metrics: Mapping[str, ArrayLike | Mean] = {}
    model_state: PyTree = None  # new model state; None if the model has no state


Terms = dict[str, Any]  # terms of the loss by name: scalars and Means


Term = jax.Array | float | Mean
Loss = Term | Mapping[str, Term]


class LossFn(Protocol):
    """A loss, as ``train_step`` takes it: of the view, a batch, and what else it names.

    See ``train_step`` for the keyword arguments.
    """

    def __call__(
        self, view: PyTree, batch: PyTree, /, *args: Any, **kwargs: Any
    ) -> Loss | tuple[Loss, Aux]:
        """Return a scalar, a ``Mean`` or named terms, and perhaps an ``Aux``."""
        ...


def call(
    loss_fn: LossFn,
    view: PyTree,
    batch: PyTree,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> tuple[Terms, Aux]:
    """Call a loss function and check what it returns.

    Args:
      loss_fn: see ``train_step``.
      view: the compressed parameters.
      batch: batch or micro-batch.
      args: further positional arguments of the step.
      kwargs: keyword arguments of the loss. If they include ``"model_state"``, the loss
        must return a new one.

    Raises:
      TypeError: if the second result is not an ``Aux``.
      ValueError: if a term is not a scalar, a name is used twice, or the model state is
        missing.
    """
    # Flattened and built anew, since a mutable container (a variable of NNX) may be changed
    # only in the trace in which it was built.
    arguments = jax.tree.map(lambda x: x, (view, batch, *args))
    out = loss_fn(*arguments, **jax.tree.map(lambda x: x, dict(kwargs)))
    loss, aux = out if isinstance(out, tuple) else (out, Aux())
    if not isinstance(aux, Aux):
        raise TypeError(
            "the loss function must return `loss` or `loss, jaxcompress.Aux(metrics={...}, "
            f"model_state=...)`, got a {type(aux).__name__} after the loss."
        )
    terms = loss if isinstance(loss, dict) else {"loss": loss}
    reserved = "loss" in terms and len(terms) > 1
    if clashes := ["loss"] if reserved else sorted(terms.keys() & aux.metrics.keys()):
        raise ValueError(
            f"the name {clashes[0]!r} is used twice: the metrics already contain each term "
            'of the loss by name, and their sum as "loss". Choose another name.'
        )
    for name, term in terms.items():
        for part in jax.tree.leaves(term):
            if jnp.ndim(part):
                raise ValueError(
                    f"the loss term {name!r} must be a scalar, got shape "
                    f"{jnp.shape(part)}. Reduce it with .mean() or with "
                    "jaxcompress.Mean.of(losses, where)."
                )
    if "model_state" in kwargs and aux.model_state is None:
        raise ValueError(
            "init received a model_state, so the loss function must return the new one: "
            "`return loss, jaxcompress.Aux(model_state=...)`."
        )
    return terms, aux


def total_of(terms: Terms) -> jax.Array:
    """Return the minimized value: the sum of the terms."""
    values = (t.value if isinstance(t, Mean) else t for t in terms.values())
    return sum(values, start=jnp.zeros(()))
