# SPDX-License-Identifier: Apache-2.0
"""Reorder channels so that N:M pruning loses less, without changing the function."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from ..._arguments import check_whole
from ..._axes import Axis, normalize_axes
from ..._mesh import on_any_mesh
from ..._select import closest, map_with_path, paths_and_leaves
from ._protocol import NOfM

PyTree = Any


def search_permutation(
    scores: jax.Array,
    n: int,
    m: int,
    *,
    key: jax.Array,
    rounds: int | jax.Array | None = None,
) -> jax.Array:
    """Search for a channel order in which N:M pruning keeps a high total score.

    Use ``permuted_for`` to search and reorder a whole network. Each round pairs the
    groups at random and evaluates all ``m * m`` swaps of one channel between the two
    groups of a pair, for all pairs at once. It makes the best swap of each pair if the
    gain exceeds the rounding error of its sum. So the kept score never falls, and the
    result is never worse than the original order.

    Args:
      scores: float ``[C, R...]``. ``n`` of ``m`` consecutive scores along the first axis
        are kept, for each index of the other axes. If several leaves consume the same
        channels, concatenate their scores.
      n: number of channels kept per group.
      m: number of channels per group; divides C.
      key: PRNG key of the random pairs.
      rounds: number of rounds, traced or not. None: ``4 * C / m``, in which any two
        groups meet about four times. A round takes about ``6 * m`` operations per score
        and may need several times the memory of the scores.

    Returns:
      int32 ``[C]``: ``scores[permutation]`` is in the new order.

    Raises:
      ValueError: unless ``0 < n < m`` and ``m`` divides C.

    References:
      Pool and Yu, 2021, https://proceedings.neurips.cc/paper/2021/hash/\
