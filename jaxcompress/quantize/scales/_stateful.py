# SPDX-License-Identifier: Apache-2.0
"""Scales with a state: calibrated from data, refreshed now and then, or learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..._arguments import check_counts, check_whole, takes_arguments
from ..._origin import Origin, check_origin, make_origin
from ...formats import Format, Int
from ...leaves import Scales
from ...numerics import cond
from ..gradients import Gradient, straight_through
from ._block import power_of_two
from ._calls import Call, largest
from ._following import Scale, absmax, of_range, rms

Shape = tuple[int, ...]
Chosen = tuple[Scales, jax.Array | None]


class Ranges(NamedTuple):
    """Choose a range of values from data, for any number format: three pure functions.

    Attributes:
      init: ``(shape=()) -> state`` before any data. The shape is that of the scales:
        ``()`` is a single range; any other shape has the rank of the observed arrays.
      observe: ``(state, x) -> state``, updated with the array ``x``.
      read: ``(state, x) -> (low, high)``, float32 of that shape, or arrays that broadcast
        against ``x``. An uncalibrated range is NaN, so a forgotten calibration shows up in
        the output.
      call: merges the arrays that loops show in one call, so that they count once. None
        observes one after another, which is right if neither order nor number matter.
    """

    init: Callable[..., Any]
    observe: Callable[[Any, jax.Array], Any]
    read: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]
    call: Call | None = None

    def __call__(self, values: jax.Array, shape: Sequence[int], fmt: Format) -> Chosen:
        """Act as a ``Scale``: observe these values alone, then read the scale."""
        return _wrap_ranges(self)(values, shape, fmt)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatefulScale:
    """Choose scales from data with a state: calibrated, refreshed or learned scales.

    For weights, a compressor initializes the state from the weights in ``init`` and
    updates it in ``update``. For activations, the state starts empty and every observed
    batch updates it.

    Attributes:
      init: ``(shape, fmt) -> state`` before any data. Parameters that the optimizer trains
        are wrapped in ``Learned``.
      observe: ``(state, x, fmt) -> state``, updated with the array ``x``.
      read: ``(state, x, fmt) -> (scale, zero_point)``, of the shape given to ``init`` or
        of the rank of ``x``. Learned values are differentiable; ``x`` is constant.
      gradient: how the backward pass treats rounding with these scales.
      call: merges the arrays that loops show in one call, so that they count once. None
        observes one after another, which is right if neither order nor number matter.
      name: how the scale is printed; None prints its functions.
    """

    init: Callable[[Shape, Format], Any]
    observe: Callable[[Any, jax.Array, Format], Any]
    read: Callable[[Any, jax.Array, Format], Chosen]
    gradient: Gradient = straight_through
    call: Call | None = None
    name: str | None = None

    def __repr__(self) -> str:
        return self.name or (
            f"StatefulScale(init={self.init!r}, observe={self.observe!r}, "
            f"read={self.read!r}, gradient={self.gradient!r})"
        )

    def __call__(self, values: jax.Array, shape: Sequence[int], fmt: Format) -> Chosen:
        """Act as a ``Scale``: observe these values alone, then read the scale."""
        state = self.observe(self.init(tuple(shape), fmt), values, fmt)
        return self.read(state, values, fmt)

    @property
    def is_kept(self) -> bool:
        """True if there is a state, so the scale does not depend on the current array."""
        return bool(jax.tree.leaves(self.init((), Int(8, symmetric=False))))


AnyScale = Scale | Ranges | StatefulScale
"""Any value of ``scale=``: a function of the values (``absmax``), an observed range
(``moving_average()``), or a scale with a state (``mse()``, ``lsq()``)."""


def as_stateful(scale: AnyScale) -> StatefulScale:
    """Convert any value of ``scale=`` to a ``StatefulScale``.

    Raises:
      TypeError: if it is not a scale, for example a factory that was not called.
    """
    if isinstance(scale, StatefulScale):
        return scale
    if isinstance(scale, Ranges):
        return _wrap_ranges(scale)
    if callable(scale) and takes_arguments(scale, 3):
        return _wrap_scale(scale)
    name = getattr(scale, "__name__", None)
    if callable(scale) and name:
        raise TypeError(
            f"scale must take (values, shape, format), got {name}, which does not. If "
            f"{name} makes a scale, it was not called: use scale={name}(...)."
        )
    raise TypeError(
        f"scale must be a scale such as absmax, mse() or lsq(), got {scale!r}."
    )


def blocks(size: int, *, axis: int = -1, scale: Scale | None = None) -> StatefulScale:
    """Quantize activations with one scale per block of neighboring values.

    The scales are computed from each array, without calibration.

    Args:
      size: number of values that share a scale.
      axis: axis along which values form blocks: the contraction axis of the products.
      scale: ``Scale`` of each block. None uses ``power_of_two``, as MX formats do.

    Raises:
      ValueError: when used, if ``size`` does not divide the axis.

    Example:
      >>> import jaxcompress as jc
      >>> blocks_of_32 = jc.quantize.scales.blocks(32)
      >>> mxfp4 = jc.program.ActivationQuantizer(jc.formats.E2M1, blocks_of_32)

    References:
      Rouhani et al., 2023, https://arxiv.org/abs/2310.10537
    """
    check_counts(size=size)
    block_scale = power_of_two if scale is None else scale

    def read(state: Any, x: jax.Array, fmt: Format) -> Chosen:
        del state
        if not x.ndim or x.shape[axis] % size:
            raise ValueError(
                f"axis {axis} must be a multiple of the block size {size}, got an "
                f"activation of shape {x.shape}. Leave it unquantized with the policy "
                "{glob: None, '*': operands_only(...)}."
            )
        shape = list(x.shape)
        shape[axis] //= size
        return block_scale(x, shape, fmt)

    return StatefulScale(
        init=lambda shape, fmt: (), observe=lambda state, x, fmt: state, read=read
    )


def as_scale(kept: StatefulScale, state: Any) -> Scale:
    """Read a ``StatefulScale`` as a ``Scale``, for ``fake_quant`` and ``to_qarray``.

    Args:
      kept: the scale.
      state: its state.

    Returns:
      A ``Scale`` that returns the scale and zero point of the state.
    """

    def scale(values: jax.Array, shape: Sequence[int], fmt: Format) -> Chosen:
        del shape
        scales, zero_point = kept.read(state, values, fmt)
        return _pad_rank(scales, values.ndim), _pad_rank(zero_point, values.ndim)

    return scale


def _pad_rank(scale: Any, rank: int) -> Any:
    """Add leading axes of length 1 to a single scale, up to the rank of the array."""
    if isinstance(scale, jax.Array) and scale.ndim < rank:
        return scale.reshape((1,) * (rank - scale.ndim) + scale.shape)
    return scale


def _wrap_ranges(ranges: Ranges) -> StatefulScale:
    """Wrap ``Ranges``: the grid spans the range."""

    def read(state: Any, x: jax.Array, fmt: Format) -> Chosen:
        return of_range(*ranges.read(state, x), fmt)

    return StatefulScale(
        init=lambda shape, fmt: ranges.init(shape),
        observe=lambda state, x, fmt: ranges.observe(state, lax.stop_gradient(x)),
        read=read,
        call=ranges.call,
    )


def _wrap_scale(scale: Scale) -> StatefulScale:
    """Wrap a ``Scale``: the state holds only the shape of the scales."""

    def init(shape: Shape, fmt: Format) -> _ScaleShape:
        del fmt
        return _ScaleShape(shape)

    def read(state: _ScaleShape | None, x: jax.Array, fmt: Format) -> Chosen:
        if state is None:  # of an activation
            return scale(x, (1,) * x.ndim, fmt)
        if not isinstance(state, _ScaleShape):
            raise ValueError(
                f"the state holds a {type(state).__name__}, which this compressor's scale "
                "does not read: it computes the scales from the weights. Read the state "
                "with the compressor that made it."
            )
        return scale(x, state.shape or (1,) * x.ndim, fmt)

    return StatefulScale(init=init, observe=lambda state, x, fmt: state, read=read)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _ScaleShape:
    """State of a ``Scale``: the shape of the scales, no arrays."""

    shape: Shape = dataclasses.field(metadata={"static": True})


def held(scale: Scale, *, every: int = 1) -> StatefulScale:
    """Recompute scales every few updates and hold them constant in between.

    Use it for scales that are expensive to compute, or to keep the grid fixed while the
    weights move.

    Args:
      scale: the ``Scale`` that is recomputed.
      every: updates between two computations.

    Raises:
      ValueError: if ``every`` is below 1.
      TypeError: when used, if ``scale`` returns a compressed leaf instead of arrays.

    Example:
      >>> import jaxcompress as jc
      >>> absmax = held(jc.quantize.scales.absmax, every=100)
      >>> int4 = jc.weight_quantization(bits=4, scale=absmax)
    """
    check_whole(every=every)
    if every < 1:
        raise ValueError(
            f"every must be at least 1 update between computations, got {every}."
        )

    def init(shape: Shape, fmt: Format) -> HeldState:
        unset = jnp.full(shape, jnp.nan, jnp.float32)
        zero_point = None if fmt.symmetric else jnp.zeros(shape, jnp.float32)
        origin = make_origin("held", fmt)
        return HeldState(jnp.zeros((), jnp.int32), unset, zero_point, origin)

    def observe(state: HeldState, x: jax.Array, fmt: Format) -> HeldState:
        check_origin(state.origin, "held", fmt)
        x = lax.stop_gradient(x).astype(jnp.float32)
        shape = state.scale.shape or (1,) * x.ndim

        def compute() -> tuple[jax.Array, jax.Array | None]:
            scales, zero_point = scale(x, shape, fmt)
            if not isinstance(scales, jax.Array):
                raise TypeError(
                    "held needs a scale that returns arrays, got a compressed leaf "
                    f"({type(scales).__name__}). Use absmax or mse()."
                )
            shaped = scales.astype(jnp.float32).reshape(state.scale.shape)
            if zero_point is None:
                return shaped, None
            return shaped, zero_point.astype(jnp.float32).reshape(state.scale.shape)

        is_due = state.count % every == 0
        new = cond(is_due, compute, lambda: (state.scale, state.zero_point))
        return HeldState(state.count + 1, new[0], new[1], state.origin)

    def read(state: HeldState, x: jax.Array, fmt: Format) -> Chosen:
        del x
        check_origin(state.origin, "held", fmt)
        return state.scale, state.zero_point

    return StatefulScale(init=init, observe=observe, read=read, call=largest(observe))


class HeldState(NamedTuple):
    """State of ``held``."""

    count: jax.Array  # int32 []: arrays observed
    scale: jax.Array  # float32
    zero_point: jax.Array | None  # float32, integer valued
    origin: Origin  # the format that the scales belong to


def _make_suited() -> StatefulScale:
    def choose(fmt: Format) -> StatefulScale:
        level = getattr(fmt, "rms_level", 0)
        return held(rms(level), every=100) if level else _wrap_scale(absmax)

    return StatefulScale(
        init=lambda shape, fmt: choose(fmt).init(shape, fmt),
        observe=lambda state, x, fmt: choose(fmt).observe(state, x, fmt),
        read=lambda state, x, fmt: choose(fmt).read(state, x, fmt),
        name="suited",
    )


suited = _make_suited()
"""Use the scale that suits the format: the default. ``absmax``, unless the format has an
``rms_level``: then ``rms(level)``, recomputed every 100 updates."""
