# SPDX-License-Identifier: Apache-2.0
"""Weight quantization as a compressor: simulated in training, codes in ``finalize``."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from .._arguments import check_flags
from .._combine import masked
from .._compressor import Compressor, Learned, PyTree, marks
from .._origin import Origin, check_origin, make_origin
from .._refuse import refuse_unfit
from .._select import Where, is_weight, map_with_path, paths_and_leaves
from .._signatures import name_defaults
from ..formats import Format, Int, ToInteger, nearest
from ._fake import fake_quant, to_qarray
from ._granularity import Granularity, PerChannel, PerTensor, scale_shapes
from .gradients import Gradient
from .rounding import Rounding
from .scales._stateful import AnyScale, as_scale, as_stateful, suited


class LeafState(NamedTuple):
    """State of one quantized weight."""

    scale: Any  # state of its ``StatefulScale``
    rounding: Any  # state of its ``Rounding``; () for rounding to the nearest
    # the format that learned rounding belongs to; () if none is learned
    origin: Origin | tuple[()]


@name_defaults
def quantize(
    fmt: Format,
    *,
    granularity: Granularity,
    scale: AnyScale = suited,
    rounding: Rounding | None = None,
    gradient: Gradient | None = None,
) -> Compressor:
    """Quantize every leaf of a tree; ``weight_quantization`` adds a selection of leaves.

    ``finalize`` returns ``QArray`` leaves. The bits of ``Int`` may be traced: inside
    ``jit`` or ``vmap``, one program then serves every width, and with
    ``gradient=through_scale`` the bits can be learned. ``finalize`` needs a fixed width.

    Args:
      fmt: the number format.
      granularity: which weights share a scale.
      scale: how to choose the scales. Functions such as ``absmax`` recompute them at every
        step; ``mse()`` or ``lsq()`` keep them in the state.
      rounding: how to round; None rounds to the nearest, ties to even.
      gradient: gradient of the rounding; None uses the one that fits the scale.

    Raises:
      TypeError: if an argument is of the wrong kind, such as a class or a factory that
        was not called.
      ValueError: in ``init``, if groups do not divide a leaf, its axes are ambiguous, or
        it is empty or has NaN or infinite values; in ``finalize``, if a leaf has NaN or
        infinite values.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> from jaxcompress.formats import Int
      >>> from jaxcompress.quantize import quantize
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (64, 8))}
      >>> def error(bits):
      ...     c = quantize(Int(bits), granularity=jc.PerChannel())
      ...     view = c.apply(params, c.init(params))
      ...     return jnp.mean((view["kernel"] - params["kernel"]) ** 2)
      >>> bool(jnp.all(jnp.diff(jax.vmap(error)(jnp.arange(2, 9))) < 0))
      True
    """
    _check(fmt, granularity, rounding, gradient)
    stateful = as_stateful(scale)
    surrogate = stateful.gradient if gradient is None else gradient

    def init(params: PyTree) -> PyTree:
        refuse_unfit(params)

        paths, leaves, _ = paths_and_leaves(params)
        given = {p: x.shape for p, x in zip(paths, leaves, strict=True)}
        shapes = scale_shapes(granularity, given)

        def start(path: str, x: jax.Array) -> LeafState:
            state = stateful.observe(stateful.init(shapes[path], fmt), x, fmt)
            draws = () if rounding is None else rounding.init(path, x.shape)
            origin = make_origin("rounding", fmt) if marks(draws, Learned) else ()
            return LeafState(state, draws, origin)

        return map_with_path(start, params)

    def rounder(x: jax.Array, state: LeafState) -> ToInteger:
        if state.origin:
            check_origin(state.origin, "rounding", fmt)
        return nearest if rounding is None else rounding.read(state.rounding, x.shape)

    def fake(x: jax.Array, state: LeafState) -> jax.Array:
        return fake_quant(
            x,
            fmt,
            scale=as_scale(stateful, state.scale),
            to_integer=rounder(x, state),
            gradient=surrogate,
        )

    def codes(x: jax.Array, state: LeafState) -> object:
        leaf_scale = as_scale(stateful, state.scale)
        return to_qarray(x, fmt, scale=leaf_scale, to_integer=rounder(x, state))

    def update(params: PyTree, state: PyTree, **extras: Any) -> tuple[PyTree, PyTree]:
        del extras

        def advance(x: jax.Array, leaf: LeafState) -> LeafState:
            scale = stateful.observe(leaf.scale, x, fmt)
            draws = () if rounding is None else rounding.advance(leaf.rounding)
            return LeafState(scale, draws, leaf.origin)

        return params, jax.tree.map(advance, params, state)

    def finalize(params: PyTree, state: PyTree) -> PyTree:
        refuse_unfit(params)
        return jax.tree.map(codes, params, state)

    return Compressor(
        init=init,
        apply=lambda params, state: jax.tree.map(fake, params, state),
        update=update,
        finalize=finalize,
    )


@name_defaults
def weight_quantization(
    *,
    bits: int | jax.Array | None = None,
    fmt: Format | None = None,
    symmetric: bool = True,
    granularity: Granularity | None = None,
    scale: AnyScale = suited,
    rounding: Rounding | None = None,
    gradient: Gradient | None = None,
    where: Where = is_weight,
) -> Compressor:
    """Quantize weights in training or after it; biases and norm scales stay as they are.

    In training, the view holds the quantized weights and gradients pass straight through.
    This is simulated: expect no speed-up. ``finalize`` returns ``QArray`` leaves with
    ``dense(finalize(p, s)) == apply(p, s)``. After training, ``compress`` quantizes in one
    call. Zero is always on the grid, so pruned weights stay zero.

    Args:
      bits: width of the integers: 1 to 8, or 16. Two symmetric bits are ternary, one is
        the sign.
      fmt: any format of ``jaxcompress.formats``, instead of ``bits``.
      symmetric: True centers the integers on zero; False adds a zero point.
      granularity: ``PerTensor()``, ``PerChannel()`` (default) or ``PerGroup(n)``. For
        convolutions, whose axes their rank does not tell,
        ``PerChannel(axes=jc.Axes(outputs=-1))``.
      scale: how to choose the scales. ``suited`` follows the format: mostly ``absmax``,
        which clips nothing. Below 8 bits and without training, pass ``scales.mse()``; in
        training, ``scales.lsq()``.
      rounding: see ``quantize``.
      gradient: see ``quantize``.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      TypeError: if an argument is of the wrong kind.
      ValueError: if the bits are unsupported; in ``init``, if ``where`` selects nothing,
        the axes of a leaf are ambiguous, groups do not divide it, or it has NaN or infinite
        values.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (64, 8))}
      >>> int4 = jc.compress(jc.weight_quantization(bits=4), params)["kernel"]
      >>> int4.codes.dtype, int4.scale.shape
      (dtype('int8'), (1, 8))
      >>> error = jnp.abs(int4.dense() - params["kernel"])
      >>> bool(jnp.all(error <= int4.scale * 0.5001))
      True
      >>> nf4 = jc.weight_quantization(fmt=jc.formats.NF4, granularity=jc.PerGroup(64))

    References:
      Jacob et al., 2017, https://arxiv.org/abs/1712.05877; Courbariaux et al., 2015,
      https://arxiv.org/abs/1511.00363
    """
    check_flags(symmetric=symmetric)
    if (bits is None) == (fmt is None):
        given = "neither" if bits is None else f"bits={bits} and fmt={fmt}"
        raise ValueError(f"pass one of bits= and fmt=, got {given}.")
    if fmt is not None and not symmetric:
        raise ValueError(
            "symmetric=False belongs to bits=; pass fmt=Int(bits, symmetric=False), "
            f"got fmt={fmt}."
        )
    grid = Int(bits, symmetric) if fmt is None else fmt  # pyright: ignore[reportArgumentType]
    _check_format(grid)
    if granularity is None:
        granularity = PerChannel() if grid.scaled else PerTensor()
    compressor = quantize(
        grid, granularity=granularity, scale=scale, rounding=rounding, gradient=gradient
    )
    return masked(compressor, where)


def _check_format(fmt: Any) -> None:
    # Strings have an `encode` method, too.
    if (
        isinstance(fmt, type)
        or not hasattr(fmt, "encode")
        or not hasattr(fmt, "scaled")
    ):
        raise TypeError(
            f"fmt must be a format such as formats.Int(4) or formats.NF4, got {fmt!r}."
        )


def _check(fmt: Any, granularity: Any, rounding: Any, gradient: Any) -> None:
    """Raise if an argument is of the wrong kind, such as a factory not called."""
    _check_format(fmt)
    if gradient is not None and not callable(gradient):
        raise TypeError(
            f"gradient must be a function such as straight_through or soft(), got "
            f"{gradient!r}."
        )
    if isinstance(granularity, type) or not hasattr(granularity, "scale_shape"):
        raise TypeError(
            "granularity must be PerTensor(), PerChannel() or PerGroup(n), got "
            f"{granularity!r}."
        )
    if rounding is not None and not isinstance(rounding, Rounding):
        raise TypeError(
            f"rounding must be stochastic(key), learned() or None, got {rounding!r}."
        )
