# SPDX-License-Identifier: Apache-2.0
"""What a loss function returns: a number, a mean with its weight, or terms by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from ._compressor import PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean that is still a sum and a weight, so that parts of a batch add up exactly.

    Micro-batches that hold unequal numbers of tokens, labels or real examples have means
    whose mean is another number. A loss function that returns ``Mean`` gives
    ``train_step`` what it needs: sums are added, weights are added, then divided.

    Attributes:
      total: the weighted sum, a float scalar.
      weight: how much was added up, a scalar; no gradient reaches it.
    """

    total: ArrayLike
    weight: ArrayLike

    @classmethod
    def of(cls, values: jax.Array, where: jax.Array | None = None) -> Mean:
        """The mean of some values, such as the losses of examples or tokens.

        Args:
          values: of any shape.
          where: what counts: bools, or weights that are not negative, of the same shape.
            None: all alike. Where it is zero the value may be anything, NaN included.

        Raises:
          ValueError: if the shapes differ.

        Example:
          >>> import jax.numpy as jnp, jaxcompress as jc
          >>> losses, real = jnp.array([1.0, 3.0, jnp.nan]), jnp.array([True, True, False])
          >>> float(jc.Mean.of(losses, real).value)
          2.0
        """
        # In bfloat16 a sum, and a count above 256, would be rounded.
        values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
        if where is None:
            return cls(jnp.sum(values), jnp.asarray(values.size, values.dtype))
        if where.shape != values.shape:
            raise ValueError(
                f"where= {where.shape} and values {values.shape} differ: one weight a "
                "value."
            )
        weights = lax.stop_gradient(where).astype(values.dtype)
        weighted = jnp.where(weights != 0, values, 0) * weights
        return cls(jnp.sum(weighted), jnp.sum(weights))

    @property
    def value(self) -> jax.Array:
        """The mean; 0 if nothing counted."""
        weight = lax.stop_gradient(jnp.asarray(self.weight))
        return jnp.asarray(self.total) / jnp.where(weight == 0, 1, weight)


class Aux(NamedTuple):
    """What a loss function may return beside the loss: ``return loss, Aux(...)``."""

    # Scalars are averaged over micro-batches, a Mean is that of all of them.
    metrics: Mapping[str, ArrayLike | Mean] = {}
    model_state: PyTree = None  # the new model state, where the model has one


Terms = dict[str, Any]  # of the loss, by name: scalars and Means


def call(
    loss_fn: Callable[..., Any],
    view: PyTree,
    batch: PyTree,
    args: tuple[Any, ...],
    known: Mapping[str, Any],
) -> tuple[Terms, Aux]:
    """Call a loss function, and check what it returns.

    Args:
      loss_fn: see ``train_step``.
      view: the compressed parameters.
      batch: the batch, or a micro-batch.
      args: what else the step was given.
      known: what the loss is given by keyword; ``"model_state"`` must come back.

    Raises:
      TypeError: if something else than ``Aux`` is beside the loss.
      ValueError: if a term is no scalar, a name is used twice, or the model state is
        missing.
    """
    out = loss_fn(view, batch, *args, **known)
    loss, aux = out if isinstance(out, tuple) else (out, Aux())
    if not isinstance(aux, Aux):
        raise TypeError(
            f"the loss function returned {type(aux).__name__} beside the loss; return "
            "`loss` or `loss, jaxcompress.Aux(metrics={...}, model_state=...)`."
        )
    terms = loss if isinstance(loss, dict) else {"loss": loss}
    several = "loss" in terms and len(terms) > 1
    if twice := ["loss"] if several else sorted(terms.keys() & aux.metrics.keys()):
        raise ValueError(
            f"{twice[0]!r} names two things: the metrics have the terms of the loss by "
            'name, and their sum as "loss". Choose another name.'
        )
    for name, term in terms.items():
        for part in jax.tree.leaves(term):
            if jnp.ndim(part):
                raise ValueError(
                    f"{name!r} of the loss has shape {jnp.shape(part)}: reduce it to a "
                    "scalar, with .mean(), or with jaxcompress.Mean.of(losses, where)."
                )
    if "model_state" in known and aux.model_state is None:
        raise ValueError(
            "init was given a model_state, so the loss function returns the new one: "
            "`return loss, jaxcompress.Aux(model_state=...)`."
        )
    return terms, aux


def total_of(terms: Terms) -> jax.Array:
    """What is minimized: the terms, added up."""
    values = (t.value if isinstance(t, Mean) else t for t in terms.values())
    return sum(values, start=jnp.zeros(()))
