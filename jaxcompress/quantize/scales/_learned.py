# SPDX-License-Identifier: Apache-2.0
"""Learned scales: trained by the optimizer beside the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..._compressor import Learned
from ...formats import Format
from ...leaves import scales_as_floats
from ...numerics import reduce_tiles, ste
from ..gradients import through_scale, to_the_bound
from ._following import Scale, largest_level, of_range
from ._stateful import Chosen, Shape, StatefulScale

_SMALLEST = 1e-12


class LearnedScaleState(NamedTuple):
    """State of ``lsq``, ``lsq_plus`` and ``pact``; each value is inside ``Learned``."""

    count: jax.Array  # int32 []: arrays seen; the first sets the values
    scale: Learned  # float32: the scale; of ``pact`` the bound
    zero_point: Learned | None  # float32, in steps; of ``lsq_plus``


def lsq(*, start: Scale | None = None) -> StatefulScale:
    """Learn the step size: its gradient is the rounding error, in steps.

    Set by the first array seen; then ``train_step`` trains it (in an activation, too,
    whose ranges are the ``model_state``). The zero point of an asymmetric format is fixed
    at the lowest code: for activations that are not negative.

    Args:
      start: how to choose the first scale; None: twice the mean magnitude over the root
        of the largest code, as in the paper; of signs, the mean magnitude. That mean has
        zeros in it: of weights that are pruned already ``start=mse()`` is better.

    Example:
      >>> import optax, jaxcompress as jc
      >>> ternary = jc.weight_quantization(bits=2, scale=jc.quantize.scales.lsq())
      >>> init, step = jc.train_step(lambda view, batch: 0.0, optax.adam(1e-3), ternary)

    References:
      Esser et al., 2020, https://arxiv.org/abs/1902.08153
    """

    def read(state: LearnedScaleState, x: jax.Array, fmt: Format) -> Chosen:
        scale = _scale(state, x, fmt)
        zero_point = None if fmt.symmetric else jnp.full_like(scale, fmt.low)
        return scale, zero_point

    def init(shape: Shape, fmt: Format) -> LearnedScaleState:
        del fmt
        return _unknown(shape, offset=False)

    def observe(
        state: LearnedScaleState, x: jax.Array, fmt: Format
    ) -> LearnedScaleState:
        shape = state.scale.value.shape
        return _set_once(state, lambda: (_first(start, x, shape, fmt)[0], None))

    return StatefulScale(init=init, observe=observe, read=read, gradient=through_scale)


def lsq_plus(*, start: Scale | None = None) -> StatefulScale:
    """Learn the step size and the zero point of an asymmetric format.

    The zero point is learned in steps and rounded where it is used, straight through, so
    that zero stays on the grid and integer runtimes can have it; the paper's offset may
    be anything.

    Args:
      start: how to choose the first ones; None: so that the first array is not clipped.

    References:
      Bhalgat et al., 2020, https://arxiv.org/abs/2004.09576
    """

    def init(shape: Shape, fmt: Format) -> LearnedScaleState:
        if fmt.symmetric:
            raise ValueError(
                f"{fmt} is symmetric and has no zero point to learn: take lsq(), or "
                "Int(bits, symmetric=False)."
            )
        return _unknown(shape, offset=True)

    def observe(
        state: LearnedScaleState, x: jax.Array, fmt: Format
    ) -> LearnedScaleState:
        shape = state.scale.value.shape

        def first() -> Chosen:
            if start is not None:
                return _first(start, x, shape, fmt)
            wide = lax.stop_gradient(x).astype(jnp.float32)
            ends = (
                reduce_tiles(f, wide, shape or (1,) * x.ndim)
                for f in (jnp.min, jnp.max)
            )
            low, high = (end.reshape(shape) for end in ends)
            return of_range(low, high, fmt)

        return _set_once(state, first)

    def read(state: LearnedScaleState, x: jax.Array, fmt: Format) -> Chosen:
        assert state.zero_point is not None
        raw = _calmed(state.zero_point.value, x, fmt)
        zero_point = jnp.clip(ste(raw, jnp.round(raw)), fmt.low, fmt.high)
        return _scale(state, x, fmt), zero_point

    return StatefulScale(init=init, observe=observe, read=read, gradient=through_scale)


def pact(*, start: float | None = None) -> StatefulScale:
    """Learn the bound that an activation is clipped at: its gradient is what is clipped.

    Of an asymmetric format the range is from zero to the bound, for what follows a ReLU.
    Shrink the bounds with a penalty or weight decay (``learned_tx``), as the paper does.

    Args:
      start: the first bound; None: the largest magnitude of the first array.

    References:
      Choi et al., 2018, https://arxiv.org/abs/1805.06085
    """
    if start is not None and not start > 0:
        raise ValueError(f"start={start}: a bound is above 0.")

    def init(shape: Shape, fmt: Format) -> LearnedScaleState:
        del fmt
        return _unknown(shape, offset=False)

    def observe(
        state: LearnedScaleState, x: jax.Array, fmt: Format
    ) -> LearnedScaleState:
        del fmt
        shape = state.scale.value.shape

        def first() -> Chosen:
            if start is not None:
                return jnp.full(shape, start, jnp.float32), None
            wide = jnp.abs(lax.stop_gradient(x).astype(jnp.float32))
            return reduce_tiles(jnp.max, wide, shape or (1,) * x.ndim), None

        return _set_once(state, first)

    def read(state: LearnedScaleState, x: jax.Array, fmt: Format) -> Chosen:
        del x
        bound = _known(state, jnp.abs(state.scale.value))
        low = -bound if fmt.symmetric else jnp.zeros_like(bound)
        return of_range(low, bound, fmt)

    return StatefulScale(init=init, observe=observe, read=read, gradient=to_the_bound)


def _unknown(shape: Shape, *, offset: bool) -> LearnedScaleState:
    ones = jnp.ones(shape, jnp.float32)
    zero_point = Learned(jnp.zeros_like(ones)) if offset else None
    return LearnedScaleState(jnp.zeros((), jnp.int32), Learned(ones), zero_point)


def _set_once(
    state: LearnedScaleState, first: Callable[[], Chosen]
) -> LearnedScaleState:
    """Values for the first array; later ones do not pay for choosing them."""
    shape = state.scale.value.shape
    offset = None if state.zero_point is None else state.zero_point.value

    def chosen() -> tuple[jax.Array, jax.Array | None]:
        scale, zero_point = first()
        scale = jnp.asarray(scale, jnp.float32).reshape(shape)
        if zero_point is None or offset is None:
            return scale, None
        return scale, zero_point.astype(jnp.float32).reshape(shape)

    scale, zero_point = lax.cond(
        state.count == 0, chosen, lambda: (state.scale.value, offset)
    )
    kept = None if zero_point is None else Learned(zero_point)
    return LearnedScaleState(state.count + 1, Learned(scale), kept)


def _known(state: LearnedScaleState, value: jax.Array) -> jax.Array:
    return jnp.where(state.count > 0, value, jnp.nan)


def _first(
    start: Scale | None, x: jax.Array, shape: Shape, fmt: Format
) -> tuple[jax.Array, jax.Array | None]:
    x = lax.stop_gradient(x).astype(jnp.float32)
    tiles = shape or (1,) * x.ndim
    if start is not None:
        scale, zero_point = start(x, tiles, fmt)
        return scales_as_floats(scale, jnp.float32), zero_point
    mean = reduce_tiles(jnp.mean, jnp.abs(x), tiles)
    # The mean itself is nearest where there is nothing but signs.
    first = mean if fmt.binary else 2 * mean / jnp.sqrt(largest_level(fmt))
    return jnp.where(first > jnp.finfo(jnp.float32).tiny, first, 1), None


def _scale(state: LearnedScaleState, x: jax.Array, fmt: Format) -> jax.Array:
    if not fmt.scaled:
        return _known(state, jnp.ones_like(state.scale.value))
    # An optimizer may step across zero; what is divided by so small a scale is finite.
    positive = jnp.maximum(jnp.abs(_calmed(state.scale.value, x, fmt)), _SMALLEST)
    return _known(state, positive)


def _calmed(value: jax.Array, x: jax.Array, fmt: Format) -> jax.Array:
    """The value; its gradient, a sum over many, made as large as that of one weight."""
    # Of an activation, whose scale is one for the whole batch: over one example.
    share = value.size if value.ndim or not x.ndim else x.shape[0]
    factor = 1 / jnp.sqrt(
        jnp.float32(max(1, x.size / max(1, share))) * largest_level(fmt)
    )
    small = value * factor
    return lax.stop_gradient(value) + (small - lax.stop_gradient(small))
