# SPDX-License-Identifier: Apache-2.0
"""Learn how many bits each weight matrix gets, under a cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.core import Tracer

from .._arguments import check_counts, takes_arguments
from .._combine import masked
from .._compressor import Compressor, Learned
from .._refuse import refuse_unfit
from .._select import Where, is_weight, map_with_path, path_text, paths_and_leaves
from .._signatures import name_defaults
from .._types import PyTree
from .._warn import warn
from ..formats import Int
from ..leaves import QArray, is_leaf
from ..numerics import cond, ste
from ..quantize import Granularity, PerChannel, fake_quant, to_qarray
from ..quantize.gradients import through_scale
from ..quantize.scales import Ranges, Scale, StatefulScale, absmax
from ._multiplier import Multiplier, check_amount, rule_of
from .costs import Cost, bytes_


class LearnedBitsState(NamedTuple):
    """State of ``learned_bits``."""

    bits: PyTree  # Learned of float32 [] for each leaf; the nearest width is used
    multiplier: Multiplier
    count: jax.Array  # int32 []: updates so far


@name_defaults
def learned_bits(
    multiplier: float | optax.Schedule | None = None,
    *,
    target: float | None = None,
    cost: Cost | None = None,
    widths: Sequence[int] = (2, 4, 8),
    granularity: Granularity | None = None,
    scale: Scale = absmax,
    every: int = 20,
    where: Where = is_weight,
) -> Compressor:
    """Learn how many bits each weight matrix gets, under a cost.

    The loss becomes ``loss + multiplier * cost / cost at the widest``; the metric is
    ``"cost"``. Each leaf has a real number of bits, which starts at the widest. The view
    uses the nearest of the widths, so what is trained is what ships, and the widths are
    those that a runtime has. The number moves by the slope of the cost and by what a finer
    grid would gain. Simulated: ``finalize`` returns ``QArray`` leaves of those widths.

    Bits move more slowly than weights under one learning rate, so give them their own:
    ``train_step(..., learned_tx=optax.adam(0.02))``.

    Args:
      multiplier: what the whole cost at the widest adds to the loss: a number of at least 0
        or an optax schedule of the update.
      target: instead of ``multiplier``, the most that the network may cost, in the units of
        ``cost``. The multiplier rises from 0.1 by at most 5 % every ``every`` updates until
        whole widths cost no more; ``finalize`` warns if they still do.
      cost: ``rate.costs.bytes_()`` (default), ``bit_operations(sites)`` or
        ``measured(table)``.
      widths: allowed bits, each 2 to 8 or 16.
      granularity: which weights share a scale; None: ``PerChannel()``. For convolutions,
        ``PerChannel(axes=jc.weight_axes(fn, params, *args))``.
      scale: ``Scale`` that computes scales from the weights.
      every: updates between two changes of the multiplier.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      TypeError: if an argument is of the wrong kind; in ``finalize``, inside ``jit``, where
        widths are not known.
      ValueError: if fewer than two widths are given, or an unsupported one; in ``init``,
        if the target is below the cost at the narrowest, ``where`` selects nothing, or a
        leaf has NaN or infinite values.

    Example:
      >>> import jax, jax.numpy as jnp, optax, jaxcompress as jc
      >>> wide = jax.random.normal(jax.random.key(0), (32, 32))
      >>> params = {"a": {"kernel": wide}, "b": {"kernel": wide / 100}}
      >>> def loss_fn(view, batch):  # the first matrix matters, the second hardly
      ...     return sum(jnp.mean((view[k]["kernel"] - params[k]["kernel"]) ** 2)
      ...                for k in "ab")
      >>> c = jc.rate.learned_bits(0.1)
      >>> init, step = jc.train_step(loss_fn, optax.sgd(0.0), c, learned_tx=optax.adam(0.1))
      >>> state = init(params)
      >>> for _ in range(100):
      ...     state, metrics = step(state, jnp.zeros(()))
      >>> jc.rate.widths_of(c.finalize(state.params, state.compression))
      {'a/kernel': 4, 'b/kernel': 2}

    References:
      Uhlich et al., 2020, https://arxiv.org/abs/1905.11452; van Baalen et al., 2020,
      https://arxiv.org/abs/2005.07093
    """
    rule = rule_of(multiplier, "target", target)
    allowed = _check_widths(widths)
    check_counts(every=every)
    if isinstance(scale, StatefulScale | Ranges):
        raise TypeError(
            f"scale must be a function of the weights such as absmax, got {scale!r}, whose "
            "state learned_bits does not keep."
        )
    price = bytes_() if cost is None else cost
    _check_cost(price)
    shared = PerChannel() if granularity is None else granularity
    most, least = float(allowed[-1]), float(allowed[0])

    def nearest_width(bits: jax.Array) -> jax.Array:
        grid = jnp.asarray(allowed, jnp.float32)
        clipped = jnp.clip(bits, least, most)
        near = grid[jnp.argmin(jnp.abs(lax.stop_gradient(clipped) - grid))]
        return ste(clipped, near)

    def total(params: PyTree, bits: PyTree) -> jax.Array:
        paths, leaves, _ = paths_and_leaves(params)
        each = jax.tree.leaves(bits, is_leaf=_is_learned)
        costs = [
            jnp.asarray(price(path, x, nearest_width(b.value)), jnp.float32)
            for path, x, b in zip(paths, leaves, each, strict=True)
        ]
        return sum(costs, start=jnp.zeros(()))

    def all_at(params: PyTree, width: float) -> PyTree:
        return jax.tree.map(lambda x: Learned(jnp.full((), width, jnp.float32)), params)

    def init(params: PyTree) -> LearnedBitsState:
        refuse_unfit(params)
        shapes_of(params)  # refuses leaves whose axes are ambiguous
        bits = all_at(params, most)
        per = _concrete(lambda: total(params, all_at(params, most)))
        if target is not None:
            _check_target(
                target, _concrete(lambda: total(params, all_at(params, least)))
            )
        return LearnedBitsState(bits, rule.start(per), jnp.zeros((), jnp.int32))

    def shapes_of(params: PyTree) -> dict[str, tuple[int, ...]]:
        paths, leaves, _ = paths_and_leaves(params)
        pairs = zip(paths, leaves, strict=True)
        return {path: tuple(shared.scale_shape(path, x.shape)) for path, x in pairs}

    def apply(params: PyTree, state: LearnedBitsState) -> PyTree:
        shapes = shapes_of(params)

        def fake(path: str, x: jax.Array, bits: Learned) -> jax.Array:
            return fake_quant(
                x,
                Int(nearest_width(bits.value)),
                scale_shape=shapes[path],
                scale=scale,
                gradient=through_scale,
            )

        return map_with_path(fake, params, state.bits)

    def update(
        params: PyTree, state: LearnedBitsState, **extras: Any
    ) -> tuple[PyTree, LearnedBitsState]:
        del extras
        rule.check(state.multiplier)
        count = state.count + 1
        old = state.multiplier
        value = cond(
            count % every == 0,
            lambda: rule.follow(old.value, count, total(params, state.bits)),
            lambda: old.value,
        )
        bits = jax.tree.map(
            # What lies beyond the widths would take long to come back.
            lambda b: Learned(jnp.clip(b.value, least, most)),
            state.bits,
            is_leaf=_is_learned,
        )
        new = dataclasses.replace(old, value=value)
        return params, LearnedBitsState(bits, new, count)

    def finalize(params: PyTree, state: LearnedBitsState) -> PyTree:
        refuse_unfit(params)
        rule.check(state.multiplier)
        shapes = shapes_of(params)
        if target is not None:
            spent = total(params, state.bits)
            if not isinstance(spent, Tracer):
                _warn_if_missed(float(spent), target)

        def codes(path: str, x: jax.Array, bits: Learned) -> Any:
            if isinstance(bits.value, Tracer):
                raise TypeError(
                    "learned widths are known only outside of jit: call finalize there."
                )
            fmt = Int(int(nearest_width(bits.value)))
            return to_qarray(x, fmt, scale_shape=shapes[path], scale=scale)

        return map_with_path(codes, params, state.bits)

    def penalty(params: PyTree, state: LearnedBitsState) -> dict[str, jax.Array]:
        rule.check(state.multiplier)
        multiplier = state.multiplier
        spent = total(params, state.bits)
        return {"cost": multiplier.value * spent / multiplier.per}

    compressor = Compressor(
        init=init, apply=apply, update=update, finalize=finalize, penalty=penalty
    )
    return masked(compressor, where)


def widths_of(tree: PyTree) -> dict[str, int]:
    """Return the bits of every quantized leaf of a finalized tree, by path.

    Raises:
      ValueError: if nothing in the tree is quantized, such as in raw parameters.
    """
    nodes, _ = jax.tree.flatten_with_path(tree, is_leaf=is_leaf)
    widths = {
        path_text(path): leaf.bits for path, leaf in nodes if isinstance(leaf, QArray)
    }
    if not widths:
        raise ValueError(
            "nothing in this tree is quantized: pass what the compressor's finalize "
            "returns."
        )
    return widths


def _is_learned(x: Any) -> bool:
    return isinstance(x, Learned)


def _concrete(total: Any) -> float:
    """Evaluate a cost also while ``init`` is traced: it depends on shapes alone."""
    with jax.ensure_compile_time_eval():
        return float(np.asarray(total()))


def _warn_if_missed(spent: float, target: float) -> None:
    if spent > target:
        warn(
            f"the learned widths cost {spent:g}, but target={target:g} was asked for. "
            "Train for longer, change the multiplier more often with a smaller every=, or "
            "give the bits a larger learning rate with learned_tx=."
        )


def _check_cost(cost: Any) -> None:
    if not callable(cost) or not takes_arguments(cost, 3):
        name = getattr(cost, "__name__", None)
        raise TypeError(
            f"cost must be a cost such as rate.costs.bytes_(), got {name or cost!r}"
            + (f", which makes one: call it, {name}(...)." if name else ".")
        )


def _check_widths(widths: Sequence[int]) -> list[int]:
    if isinstance(widths, int) or not all(isinstance(w, int) for w in widths):
        raise TypeError(
            f"widths must be whole numbers such as (2, 4, 8), got {widths}."
        )
    allowed = sorted(set(widths))
    if len(allowed) < 2 or not all(2 <= w <= 8 or w == 16 for w in allowed):
        raise ValueError(
            f"widths must be two or more of 2 to 8 and 16, got {tuple(widths)}."
        )
    return allowed


def _check_target(target: float, least: float) -> None:
    if check_amount("target", target) < least:
        raise ValueError(
            f"target={target:g} cannot be reached: at the narrowest width these leaves "
            f"cost {least:g}. Ask for more, allow narrower widths=, or select fewer leaves "
            "with where=."
        )
