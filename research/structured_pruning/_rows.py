# SPDX-License-Identifier: Apache-2.0
"""The rows of the study: how channels are scored and compared, and blocks removed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

import jaxcompress as jc
from jaxcompress.structured import rankings, scores

DENSE = "dense"
ON = "dense, trained on"
MASKED = "weights, masked"
DEPTH = "blocks"
WIDTH = "channels: Taylor, as fast as blocks"
SCRATCH = "small dense, from scratch"
UNTUNED = "channels: Taylor, not trained on"


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to choose channels.

    Attributes:
      score: ``(key) -> (groups, variables, example_grads=) -> scores``.
      ranking: how channels of different groups compare.
    """

    score: Callable[[jax.Array], scores.ChannelScore]
    ranking: rankings.Ranking


def taylor(
    groups: jc.structured.Groups, params: Any, *, example_grads: Any, **extras: Any
) -> dict[str, jax.Array]:
    """Mean over batches of 16 of the squared first-order change of the loss."""
    del extras
    grads = jax.tree.map(
        lambda g: g.reshape(-1, 16, *g.shape[1:]).mean(1), example_grads
    )
    each = jax.vmap(lambda grads: scores.taylor(groups, params, grads=grads))(grads)
    return {name: values.mean(0) for name, values in each.items()}


FILTERS = "filters: L1, local"
CHANNELS = "channels: L2, relative"
FISHER = "channels: Fisher, isomorphic"
TAYLOR = "channels: Taylor, global"
RANDOM = "channels: random, local"

METHODS: dict[str, Method] = {
    FILTERS: Method(lambda key: scores.l1, rankings.local),
    CHANNELS: Method(lambda key: scores.l2, rankings.relative),
    FISHER: Method(lambda key: scores.fisher, rankings.isomorphic),
    TAYLOR: Method(lambda key: taylor, rankings.global_),
    RANDOM: Method(scores.random, rankings.local),
}
# The network from scratch has the widths of this plan, and this one is not trained on.
WIDTHS_OF = TAYLOR
CURVE = (FILTERS, TAYLOR, SCRATCH)
ROWS = (MASKED, *METHODS, DEPTH, WIDTH, SCRATCH, UNTUNED)


def without_channels(
    groups: jc.structured.Groups,
    name: str,
    variables: Any,
    example_grads: Any,
    factor: float,
    seed: int,
) -> jc.structured.Plan:
    """The plan of a method for so many times fewer MACs."""
    method = METHODS[name]
    score = method.score(jax.random.key(seed))
    found = score(groups, variables, example_grads=example_grads)
    budget = jc.structured.budgets.macs(1 / factor)
    return jc.structured.select(groups, found, budget, ranking=method.ranking)


def without_blocks(
    fn: Callable[..., Any], variables: Any, x: jax.Array, factor: float
) -> jc.structured.Plan:
    """The plan without the blocks that change the output least, one after another."""
    blocks = jc.structured.trace_blocks(fn, variables, x[:1])
    most = macs(fn, variables, x) / factor
    removed: list[str] = []
    plan, small = blocks.plan(removed), variables
    while macs(jc.shrink(fn, plan), small, x) > most:
        rest = jc.structured.mask_params(variables, plan)
        changes = jc.structured.block_scores(fn, rest, blocks, x)
        gone = {*removed, *(blocks[name].other for name in removed)}
        left = [name for name in blocks if name not in gone]
        removed.append(min(left, key=lambda name: changes[name]))
        plan = blocks.plan(removed)
        small = jc.structured.slice_params(variables, plan)
    return plan


def as_fast(
    plan_at: Callable[[float], jc.structured.Plan],
    ratio: Callable[[jc.structured.Plan], float],
    tries: int = 8,
) -> jc.structured.Plan:
    """The plan whose measured time comes closest to another's.

    Args:
      plan_at: the plan for so many times fewer MACs, between 1 and 6.
      ratio: measured time of a plan, divided by the one to meet.
      tries: of bisection, at most; it ends when both times agree within 2 %.
    """
    low, high = 1.0, 6.0
    tried: list[tuple[float, jc.structured.Plan]] = []
    for _ in range(tries):
        factor = (low * high) ** 0.5
        plan = plan_at(factor)
        found = ratio(plan)
        tried.append((abs(found - 1), plan))
        if tried[-1][0] < 0.02:
            break
        low, high = (factor, high) if found > 1 else (low, factor)
    return min(tried, key=lambda each: each[0])[1]


def macs(fn: Callable[..., Any], variables: Any, x: jax.Array) -> int:
    """Multiply-accumulates for one image."""
    return jc.count(fn, variables, x[:1]).macs
