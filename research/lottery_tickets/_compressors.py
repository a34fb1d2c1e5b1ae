# SPDX-License-Identifier: Apache-2.0
"""Two compressors of this study, made of the four functions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

import jaxcompress as jc


def watched(compressor: jc.Compressor) -> jc.Compressor:
    """The same, and the state holds what the network was before the last update too.

    ``lottery_ticket`` prunes and rewinds in the update of a round's last step; what the
    round was trained to is gone after it. The state is a pair: that of the compressor,
    and the view of what the optimizer made, under the masks it was trained with.
    """

    def init(params: Any) -> Any:
        state = compressor.init(params)
        return state, compressor.apply(params, state)

    def apply(params: Any, state: Any) -> Any:
        return compressor.apply(params, state[0])

    def update(params: Any, state: Any, **extras: Any) -> tuple[Any, Any]:
        trained = compressor.apply(params, state[0])
        params, inner = compressor.update(params, state[0], **extras)
        return params, (inner, trained)

    return jc.Compressor(init=init, apply=apply, update=update)


def held(ticket: Any) -> jc.Compressor:
    """The zeros of another network's matrices, whatever the parameters are."""

    def init(params: Any) -> Any:
        del params
        # A bias that happens to be zero is not pruned.
        return jc.Active(jax.tree.map(lambda w: (w != 0) | (w.ndim < 2), ticket))

    def apply(params: Any, state: Any) -> Any:
        return jax.tree.map(
            lambda p, m: jnp.where(m, p, jnp.zeros((), p.dtype)), params, state.masks
        )

    def update(params: Any, state: Any, **extras: Any) -> tuple[Any, Any]:
        del extras
        return apply(params, state), state

    return jc.Compressor(init=init, apply=apply, update=update)
