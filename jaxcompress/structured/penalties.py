# SPDX-License-Identifier: Apache-2.0
"""Penalties that make whole channels small during training, as terms of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .._select import Where, select
from .._signatures import name_defaults
from ._groups import Groups, check_groups
from .scores import channel_sums, is_matrix

__all__ = ["group_lasso", "growing", "norm_scale"]


@name_defaults
def group_lasso(groups: Groups, params: Any, *, where: Where = is_matrix) -> jax.Array:
    """Return the sum of the Euclidean norms of all channels of all groups.

    Add it to the loss with a small factor. Its gradient pulls every channel toward zero
    with the same strength, so unimportant ones get there.

    Args:
      groups: the result of ``jc.trace_axes``.
      params: the parameters.
      where: which leaves count.

    Returns:
      float32 [].

    References:
      Wen et al., 2016, https://arxiv.org/abs/1608.03665; Fang et al., 2023,
      https://arxiv.org/abs/2301.12900
    """
    check_groups(groups, "group_lasso(groups, params)")
    squares = channel_sums(groups, params, jnp.square, where)
    return sum((_norms(s).sum() for s in squares.values()), jnp.zeros(()))


@name_defaults
def growing(
    groups: Groups,
    params: Any,
    masks: Mapping[str, Any],
    *,
    where: Where = is_matrix,
) -> jax.Array:
    """Return half the squared weights of the channels that are going to be removed.

    Add it to the loss with a factor that grows from step to step. The network moves out
    of these channels before they are removed.

    Args:
      groups: the groups.
      params: the parameters.
      masks: bool [size] by group name, true for channels that stay.
      where: which leaves count.

    Returns:
      float32 [].

    References:
      Wang et al., 2021, "Neural pruning via growing regularization",
      https://arxiv.org/abs/2012.09243
    """
    check_groups(groups, "growing(groups, params, masks)")
    squares = channel_sums(groups, params, jnp.square, where)
    doomed = (
        jnp.where(jnp.asarray(masks[name]), 0.0, s).sum() / 2
        for name, s in squares.items()
        if name in masks
    )
    return sum(doomed, jnp.zeros(()))


def norm_scale(params: Any, *, where: Where = "*/scale") -> jax.Array:
    """Return the sum of the magnitudes of the scales of norms (network slimming).

    Add it to the loss with a factor such as 1e-4, and prune by
    ``structured.scores.norm_scale()``.

    Args:
      params: the parameters.
      where: which leaves are scales of norms.

    Returns:
      float32 [].

    References:
      Liu et al., 2017, https://arxiv.org/abs/1708.06519
    """
    leaves = jax.tree.leaves(select(params, where).tree)
    return sum((jnp.abs(x).sum() for x in leaves), jnp.zeros(()))


def _norms(squares: jax.Array) -> jax.Array:
    """Take square roots, with gradient zero at zero."""
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)
