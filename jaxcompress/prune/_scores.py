# SPDX-License-Identifier: Apache-2.0
"""Scores: how much each weight matters. The lowest are pruned first."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp

PyTree = Any


class Score(Protocol):
    """``(params, **extras) -> scores``: float arrays shaped like the parameters."""

    def __call__(self, params: PyTree, **extras: Any) -> PyTree: ...  # noqa: D102


def magnitude(params: PyTree, **extras: Any) -> PyTree:
    """Absolute value of each weight.

    References:
      Han et al., 2015, https://arxiv.org/abs/1506.02626
    """
    del extras
    return jax.tree.map(jnp.abs, params)
