# SPDX-License-Identifier: Apache-2.0
"""Which pattern for which leaf: those that fit, what is left out, and patterns by path."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..._select import is_weight, matches, paths_and_leaves
from ._protocol import Pattern, misfit


def fits(pattern: Pattern) -> Callable[[str, Any], bool]:
    """A selection: the weights that fit into a pattern, for ``where=``.

    A pattern refuses a leaf that it cannot prune, such as one whose axis is no multiple
    of ``m``. This skips those on purpose; ``left_out`` lists them.

    Args:
      pattern: of this package, or one with a method ``misfit(path, shape)`` that gives
        the reason why a leaf does not fit, or None. Any other is taken to fit all.

    Returns:
      ``(path, leaf) -> bool``: whether the leaf is a weight (``is_weight``) and fits. It
      raises where the pattern cannot tell, as for the default axis of a convolution.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"a": {"kernel": jnp.ones((8, 2))}, "b": {"kernel": jnp.ones((6, 2))}}
      >>> pattern = jc.prune.patterns.NOfM(2, 4)
      >>> pruner = jc.magnitude_pruning(0.5, pattern=pattern, where=jc.prune.patterns.fits(pattern))
      >>> small = jc.compress(pruner, params)
      >>> int(small["a"]["kernel"].sum()), int(small["b"]["kernel"].sum())
      (8, 12)
    """

    # An eager step selects anew; the answer depends on nothing else.
    @functools.cache
    def fitting_shape(path: str, shape: tuple[int, ...]) -> bool:
        return misfit(pattern, path, shape) is None

    def fitting(path: str, leaf: Any) -> bool:
        return is_weight(path, leaf) and fitting_shape(path, tuple(jnp.shape(leaf)))

    return fitting


def left_out(pattern: Pattern, params: Any) -> dict[str, str]:
    """The weights that ``fits(pattern)`` leaves out.

    Args:
      pattern: see ``fits``.
      params: a parameter tree, of arrays or of shapes.

    Returns:
      ``{path: reason}``, empty if every weight fits. What is no weight is not listed.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"a": {"kernel": jnp.ones((8, 2))}, "b": {"kernel": jnp.ones((6, 2))}}
      >>> jc.prune.patterns.left_out(jc.prune.patterns.NOfM(2, 4), params)
      {'b/kernel': 'axis 0 of (6, 2) is no multiple of 4.'}
    """
    paths, leaves, _ = paths_and_leaves(params)
    reasons = {
        path: misfit(pattern, path, jnp.shape(leaf))
        for path, leaf in zip(paths, leaves, strict=True)
        if is_weight(path, leaf)
    }
    return {path: reason for path, reason in reasons.items() if reason is not None}


def by_path(patterns: Mapping[str, Pattern]) -> ByPath:
    """Another pattern for other leaves: the first glob that matches a path decides.

    Args:
      patterns: ``{glob: pattern}``; globs match the whole path, as in ``"Conv_*/kernel"``.

    Raises:
      ValueError: if it is empty; and when called, for a path that no glob matches.

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
        raise ValueError("by_path needs at least one {glob: pattern}.")
    return ByPath(tuple(patterns.items()))


@dataclasses.dataclass(frozen=True)
class ByPath:
    """What ``by_path`` makes.

    Attributes:
      items: pairs of a glob and a pattern; the first match decides.
    """

    items: tuple[tuple[str, Pattern], ...]

    @property
    def max_sparsity(self) -> float:
        """The least of its patterns': beyond it some leaf would stay behind."""
        return min(getattr(pattern, "max_sparsity", 1.0) for _, pattern in self.items)

    def misfit(self, path: str, shape: Sequence[int]) -> str | None:
        """Why no pattern can prune a leaf, or None if one can."""
        pattern = self._find(path)
        return self._unmatched() if pattern is None else misfit(pattern, path, shape)

    def spread(self, path: str, scores: jax.Array) -> jax.Array:
        """Spread the scores as the pattern of this leaf does, if it does."""
        spread = getattr(self._of(path), "spread", None)
        return scores if spread is None else spread(path, scores)

    def __call__(self, path: str, scores: jax.Array, count: jax.Array) -> jax.Array:
        """Prune with the pattern of this leaf."""
        return self._of(path)(path, scores, count)

    def _find(self, path: str) -> Pattern | None:
        return next((p for glob, p in self.items if matches(glob, path)), None)

    def _of(self, path: str) -> Pattern:
        pattern = self._find(path)
        if pattern is None:
            raise ValueError(f"{path!r}: {self._unmatched()}")
        return pattern

    def _unmatched(self) -> str:
        globs = ", ".join(repr(glob) for glob, _ in self.items)
        return (
            f"no glob of by_path matches it ({globs}). Add '*' with a pattern for the "
            "rest, or narrow `where=`."
        )
