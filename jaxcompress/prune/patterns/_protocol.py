# SPDX-License-Identifier: Apache-2.0
"""The ``Pattern`` protocol, and the patterns N:M and unstructured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp

from ..._arguments import check_whole
from ..._axes import AxesLike, channel_axis, check_axes
from ...numerics import smallest

Pattern = Callable[[str, jax.Array, jax.Array], jax.Array]
"""Choose the weights of a leaf to keep: ``(path, scores, count) -> keep``.

``path`` is the path text of the leaf and ``count`` the number of weights to prune, an
integer scalar. ``keep`` is bool, shaped like ``scores``. A pattern may have three
attributes. ``spread(path, scores) -> scores`` gives every weight the score of its group, so
that budgets rank groups. ``max_sparsity`` is the highest sparsity it can reach.
``misfit(path, shape)`` returns the reason why it cannot prune a leaf, or None."""


class Choosy(Protocol):
    """Something that does not fit every leaf: a pattern, or a granularity in groups."""

    def misfit(self, path: str, shape: Sequence[int]) -> str | None:
        """Return the reason why it does not fit a leaf, or None if it does."""
        ...


def misfit(pattern: Pattern | Choosy, path: str, shape: Sequence[int]) -> str | None:
    """Return the reason why a pattern cannot prune a leaf, or None if it can."""
    shape = tuple(shape)
    reason = getattr(pattern, "misfit", None)
    return None if reason is None else reason(path, shape)


def check_fits(
    pattern: Pattern, path: str, scores: jax.Array | jax.ShapeDtypeStruct
) -> None:
    """Raise ValueError if a pattern cannot prune a leaf.

    Raises:
      ValueError: naming the leaf, the reason and the fix.
    """
    reason = misfit(pattern, path, scores.shape)
    if reason is not None:
        raise ValueError(
            f"{path!r}: {reason} Exclude this leaf with `where=`; "
            "`prune.patterns.fits(pattern)` selects the weights that fit."
        )


def unstructured(path: str, scores: jax.Array, count: jax.Array) -> jax.Array:
    """Prune exactly the ``count`` weights with the lowest scores, anywhere in the leaf."""
    del path
    return ~smallest(scores, count)


@dataclasses.dataclass(frozen=True)
class NOfM:
    """N:M sparsity: keep at most ``n`` of every ``m`` consecutive weights, such as 2:4.

    Groups lie along the *contraction* axis, as sparse tensor cores require. Under a
    rising schedule, the groups that lose least are pruned first, so the sparsity follows
    the schedule up to ``1 - n / m`` and stays there.

    Attributes:
      n: number of weights kept per group.
      m: number of weights per group.
      axes: the contraction axes of each leaf: None for the default of a matrix,
        ``Axes(contraction=0)``, ``{glob: Axes(...)}`` or ``weight_axes(fn, params, x)``.
        Groups lie along the input channels (``Axes.channels``), at each position of a
        convolution.

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
        check_whole(n=self.n, m=self.m)
        if not 0 < self.n < self.m:
            raise ValueError(f"NOfM needs 0 < n < m, got NOfM({self.n}, {self.m}).")
        check_axes(self.axes)

    @property
    def max_sparsity(self) -> float:
        """The sparsity once every group is pruned, ``1 - n / m``."""
        return 1.0 - self.n / self.m

    def along(self, path: str, shape: Sequence[int]) -> int:
        """Return the axis along which the groups of a leaf lie.

        Raises:
          ValueError: if the default is ambiguous or an axis is out of range.
        """
        return channel_axis(path, shape, self.axes)

    def misfit(self, path: str, shape: Sequence[int]) -> str | None:
        """Return the reason why a leaf cannot be pruned in groups, or None if it can."""
        axis = self.along(path, shape)
        if shape[axis] % self.m:
            return f"axis {axis} of {tuple(shape)} is not a multiple of {self.m}."
        return None

    def __call__(self, path: str, scores: jax.Array, count: jax.Array) -> jax.Array:
        """Prune ``m - n`` weights in each of the ``count / (m - n)`` cheapest groups.

        Raises:
          ValueError: if the contraction axis is ambiguous or not a multiple of ``m``.
        """
        check_fits(self, path, scores)
        axis = self.along(path, scores.shape)
        last = jnp.moveaxis(scores, axis, -1)
        groups = last.reshape(*last.shape[:-1], -1, self.m)
        drop = _rank(groups) < self.m - self.n
        loss = jnp.sum(jnp.where(drop, groups, 0), axis=-1)
        # Rounded to the nearest number of whole groups.
        drop_each = self.m - self.n
        num_groups = (jnp.asarray(count, jnp.uint32) + drop_each // 2) // drop_each
        pruned_groups = smallest(loss, num_groups)
        keep = ~(drop & pruned_groups[..., None])
        return jnp.moveaxis(keep.reshape(last.shape), -1, axis)


def _rank(groups: jax.Array) -> jax.Array:
    """Rank elements within their group (last axis); ties by position, NaN last."""
    groups = jnp.where(jnp.isnan(groups), jnp.inf, groups)
    this, other = groups[..., :, None], groups[..., None, :]
    earlier = jnp.broadcast_to(
        jnp.tri(groups.shape[-1], k=-1, dtype=bool), (other < this).shape
    )
    return jnp.sum((other < this) | ((other == this) & earlier), axis=-1)
