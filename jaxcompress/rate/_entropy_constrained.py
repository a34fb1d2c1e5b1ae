# SPDX-License-Identifier: Apache-2.0
"""Quantization with the size of the file as a term of the loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.core import Tracer

from .._arguments import check_counts, check_whole
from .._combine import masked
from .._compressor import Compressor
from .._select import Where, is_weight
from .._signatures import name_defaults
from .._types import PyTree
from .._warn import warn
from ..formats import Int
from ..leaves import scales_as_floats
from ..numerics import divide_by_tiles
from ..quantize import Granularity, PerTensor, quantize
from ..quantize.scales import StatefulScale, as_scale, log_step
from ._code_length import Values, code_length, count_values, pull
from ._multiplier import Multiplier, rule_of


class RateState(NamedTuple):
    """State of ``entropy_constrained``."""

    leaves: PyTree  # of the quantizer; the steps in it are ``Learned``
    values: PyTree  # ``Values`` of each leaf
    multiplier: Multiplier
    count: jax.Array  # int32 []: updates so far
    bits: jax.Array  # float32 []: of the codes, when they were last counted


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
    high = int(fmt.high)
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

    def add_up(
        bits: Callable[[jax.Array, Values], jax.Array],
        params: PyTree,
        leaves: PyTree,
        values: PyTree,
    ) -> jax.Array:
        terms = jax.tree.map(
            lambda x, leaf, own: bits(steps_of(x, leaf), own), params, leaves, values
        )
        return sum(jax.tree.leaves(terms), start=jnp.zeros(()))

    def counted(params: PyTree, leaves: PyTree) -> tuple[PyTree, jax.Array]:
        """Return the bits of each value as it is now, and the total."""

        def count(x: jax.Array, leaf: Any) -> Values:
            steps = lax.stop_gradient(steps_of(x, leaf))
            return count_values(jnp.clip(jnp.round(steps), -high, high), high)

        values = jax.tree.map(count, params, leaves)
        total = add_up(code_length, params, leaves, values)
        return values, lax.stop_gradient(total)

    def init(params: PyTree) -> RateState:
        leaves = inner.init(params)
        if target_bytes is not None:
            _check_target(params, target_bytes, high)
        values, total = counted(params, leaves)
        number = sum(x.size for x in jax.tree.leaves(params))
        return RateState(
            leaves, values, rule.start(number), jnp.zeros((), jnp.int32), total
        )

    def update(
        params: PyTree, state: RateState, **extras: Any
    ) -> tuple[PyTree, RateState]:
        rule.check(state.multiplier)
        params, leaves = inner.update(params, state.leaves, **extras)
        count = state.count + 1

        def recount() -> tuple[PyTree, jax.Array, jax.Array]:
            values, total = counted(params, leaves)
            value = rule.follow(state.multiplier.value, count, total / 8)
            return values, total, value

        values, total, value = lax.cond(
            count % every == 0,
            recount,
            lambda: (state.values, state.bits, state.multiplier.value),
        )
        new = dataclasses.replace(state.multiplier, value=value)
        return params, RateState(leaves, values, new, count, total)

    def finalize(params: PyTree, state: RateState) -> PyTree:
        rule.check(state.multiplier)
        if target_bytes is not None:
            _, total = counted(params, state.leaves)
            if not isinstance(total, Tracer):
                _warn_if_missed(float(total) / 8, target_bytes)
        return inner.finalize(params, state.leaves)

    def penalty(params: PyTree, state: RateState) -> dict[str, jax.Array]:
        rule.check(state.multiplier)
        multiplier, leaves = state.multiplier, (state.leaves, state.values)
        if multiplier.counts:
            total = add_up(code_length, params, *leaves)
        else:  # only slopes matter in training, and they take a fraction of the time
            total = state.bits + add_up(pull, params, *leaves)
        return {"rate": multiplier.value * total / multiplier.per}

    compressor = Compressor(
        init=init,
        apply=lambda params, state: inner.apply(params, state.leaves),
        update=update,
        finalize=finalize,
        penalty=penalty,
    )
    return masked(compressor, where)


def _warn_if_missed(taken: float, target_bytes: float) -> None:
    if taken > 1.03 * target_bytes:
        warn(
            f"the leaves take {taken:,.0f} bytes, but target_bytes={target_bytes:g} was "
            "asked for. Train for longer before the learning rate decays, or change the "
            "multiplier more often with a smaller every=."
        )


def _check_target(params: PyTree, target_bytes: float, high: int) -> None:
    """Raise if zeros would take more bytes, or floats would take fewer."""
    floats = 4 * sum(x.size for x in jax.tree.leaves(params))
    if target_bytes >= floats:
        raise ValueError(
            f"target_bytes={target_bytes:g} asks for nothing: as float32 these leaves take "
            f"{floats:,} bytes. Give the size of their codes in the file, in bytes."
        )
    least = 0.0
    with jax.ensure_compile_time_eval():  # shapes are known while `init` is traced
        for x in jax.tree.leaves(params):
            zeros = jnp.zeros(x.shape)
            least += float(code_length(zeros, count_values(zeros, high))) / 8
    if target_bytes < least:
        raise ValueError(
            f"target_bytes={target_bytes:g} cannot be reached: these leaves take "
            f"{least:,.0f} bytes even if every weight is zero. Ask for more, or select "
            "fewer leaves with where=."
        )
