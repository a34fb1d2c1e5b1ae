# SPDX-License-Identifier: Apache-2.0
"""Scales that the optimizer trains together with the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..._compressor import Learned
from ..._origin import Origin, check_origin, make_origin
from ...formats import Format
from ...leaves import scales_as_floats
from ...numerics import cond, reduce_tiles, ste
from ..gradients import Gradient, through_scale, to_the_bound
from ._calls import largest
from ._following import Scale, largest_level, of_range
from ._stateful import Chosen, Shape, StatefulScale

_SMALLEST = 1e-12


class LearnedScaleState(NamedTuple):
    """State of ``lsq``, ``lsq_plus``, ``log_step`` and ``pact``; ``Learned`` is trained."""

    count: jax.Array  # int32 []: arrays observed; the first one sets the values
    # float32: the scale; the clipping bound of ``pact``, the logarithm of ``log_step``
    scale: Learned
    zero_point: Learned | None  # float32, in steps; ``lsq_plus`` only
    origin: Origin  # the method, and for a scale the format: values are in its steps


def lsq(*, start: Scale | None = None) -> StatefulScale:
    """Learn the step size with LSQ: the optimizer trains the scale with the weights.

    The gradient of the scale is the rounding error, in steps. The first array observed
    sets the scale; after that ``train_step`` trains it. Scales of activations are trained,
    too; their ranges are in ``model_state``. An asymmetric format has its zero point fixed
    at the lowest code, which suits activations that are never negative.

    Args:
      start: ``Scale`` that chooses the first scale. None uses the paper's rule: twice the
        mean magnitude over the square root of the largest code. For binary formats it is
        the mean magnitude. The mean includes zeros, so for weights that are already
        pruned ``start=mse()`` is better.

    Example:
      >>> import optax, jaxcompress as jc
      >>> ternary = jc.weight_quantization(bits=2, scale=jc.quantize.scales.lsq())
      >>> init, step = jc.train_step(lambda view, batch: 0.0, optax.adam(1e-3), ternary)

    References:
      Esser et al., 2020, https://arxiv.org/abs/1902.08153
    """

    def read(state: LearnedScaleState, x: jax.Array, fmt: Format) -> Chosen:
        scale = _read_scale(state, x, fmt)
        zero_point = None if fmt.symmetric else jnp.full_like(scale, fmt.low)
        return scale, zero_point

    def observe(
        state: LearnedScaleState, x: jax.Array, fmt: Format
    ) -> LearnedScaleState:
        shape = state.scale.value.shape
        return set_once(state, lambda: (_initial_scale(start, x, shape, fmt)[0], None))

    def init(shape: Shape, fmt: Format) -> LearnedScaleState:
        return unset_state(shape, make_origin("lsq", fmt))

    return learned_scale("lsq", init, observe, read, through_scale)


def lsq_plus(*, start: Scale | None = None) -> StatefulScale:
    """Learn the step size and the zero point of an asymmetric format, as LSQ+ does.

    The zero point is learned in steps. It is rounded on use, with a straight-through
    gradient: zero stays on the grid, and integer runtimes can represent it. The paper's
    offset can take any value.

    Args:
      start: ``Scale`` that chooses the first scale and zero point. None chooses them so
        that the first array is not clipped.

    Raises:
      ValueError: in ``init``, if the format is symmetric.

    References:
      Bhalgat et al., 2020, https://arxiv.org/abs/2004.09576
    """

    def init(shape: Shape, fmt: Format) -> LearnedScaleState:
        if fmt.symmetric:
            raise ValueError(
                f"lsq_plus needs an asymmetric format such as Int(bits, "
                f"symmetric=False); {fmt} has no zero point to learn. Or use lsq()."
            )
        return unset_state(shape, make_origin("lsq_plus", fmt), offset=True)

    def observe(
        state: LearnedScaleState, x: jax.Array, fmt: Format
    ) -> LearnedScaleState:
        shape = state.scale.value.shape

        def first() -> Chosen:
            if start is not None:
                return _initial_scale(start, x, shape, fmt)
            wide = lax.stop_gradient(x).astype(jnp.float32)
            ends = (
                reduce_tiles(f, wide, shape or (1,) * x.ndim)
                for f in (jnp.min, jnp.max)
            )
            low, high = (end.reshape(shape) for end in ends)
            return of_range(low, high, fmt)

        return set_once(state, first)

    def read(state: LearnedScaleState, x: jax.Array, fmt: Format) -> Chosen:
        assert state.zero_point is not None
        raw = _damp_gradient(state.zero_point.value, x, fmt)
        zero_point = jnp.clip(ste(raw, jnp.round(raw)), fmt.low, fmt.high)
        return _read_scale(state, x, fmt), zero_point

    return learned_scale("lsq_plus", init, observe, read, through_scale)


def pact(*, start: float | None = None) -> StatefulScale:
    """Learn the bound at which an activation is clipped, as PACT does.

    The bound receives its gradient from the clipped values. An asymmetric format spans the
    range from zero to the bound, which suits the output of a ReLU. Shrink the bounds with a
    penalty or weight decay (``learned_tx``), as the paper does.

    Args:
      start: the first bound, positive; None uses the largest magnitude of the first array.

    Raises:
      ValueError: if ``start`` is not positive.

    References:
      Choi et al., 2018, https://arxiv.org/abs/1805.06085
    """
    if start is not None and not start > 0:
        raise ValueError(f"start must be a positive bound or None, got {start}.")

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

        return set_once(state, first)

    def read(state: LearnedScaleState, x: jax.Array, fmt: Format) -> Chosen:
        del x
        bound = nan_if_unset(state, jnp.abs(state.scale.value))
        low = -bound if fmt.symmetric else jnp.zeros_like(bound)
        return of_range(low, bound, fmt)

    def init(shape: Shape, fmt: Format) -> LearnedScaleState:
        del fmt  # A bound is in the units of the values: any format can read it.
        return unset_state(shape, make_origin("pact"))

    return learned_scale("pact", init, observe, read, to_the_bound, any_format=True)


def learned_scale(
    name: str,
    init: Callable[[Shape, Format], LearnedScaleState],
    observe: Callable[[LearnedScaleState, jax.Array, Format], LearnedScaleState],
    read: Callable[[LearnedScaleState, jax.Array, Format], Chosen],
    gradient: Gradient,
    *,
    any_format: bool = False,
) -> StatefulScale:
    """Bundle the functions of a scale that is set by the first array and then learned."""

    def check(state: LearnedScaleState, fmt: Format) -> None:
        check_origin(state.origin, name, None if any_format else fmt)

    def observe_own(
        state: LearnedScaleState, x: jax.Array, fmt: Format
    ) -> LearnedScaleState:
        check(state, fmt)
        return observe(state, x, fmt)

    def read_own(state: LearnedScaleState, x: jax.Array, fmt: Format) -> Chosen:
        check(state, fmt)
        return read(state, x, fmt)

    return StatefulScale(
        init=init,
        observe=observe_own,
        read=read_own,
        gradient=gradient,
        call=largest(observe_own),
    )


def unset_state(
    shape: Shape, origin: Origin, *, offset: bool = False
) -> LearnedScaleState:
    ones = jnp.ones(shape, jnp.float32)
    zero_point = Learned(jnp.zeros_like(ones)) if offset else None
    return LearnedScaleState(
        jnp.zeros((), jnp.int32), Learned(ones), zero_point, origin
    )


def set_once(
    state: LearnedScaleState, first: Callable[[], Chosen]
) -> LearnedScaleState:
    """Choose the values from the first array only; later ones skip the work."""
    shape = state.scale.value.shape
    offset = None if state.zero_point is None else state.zero_point.value

    def initialize() -> tuple[jax.Array, jax.Array | None]:
        scale, zero_point = first()
        scale = jnp.asarray(scale, jnp.float32).reshape(shape)
        if zero_point is None or offset is None:
            return scale, None
        return scale, zero_point.astype(jnp.float32).reshape(shape)

    scale, zero_point = cond(
        state.count == 0, initialize, lambda: (state.scale.value, offset)
    )
    learned = None if zero_point is None else Learned(zero_point)
    return LearnedScaleState(state.count + 1, Learned(scale), learned, state.origin)


def nan_if_unset(state: LearnedScaleState, value: jax.Array) -> jax.Array:
    return jnp.where(state.count > 0, value, jnp.nan)


def _initial_scale(
    start: Scale | None, x: jax.Array, shape: Shape, fmt: Format
) -> tuple[jax.Array, jax.Array | None]:
    x = lax.stop_gradient(x).astype(jnp.float32)
    tiles = shape or (1,) * x.ndim
    if start is not None:
        scale, zero_point = start(x, tiles, fmt)
        return scales_as_floats(scale, jnp.float32), zero_point
    mean = reduce_tiles(jnp.mean, jnp.abs(x), tiles)
    # For binary formats the mean magnitude has the least squared error.
    first = mean if fmt.binary else 2 * mean / jnp.sqrt(largest_level(fmt))
    return jnp.where(first > jnp.finfo(jnp.float32).tiny, first, 1), None


def _read_scale(state: LearnedScaleState, x: jax.Array, fmt: Format) -> jax.Array:
    if not fmt.scaled:
        return nan_if_unset(state, jnp.ones_like(state.scale.value))
    # The optimizer may step across zero; dividing by the smallest scale stays finite.
    positive = jnp.maximum(
        jnp.abs(_damp_gradient(state.scale.value, x, fmt)), _SMALLEST
    )
    return nan_if_unset(state, positive)


def _damp_gradient(value: jax.Array, x: jax.Array, fmt: Format) -> jax.Array:
    """Return the value unchanged, with its gradient scaled down to that of one weight."""
    # The gradient of a scale sums over all values that share it. An activation has one
    # scale for the whole batch; count the values of one example.
    parts = value.size if value.ndim or not x.ndim else x.shape[0]
    factor = 1 / jnp.sqrt(
        jnp.float32(max(1, x.size / max(1, parts))) * largest_level(fmt)
    )
    damped = value * factor
    return lax.stop_gradient(value) + (damped - lax.stop_gradient(damped))
