# SPDX-License-Identifier: Apache-2.0
"""Convert weights to matrices (features, outputs) and back, and solve them in batches."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._axes import AxesLike, contraction_axes
from ..numerics import shrunk
from ._evidence import check_summed_axes


@dataclasses.dataclass(frozen=True)
class Matrices:
    """Layout of one weight as matrices ``(batch, features, outputs)``.

    Features are the contraction axes of the weight in their original order, as in
    ``Gram.gram``. The batch covers stacked layers and groups with separate inputs.
    ``join`` is the inverse of ``split``.

    Attributes:
      shape: shape of the weight.
      order: axes of the weight: layers, groups and outputs, then the contraction axes.
      features: number of features per matrix.
      batch: number of matrices.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]
    features: int
    batch: int

    def split(self, weight: jax.Array) -> jax.Array:
        """Split an array shaped like the weight into ``(batch, features, outputs)``."""
        rows = weight.transpose(self.order).reshape(self.batch, -1, self.features)
        return jnp.swapaxes(rows, 1, 2)

    def join(self, matrices: jax.Array) -> jax.Array:
        """Join an array ``(batch, features, outputs)`` into the shape of the weight."""
        rows = jnp.swapaxes(matrices, 1, 2)
        transposed = rows.reshape([self.shape[axis] for axis in self.order])
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return transposed.transpose(back)

    def with_last(self, axis: int) -> np.ndarray:
        """Return the features in the order in which one contraction axis comes last.

        Args:
          axis: the axis of the weight whose features are to be neighbors.

        Returns:
          int ``(features,)``: for each place in the new order, the place in the old one.
        """
        inner = self.order[self._outer_axes() :]
        numbers = np.arange(self.features).reshape([self.shape[i] for i in inner])
        return np.moveaxis(numbers, inner.index(axis), -1).ravel()

    def _outer_axes(self) -> int:
        """Return how many axes of ``order`` come before those of the features."""
        sizes = [self.shape[i] for i in self.order]
        return next(
            i
            for i in range(len(sizes), -1, -1)
            if math.prod(sizes[i:]) == self.features
        )

    def of_tiles(self, tiles: Sequence[int]) -> Matrices | None:
        """Return the layout of one value per tile, ``(batch, groups, outputs or 1)``.

        Args:
          tiles: number of tiles along each axis of the weight.

        Returns:
          None if a tile spans several matrices, or its features are not consecutive.
        """
        sizes = [self.shape[i] for i in self.order]
        split = self._outer_axes()
        ordered = [tiles[i] for i in self.order]
        outer, inner = ordered[:split], ordered[split:]
        one_matrix = self.batch == 1 and set(outer) <= {1}
        single = [t == n for t, n in zip(inner, sizes[split:], strict=True)]
        cut = single.index(False) if False in single else len(single)
        if not (one_matrix or outer == sizes[:split]) or set(inner[cut + 1 :]) - {1}:
            return None
        return Matrices(tuple(tiles), self.order, math.prod(inner), self.batch)


def matrices(
    path: str, shape: Sequence[int], stats: Any, axes: AxesLike = None
) -> Matrices:
    """Compute the matrix layout of a weight from its statistics.

    Args:
      path: path text of the weight, used by the default axes and in errors.
      shape: shape of the weight.
      stats: its ``program.statistics.Gram``, with ``count`` of shape ``([layers])`` and
        ``gram`` of shape ``([layers,] [groups,] features, features)``. Among the axes
        that are not contracted, layer axes come first; group axes come next, or groups
        split the outputs.
      axes: the contraction axes of the weight: None for the default of a matrix,
        ``{glob: Axes(...)}`` or ``weight_axes(fn, params, x)``.

    Raises:
      ValueError: if the default is ambiguous, or the statistics do not match the axes.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> convolution = jnp.ones((3, 3, 2, 8))  # 2 groups of 4 outputs
      >>> stats = jc.program.statistics.Gram(jnp.uint32(1), jnp.ones((2, 18, 18)))
      >>> layout = matrices("kernel", convolution.shape, stats, jc.Axes(outputs=-1))
      >>> layout.split(convolution).shape
      (2, 18, 4)
    """
    shape = tuple(shape)
    contraction = contraction_axes(path, shape, axes)
    rest = tuple(i for i in range(len(shape)) if i not in contraction)
    features = math.prod(shape[i] for i in contraction)
    layers = stats.count.ndim
    groups = stats.gram.shape[layers:-2]
    _check_features(path, shape, contraction, stats)
    squares = getattr(stats, "squares", None)
    if squares is not None:
        check_summed_axes(path, shape, squares, contraction)
    stacked = tuple(shape[i] for i in rest[:layers])
    others = [shape[i] for i in rest[layers:]]
    fits = stacked == stats.gram.shape[:layers] and _groups_divide(
        math.prod(groups), others
    )
    if not fits:
        raise ValueError(
            f"layer axes and groups must come first among the axes of {path!r} that are "
            f"not contracted, got shape {shape} with contraction axes {contraction}, and "
            f"statistics of shape {stats.gram.shape} for {layers} layer axes and "
            f"{math.prod(groups)} groups. Transpose the weight, or exclude it with "
            "`where=`."
        )
    batch = math.prod(stacked) * math.prod(groups)
    return Matrices(shape, (*rest, *contraction), features, batch)


