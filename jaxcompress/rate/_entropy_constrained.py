# SPDX-License-Identifier: Apache-2.0
"""Quantization with the size of the file as a term of the loss."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from .._arguments import check_counts, check_whole
from .._combine import masked
from .._compressor import Compressor
from .._select import Where, is_weight
from .._signatures import name_defaults
from .._types import PyTree
from ..formats import Int
from ..leaves import scales_as_floats
from ..numerics import divide_by_tiles
from ..quantize import Granularity, PerTensor, quantize
from ..quantize.scales import StatefulScale, as_scale, log_step
from ._add_price import add_price
from ._multiplier import rule_of


@name_defaults
def entropy_constrained(
    multiplier: float | optax.Schedule | None = None,
    *,
    target_bytes: float | None = None,
    bits: int = 8,
    granularity: Granularity | None = None,
    scale: StatefulScale | None = None,
    every: int = 20,
    where: Where = is_weight,
) -> Compressor:
    """Train weights with the size of their file as a term of the loss.

    The loss becomes ``loss + multiplier * (bits of the file / number of weights)``.
    ``train_step`` adds the term, which is the metric ``"rate"``, in units of the loss (its
    bits are those of the last count); so does ``wrap_optimizer``, with a ``scale`` that is
    not learned. It decides which weights become zero, how coarse the
    grid of each layer is, and which layers pay: there is no sparsity and no width to
    choose. ``finalize`` returns ``QArray`` leaves of ``bits`` bits; ``save`` then stores
    them in about as many bytes as
    ``rate.measure`` says. The result is small as a file. It computes in floats.

    Args:
      multiplier: what one bit a weight costs, in units of the loss: a number of at least 0
        or an optax schedule of the update. 0.1 to 1 suits a cross-entropy and a network
        that is trained already; a larger one makes a smaller file.
      target_bytes: instead of ``multiplier``, the most that the selected leaves may take in
        the file; names and other leaves come on top. The multiplier rises while they take
        more and falls while they take less (dual ascent), from 0.1, by at most 5 % at each
        count. So it takes some thousands of updates, or a smaller ``every``; compare
        ``rate.measure(...) / 8``. ``finalize`` warns if the size was missed. A network that
        takes less at coarse steps is not made larger.
      bits: width of the widest code, 2 to 8. The file does not grow with it.
      granularity: which weights share a step; None: those of a leaf (``PerTensor()``).
      scale: how steps are chosen; None learns their logarithm, from one standard deviation
        (``scales.log_step()``). Do not start much finer: neighboring codes then take about
        as many bits, so nothing pulls, and the file stays large.
      every: updates between two counts of the values, and two changes of the multiplier.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree. Include biases
        (``where="*"``), which are a tenth of a small file at 32 bits.

    Raises:
      TypeError: if an argument is of the wrong kind, such as a traced multiplier.
      ValueError: if the multiplier is negative or not finite, or the bits are not 2 to 8;
        in ``init``, if ``where`` selects nothing, the target is below what zeros alone
        would take or above what floats would, or a leaf is empty or has NaN or infinite
        values; if a state was made with another multiplier or target.

    Warns:
      UserWarning: in ``finalize``, if the leaves take more than ``target_bytes``.

    Example:
      >>> import jax, jax.numpy as jnp, optax, jaxcompress as jc
      >>> noise = jax.random.normal(jax.random.key(0), (64, 32))
      >>> params = {"kernel": jnp.eye(64, 32) + 0.1 * noise}
      >>> x = jax.random.normal(jax.random.key(1), (256, 64))
      >>> def loss_fn(view, x):
      ...     return jnp.mean((x @ view["kernel"] - x[:, :32]) ** 2)
      >>> c = jc.rate.entropy_constrained(0.3)
      >>> init, step = jc.train_step(loss_fn, optax.adam(1e-2), c)
      >>> state = init(params)
      >>> before = jc.rate.measure(c, state.params, state.compression)
      >>> for _ in range(100):
      ...     state, metrics = step(state, x)
      >>> after = jc.rate.measure(c, state.params, state.compression)
      >>> bool(after < before / 2), "rate" in metrics
      (True, True)

    References:
      Oktay et al., 2020, https://arxiv.org/abs/1906.06624; Wiedemann et al., 2018,
      https://arxiv.org/abs/1812.07520
    """
    rule = rule_of(multiplier, "target_bytes", target_bytes)
    check_whole(bits=bits)
    check_counts(every=every)
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be 2 to 8, got {bits}.")
    fmt = Int(bits)
    steps_scale = log_step() if scale is None else scale
    if not isinstance(steps_scale, StatefulScale):
        raise TypeError(
            "scale must be a scale with a state, such as scales.log_step() or "
            f"scales.lsq(), got {scale!r}."
        )
    shared = PerTensor() if granularity is None else granularity
    inner = quantize(fmt, granularity=shared, scale=steps_scale)

    def steps_of(x: jax.Array, leaf: Any) -> jax.Array:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        step, _ = as_scale(steps_scale, leaf.scale)(wide, (1,) * x.ndim, fmt)
        return divide_by_tiles(wide, scales_as_floats(step, x.dtype))

    def positions(params: PyTree, leaves: PyTree) -> PyTree:
        return jax.tree.map(steps_of, params, leaves)

    priced = add_price(
        inner,
        positions,
        high=int(fmt.high),
        rule=rule,
        every=every,
    )
    return masked(priced, where)
