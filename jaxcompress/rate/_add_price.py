# SPDX-License-Identifier: Apache-2.0
"""Any compressor to whole-numbered codes, with the bits of its codes as a penalty."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from .._compressor import Compressor
from .._types import PyTree
from .._warn import warn
from ..numerics import cond
from ._code_length import Values, code_length, count_values, pull
from ._multiplier import Multiplier, Rule


class RateState(NamedTuple):
    """State of a compressor whose codes have a price."""

    inner: PyTree  # of the compressor that makes the codes
    values: PyTree  # ``Values`` of each leaf
    multiplier: Multiplier
    count: jax.Array  # int32 []: updates so far
    bits: jax.Array  # float32 []: of the codes, when they were last counted


def add_price(
    inner: Compressor,
    positions: Callable[[PyTree, PyTree], PyTree],
    *,
    high: int,
    rule: Rule,
    every: int,
    table: int = 0,
) -> Compressor:
    """Return a compressor with the penalty ``"rate"``: the bits of its codes, at a price.

    Args:
      inner: the compressor that makes the codes.
      positions: ``(params, inner state) -> floats`` like the parameters, which the codes
        are the nearest whole numbers of; differentiable. Zero is the code of zero.
      high: the largest code is ``high``, the smallest ``-high``.
      rule: how the multiplier starts and moves; its target, if it has one, is in bytes.
      every: updates between two counts of the values, and two changes of the multiplier.
      table: how many values of its dtype each leaf takes besides its codes and a scale.
    """

    def add_up(
        bits: Callable[[jax.Array, Values], jax.Array],
        params: PyTree,
        state: PyTree,
        values: PyTree,
    ) -> jax.Array:
        terms = jax.tree.map(bits, positions(params, state), values)
        return sum(jax.tree.leaves(terms), start=jnp.zeros(()))

    def length(params: PyTree, state: PyTree, values: PyTree) -> jax.Array:
        tables = sum(8 * table * x.dtype.itemsize for x in jax.tree.leaves(params))
        return add_up(code_length, params, state, values) + tables

    def counted(params: PyTree, state: PyTree) -> tuple[PyTree, jax.Array]:
        """Return the bits of each value as it is now, and the total."""

        def count(x: jax.Array) -> Values:
            x = lax.stop_gradient(x)
            return count_values(jnp.clip(jnp.round(x), -high, high), high)

        values = jax.tree.map(count, positions(params, state))
        total = length(params, state, values)
        return values, lax.stop_gradient(total)

    def init(params: PyTree) -> RateState:
        state = inner.init(params)
        if rule.target is not None:
            _check_target(params, rule.target, high)
        values, total = counted(params, state)
        number = sum(x.size for x in jax.tree.leaves(params))
        return RateState(
            state, values, rule.start(number), jnp.zeros((), jnp.int32), total
        )

    def update(
        params: PyTree, state: RateState, **extras: Any
    ) -> tuple[PyTree, RateState]:
        rule.check(state.multiplier)
        params, new = inner.update(params, state.inner, **extras)
        count = state.count + 1

        def recount() -> tuple[PyTree, jax.Array, jax.Array]:
            values, total = counted(params, new)
            value = rule.follow(state.multiplier.value, count, total / 8)
            return values, total, value

        values, total, value = cond(
            count % every == 0,
            recount,
            lambda: (state.values, state.bits, state.multiplier.value),
        )
        multiplier = dataclasses.replace(state.multiplier, value=value)
        return params, RateState(new, values, multiplier, count, total)

    def finalize(params: PyTree, state: RateState) -> PyTree:
        rule.check(state.multiplier)
        if rule.target is not None:
            _, total = counted(params, state.inner)
            if not isinstance(total, Tracer):
                _warn_if_missed(float(total) / 8, rule.target)
        return inner.finalize(params, state.inner)

    def penalty(params: PyTree, state: RateState) -> dict[str, jax.Array]:
        rule.check(state.multiplier)
        multiplier = state.multiplier
        if multiplier.counts:
            total = length(params, state.inner, state.values)
        else:  # only slopes matter in training, and they take a fraction of the time
            total = state.bits + add_up(pull, params, state.inner, state.values)
        return {"rate": multiplier.value * total / multiplier.per}

    return Compressor(
        init=init,
        apply=lambda params, state: inner.apply(params, state.inner),
        update=update,
        finalize=finalize,
        penalty=penalty,
    )


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
