# SPDX-License-Identifier: Apache-2.0
"""The optimizer's state of weights that are pruned, or of a network that was rewound."""

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
    """Drop from an optimizer's state what belongs to weights that are not trained.

    As ``tx.init(params)`` makes it (zero, mostly) where the compressor's state says that
    a weight is pruned (``Active``), so that a weight which grows again starts without its
    old momentum; and all of it in the step after the parameters were rewound
    (``Restart``).
    ``train_step`` and ``wrap_optimizer`` call this; a loop of your own calls it before
    ``tx.update``. It fuses with the optimizer.

    What belongs to which weight is told by where it stands, not by the optimizer's name:
    an array whose path ends with that of a parameter and that has its shape. Statistics
    shared by many weights (Adafactor's rows and columns, flattened states) are kept.

    Args:
      tx: the optimizer.
      opt_state: its state.
      params: the parameters that it optimizes.
      compression: the compressor's state.

    Returns:
      A state like ``opt_state``.

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
    start = jax.tree.map(_like, tx.init(params), opt_state)
    if masks:
        opt_state = _masked(opt_state, start, params, masks)
    for restart in restarts:
        opt_state = jax.tree.map(
            lambda s, x, now=restart.now: jnp.where(now, s, x), start, opt_state
        )
    return opt_state


def _masked(
    opt_state: PyTree, start: PyTree, params: PyTree, masks: dict[KeyPath, Any]
) -> PyTree:
    known = {path: leaf.shape for path, leaf in tree_flatten_with_path(params)[0]}

    def keep(path: KeyPath, leaf: Any, new: Any) -> Any:
        # The longest ending: `a/kernel` is an ending of `b/a/kernel` too.
        ends = (path[i:] for i in range(len(path) + 1))
        owner = next((end for end in ends if end in known), None)
        if owner is None or owner not in masks or leaf.shape != known[owner]:
            return leaf
        return jnp.where(masks[owner], leaf, new)

    return jax.tree_util.tree_map_with_path(keep, opt_state, start)


def _like(new: Any, leaf: Any) -> Any:
    # Keys have a dtype that nothing is cast to.
    return new if new.dtype == leaf.dtype else new.astype(leaf.dtype)
