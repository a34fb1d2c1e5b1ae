# SPDX-License-Identifier: Apache-2.0
"""Patterns: which weights may be pruned together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from ..._axes import AxesLike, check_axes, contraction_axes
from ...numerics import smallest

Pattern = Callable[[str, jax.Array, jax.Array], jax.Array]
"""``(path, scores, count) -> keep``: the path text of the leaf, its scores and how many
weights to prune (an integer scalar), to a bool array shaped like the scores.

A pattern may have three attributes: ``spread(path, scores) -> scores``, which gives every
weight the score of the group that it falls with, so that budgets rank groups;
``max_sparsity``, beyond which it cannot go; and ``misfit(path, shape)``, the reason why it
cannot prune a leaf, or None."""


def misfit(pattern: Pattern, path: str, shape: Sequence[int]) -> str | None:
    """Why a leaf does not fit into a pattern, or None if it does."""
    shape = tuple(shape)
    reason = getattr(pattern, "misfit", None)
    return None if reason is None else reason(path, shape)


def check_fits(pattern: Pattern, path: str, scores: jax.Array) -> None:
    """Refuse a leaf that does not fit.

    Raises:
      ValueError: with the leaf, the reason and the way out.
    """
    reason = misfit(pattern, path, scores.shape)
    if reason is not None:
        raise ValueError(
            f"{path!r}: {reason} Leave this leaf out with `where=`; "
            "`prune.patterns.fits(pattern)` selects the weights that fit."
        )


def unstructured(path: str, scores: jax.Array, count: jax.Array) -> jax.Array:
    """Prune exactly ``count`` weights, the lowest, wherever they are."""
    del path
    return ~smallest(scores, count)


@dataclasses.dataclass(frozen=True)
class NOfM:
    """Keep at most ``n`` of every ``m`` consecutive weights that are summed together.

    Groups lie along the *contraction* axis, as sparse matrix units want them. Under a
    rising schedule the groups that lose least fall into the pattern first, so that the
    sparsity follows the schedule up to ``1 - n / m`` and stays there.

    Attributes:
      n: weights kept in a group.
      m: weights in a group.
      axes: which axes of each leaf are summed over: None for the default of a matrix,
        ``Axes(contraction=0)``, ``{glob: Axes(...)}`` or ``weight_axes(fn, params, x)``.
        Of several, groups lie along the last: the input channels of a Flax convolution.

    References:
      Zhou et al., 2021, https://arxiv.org/abs/2102.04010

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.array([[1.0], [-3.0], [2.0], [0.5]])}
      >>> pruner = jc.magnitude_pruning(0.5, pattern=jc.prune.patterns.NOfM(2, 4))
      >>> jc.compress(pruner, params)["kernel"].ravel().tolist()
      [0.0, -3.0, 2.0, 0.0]
    """

    n: int
    m: int
    axes: AxesLike = None

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            raise ValueError(f"NOfM needs 0 < n < m, got NOfM({self.n}, {self.m}).")
        check_axes(self.axes)

    @property
    def max_sparsity(self) -> float:
        """Sparsity of a leaf that is wholly in the pattern."""
        return 1.0 - self.n / self.m

    def along(self, path: str, shape: Sequence[int]) -> int:
        """The axis along which the groups of a leaf lie.

        Raises:
          ValueError: if the default is ambiguous or an axis is out of range.
        """
        return contraction_axes(path, shape, self.axes)[-1]

    def misfit(self, path: str, shape: Sequence[int]) -> str | None:
        """Why a leaf cannot be pruned so, or None if it can."""
        axis = self.along(path, shape)
        if shape[axis] % self.m:
            return f"axis {axis} of {tuple(shape)} is no multiple of {self.m}."
        return None

    def __call__(self, path: str, scores: jax.Array, count: jax.Array) -> jax.Array:
        """Prune ``m - n`` of each of the ``count / (m - n)`` groups that lose least.

        Raises:
          ValueError: if the contraction axis is ambiguous or no multiple of ``m``.
        """
        check_fits(self, path, scores)
        axis = self.along(path, scores.shape)
        last = jnp.moveaxis(scores, axis, -1)
        groups = last.reshape(*last.shape[:-1], -1, self.m)
        drop = _ranks(groups) < self.m - self.n
        loss = jnp.sum(jnp.where(drop, groups, 0), axis=-1)
        # Rounded to whole groups; half a group up or down.
        drop_each = self.m - self.n
        number = (jnp.asarray(count, jnp.uint32) + drop_each // 2) // drop_each
        chosen = smallest(loss, number)
        keep = ~(drop & chosen[..., None])
        return jnp.moveaxis(keep.reshape(last.shape), -1, axis)


def _ranks(groups: jax.Array) -> jax.Array:
    """Rank of each element in its group (last axis), ties by position, NaN last."""
    groups = jnp.where(jnp.isnan(groups), jnp.inf, groups)
    this, other = groups[..., :, None], groups[..., None, :]
    earlier = jnp.broadcast_to(
        jnp.tri(groups.shape[-1], k=-1, dtype=bool), (other < this).shape
    )
    return jnp.sum((other < this) | ((other == this) & earlier), axis=-1)
