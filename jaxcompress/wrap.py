# SPDX-License-Identifier: Apache-2.0
"""Compression inside of an optimizer, for a training loop that nobody may edit."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ._compressor import Compressor, PyTree, split_learned
from ._fresh import fresh


class WrappedState(NamedTuple):
    """State of a wrapped optimizer."""

    inner: PyTree  # state of the optimizer inside
    params: PyTree  # raw parameters; the loop's own are the view of them
    compression: PyTree  # the compressor's state


def wrap_optimizer(
    tx: optax.GradientTransformation, compressor: Compressor
) -> optax.GradientTransformationExtraArgs:
    """Compress inside an optimizer, for a training loop that nobody may edit.

    The parameters that the loop holds become the view: the model sees compressed weights
    and nothing in the loop changes. The raw parameters live in the optimizer's state
    (``unwrap`` takes them out), which costs one copy. The loop's parameters are the view
    up to one rounding, since optax adds updates; zeros are exact. The first gradient is
    the one at the uncompressed parameters.

    Args:
      tx: the optimizer of the loop.
      compressor: without learned parameters, for which there is ``train_step``.

    Raises:
      ValueError: in ``init``, if the compressor has learned parameters; in ``update``, if
        the loop does not pass the parameters.

    Example:
      >>> import jax.numpy as jnp, optax, jaxcompress as jc
      >>> pruner = jc.magnitude_pruning(0.5)
      >>> tx = jc.wrap_optimizer(optax.sgd(0.1), pruner)
      >>> params = {"kernel": jnp.array([[1.0, 2.0]])}
      >>> opt_state = tx.init(params)
      >>> updates, opt_state = tx.update({"kernel": jnp.ones((1, 2))}, opt_state, params)
      >>> optax.apply_updates(params, updates)
      {'kernel': Array([[0. , 1.9]], dtype=float32)}
      >>> shipped = pruner.finalize(*jc.unwrap(opt_state))
    """
    tx = optax.with_extra_args_support(tx)

    def init(params: PyTree) -> WrappedState:
        compression = compressor.init(params)
        if split_learned(compression)[0]:
            raise ValueError(
                "this compressor has learned parameters, which an optimizer wrapped for "
                "somebody else's loop cannot see the gradient of. Use train_step."
            )
        # Copies: the loop may donate its parameters together with this state.
        raw = jax.tree.map(jnp.copy, params)
        inner = tx.init(jax.tree.map(jnp.copy, params))
        return WrappedState(inner, raw, compression)

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extras: Any
    ) -> tuple[PyTree, WrappedState]:
        if params is None:
            raise ValueError(
                "a wrapped optimizer needs tx.update(grads, state, params)."
            )
        _, pullback = jax.vjp(
            lambda raw: compressor.apply(raw, state.compression), state.params
        )
        (grads,) = pullback(updates)
        inner = fresh(tx, state.inner, state.params, state.compression)
        steps, inner = tx.update(grads, inner, state.params, **extras)
        raw = optax.apply_updates(state.params, steps)
        extras = {**extras, "grads": updates, "before": state.params}
        raw, compression = compressor.update(raw, state.compression, **extras)
        view = compressor.apply(raw, compression)
        moves = jax.tree.map(lambda new, old: new - old, view, params)
        return moves, WrappedState(inner, raw, compression)

    return optax.GradientTransformationExtraArgs(init, update)


def unwrap(opt_state: PyTree) -> tuple[PyTree, PyTree]:
    """The raw parameters and the compressor's state inside a wrapped optimizer's state.

    Args:
      opt_state: state of ``wrap_optimizer(tx, c)``, also inside ``optax.chain``.

    Returns:
      ``(params, state)``, ready for ``c.finalize(params, state)``.

    Raises:
      ValueError: if there is no wrapped state inside, or several.
    """
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, WrappedState))
    found = [node for node in nodes if isinstance(node, WrappedState)]
    if len(found) != 1:
        raise ValueError(
            f"this optimizer state holds {len(found)} states of wrap_optimizer, not one."
        )
    return found[0].params, found[0].compression