6e8404c3b93a9527c8db241a1846599a-Abstract.html

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> scores = jnp.array([9.0, 9.0, 9.0, 9.0, 1.0, 1.0, 1.0, 1.0])  # 2:4 keeps 20
      >>> search = jc.prune.patterns.search_permutation
      >>> better = scores[search(scores, 2, 4, key=jax.random.key(0))]
      >>> jnp.sort(better.reshape(2, 4), axis=1)[:, 2:].sum().item()
      36.0
    """
    check_whole(rounds=rounds)
    NOfM(n, m)  # validates n and m
    channels = scores.shape[0] if scores.ndim else 0
    if not channels or channels % m:
        raise ValueError(
            f"the first axis of scores must be a multiple of m={m}, the group size, got "
            f"scores of shape {scores.shape}."
        )
    rounds = 4 * (channels // m) if rounds is None else rounds
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    return _search(
        scores.reshape(channels, -1), n, m, key, jnp.asarray(rounds, jnp.int32)
    )


@on_any_mesh
def permute(params: PyTree, permutation: jax.Array, axes: Mapping[str, Axis]) -> PyTree:
    """Apply one permutation of channels to all leaves that share them.

    Use it to reorder channels without changing the function. That requires naming every
    axis along which the channels lie: the output axis of the leaf that produces them, its
    bias, the scale, bias and statistics of any norm in between, and the contraction axis
    of every leaf that consumes them. In a residual sum, all other leaves that write to or
    read from the sum are coupled too.

    Args:
      params: a parameter tree.
      permutation: int ``[C]``; new channel i is old channel ``permutation[i]``.
      axes: ``{path: axis}`` with full paths, not globs; a tuple for several axes of a leaf.

    Returns:
      The tree with these leaves reordered; other leaves are unchanged.

    Raises:
      ValueError: if a path does not exist (the message names the closest), an axis is
        out of range or differs in length from the permutation, or ``permutation`` is not
        a permutation. A traced array is not checked for the latter.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"up": {"kernel": jnp.eye(2), "bias": jnp.arange(2.0)}}
      >>> axes = {"up/kernel": -1, "up/bias": 0}
      >>> new = jc.prune.patterns.permute(params, jnp.array([1, 0]), axes)
      >>> new["up"]["kernel"].tolist(), new["up"]["bias"].tolist()
      ([[0.0, 1.0], [1.0, 0.0]], [1.0, 0.0])
    """
    permutation = _check_permutation(permutation)
    _check_coupled(params, axes, length=permutation.size)

    def reorder(path: str, leaf: Any) -> Any:
        if path not in axes:
            return leaf
        for axis in normalize_axes(path, leaf.shape, axes[path]):
            leaf = jnp.take(leaf, permutation, axis=axis, mode="clip")
        return leaf

    return map_with_path(reorder, params)


@on_any_mesh
def permuted_for(
    pattern: NOfM,
    params: PyTree,
    axes: Mapping[str, Axis] | Sequence[Mapping[str, Axis]],
    *,
    key: jax.Array,
    rounds: int | None = None,
    scores: PyTree | None = None,
) -> tuple[PyTree, Any]:
    """Reorder channels before N:M pruning so that it loses less.

    It searches with ``search_permutation`` and applies the result with ``permute``. The
    search scores the leaves in ``axes`` whose axis is the contraction axis of the
    pattern, since only their groups change. The other leaves are reordered to match.

    Args:
      pattern: ``NOfM``. Its ``axes`` must give the contraction axis of every leaf of
        rank 2 or more in ``axes``.
      params: a parameter tree.
      axes: coupled axes, see ``permute``; or several of them, such as all that
        ``jc.program.find_couplings`` finds in a function. They are reordered one after
        another, where the pattern prunes along them.
      key: PRNG key of the search.
      rounds: number of search rounds, see ``search_permutation``.
      scores: tree like ``params``. None: magnitudes.

    Returns:
      The parameters in the new order, and the permutation: int32 ``[C]``. For several
      couplings, a list of permutations; None where no leaf is pruned along the channels,
      or their number is not a multiple of ``m``.

    Raises:
      ValueError: as in ``permute`` and ``search_permutation``, and if no leaf in
        ``axes`` is named by its contraction axis.

    Example:
      >>> import jax, jaxcompress as jc
      >>> keys = jax.random.split(jax.random.key(0))
      >>> params = {"up": {"kernel": jax.random.normal(keys[0], (4, 16))},
      ...           "down": {"kernel": jax.random.normal(keys[1], (16, 4))}}
      >>> axes = {"up/kernel": 1, "down/kernel": 0}
      >>> new, order = jc.prune.patterns.permuted_for(
      ...     jc.prune.patterns.NOfM(2, 4), params, axes, key=jax.random.key(1)
      ... )
      >>> sorted(order.tolist()) == list(range(16))
      True
    """
    if not isinstance(axes, Mapping):
        orders = []
        for i, own in enumerate(axes):
            order = None
            if _is_pruned_along(pattern, params, own):
                own_key = jax.random.fold_in(key, i)
                params, order = permuted_for(
                    pattern, params, own, key=own_key, rounds=rounds, scores=scores
                )
                scores = None if scores is None else permute(scores, order, own)
            orders.append(order)
        return params, orders
    scored = params if scores is None else scores
    _check_coupled(scored, axes)
    consumers = []
    for path, leaf in zip(*paths_and_leaves(scored)[:2], strict=True):
        if path in axes and leaf.ndim >= 2:
            contraction = pattern.along(path, leaf.shape)
            if normalize_axes(path, leaf.shape, axes[path]) == (contraction,):
                score = jnp.abs(leaf) if scores is None else leaf
                score = jnp.moveaxis(score, contraction, 0)
                consumers.append(score.reshape(len(score), -1).astype(jnp.float32))
    if not consumers:
        raise ValueError(
            "axes must include a leaf that consumes the channels, named by its contraction "
            f"axis, got {sorted(axes)}. Add such a leaf, or pass the contraction axes to "
            "the pattern as axes=."
        )
    all_scores = jnp.concatenate(consumers, axis=1)
    order = search_permutation(all_scores, pattern.n, pattern.m, key=key, rounds=rounds)
    return permute(params, order, axes), order


def _is_pruned_along(pattern: NOfM, params: PyTree, axes: Mapping[str, Axis]) -> bool:
    """True if the pattern prunes a leaf in groups of the channels of a coupling."""

    def fits(path: str, leaf: Any) -> bool:
        try:
            if leaf.ndim < 2 or pattern.misfit(path, leaf.shape):
                return False
            along = pattern.along(path, leaf.shape)
        except ValueError:  # the pattern does not prune this leaf
            return False
        return normalize_axes(path, leaf.shape, axes[path]) == (along,)

    paths, leaves, _ = paths_and_leaves(params)
    return any(
        fits(path, leaf)
        for path, leaf in zip(paths, leaves, strict=True)
        if path in axes
    )


@functools.partial(jax.jit, static_argnums=(1, 2))
def _search(
    scores: jax.Array, n: int, m: int, key: jax.Array, rounds: jax.Array
) -> jax.Array:
    """Search the permutation by rounds of swaps; ``scores`` is ``[C, R]``."""
    groups = len(scores) // m

    def swap_round(i: jax.Array, order: jax.Array) -> jax.Array:
        # order is [groups, m]. With an odd number of groups the last one has no partner.
        shuffled = jax.random.permutation(jax.random.fold_in(key, i), groups)
        a, b = shuffled[: groups // 2], shuffled[groups // 2 : groups // 2 * 2]
        out_a, out_b = _find_best_swaps(scores[order[a]], scores[order[b]], n)
        channels_a, channels_b = order[a], order[b]
        from_a = jnp.sum(jnp.where(out_a, channels_a, 0), 1)[:, None]
        from_b = jnp.sum(jnp.where(out_b, channels_b, 0), 1)[:, None]
        new_a = jnp.where(out_a, from_b, channels_a)
        new_b = jnp.where(out_b, from_a, channels_b)
        return order.at[a].set(new_a).at[b].set(new_b)

    start = jnp.arange(len(scores), dtype=jnp.int32).reshape(groups, m)
    return lax.fori_loop(0, rounds, swap_round, start).reshape(-1)


def _find_best_swaps(a: jax.Array, b: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """Find the channel swap with the largest gain, for each pair of groups.

    Args:
      a: ``[pairs, m, R]``, scores of the first group of each pair.
      b: ``[pairs, m, R]``, scores of the second group.
      n: number of channels kept per group.

    Returns:
      Two bool arrays ``[pairs, m]``: the channels of ``a`` and of ``b`` to swap. All
      False for a pair in which no swap gains.
    """
    pairs, m, _ = a.shape
    # Once a channel is removed, a new channel x adds max(x, n-th largest of the rest).
    # The score of the other channels cancels, and with it most of the rounding error.
    bar_a = _find_nth_of_rest(a, n)[:, :, None]
    bar_b = _find_nth_of_rest(b, n)[:, None]
    x, y = a[:, :, None], b[:, None]  # [pairs, m, 1, R] and [pairs, 1, m, R]
    gain = jnp.sum(
        (jnp.maximum(y, bar_a) - jnp.maximum(x, bar_a))
        + (jnp.maximum(x, bar_b) - jnp.maximum(y, bar_b)),
        axis=-1,
    )
    # A gain smaller than the rounding error of its sum could be a loss.
    size = jnp.sum(jnp.abs(x), axis=-1) + jnp.sum(jnp.abs(y), axis=-1)
    gain = jnp.where(gain > 2.0**-18 * size, gain, 0).reshape(pairs, m * m)
    best = jnp.argmax(gain, axis=-1)[:, None]
    gains = jnp.max(gain, axis=-1)[:, None] > 0
    channel = jnp.arange(m)[None]
    return gains & (channel == best // m), gains & (channel == best % m)


def _find_nth_of_rest(groups: jax.Array, n: int) -> jax.Array:
    """Find the n-th largest score of a group without each channel: ``[pairs, m, R]``."""
    m = groups.shape[1]
    this, other = groups[:, :, None], groups[:, None]
    earlier = jnp.broadcast_to(
        jnp.tri(m, k=-1, dtype=bool)[None, :, :, None], (1, m, m, 1)
    )
    larger = (other > this) | ((other == this) & earlier)
    rank = jnp.sum(larger, axis=2)  # 0 for the largest, ties by position

    def select_rank(k: int) -> jax.Array:
        return jnp.max(jnp.where(rank == k, groups, -jnp.inf), axis=1, keepdims=True)

    return jnp.where(rank < n, select_rank(n), select_rank(n - 1))


def _check_permutation(permutation: jax.Array) -> jax.Array:
    permutation = jnp.asarray(permutation)
    if permutation.ndim != 1 or not jnp.issubdtype(permutation.dtype, jnp.integer):
        raise ValueError(
            f"permutation must be an int array [C], got {permutation.dtype}"
            f"{list(permutation.shape)}."
        )
    if not isinstance(permutation, Tracer):
        if not np.array_equal(np.sort(permutation), np.arange(permutation.size)):
            raise ValueError(
                "permutation must contain each of 0 to "
                f"{permutation.size - 1} exactly once, got {permutation}."
            )
    return permutation


def _check_coupled(
    params: PyTree, axes: Mapping[str, Axis], length: int | None = None
) -> None:
    """Raise ValueError if the axes cannot be reordered together."""
    paths, leaves, _ = paths_and_leaves(params)
    for path in axes:
        if path not in paths:
            near = ", ".join(repr(p) for p in closest(path, paths))
            raise ValueError(
                f"no leaf has the path {path!r}; closest: {near}. Use full paths, "
                "not globs."
            )
    for path, leaf in zip(paths, leaves, strict=True):
        for axis in (
            normalize_axes(path, leaf.shape, axes[path]) if path in axes else ()
        ):
            length = leaf.shape[axis] if length is None else length
            if leaf.shape[axis] != length:
                raise ValueError(
                    f"{path!r}: axis {axis} of {leaf.shape} has length "
                    f"{leaf.shape[axis]}, but {length} channels are reordered. Name an "
                    "axis of that length; an axis merged with others by a reshape cannot "
                    "be reordered."
                )
