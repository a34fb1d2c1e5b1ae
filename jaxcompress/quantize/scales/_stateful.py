# SPDX-License-Identifier: Apache-2.0
"""Scales with a memory: what is kept of the data, or learned."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ...formats import Format, Int
from ...leaves import Scales
from ..gradients import Gradient, straight_through
from ._block import power_of_two
from ._following import Scale, of_range

Shape = tuple[int, ...]
Chosen = tuple[Scales, jax.Array | None]


class Ranges(NamedTuple):
    """A way to choose a range, of any format: three pure functions.

    Attributes:
      init: ``(shape=()) -> state``, having seen nothing. The shape is that of the scales:
        ``()`` is one range for whatever is seen, and else it has the rank of what is seen.
      observe: ``(state, x) -> state``, having seen ``x`` too.
      read: ``(state, x) -> (low, high)``, float32 of that shape, or arrays that broadcast
        against ``x``. NaN before anything was seen, so that it is not overlooked.
    """

    init: Callable[..., Any]
    observe: Callable[[Any, jax.Array], Any]
    read: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]

    def __call__(self, values: jax.Array, shape: Sequence[int], fmt: Format) -> Chosen:
        """As a ``Scale``: what is read having seen these values alone."""
        return _spanning(self)(values, shape, fmt)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StatefulScale:
    """A way to choose scales that keeps a state.

    In a compressor the state is made from the weights in ``init`` and moves in ``update``;
    of an activation it is made from nothing and moves with every batch that is observed.

    Attributes:
      init: ``(shape, fmt) -> state``, having seen nothing. Parameters that the optimizer
        shall train are inside ``Learned``.
      observe: ``(state, x, fmt) -> state``, having seen ``x`` too.
      read: ``(state, x, fmt) -> (scale, zero_point)``, of the shape given to ``init``, or
        of x's rank; differentiable where they are learned. ``x`` is constant.
      gradient: what the backward pass takes rounding to these scales for.
    """

    init: Callable[[Shape, Format], Any]
    observe: Callable[[Any, jax.Array, Format], Any]
    read: Callable[[Any, jax.Array, Format], Chosen]
    gradient: Gradient = straight_through

    def __call__(self, values: jax.Array, shape: Sequence[int], fmt: Format) -> Chosen:
        """As a ``Scale``: what is read having seen these values alone."""
        state = self.observe(self.init(tuple(shape), fmt), values, fmt)
        return self.read(state, values, fmt)

    @property
    def is_kept(self) -> bool:
        """Whether there is a state, so that the scale is known before the array is."""
        return bool(jax.tree.leaves(self.init((), Int(8, symmetric=False))))


AnyScale = Scale | Ranges | StatefulScale
"""Whatever can be given for ``scale=``: a function of what is scaled (``absmax``), a way
to keep a range (``moving_average()``), or a scale with a state (``mse()``, ``lsq()``)."""


def as_stateful(scale: AnyScale) -> StatefulScale:
    """Any way to choose scales, as one with a state.

    Raises:
      TypeError: if it is none, such as a factory that was not called.
    """
    if isinstance(scale, StatefulScale):
        return scale
    if isinstance(scale, Ranges):
        return _spanning(scale)
    if callable(scale) and _takes(scale, 3):
        return _following(scale)
    name = getattr(scale, "__name__", None)
    if callable(scale) and name:
        raise TypeError(
            f"scale={name} does not take (values, shape, format): was it not called? Give "
            f"{name}(...), which chooses scales, and not what makes it."
        )
    raise TypeError(f"scale={scale!r} chooses no scales; give absmax, mse() or lsq().")


def _takes(function: Callable[..., Any], number: int) -> bool:
    """Whether a function can be called with so many positional arguments."""
    try:
        inspect.signature(function).bind(*[None] * number)
    except TypeError:
        return False
    except ValueError:  # it has no signature
        return True
    return True


def blocks(size: int, *, axis: int = -1, scale: Scale | None = None) -> StatefulScale:
    """Of an activation: a scale for every few neighbors, chosen as they come.

    Args:
      size: values that share a scale.
      axis: along which; the one that products sum over.
      scale: how to choose them; None: ``power_of_two``, as MX formats do.

    Raises:
      ValueError: when used, if the size does not divide the axis.

    Example:
      >>> import jaxcompress as jc
      >>> way = jc.program.ActivationQuantizer(jc.formats.E2M1, jc.quantize.scales.blocks(32))

    References:
      Rouhani et al., 2023, https://arxiv.org/abs/2310.10537
    """
    chosen = power_of_two if scale is None else scale

    def read(state: Any, x: jax.Array, fmt: Format) -> Chosen:
        del state
        if not x.ndim or x.shape[axis] % size:
            raise ValueError(
                f"an activation of shape {x.shape} does not split into blocks of {size} "
                f"along axis {axis}; leave it out with a policy {{glob: None}}."
            )
        shape = list(x.shape)
        shape[axis] //= size
        return chosen(x, shape, fmt)

    return StatefulScale(
        init=lambda shape, fmt: (), observe=lambda state, x, fmt: state, read=read
    )


def as_scale(kept: StatefulScale, state: Any) -> Scale:
    """What ``kept`` chooses in a state, for ``fake_quant`` and ``to_qarray``."""

    def scale(values: jax.Array, shape: Sequence[int], fmt: Format) -> Chosen:
        del shape
        chosen, zero_point = kept.read(state, values, fmt)
        return _of_rank(chosen, values.ndim), _of_rank(zero_point, values.ndim)

    return scale


def _of_rank(chosen: Any, rank: int) -> Any:
    """A single scale, with an axis of length 1 for each of the array's."""
    if isinstance(chosen, jax.Array) and chosen.ndim < rank:
        return chosen.reshape((1,) * (rank - chosen.ndim) + chosen.shape)
    return chosen


