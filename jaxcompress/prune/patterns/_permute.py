# SPDX-License-Identifier: Apache-2.0
"""Reorder channels, without changing the function, so that N:M pruning loses less."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from ..._axes import Axis, normalize_axes
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
    """Find an order of channels in which ``n`` of every ``m`` keep a high score.

    Each round pairs the groups at random and looks at all ``m * m`` swaps of a channel of
    one with a channel of the other, for all pairs at once; the best swap of each pair is
    made if it gains more than its sum can round. So the kept score never falls, and the
    result is never worse than the order that was given.

    Args:
      scores: ``[C, R...]``, float; ``n`` of ``m`` consecutive ones along the first axis
        are kept, for each index of the others. For several consumers of the same
        channels concatenate theirs.
      n: kept in a group.
      m: channels in a group; divides C.
      key: PRNG key of the pairings.
      rounds: how many; traced or not. None: ``4 * C / m``, in which each two groups meet
        about four times. A round does some ``6 * m`` operations a score and may need
        several times their memory.

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
      >>> better = scores[jc.prune.patterns.search_permutation(scores, 2, 4, key=jax.random.key(0))]
      >>> jnp.sort(better.reshape(2, 4), axis=1)[:, 2:].sum().item()
      36.0
    """
    NOfM(n, m)  # refuses what is no pattern
    channels = scores.shape[0] if scores.ndim else 0
    if not channels or channels % m:
        raise ValueError(
            f"scores have shape {scores.shape}: their first axis has to be a multiple of "
            f"{m}, the size of a group."
        )
    rounds = 4 * (channels // m) if rounds is None else rounds
    wide = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    return _search(
        wide.reshape(channels, -1), n, m, key, jnp.asarray(rounds, jnp.int32)
    )


def permute(params: PyTree, permutation: jax.Array, axes: Mapping[str, Axis]) -> PyTree:
    """Reorder coupled axes of several leaves alike.

    The function stays the same if the axes are all that the channels lie along: the
    output axis of what produces them, its bias, the scale, bias and statistics of a norm
    between, and the contraction axis of every leaf that consumes them. Where channels
    are added to others (a residual sum), everything else that writes to or reads from
    the sum is coupled too.

    Args:
      params: a parameter tree.
      permutation: int ``[C]``; new channel i is old channel ``permutation[i]``.
      axes: ``{path: axis}``, whole paths and no globs; several axes of a leaf as a tuple.

    Returns:
      The tree with these leaves reordered; others come back as they are.

    Raises:
      ValueError: for a path that is not there (naming the closest), an axis that is out
        of range or has another length than the permutation, and for what is no
        permutation, unless it is traced.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"up": {"kernel": jnp.eye(2), "bias": jnp.arange(2.0)}}
      >>> new = jc.prune.patterns.permute(params, jnp.array([1, 0]), {"up/kernel": -1, "up/bias": 0})
      >>> new["up"]["kernel"].tolist(), new["up"]["bias"].tolist()
      ([[0.0, 1.0], [1.0, 0.0]], [1.0, 0.0])
    """
    permutation = _checked(permutation)
    _coupled(params, axes, length=permutation.size)

    def reorder(path: str, leaf: Any) -> Any:
        if path not in axes:
            return leaf
        for axis in normalize_axes(path, leaf.shape, axes[path]):
            leaf = jnp.take(leaf, permutation, axis=axis, mode="clip")
        return leaf

    return map_with_path(reorder, params)


def permuted_for(
    pattern: NOfM,
    params: PyTree,
    axes: Mapping[str, Axis],
    *,
    key: jax.Array,
    rounds: int | None = None,
    scores: PyTree | None = None,
) -> tuple[PyTree, jax.Array]:
    """Search the channel order that suits an N:M pattern best, and put channels in it.

    The search is over the leaves in ``axes`` whose axis is the contraction axis of the
    pattern: those whose groups change. The others follow.

    Args:
      pattern: ``NOfM``; its ``axes`` must tell the contraction axis of every leaf of
        rank 2 or more in ``axes``.
      params: a parameter tree.
      axes: coupled axes, see ``permute``.
      key: PRNG key of the search.
      rounds: of the search, see ``search_permutation``.
      scores: tree like ``params``; None: magnitudes.

    Returns:
      The parameters in the new order, and the permutation.

    Raises:
      ValueError: as ``permute`` and ``search_permutation`` do, and if no leaf is summed
        over along its axis.

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
    ranked = params if scores is None else scores
    _coupled(ranked, axes)
    consumers = []
    for path, leaf in zip(*paths_and_leaves(ranked)[:2], strict=True):
        if path in axes and leaf.ndim >= 2:
            summed = pattern.along(path, leaf.shape)
            if normalize_axes(path, leaf.shape, axes[path]) == (summed,):
                score = jnp.abs(leaf) if scores is None else leaf
                first = jnp.moveaxis(score, summed, 0)
                consumers.append(first.reshape(len(first), -1).astype(jnp.float32))
    if not consumers:
        raise ValueError(
            f"none of {sorted(axes)} is summed over along its axis: the order of their "
            "channels changes no group. Add the leaves that consume the channels, or "
            "name their contraction axes in the pattern's axes=."
        )
    together = jnp.concatenate(consumers, axis=1)
    found = search_permutation(together, pattern.n, pattern.m, key=key, rounds=rounds)
    return permute(params, found, axes), found


