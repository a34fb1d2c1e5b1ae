# SPDX-License-Identifier: Apache-2.0
"""Scores: how important each channel of each group is. The lowest are pruned."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from .._mesh import on_any_mesh
from .._select import Where, paths_and_leaves, select
from ._groups import Group, Groups, Member, check_groups
from ._plan import PlanError

__all__ = [
    "ChannelScore",
    "activation",
    "fisher",
    "geometric_median",
    "l1",
    "l2",
    "norm_scale",
    "random",
    "taylor",
]

PyTree = Any
Scores = dict[str, jax.Array]


class ChannelScore(Protocol):
    """``(groups, params, **extras) -> {group: float32 [size]}``.

    Required keyword-only arguments name the extras that the score needs, such as
    ``grads`` (which ``train_step`` passes to compressors) or ``stats``. Groups without
    an entry are not pruned.
    """

    def __call__(  # noqa: D102
        self, groups: Groups, params: PyTree, **extras: Any
    ) -> Scores: ...


def _score(fn: Callable[..., Scores]) -> Callable[..., Scores]:
    """Check the order of the arguments, and run a score on any mesh."""
    on_mesh = on_any_mesh(fn)

    @functools.wraps(fn)
    def score(groups: Groups, params: PyTree, **extras: Any) -> Scores:
        check_groups(groups, f"{fn.__name__}(groups, params)")
        return on_mesh(groups, params, **extras)

    return score


def is_matrix(path: str, leaf: Any) -> bool:
    """True for floats of rank 2 or more, whatever their name: kernels and tables."""
    del path
    return leaf.ndim > 1 and jnp.issubdtype(leaf.dtype, jnp.floating)


@_score
def l1(groups: Groups, params: PyTree, **extras: Any) -> Scores:
    """Score channels by the mean magnitude of their weights, in every leaf of the group.

    References:
      Li et al., 2017, https://arxiv.org/abs/1608.08710
    """
    del extras
    return _means(groups, params, jnp.abs)


@_score
def l2(groups: Groups, params: PyTree, **extras: Any) -> Scores:
    """Score channels by the root mean square of their weights. A good default.

    References:
      Fang et al., 2023, https://arxiv.org/abs/2301.12900
    """
    del extras
    squares = _means(groups, params, jnp.square)
    return {name: jnp.sqrt(mean) for name, mean in squares.items()}


def norm_scale(where: Where = "*/scale") -> ChannelScore:
    """Score channels by the scale of the norm that follows them (network slimming).

    Train with ``penalties.norm_scale`` before, so that unimportant scales become small.

    Args:
      where: which leaves are scales of norms.

    References:
      Liu et al., 2017, https://arxiv.org/abs/1708.06519
    """

    @_score
    def score(groups: Groups, params: PyTree, **extras: Any) -> Scores:
        del extras
        return _means(groups, params, jnp.abs, where)

    return score


@_score
def taylor(groups: Groups, params: PyTree, *, grads: PyTree, **extras: Any) -> Scores:
    """Score channels by the squared first-order change of the loss without them.

    That is the square of the sum of weight times gradient over all weights of a channel.

    References:
      Molchanov et al., 2019, https://arxiv.org/abs/1906.10771
    """
    del extras
    sums = _changes(groups, params, grads)
    return {name: jnp.square(value) for name, value in sums.items()}


@_score
def fisher(
    groups: Groups, params: PyTree, *, example_grads: PyTree, **extras: Any
) -> Scores:
    """Score channels by the mean over examples of the squared change of the loss.

    Args:
      groups: the groups.
      params: the parameters.
      example_grads: gradients of single examples, with one more axis in front:
        ``jax.vmap(jax.grad(loss), (None, 0))(params, batch)``.
      **extras: ignored.

    References:
      Theis et al., 2018, https://arxiv.org/abs/1801.05787; Liu et al., 2021,
      https://arxiv.org/abs/2108.00708
    """
    del extras
    sums = jax.vmap(lambda grads: _changes(groups, params, grads))(example_grads)
    return {name: jnp.square(value).mean(0) for name, value in sums.items()}


@_score
def geometric_median(groups: Groups, params: PyTree, **extras: Any) -> Scores:
    """Score channels by their distance to all others: what others can replace goes first.

    References:
      He et al., 2019, https://arxiv.org/abs/1811.00250
    """
    del extras
    vectors: dict[str, list[jax.Array]] = {}
    for group, member, leaf in _members(groups, params, is_matrix):
        rows = jnp.moveaxis(leaf, member.axis, 0).reshape(leaf.shape[member.axis], -1)
        places = [np.flatnonzero(member.index == c) for c in range(group.size)]
        if len({len(own) for own in places}) == 1:
            rows = rows[np.stack(places)].reshape(group.size, -1)
            vectors.setdefault(group.name, []).append(rows)
    return {name: _distances(jnp.concatenate(v, 1)) for name, v in vectors.items()}


@_score
def activation(
    groups: Groups, params: PyTree, *, stats: PyTree, **extras: Any
) -> Scores:
    """Score channels by the size of what they carry to the kernels that read them.

    Args:
      groups: the groups.
      params: the parameters.
      stats: the result of ``jc.observe`` with ``jc.program.statistics.max_magnitude()``.
      **extras: ignored.

    Raises:
      PlanError: if the statistics have no number for each input channel.
    """
    del extras
    paths, leaves, treedef = paths_and_leaves(params)
    observed = dict(zip(paths, treedef.flatten_up_to(stats), strict=True))
    shapes = {path: leaf.shape for path, leaf in zip(paths, leaves, strict=True)}
    sums: dict[str, list[jax.Array]] = {}
    for group in groups.prunable.values():
        for member in group.members:
            rank = len(shapes[member.leaf])
            # Outputs of a leaf have size 1 in a statistic of its inputs.
            rows = jax.tree.leaves(observed[member.leaf])
            fits = len(rows) == 1 and rows[0].ndim == rank
            if fits and rows[0].shape[member.axis] == len(member.index):
                mean = _per_channel(group, member, rows[0]) / _counts(
                    group, member, rows[0]
                )
                sums.setdefault(group.name, []).append(mean)
    if not sums:
        raise PlanError(
            "the statistics have no number for each input channel. Pass the result of "
            "jc.observe(fn, params, batches, jc.program.statistics.max_magnitude())."
        )
    return {name: sum(own) / len(own) for name, own in sums.items()}  # pyright: ignore[reportReturnType]


def random(key: jax.Array) -> ChannelScore:
    """Score channels with random numbers: the baseline for every other score."""

    @_score
    def score(groups: Groups, params: PyTree, **extras: Any) -> Scores:
        del params, extras
        keys = jax.random.split(key, max(len(groups), 1))
        return {
            name: jax.random.uniform(k, (group.size,))
            for k, (name, group) in zip(keys, groups.prunable.items(), strict=False)
        }

    return score


def _members(groups: Groups, params: PyTree, where: Where) -> Any:
    """Iterate over the members of prunable groups that are selected, with their leaves."""
    groups.check(params)
    chosen = select(params, where).tree
    paths, leaves, _ = paths_and_leaves(chosen)
    known = dict(zip(paths, leaves, strict=True))
    for group in groups.prunable.values():
        for member in group.members:
            if member.leaf in known:
                yield group, member, known[member.leaf].astype(jnp.float32)


def channel_sums(
    groups: Groups,
    params: PyTree,
    fn: Callable[[jax.Array], jax.Array],
    where: Where = is_matrix,
) -> Scores:
    """Sum a function of the weights over all weights of each channel: float32 [size]."""
    return _sums_and_counts(groups, params, fn, where)[0]


def _means(
    groups: Groups,
    params: PyTree,
    fn: Callable[[jax.Array], jax.Array],
    where: Where = is_matrix,
) -> Scores:
    sums, counts = _sums_and_counts(groups, params, fn, where)
    return {name: value / counts[name] for name, value in sums.items()}


def _sums_and_counts(
    groups: Groups,
    params: PyTree,
    fn: Callable[[jax.Array], jax.Array],
    where: Where,
) -> tuple[Scores, dict[str, np.ndarray]]:
    sums: Scores = {}
    counts: dict[str, np.ndarray] = {}
    for group, member, leaf in _members(groups, params, where):
        own = _per_channel(group, member, fn(leaf))
        sums[group.name] = sums.get(group.name, 0) + own
        counts[group.name] = counts.get(group.name, 0) + _counts(group, member, leaf)
    return sums, counts


def _changes(groups: Groups, params: PyTree, grads: PyTree) -> Scores:
    """Return the sum of weight times gradient over each channel, in every leaf.

    A weight that has a channel on two axes counts for both.
    """

    def change(w: jax.Array, g: jax.Array) -> jax.Array:
        # The gradients of integers have no values.
        return jnp.zeros_like(w) if g.dtype == jax.dtypes.float0 else w * g

    products = jax.tree.map(change, params, grads)
    return channel_sums(groups, products, lambda x: x)


def _per_channel(group: Group, member: Member, leaf: jax.Array) -> jax.Array:
    """Sum a leaf over everything but the channels of a group: float [size]."""
    others = tuple(i for i in range(leaf.ndim) if i != member.axis)
    # Indices of no channel are -1, the last entry, which is cut off.
    totals = jnp.zeros(group.size + 1, leaf.dtype)
    return totals.at[member.index].add(leaf.sum(others))[:-1]


def _counts(group: Group, member: Member, leaf: jax.Array) -> np.ndarray:
    each = math.prod(leaf.shape) // leaf.shape[member.axis]
    return np.bincount(member.index[member.index >= 0], minlength=group.size) * each


def _distances(rows: jax.Array) -> jax.Array:
    squares = jnp.square(rows).sum(1)
    products = jnp.matmul(rows, rows.T, precision=jax.lax.Precision.HIGHEST)
    distances = squares[:, None] + squares[None] - 2 * products
    return jnp.sqrt(jnp.maximum(distances, 0)).sum(1)


def check_scores(groups: Groups, scores: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Return the scores as arrays.

    Raises:
      PlanError: if a group is unknown, a shape is wrong, or a score is NaN.
    """
    checked = {}
    for name, values in scores.items():
        if name not in groups:
            raise PlanError(f"scores name the group {name!r}, which does not exist")
        array = jnp.asarray(values)
        if array.shape != (groups[name].size,):
            raise PlanError(
                f"the scores of group {name!r} must be float [{groups[name].size}], "
                f"got {list(array.shape)}"
            )
        if not groups[name].frozen:
            checked[name] = array
    return checked
