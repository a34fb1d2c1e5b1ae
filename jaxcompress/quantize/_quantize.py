# SPDX-License-Identifier: Apache-2.0
"""Weight quantization as a compressor: simulated in training, codes when it ships."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from .._combine import masked
from .._compressor import Compressor, PyTree
from .._select import Where, is_weight, map_with_path
from ..formats import Format, Int, ToInteger, nearest
from ._fake import fake_quant, to_qarray
from ._granularity import Granularity, PerChannel, PerTensor
from .gradients import Gradient
from .rounding import Rounding
from .scales._following import absmax
from .scales._stateful import AnyScale, as_scale, as_stateful


class LeafState(NamedTuple):
    """What is kept of one weight."""

    scale: Any  # of its ``StatefulScale``
    rounding: Any  # of its ``Rounding``; () where it is rounded to the nearest


def quantize(
    fmt: Format,
    *,
    granularity: Granularity,
    scale: AnyScale = absmax,
    rounding: Rounding | None = None,
    gradient: Gradient | None = None,
) -> Compressor:
    """Round every leaf of the tree to the grid of a format.

    ``finalize`` makes ``QArray`` leaves. The bits of ``Int`` may be traced: inside of a
    ``jit`` or ``vmap``, one program then serves every width, and with
    ``gradient=through_scale`` bits can be learned; ``finalize`` wants a fixed width.

    Args:
      fmt: which levels there are.
      granularity: which weights share a scale.
      scale: how far apart the levels lie: ``absmax`` and other functions follow the
        weights at every step; the state keeps what has one (``mse()``, ``lsq()``).
      rounding: to which level; None: to the nearest, ties to even.
      gradient: of the rounding; None: what suits the scale.

    Raises:
      ValueError: in ``init``, if groups do not divide a leaf, its axes are ambiguous, or
        it has a value that is not finite; in ``finalize`` if one has become so.

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
    kept = as_stateful(scale)
    chosen = kept.gradient if gradient is None else gradient

    def init(params: PyTree) -> PyTree:
        refuse_not_finite(params)

        def start(path: str, x: jax.Array) -> LeafState:
            if not x.size:
                raise ValueError(
                    f"{path!r} of shape {x.shape} is empty: there is nothing to choose a "
                    "scale from. Leave it out with `where=`."
                )
            shape = granularity.scale_shape(path, x.shape)
            state = kept.observe(kept.init(shape, fmt), x, fmt)
            return LeafState(
                state, () if rounding is None else rounding.init(path, x.shape)
            )

        return map_with_path(start, params)

    def integers(x: jax.Array, state: LeafState) -> ToInteger:
        return nearest if rounding is None else rounding.read(state.rounding, x.shape)

    def fake(x: jax.Array, state: LeafState) -> jax.Array:
        return fake_quant(
            x,
            fmt,
            scale=as_scale(kept, state.scale),
            to_integer=integers(x, state),
            gradient=chosen,
        )

    def codes(x: jax.Array, state: LeafState) -> object:
        known = as_scale(kept, state.scale)
        return to_qarray(x, fmt, scale=known, to_integer=integers(x, state))

    def update(params: PyTree, state: PyTree, **extras: Any) -> tuple[PyTree, PyTree]:
        del extras

        def onward(x: jax.Array, leaf: LeafState) -> LeafState:
            scale = kept.observe(leaf.scale, x, fmt)
            return LeafState(
                scale, () if rounding is None else rounding.advance(leaf.rounding)
            )

        return params, jax.tree.map(onward, params, state)

    def finalize(params: PyTree, state: PyTree) -> PyTree:
        refuse_not_finite(params)
        return jax.tree.map(codes, params, state)

    return Compressor(
        init=init,
        apply=lambda params, state: jax.tree.map(fake, params, state),
        update=update,
        finalize=finalize,
    )


def weight_quantization(
    *,
    bits: int | jax.Array | None = None,
    fmt: Format | None = None,
    symmetric: bool = True,
    granularity: Granularity | None = None,
    scale: AnyScale = absmax,
    rounding: Rounding | None = None,
    gradient: Gradient | None = None,
    where: Where = is_weight,
) -> Compressor:
    """Quantize weights; biases and norm scales are left alone.

    In training the view is rounded to the grid and gradients pass straight through
    (simulated, no speed-up expected); ``finalize`` gives ``QArray`` leaves with
    ``dense(finalize(p, s)) == apply(p, s)``. After training, ``compress`` does it in one
    call. Zero is always on the grid, so pruned weights stay zero.

    Args:
      bits: of integers: 1 to 8, or 16. Two symmetric bits are ternary, one is the sign.
      fmt: instead of ``bits``: any format of ``jaxcompress.formats``.
      symmetric: whether integers are centered on zero; otherwise there is a zero point.
      granularity: ``PerTensor()``, ``PerChannel()`` (default) or ``PerGroup(n)``. For
        convolutions, whose axes their rank does not tell, ``PerChannel(axis=-1)``.
      scale: how to choose the scales; ``absmax`` clips nothing.
      rounding: see ``quantize``.
      gradient: see ``quantize``.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      ValueError: for unsupported bits; and in ``init``, if ``where`` selects nothing, the
        axes of a leaf are ambiguous, groups do not divide it, or it is not finite.

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
    if (bits is None) == (fmt is None):
        raise ValueError(f"give bits= or fmt=, and not both: bits={bits}, fmt={fmt}.")
    if fmt is not None and not symmetric:
        raise ValueError(f"symmetric=False belongs to bits=; {fmt} says it itself.")
    grid = Int(bits, symmetric) if fmt is None else fmt  # pyright: ignore[reportArgumentType]
    _check_format(grid)
    if granularity is None:
        granularity = PerChannel() if grid.scaled else PerTensor()
    compressor = quantize(
        grid, granularity=granularity, scale=scale, rounding=rounding, gradient=gradient
    )
    return masked(compressor, where)


def _check_format(fmt: Any) -> None:
    # A string encodes, too.
    if (
        isinstance(fmt, type)
        or not hasattr(fmt, "encode")
        or not hasattr(fmt, "scaled")
    ):
        raise TypeError(
            f"fmt={fmt!r} is no format; give formats.Int(4), formats.NF4, ..."
        )


def _check(fmt: Any, granularity: Any, rounding: Any, gradient: Any) -> None:
    """Refuse what was not called, or is something else."""
    _check_format(fmt)
    if gradient is not None and not callable(gradient):
        raise TypeError(
            f"gradient={gradient!r} is none; give straight_through or soft()."
        )
    if isinstance(granularity, type) or not hasattr(granularity, "scale_shape"):
        raise TypeError(
            f"granularity={granularity!r} is none; give PerTensor(), PerChannel() or "
            "PerGroup(64)."
        )
    if rounding is not None and not isinstance(rounding, Rounding):
        raise TypeError(
            f"rounding={rounding!r} is none; give stochastic(key), learned() or None."
        )


def refuse_not_finite(params: PyTree) -> None:
    """Refuse NaN and infinities where values are known: no code stands for them.

    Raises:
      ValueError: naming the leaf.
    """

    def refuse(path: str, x: jax.Array) -> None:
        if isinstance(x, Tracer) or not jnp.issubdtype(x.dtype, jnp.inexact):
            return
        finite = jnp.all(jnp.isfinite(x))
        # Inside of a traced function this is a tracer for known values too.
        if not isinstance(finite, Tracer) and not bool(finite):
            raise ValueError(
                f"{path!r} holds NaN or infinite values, for which no code stands. Has the "
                "training diverged, or was a division by zero left in?"
            )

    map_with_path(refuse, params)
