# SPDX-License-Identifier: Apache-2.0
"""Rankings: how the channels of different groups compare."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ._groups import Group, Groups
from .scores import Scores

__all__ = ["Ranking", "global_", "isomorphic", "local", "relative"]

Ranking = Callable[[Groups, Scores], Scores]
"""``(groups, scores) -> ranks``: the lowest are pruned first, across all groups."""


def global_(groups: Groups, scores: Scores) -> Scores:
    """Compare the scores themselves. For scores in units of the loss, such as Taylor's."""
    del groups
    return scores


def relative(groups: Groups, scores: Scores) -> Scores:
    """Compare scores relative to the mean of their group, since layers differ in scale."""
    del groups
    tiny = float(np.finfo(np.float32).tiny)
    return {name: s / jnp.maximum(s.mean(), tiny) for name, s in scores.items()}


def local(groups: Groups, scores: Scores) -> Scores:
    """Prune the same fraction of every group."""
    del groups
    return {name: _positions(s) for name, s in scores.items()}


def isomorphic(groups: Groups, scores: Scores) -> Scores:
    """Prune the same fraction of every kind of group, ranked within the kind.

    Groups are of one kind if they take part in leaves of the same number, ranks and axes,
    such as the heads of all attention layers.

    References:
      Fang et al., "Isomorphic pruning for vision models", ECCV 2024
    """
    kinds: dict[object, list[str]] = {}
    for name in scores:
        kinds.setdefault(_kind(groups, groups[name]), []).append(name)
    ranks: Scores = {}
    for names in kinds.values():
        means = relative(groups, {name: scores[name] for name in names})
        joined = _positions(jnp.concatenate([means[name] for name in names]))
        cuts = np.cumsum([groups[name].size for name in names])[:-1]
        ranks.update(zip(names, jnp.split(joined, cuts), strict=True))
    return ranks


def _kind(groups: Groups, group: Group) -> object:
    places = [(len(groups.shapes[m.leaf]), m.axis) for m in group.members]
    return tuple(sorted(places))


def _positions(scores: jax.Array) -> jax.Array:
    """Return the position of each score among all, as a fraction in [0, 1)."""
    return positions(scores).astype(jnp.float32) / scores.size


def positions(scores: jax.Array) -> jax.Array:
    """Return the position of each score among all: int [size]; ties go by index."""
    return jnp.argsort(jnp.argsort(scores, stable=True), stable=True)