def _spanning(ranges: Ranges) -> StatefulScale:
    """Grids that span a range."""

    def read(state: Any, x: jax.Array, fmt: Format) -> Chosen:
        return of_range(*ranges.read(state, x), fmt)

    return StatefulScale(
        init=lambda shape, fmt: ranges.init(shape),
        observe=lambda state, x, fmt: ranges.observe(state, lax.stop_gradient(x)),
        read=read,
    )


def _following(scale: Scale) -> StatefulScale:
    """A function of what is scaled; its state is empty but for the shape."""

    def init(shape: Shape, fmt: Format) -> _Follows:
        del fmt
        return _Follows(shape)

    def read(state: _Follows, x: jax.Array, fmt: Format) -> Chosen:
        shape = getattr(state, "shape", ()) or (1,) * x.ndim
        return scale(x, shape, fmt)

    return StatefulScale(init=init, observe=lambda state, x, fmt: state, read=read)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Follows:
    """No arrays; the shape of the scales."""

    shape: Shape = dataclasses.field(metadata={"static": True})


def held(scale: Scale, *, every: int = 1) -> StatefulScale:
    """Scales that are chosen now and then, and held in between.

    For what takes a search, or for a grid that does not move with the weights.

    Args:
      scale: how to choose them.
      every: updates between two choices.

    Example:
      >>> import jaxcompress as jc
      >>> int4 = jc.weight_quantization(bits=4, scale=held(jc.quantize.scales.absmax, every=100))
    """
    if every < 1:
        raise ValueError(f"every={every}: scales are chosen every 1 or more updates.")

    def init(shape: Shape, fmt: Format) -> HeldState:
        unknown = jnp.full(shape, jnp.nan, jnp.float32)
        zero_point = None if fmt.symmetric else jnp.zeros(shape, jnp.float32)
        return HeldState(jnp.zeros((), jnp.int32), unknown, zero_point)

    def observe(state: HeldState, x: jax.Array, fmt: Format) -> HeldState:
        x = lax.stop_gradient(x).astype(jnp.float32)
        shape = state.scale.shape or (1,) * x.ndim

        def choose() -> tuple[jax.Array, jax.Array | None]:
            chosen, zero_point = scale(x, shape, fmt)
            if not isinstance(chosen, jax.Array):
                raise TypeError(
                    "held scales are arrays; this one gives a compressed leaf."
                )
            shaped = chosen.astype(jnp.float32).reshape(state.scale.shape)
            if zero_point is None:
                return shaped, None
            return shaped, zero_point.astype(jnp.float32).reshape(state.scale.shape)

        now = state.count % every == 0
        new = lax.cond(now, choose, lambda: (state.scale, state.zero_point))
        return HeldState(state.count + 1, *new)

    def read(state: HeldState, x: jax.Array, fmt: Format) -> Chosen:
        del x, fmt
        return state.scale, state.zero_point

    return StatefulScale(init=init, observe=observe, read=read)


class HeldState(NamedTuple):
    """State of ``held``."""

    count: jax.Array  # int32 []: arrays seen
    scale: jax.Array  # float32
    zero_point: jax.Array | None  # float32, whole numbers
