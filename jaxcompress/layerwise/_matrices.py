# SPDX-License-Identifier: Apache-2.0
"""Weights as the matrices that layers multiply by, and back: inputs by outputs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .._axes import AxesLike, contraction_axes


@dataclasses.dataclass(frozen=True)
class Matrices:
    """How one weight is laid out as matrices ``(batch, features, outputs)``.

    Features are the weight's contraction axes, in its own order: those of ``Gram.gram``.
    The batch runs over stacked layers, and over groups that share no inputs. ``join`` is
    the inverse of ``split``.

    Attributes:
      shape: of the weight.
      order: its axes: those of layers, groups and outputs, then the contraction axes.
      batch: number of matrices.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    features: int
    batch: int

    def split(self, weight: jax.Array) -> jax.Array:
        """A weight, or what is laid out like it, as ``(batch, features, outputs)``."""
        rows = weight.transpose(self.order).reshape(self.batch, -1, self.features)
        return jnp.swapaxes(rows, 1, 2)

    def join(self, matrices: jax.Array) -> jax.Array:
        """An array ``(batch, features, outputs)`` in the layout of the weight."""
        rows = jnp.swapaxes(matrices, 1, 2)
        transposed = rows.reshape([self.shape[axis] for axis in self.order])
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return transposed.transpose(back)

    def of_tiles(self, tiles: Sequence[int]) -> Matrices | None:
        """The layout of one value a tile, ``(batch, groups, outputs or 1)``.

        Args:
          tiles: how many there are along each axis of the weight.

        Returns:
          None if a tile lies in several matrices, or its features are not consecutive.
        """
        sizes = [self.shape[i] for i in self.order]
        split = next(
            i
            for i in range(len(sizes), -1, -1)
            if math.prod(sizes[i:]) == self.features
        )
        there = [tiles[i] for i in self.order]
        outside, inside = there[:split], there[split:]
        alone = self.batch == 1 and set(outside) <= {1}
        whole = [t == n for t, n in zip(inside, sizes[split:], strict=True)]
        cut = whole.index(False) if False in whole else len(whole)
        if not (alone or outside == sizes[:split]) or set(inside[cut + 1 :]) - {1}:
            return None
        return Matrices(tuple(tiles), self.order, math.prod(inside), self.batch)


def matrices(
    path: str, shape: Sequence[int], stats: Any, axes: AxesLike = None
) -> Matrices:
    """Read the layout of a weight from its statistics.

    Args:
      path: path text of the weight, for its name and for messages.
      shape: of the weight.
      stats: its ``program.statistics.Gram``, with ``count`` of shape ``([layers])`` and
        ``gram`` of shape ``([layers,] [groups,] features, features)``. Axes of layers lead among
        those that are not summed over; groups come next, or split the outputs.
      axes: which axes of the weight are summed over: None for the default of a matrix,
        ``{glob: Axes(...)}`` or ``weight_axes(fn, params, x)``.

    Raises:
      ValueError: if the default is ambiguous, or the statistics do not fit the axes.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> convolution = jnp.ones((3, 3, 2, 8))  # 2 groups of 4 outputs
      >>> stats = jc.program.statistics.Gram(jnp.uint32(1), jnp.ones((2, 18, 18)))
      >>> layout = matrices("kernel", convolution.shape, stats, jc.Axes(outputs=-1))
      >>> layout.split(convolution).shape
      (2, 18, 4)
    """
    shape = tuple(shape)
    inside = contraction_axes(path, shape, axes)
    rest = tuple(i for i in range(len(shape)) if i not in inside)
    features = math.prod(shape[i] for i in inside)
    layers = stats.count.ndim
    groups = stats.gram.shape[layers:-2]
    _check(path, shape, inside, stats)
    stacked = tuple(shape[i] for i in rest[:layers])
    others = [shape[i] for i in rest[layers:]]
    fits = stacked == stats.gram.shape[:layers] and _divide(math.prod(groups), others)
    if not fits:
        raise ValueError(
            f"{path!r} has shape {shape}, of which the axes {inside} are summed over; its "
            f"statistics, of shape {stats.gram.shape}, are of {layers} axes of layers and "
            f"{math.prod(groups)} groups, which must lead among the others. Transpose the "
            "weight, or leave it out with `where=`."
        )
    batch = math.prod(stacked) * math.prod(groups)
    return Matrices(shape, (*rest, *inside), features, batch)