def matrix_problems(
    weights: Mapping[str, jax.Array], stats: Mapping[str, Any], axes: AxesLike = None
) -> tuple[dict[str, Matrices], dict[str, tuple[jax.Array, jax.Array]]]:
    """Lay out weights and second moments as matrices, as input of ``batched``.

    Args:
      weights: ``{path: weight}``.
      stats: ``{path: program.statistics.Gram}``.
      axes: see ``matrices``.

    Returns:
      ``{path: layout}``, and ``{path: (weights, second moments)}`` as float32 arrays
      ``(batch, features, outputs)`` and ``(batch, features, features)``. Second moments of
      few rows are shrunk toward their diagonal (``numerics.shrunk``).
    """
    layouts = {p: matrices(p, w.shape, stats[p], axes) for p, w in weights.items()}
    problems = {
        p: (
            layouts[p].split(w.astype(jnp.float32)),
            _second_moments(stats[p]),
        )
        for p, w in weights.items()
    }
    return layouts, problems


def _second_moments(stats: Any) -> jax.Array:
    """Return the matrices of all layers and groups, shrunk as their rows require."""
    gram = stats.gram
    rows = stats.count.reshape(
        *stats.count.shape, *[1] * (gram.ndim - 2 - stats.count.ndim)
    )
    rows = jnp.broadcast_to(rows, gram.shape[:-2]).ravel()
    return jax.vmap(shrunk)(gram.reshape(-1, *gram.shape[-2:]), rows)


def joined(
    layouts: Mapping[str, Matrices], solved: Mapping[str, Any]
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Convert ``{path: (matrices, keep)}`` to ``{path: weight}`` and ``{path: mask}``."""
    weights = {p: layouts[p].join(new) for p, (new, _) in solved.items()}
    return weights, {p: layouts[p].join(keep) for p, (_, keep) in solved.items()}


def batched(
    solve: Callable[..., Any], problems: Mapping[str, Sequence[jax.Array]]
) -> dict[str, Any]:
    """Solve many problems, with one vmapped call per set of equal shapes.

    Args:
      solve: function of one problem: arrays to a tree of arrays.
      problems: ``{path: arguments}``, each with a leading axis to map over.

    Returns:
      ``{path: result}``, with the leading axis.

    Example:
      >>> import jax.numpy as jnp
      >>> problems = {"a": [jnp.ones((2, 3))], "b": [jnp.ones((1, 3))]}
      >>> {name: total.tolist() for name, total in batched(jnp.sum, problems).items()}
      {'a': [3.0, 3.0], 'b': [3.0]}
    """
    paths_by_shape: dict[Any, list[str]] = {}
    for path, problem in problems.items():
        shapes = tuple(x.shape[1:] for x in problem)
        paths_by_shape.setdefault(shapes, []).append(path)
    results: dict[str, Any] = {}
    for members in paths_by_shape.values():
        columns = zip(*(problems[path] for path in members), strict=True)
        solved = jax.vmap(solve)(*(jnp.concatenate(column) for column in columns))
        start = 0
        for path in members:
            part = slice(start, start + len(problems[path][0]))
            results[path] = jax.tree.map(lambda x, part=part: x[part], solved)
            start = part.stop
    return {path: results[path] for path in problems}


def _check_features(
    path: str, shape: tuple[int, ...], contraction: Any, stats: Any
) -> None:
    features = math.prod(shape[i] for i in contraction)
    if stats.gram.shape[-1] != features:
        raise ValueError(
            f"{path!r} has shape {shape} and {features} weights along its contraction "
            f"axes {contraction}, but its statistics have {stats.gram.shape[-1]} features. "
            "Pass all contraction axes as axes=; jaxcompress.weight_axes(fn, params, "
            "*args) reads them from the function."
        )


def _groups_divide(groups: int, sizes: Sequence[int]) -> bool:
    """Return whether groups are the leading axes, or divide the only axis."""
    products = [math.prod(sizes[:i]) for i in range(len(sizes) + 1)]
    return groups in products or (len(sizes) == 1 and sizes[0] % groups == 0)
