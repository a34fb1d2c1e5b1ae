# SPDX-License-Identifier: Apache-2.0
"""Hold zeros: fine-tune a network that is already pruned."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jax.core import Tracer

from ..._combine import masked
from ..._compressor import Active, Compressor, PyTree
from ..._select import Where, is_weight
from ..._signatures import name_defaults
from ..scores._immediate import refuse_nan
from ..treatments import keep


class HoldState(NamedTuple):
    """State of ``hold_zeros``."""

    kept: Active  # bool, like params; False where the weight is held at zero

    @property
    def masks(self) -> PyTree:
        """Bool arrays shaped like the parameters, True where the weight is kept."""
        return self.kept.masks


@name_defaults
def hold_zeros(where: Where = is_weight) -> Compressor:
    """Keep weights at zero that are zero now, to fine-tune an already pruned network.

    Args:
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      ValueError: in ``init``, if nothing is selected, or no selected weight is zero
        (the latter is not checked for traced parameters).

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.array([[0.0, 2.0]])}
      >>> state = jc.prune.hold_zeros().init(params)
      >>> params = jax.tree.map(lambda p: p + 1, params)  # an optimizer's step
      >>> jc.prune.hold_zeros().update(params, state)[0]["kernel"].tolist()
      [[0.0, 3.0]]
    """

    def init(params: PyTree) -> HoldState:
        refuse_nan(params)
        masks = jax.tree.map(lambda p: p != 0, params)
        leaves = jax.tree.leaves(masks)
        if not any(isinstance(m, Tracer) for m in leaves) and all(
            bool(m.all()) for m in leaves
        ):
            raise ValueError(
                f"the selected leaves must contain zeros to hold, got {len(leaves)} leaves "
                "without any. Call init with the pruned parameters, or change `where`."
            )
        return HoldState(Active(masks))

    def apply(params: PyTree, state: HoldState) -> PyTree:
        return jax.tree.map(keep, params, state.masks)

    def update(
        params: PyTree, state: HoldState, **extras: Any
    ) -> tuple[PyTree, HoldState]:
        del extras
        params = apply(params, state)
        refuse_nan(params)
        return params, state

    return masked(Compressor(init=init, apply=apply, update=update), where)