def matrix_problems(
    weights: Mapping[str, jax.Array], stats: Mapping[str, Any], axes: AxesLike = None
) -> tuple[dict[str, Matrices], dict[str, tuple[jax.Array, jax.Array]]]:
    """Weights and second moments as matrices, for ``batched``.

    Args:
      weights: by path.
      stats: of each its ``program.statistics.Gram``.
      axes: see ``matrices``.

    Returns:
      By path, the layouts; and pairs of float32 ``(batch, features, outputs)`` and
      ``(batch, features, features)``.
    """
    layouts = {p: matrices(p, w.shape, stats[p], axes) for p, w in weights.items()}
    problems = {
        p: (
            layouts[p].split(w.astype(jnp.float32)),
            stats[p].gram.reshape(-1, *stats[p].gram.shape[-2:]),
        )
        for p, w in weights.items()
    }
    return layouts, problems


def joined(
    layouts: Mapping[str, Matrices], solved: Mapping[str, Any]
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Pairs ``(matrices, keep)`` by path, as weights by path and masks by path."""
    weights = {p: layouts[p].join(new) for p, (new, _) in solved.items()}
    return weights, {p: layouts[p].join(keep) for p, (_, keep) in solved.items()}


def batched(
    solve: Callable[..., Any], problems: Mapping[str, Sequence[jax.Array]]
) -> dict[str, Any]:
    """Solve many problems with one vmapped call for all that have the same shapes.

    Args:
      solve: function of one problem: arrays to a tree of arrays.
      problems: by path, of each the arguments, with one leading axis to map over.

    Returns:
      The results by path, with the leading axis.

    Example:
      >>> import jax.numpy as jnp
      >>> problems = {"a": [jnp.ones((2, 3))], "b": [jnp.ones((1, 3))]}
      >>> {name: total.tolist() for name, total in batched(jnp.sum, problems).items()}
      {'a': [3.0, 3.0], 'b': [3.0]}
    """
    alike: dict[Any, list[str]] = {}
    for path, problem in problems.items():
        alike.setdefault(tuple(x.shape[1:] for x in problem), []).append(path)
    results: dict[str, Any] = {}
    for members in alike.values():
        columns = zip(*(problems[path] for path in members), strict=True)
        solved = jax.vmap(solve)(*(jnp.concatenate(column) for column in columns))
        start = 0
        for path in members:
            part = slice(start, start + len(problems[path][0]))
            results[path] = jax.tree.map(lambda x, part=part: x[part], solved)
            start = part.stop
    return {path: results[path] for path in problems}


def _check(path: str, shape: tuple[int, ...], inside: Any, stats: Any) -> None:
    features = math.prod(shape[i] for i in inside)
    if stats.gram.shape[-1] != features:
        raise ValueError(
            f"{path!r} has shape {shape} and {features} weights along its contraction "
            f"axes {inside}, but its statistics are of {stats.gram.shape[-1]} features. "
            "Name all axes that are summed over with axes=; "
            "jaxcompress.weight_axes(fn, params, *args) reads them."
        )


def _divide(groups: int, sizes: Sequence[int]) -> bool:
    """Whether groups are the leading axes, or divide the only one."""
    whole = [math.prod(sizes[:i]) for i in range(len(sizes) + 1)]
    return groups in whole or (len(sizes) == 1 and sizes[0] % groups == 0)
