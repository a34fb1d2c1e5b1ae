# SPDX-License-Identifier: Apache-2.0
"""Choose which channels to prune: scores, a ranking and a budget become a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._arguments import check_counts
from .._refuse import refuse_values
from .._select import closest, matches
from .._signatures import name_defaults
from .._warn import warn
from . import budgets
from ._groups import Groups, check_groups
from ._plan import Plan, PlanError
from .budgets import Budget
from .rankings import Ranking, positions, relative
from .scores import Scores, check_scores


class KeptWarning(UserWarning):
    """Some groups are not pruned."""


@name_defaults
def select(
    groups: Groups,
    scores: Mapping[str, Any],
    budget: Budget,
    *,
    ranking: Ranking = relative,
    round_to: int = 1,
    keep: int = 1,
    protect: Iterable[str] = (),
) -> Plan:
    """Prune the channels with the lowest scores until a budget is met.

    Channels are what the printed groups count. A group norm and attention have two groups
    along one axis: 32 channels in 8 norm groups are 8 channels with 4 indices each (whole
    norm groups) and 4 channels of which every norm group has one. ``round_to``, ``keep``
    and the least of one channel hold for each of the two, and the width is their product.

    Args:
      groups: the result of ``jc.trace_axes``.
      scores: float [size] by group, such as ``structured.scores.l2(groups, params)``.
      budget: ``structured.budgets.macs(0.5)``, ``parameters``, ``channels``, ``bytes_`` or
        ``latency``.
      ranking: how channels of different groups compare: ``rankings.relative`` (to the mean
        of the group), ``global_``, ``local`` (the same fraction of each group) or
        ``isomorphic``.
      round_to: widths stay multiples of this, since hardware computes in blocks. Groups
        that are narrower are not pruned.
      keep: number of channels that every group keeps at least.
      protect: globs of leaves, whose groups are not pruned, or of groups, by the name
        that is printed.

    Raises:
      PlanError: if the budget cannot be met; it says what can. If scores do not fit, or a
        glob of ``protect`` matches neither a leaf nor a group.

    Warns:
      KeptWarning: if groups have no scores.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> keys = jax.random.split(jax.random.key(0))
      >>> params = {
      ...     "a": {"kernel": jax.random.normal(keys[0], (3, 8))},
      ...     "b": {"kernel": jax.random.normal(keys[1], (8, 2))},
      ... }
      >>> def fn(params, x):
      ...     return jnp.maximum(x @ params["a"]["kernel"], 0) @ params["b"]["kernel"]
      >>> groups = jc.trace_axes(fn, params, jnp.ones((4, 3)))
      >>> scores = jc.structured.scores.l2(groups, params)
      >>> jc.structured.select(groups, scores, jc.structured.budgets.macs(0.5)).widths
      {'a/kernel': (3, 4), 'b/kernel': (4, 2)}
    """
    _check_arguments(groups, scores, budget, ranking)
    check_counts(round_to=round_to, keep=keep)
    known = check_scores(groups, scores)
    protected = protected_groups(groups, protect)
    missing = [n for n in groups.prunable if n not in known and n not in protected]
    if missing:
        warn(
            f"{len(missing)} of {len(groups.prunable)} groups have no scores and are not "
            f"pruned: {missing[:3]}",
            KeptWarning,
        )
    known = {name: s for name, s in known.items() if name not in protected}
    if not known:
        raise PlanError("no group is left to prune: see the printed groups")
    refuse_values(known, jnp.isnan, lambda name: f"the scores of {name!r} hold NaN")
    ranks = ranking(groups, known)
    low, high = 0, sum(groups[name].size for name in known)

    def masks_at(count: int) -> dict[str, np.ndarray]:
        masks = keep_highest(ranks, count, round_to=round_to, keep=keep)
        return {name: np.asarray(mask) for name, mask in masks.items()}

    def is_met(count: int) -> bool:
        cost, limit = budget(groups, masks_at(count))
        return cost <= limit

    if not is_met(high):
        cost, limit = budget(groups, masks_at(high))
        raise PlanError(
            f"the budget of {limit:g} cannot be met: with everything pruned that may be, "
            f"{cost:g} is left. Lower `keep` or `round_to`, or protect fewer leaves."
        )
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_met(middle) else (middle + 1, high)
    return groups.plan(masks_at(low))


def _check_arguments(groups: Any, scores: Any, budget: Any, ranking: Any) -> None:
    """Name arguments that are swapped or not called."""
    check_groups(groups, "select(groups, scores, budget)")
    if not isinstance(scores, Mapping):
        raise TypeError(
            "scores must be a dict of arrays by group, such as scores.l2(groups, params), "
            f"got {getattr(scores, '__name__', type(scores).__name__)}"
        )
    uncalled = budget in [getattr(budgets, name) for name in budgets.__all__[1:]]
    if uncalled or not callable(budget):
        raise TypeError(
            "budget must be a budget such as budgets.macs(0.5), got "
            f"{getattr(budget, '__name__', repr(budget))}"
        )
    if not callable(ranking):
        raise TypeError(f"ranking must be one of structured.rankings, got {ranking!r}")


def keep_highest(
    ranks: Scores, count: Any, *, round_to: int = 1, keep: int = 1
) -> dict[str, jax.Array]:
    """Return masks without the ``count`` lowest ranked channels of all groups.

    Args:
      ranks: float [size] by group.
      count: number of channels, may be traced.
      round_to: each group keeps a multiple of this.
      keep: each group keeps at least so many.

    Returns:
      bool [size] by group.
    """
    names = list(ranks)
    joined = jnp.concatenate([ranks[name].astype(jnp.float32) for name in names])
    # Positions instead of a threshold, so that ties are cut at the exact count.
    order = positions(joined)
    cuts = np.cumsum([ranks[name].size for name in names])[:-1]
    masks = {}
    for name, own in zip(names, jnp.split(order, cuts), strict=True):
        size = own.size
        wanted = jnp.maximum((own >= count).sum(), min(keep, size))
        wanted = jnp.minimum(-(-wanted // round_to) * round_to, size)
        masks[name] = positions(-own) < wanted
    return masks


def protected_groups(groups: Groups, globs: Iterable[str]) -> set[str]:
    """Return the names of the groups that match globs, by themselves or by a leaf."""
    if isinstance(globs, str):
        globs = (globs,)
    protected = set()
    for glob in globs:
        if glob in groups:  # brackets in names of groups are no classes of characters
            protected.add(glob)
            continue
        leaves = {path for path in groups.shapes if matches(glob, path)}
        hit = {name for name in groups if matches(glob, name)}
        if not leaves and not hit:
            known = [*groups.shapes, *groups]
            raise PlanError(
                f"protect={glob!r} matches no leaf and no group; closest: "
                + ", ".join(map(repr, closest(glob, known)))
            )
        protected |= hit
        protected |= {name for name, g in groups.items() if leaves & set(g.leaves)}
    return protected
