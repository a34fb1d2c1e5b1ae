# SPDX-License-Identifier: Apache-2.0
"""Reset the optimizer state of pruned weights and of rewound networks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import KeyPath, tree_flatten_with_path

from ._compressor import Active, PyTree, Restart, marks


def fresh(
    tx: optax.GradientTransformation,
    opt_state: PyTree,
    params: PyTree,
    compression: PyTree,
) -> PyTree:
    """Reset the optimizer state of pruned weights, so regrown weights start fresh.

    Call it before ``tx.update`` in a hand-written loop. ``train_step`` and
    ``wrap_optimizer`` call it for you. It resets entries to their value in
    ``tx.init(params)``, usually zero:

    - where the compressor's state marks a weight as pruned (``Active``), so a weight that
      is regrown starts without its old momentum;
    - everywhere, in the step after the parameters were rewound (``Restart``).

    It fuses with the optimizer.

    An array in the optimizer state belongs to a parameter if its path ends with the
    parameter's path and the shapes agree. The optimizer's name does not matter.
    Statistics shared by many weights (Adafactor's rows and columns, flattened states)
    are kept.

    Args:
      tx: the optimizer.
      opt_state: the optimizer's state.
      params: the parameters that it optimizes.
      compression: the compressor's state.

    Returns:
      The new optimizer state, with the structure of ``opt_state``.

    Example:
      >>> import jax.numpy as jnp, optax, jaxcompress as jc
      >>> params = {"kernel": jnp.array([[1.0, 2.0]])}
      >>> pruner, tx = jc.magnitude_pruning(0.5), optax.sgd(0.1, momentum=0.9)
      >>> masks, opt_state = pruner.init(params), tx.init(params)
      >>> _, opt_state = tx.update(params, opt_state)
      >>> jc.fresh(tx, opt_state, params, masks)[0].trace["kernel"].tolist()
      [[0.0, 2.0]]
    """
    masks: dict[KeyPath, jax.Array] = {}
    for active in marks(compression, Active):
        for path, mask in tree_flatten_with_path(active.masks)[0]:
            masks[path] = masks[path] & mask if path in masks else mask
    restarts = marks(compression, Restart)
    if not masks and not restarts:
        return opt_state
    initial = jax.tree.map(_cast_like, tx.init(params), opt_state)
    if masks:
        opt_state = _reset_pruned(opt_state, initial, params, masks)
    for restart in restarts:
        opt_state = jax.tree.map(
            lambda s, x, now=restart.now: jnp.where(now, s, x), initial, opt_state
        )
    return opt_state


def _reset_pruned(
    opt_state: PyTree, initial: PyTree, params: PyTree, masks: dict[KeyPath, Any]
) -> PyTree:
    shapes = {path: leaf.shape for path, leaf in tree_flatten_with_path(params)[0]}

    def reset(path: KeyPath, leaf: Any, new: Any) -> Any:
        # Take the longest suffix: `a/kernel` is a suffix of `b/a/kernel` too.
        suffixes = (path[i:] for i in range(len(path) + 1))
        owner = next((suffix for suffix in suffixes if suffix in shapes), None)
        if owner is None or owner not in masks or leaf.shape != shapes[owner]:
            return leaf
        return jnp.where(masks[owner], leaf, new)

    return jax.tree_util.tree_map_with_path(reset, opt_state, initial)


def _cast_like(new: Any, leaf: Any) -> Any:
    # Skip equal dtypes, because astype rejects the dtype of PRNG keys.
    return new if new.dtype == leaf.dtype else new.astype(leaf.dtype)