@functools.partial(jax.jit, static_argnums=(1, 2))
def _search(
    scores: jax.Array, n: int, m: int, key: jax.Array, rounds: jax.Array
) -> jax.Array:
    """The permutation; ``scores`` is ``[C, R]``."""
    groups = len(scores) // m

    def swap_round(i: jax.Array, order: jax.Array) -> jax.Array:
        # order is [groups, m]. The odd group out of a random order has no partner.
        mixed = jax.random.permutation(jax.random.fold_in(key, i), groups)
        a, b = mixed[: groups // 2], mixed[groups // 2 : groups // 2 * 2]
        here, there = _best_swaps(scores[order[a]], scores[order[b]], n)
        this, other = order[a], order[b]
        swapped = jnp.where(here, jnp.sum(jnp.where(there, other, 0), 1)[:, None], this)
        back = jnp.where(there, jnp.sum(jnp.where(here, this, 0), 1)[:, None], other)
        return order.at[a].set(swapped).at[b].set(back)

    start = jnp.arange(len(scores), dtype=jnp.int32).reshape(groups, m)
    return lax.fori_loop(0, rounds, swap_round, start).reshape(-1)


def _best_swaps(a: jax.Array, b: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """The swap between two groups that gains most, for each pair of groups.

    Args:
      a: ``[pairs, m, R]``, the scores of the one group of each pair.
      b: those of the other.
      n: kept in a group.

    Returns:
      Two bool arrays ``[pairs, m]``: which channel of ``a`` goes and which one of ``b``.
      None where no swap gains.
    """
    pairs, m, _ = a.shape
    # With one channel out, a newcomer x is worth max(x, the n-th largest of the rest);
    # what the others keep cancels, and with it most of the rounding.
    bar_a, bar_b = _nth_of_the_rest(a, n)[:, :, None], _nth_of_the_rest(b, n)[:, None]
    x, y = a[:, :, None], b[:, None]  # [pairs, m, 1, R] and [pairs, 1, m, R]
    gain = jnp.sum(
        (jnp.maximum(y, bar_a) - jnp.maximum(x, bar_a))
        + (jnp.maximum(x, bar_b) - jnp.maximum(y, bar_b)),
        axis=-1,
    )
    # A gain within the rounding of its own sum could be a loss.
    size = jnp.sum(jnp.abs(x), axis=-1) + jnp.sum(jnp.abs(y), axis=-1)
    gain = jnp.where(gain > 2.0**-18 * size, gain, 0).reshape(pairs, m * m)
    best = jnp.argmax(gain, axis=-1)[:, None]
    found = jnp.max(gain, axis=-1)[:, None] > 0
    channel = jnp.arange(m)[None]
    return found & (channel == best // m), found & (channel == best % m)


def _nth_of_the_rest(groups: jax.Array, n: int) -> jax.Array:
    """The n-th largest of a group without each of its channels: ``[pairs, m, R]``."""
    m = groups.shape[1]
    this, other = groups[:, :, None], groups[:, None]
    earlier = jnp.broadcast_to(
        jnp.tri(m, k=-1, dtype=bool)[None, :, :, None], (1, m, m, 1)
    )
    larger = (other > this) | ((other == this) & earlier)
    rank = jnp.sum(larger, axis=2)  # 0 for the largest, ties by position

    def of_rank(k: int) -> jax.Array:
        return jnp.max(jnp.where(rank == k, groups, -jnp.inf), axis=1, keepdims=True)

    return jnp.where(rank < n, of_rank(n), of_rank(n - 1))


def _checked(permutation: jax.Array) -> jax.Array:
    permutation = jnp.asarray(permutation)
    if permutation.ndim != 1 or not jnp.issubdtype(permutation.dtype, jnp.integer):
        raise ValueError(
            f"a permutation is an int array [C], not {permutation.dtype}"
            f"{list(permutation.shape)}."
        )
    if not isinstance(permutation, Tracer):
        if not np.array_equal(np.sort(permutation), np.arange(permutation.size)):
            raise ValueError(f"no permutation of 0 to {permutation.size - 1}.")
    return permutation


def _coupled(
    params: PyTree, axes: Mapping[str, Axis], length: int | None = None
) -> None:
    """Refuse axes that cannot be reordered together."""
    paths, leaves, _ = paths_and_leaves(params)
    for path in axes:
        if path not in paths:
            near = ", ".join(repr(p) for p in closest(path, paths))
            raise ValueError(
                f"there is no leaf {path!r}; closest: {near}. Paths are whole, no globs."
            )
    for path, leaf in zip(paths, leaves, strict=True):
        for axis in (
            normalize_axes(path, leaf.shape, axes[path]) if path in axes else ()
        ):
            length = leaf.shape[axis] if length is None else length
            if leaf.shape[axis] != length:
                raise ValueError(
                    f"{path!r}: axis {axis} of {leaf.shape} has length "
                    f"{leaf.shape[axis]}, and {length} channels are reordered. Channels "
                    "that a reshape has merged with others cannot be named by an axis."
                )
