# SPDX-License-Identifier: Apache-2.0
"""Choose patterns by leaf: select the leaves that fit, list the rest, map by path."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..._select import is_weight, matches, paths_and_leaves
from ._protocol import Choosy, Pattern, misfit


def fits(pattern: Pattern | Choosy) -> Callable[[str, Any], bool]:
    """Select the weights that a pattern can prune; pass the result as ``where=``.

    A pattern raises on a leaf that it cannot prune, such as one whose axis is not a
    multiple of ``m``. Use this to skip such leaves; ``left_out`` lists them.

    Args:
      pattern: a pattern of this package, a granularity such as ``PerGroup(64)``, or
        anything with a method ``misfit(path, shape)`` that returns the reason why a leaf
        does not fit, or None. Without that method it is assumed to fit every leaf.

    Returns:
      ``(path, leaf) -> bool``: whether the leaf is a weight (``is_weight``) and fits. It
      raises if the pattern needs more information, such as the axes of a convolution.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"a": {"kernel": jnp.ones((8, 2))}, "b": {"kernel": jnp.ones((6, 2))}}
      >>> pattern = jc.prune.patterns.NOfM(2, 4)
      >>> where = jc.prune.patterns.fits(pattern)
      >>> pruner = jc.magnitude_pruning(0.5, pattern=pattern, where=where)
      >>> small = jc.compress(pruner, params)
      >>> int(small["a"]["kernel"].sum()), int(small["b"]["kernel"].sum())
      (8, 12)
    """

    # Cached because every eager step selects again.
    @functools.cache
    def shape_fits(path: str, shape: tuple[int, ...]) -> bool:
        return misfit(pattern, path, shape) is None

    def leaf_fits(path: str, leaf: Any) -> bool:
        return is_weight(path, leaf) and shape_fits(path, tuple(jnp.shape(leaf)))

    return leaf_fits


def left_out(pattern: Pattern | Choosy, params: Any) -> dict[str, str]:
    """List the weights that ``fits(pattern)`` skips, each with the reason.

    Args:
      pattern: see ``fits``.
      params: a parameter tree, of arrays or of shapes.

    Returns:
      ``{path: reason}``, empty if every weight fits. Leaves that are not weights are not
      listed.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"a": {"kernel": jnp.ones((8, 2))}, "b": {"kernel": jnp.ones((6, 2))}}
      >>> jc.prune.patterns.left_out(jc.prune.patterns.NOfM(2, 4), params)
      {'b/kernel': 'axis 0 of (6, 2) is not a multiple of 4.'}
    """
    paths, leaves, _ = paths_and_leaves(params)
    reasons = {
        path: misfit(pattern, path, jnp.shape(leaf))
        for path, leaf in zip(paths, leaves, strict=True)
        if is_weight(path, leaf)
    }
    return {path: reason for path, reason in reasons.items() if reason is not None}


def by_path(patterns: Mapping[str, Pattern]) -> ByPath:
    """Use different patterns for different leaves; the first glob that matches applies.

    Args:
      patterns: ``{glob: pattern}``; globs match the whole path, as in ``"Conv_*/kernel"``.

    Raises:
      ValueError: if ``patterns`` is empty; when called, if no glob matches the path.

    Example:
      >>> import jax, jaxcompress as jc
      >>> kernel = jax.random.normal(jax.random.key(0), (4, 4))
      >>> params = {"a": {"kernel": kernel}, "b": {"kernel": kernel}}
      >>> pattern = jc.prune.patterns.by_path(
      ...     {"a/*": jc.prune.patterns.NOfM(2, 4), "*": jc.prune.patterns.unstructured}
      ... )
      >>> small = jc.compress(jc.magnitude_pruning(0.5, pattern=pattern), params)
      >>> (small["a"]["kernel"] != 0).sum(axis=0).tolist()
      [2, 2, 2, 2]
      >>> int((small["b"]["kernel"] != 0).sum())
      8
    """
    if not patterns:
        raise ValueError(
            "by_path needs at least one {glob: pattern}, got an empty dict."
        )
    return ByPath(tuple(patterns.items()))


@dataclasses.dataclass(frozen=True)
class ByPath:
    """The pattern that ``by_path`` returns.

    Attributes:
      items: pairs of a glob and a pattern; the first match applies.
    """

    items: tuple[tuple[str, Pattern], ...]

    @property
    def max_sparsity(self) -> float:
        """The lowest limit of its patterns; above it some leaf could not follow."""
        return min(getattr(pattern, "max_sparsity", 1.0) for _, pattern in self.items)

    def misfit(self, path: str, shape: Sequence[int]) -> str | None:
        """Return the reason why a leaf cannot be pruned, or None if it can."""
        pattern = self._find(path)
        return (
            self._explain_unmatched()
            if pattern is None
            else misfit(pattern, path, shape)
        )

    def spread(self, path: str, scores: jax.Array) -> jax.Array:
        """Spread the scores with the pattern of this leaf, if it has ``spread``."""
        spread = getattr(self._require(path), "spread", None)
        return scores if spread is None else spread(path, scores)

    def __call__(self, path: str, scores: jax.Array, count: jax.Array) -> jax.Array:
        """Prune with the pattern of this leaf."""
        return self._require(path)(path, scores, count)

    def _find(self, path: str) -> Pattern | None:
        return next((p for glob, p in self.items if matches(glob, path)), None)

    def _require(self, path: str) -> Pattern:
        pattern = self._find(path)
        if pattern is None:
            raise ValueError(f"{path!r}: {self._explain_unmatched()}")
        return pattern

    def _explain_unmatched(self) -> str:
        globs = ", ".join(repr(glob) for glob, _ in self.items)
        return (
            f"no glob of by_path matches this leaf ({globs}). Add '*' with a pattern "
            "for the rest, or narrow `where=`."
        )
