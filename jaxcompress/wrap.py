# SPDX-License-Identifier: Apache-2.0
"""Compression inside an optimizer, for training loops that you cannot change."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ._arguments import check_compressor, check_optimizer, check_params
from ._compressor import Compressor, PyTree, split_learned
from ._fresh import fresh
from ._penalty import penalty_and_grads
from ._skip import all_finite, keep_unless

__all__ = [
    "WrappedState",
    "unwrap",
    "wrap_optimizer",
]


class WrappedState(NamedTuple):
    """State of a wrapped optimizer."""

    inner: PyTree  # state of the wrapped optimizer
    params: PyTree  # raw parameters; the loop holds their view
    compression: PyTree  # the compressor's state
    started: jax.Array  # bool []: whether the loop holds the view by now


def wrap_optimizer(
    tx: optax.GradientTransformation, compressor: Compressor
) -> optax.GradientTransformationExtraArgs:
    """Wrap an optax optimizer so that it compresses, without changes to the training loop.

    Use it when you cannot change the loop; otherwise prefer ``train_step``. The loop's
    parameters become the view, so the model sees compressed weights. The raw parameters
    live in the optimizer state, which costs one copy; ``unwrap`` extracts them. The
    loop's parameters equal the view up to one rounding, because optax adds updates;
    zeros are exact. The first gradient is taken at the uncompressed parameters.

    **To average the network over steps** (EMA, SWA), average the raw parameters,
    ``unwrap(opt_state)[0]``, and compress the average: ``c.apply(average, state)`` to
    evaluate and ``c.finalize(average, state)`` to ship, with the state of
    ``unwrap(opt_state)[1]``. The loop's own parameters are views: where masks or scales
    have changed, an average of them has no zeros and is on no grid.

    A loop may change its parameters by other means: clip them, add noise, swap in an
    average. The raw parameters then move by the same difference. Masks stay as they were:
    to start from other parameters, such as pretrained ones, call ``init`` again.

    Args:
      tx: the optimizer of the loop.
      compressor: compressor without learned parameters; those need ``train_step``.

    Raises:
      ValueError: in ``init``, if the compressor has learned parameters. In ``update``, if
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
    call = "wrap_optimizer(tx, compressor)"
    check_optimizer(tx, call)
    check_compressor(compressor, call)
    tx = optax.with_extra_args_support(tx)

    def init(params: PyTree) -> WrappedState:
        check_params(params, "init(params)")
        compression = compressor.init(params)
        if split_learned(compression)[0]:
            raise ValueError(
                "this compressor has learned parameters, and a wrapped optimizer cannot "
                "compute their gradients. Use train_step."
            )
        # Copy, because the loop may donate its parameters together with this state.
        raw = jax.tree.map(jnp.copy, params)
        inner = tx.init(jax.tree.map(jnp.copy, params))
        return WrappedState(inner, raw, compression, jnp.zeros((), bool))

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extras: Any
    ) -> tuple[PyTree, WrappedState]:
        if params is None:
            raise ValueError(
                "a wrapped optimizer needs the parameters: call "
                "tx.update(grads, state, params)."
            )
        view, pullback = jax.vjp(
            lambda raw: compressor.apply(raw, state.compression), state.params
        )
        (grads,) = pullback(updates)
        penalty_grads = ()
        if compressor.penalty is not None:
            _, (penalty_grads, _) = penalty_and_grads(
                compressor, state.params, [], lambda _: state.compression
            )
            grads = jax.tree.map(jnp.add, grads, penalty_grads)

        def follow(raw: jax.Array, view: jax.Array, held: jax.Array) -> jax.Array:
            return raw + (held - jnp.where(state.started, view, raw))

        before = jax.tree.map(follow, state.params, view, params)
        inner = fresh(tx, state.inner, before, state.compression)
        steps, inner = tx.update(grads, inner, before, **extras)
        moved = (optax.apply_updates(before, steps), state.compression)
        extras = {**extras, "grads": updates, "before": before}
        finite = all_finite((updates, penalty_grads))
        raw, compression = keep_unless(
            finite, compressor.update(*moved, **extras), moved
        )
        view = compressor.apply(raw, compression)
        moves = jax.tree.map(lambda new, old: new - old, view, params)
        return moves, WrappedState(inner, raw, compression, jnp.ones((), bool))

    return optax.GradientTransformationExtraArgs(init, update)


def unwrap(opt_state: PyTree) -> tuple[PyTree, PyTree]:
    """Extract the raw parameters and the compressor's state after wrapped training.

    Args:
      opt_state: state of ``wrap_optimizer(tx, c)``, possibly inside ``optax.chain``.

    Returns:
      ``(params, state)``, ready for ``c.finalize(params, state)``. So is the state with
      an average of such parameters; see ``wrap_optimizer``.

    Raises:
      ValueError: if it does not contain exactly one wrapped state.
    """
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, WrappedState))
    states = [node for node in nodes if isinstance(node, WrappedState)]
    if len(states) != 1:
        raise ValueError(
            "the optimizer state must hold exactly one state of wrap_optimizer, got "
            f"{len(states)}."
        )
    return states[0].params, states[0].compression
