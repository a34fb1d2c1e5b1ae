# SPDX-License-Identifier: Apache-2.0
"""Post-training quantization, layer by layer, from the second moments of the inputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from ..._axes import AxesLike
from ..._compressor import Compressor, PyTree
from ..._select import paths_and_leaves
from ...formats import Format
from ...layerwise import STATS, Matrices, batched, matrix_problems
from ...leaves import Leaf
from ...numerics import expand_tiles
from .._fake import fake_quant, to_qarray
from .._granularity import Granularity
from .._quantize import refuse_not_finite
from ..scales._fixed import fixed
from ..scales._following import Scale, absmax

Grid = tuple[jax.Array, jax.Array | None]
Solve = Callable[
    [jax.Array, jax.Array, jax.Array, Grid, Scale | None], tuple[jax.Array, Grid]
]
"""``(w, h, keep, grid, scale) -> (w, grid)`` of one matrix: float32 (features, outputs),
(features, features), bool like ``w``, and scales and zero points whose shape divides that
of ``w``; to weights on the grid, zero where ``keep`` is False, and the grid they are on.
``scale`` chooses others; where it is None the grid has to stay, since scales belong to
other matrices as well. It is mapped over layers and groups by ``jax.vmap``."""


class LayerwiseState(NamedTuple):
    """State of ``layerwise_quantization``."""

    count: jax.Array  # int32 []: updates so far that were given statistics
    scales: PyTree  # as the scale gives them, float32; one array a weight
    zero_points: PyTree  # float32, likewise; None where the format is symmetric


def layerwise_quantization(
    fmt: Format,
    *,
    granularity: Granularity,
    solve: Solve,
    scale: Scale = absmax,
    axes: AxesLike = None,
    keep_zeros: bool = True,
) -> Compressor:
    """Round weights to a grid in the updates that are given statistics, by any solver.

    ``update(params, state, stats=observe(fn, params, batches, program.statistics.gram()))`` moves
    the weights onto the grid. Before, and in all other updates, weights are rounded to
    the nearest level and scales are held, so that training goes on from the solution.
    ``finalize`` gives ``QArray`` leaves.

    Args:
      fmt: which levels there are.
      granularity: which weights share a scale.
      solve: of one matrix.
      scale: how far apart the levels lie.
      axes: which axes of each leaf are summed over: None for the default of a matrix,
        ``{glob: Axes(...)}`` or ``weight_axes(fn, params, x)``.
      keep_zeros: whether weights that are zero when they are rounded stay zero.

    Raises:
      ValueError: in ``init``, if groups do not divide a leaf or its axes are ambiguous;
        in ``update``, if a leaf has no statistics, or they do not fit or are not finite.

    Warns:
      UserWarning: in ``finalize``, if no update was given statistics.
    """

    def shape(path: str, x: jax.Array) -> tuple[int, ...]:
        return tuple(granularity.scale_shape(path, x.shape))

    def choose(path: str, x: jax.Array) -> Grid:
        scales, zero_point = scale(x.astype(jnp.float32), shape(path, x), fmt)
        if isinstance(scales, Leaf):
            raise TypeError("scales that are held are arrays; this one gives a leaf.")
        return scales, zero_point

    def init(params: PyTree) -> LayerwiseState:
        refuse_not_finite(params)
        paths, leaves, treedef = paths_and_leaves(params)
        grids = [choose(path, x) for path, x in zip(paths, leaves, strict=True)]
        return _state(jnp.zeros((), jnp.int32), treedef, grids)

    def each(to: Callable[..., Any], params: PyTree, state: LayerwiseState) -> PyTree:
        paths, leaves, treedef = paths_and_leaves(params)
        grids = _grids(treedef, state)
        return treedef.unflatten(
            [
                to(x, fmt, scale_shape=shape(path, x), scale=fixed(*grid))
                for path, x, grid in zip(paths, leaves, grids, strict=True)
            ]
        )

    def update(
        params: PyTree, state: LayerwiseState, *, stats: Any = None, **extras: Any
    ) -> tuple[PyTree, LayerwiseState]:
        del extras
        if stats is None:
            return params, state
        paths, leaves, treedef = paths_and_leaves(params)
        given = STATS.by_path(stats, paths, treedef)
        _refuse_not_finite("the statistics", {p: s.gram for p, s in given.items()})
        weights = dict(zip(paths, leaves, strict=True))
        grids = {p: choose(p, w) for p, w in weights.items()}
        moved, grids = _solved(solve, weights, given, grids, scale, axes, keep_zeros)
        _refuse_not_finite("what was solved for", moved)
        new = treedef.unflatten([moved[p].astype(w.dtype) for p, w in weights.items()])
        return new, _state(state.count + 1, treedef, [grids[p] for p in paths])

    def finalize(params: PyTree, state: LayerwiseState) -> PyTree:
        if not isinstance(state.count, Tracer) and int(state.count) == 0:
            warnings.warn(
                "weights are rounded to the nearest level only: no update was given "
                f"{STATS.name}={STATS.how}.",
                stacklevel=2,
            )
        return each(to_qarray, params, state)

    return Compressor(
        init=init,
        apply=lambda params, state: each(fake_quant, params, state),
        update=update,
        finalize=finalize,
    )


def _state(count: jax.Array, treedef: Any, grids: Sequence[Grid]) -> LayerwiseState:
    scales, zero_points = (treedef.unflatten([g[i] for g in grids]) for i in (0, 1))
    return LayerwiseState(count, scales, zero_points)


def _grids(treedef: Any, state: LayerwiseState) -> list[Grid]:
    scales, zero_points = (
        treedef.flatten_up_to(tree) for tree in (state.scales, state.zero_points)
    )
    return list(zip(scales, zero_points, strict=True))


def _solved(
    solve: Solve,
    weights: dict[str, jax.Array],
    stats: dict[str, Any],
    grids: dict[str, Grid],
    scale: Scale,
    axes: AxesLike,
    keep_zeros: bool,
) -> tuple[dict[str, jax.Array], dict[str, Grid]]:
    """Solve for all weights, with one call for matrices of the same shapes."""
    layouts, matrices = matrix_problems(weights, stats, axes)
    tiles = {p: layouts[p].of_tiles(grids[p][0].shape) for p in weights}

    def problem(path: str) -> tuple[Any, ...]:
        w, h = matrices[path]
        grid = _as_matrices(layouts[path], tiles[path], grids[path])
        return w, h, (w != 0) | (not keep_zeros), *grid

    def of(choose: Scale | None) -> Callable[..., tuple[jax.Array, Grid]]:
        def one(
            w: jax.Array,
            h: jax.Array,
            keep: jax.Array,
            scales: jax.Array,
            zero_point: jax.Array | None = None,
        ) -> tuple[jax.Array, Grid]:
            return solve(w, h, keep, (scales, zero_point), choose)

        return one

    problems = {p: problem(p) for p in weights}
    free = {p: x for p, x in problems.items() if tiles[p] is not None}
    bound = {p: x for p, x in problems.items() if tiles[p] is None}
    solved = batched(of(scale), free) | batched(of(None), bound)
    found = dict(grids)
    for path, layout in tiles.items():
        if layout is not None:
            found[path] = jax.tree.map(layout.join, solved[path][1])
    return {p: layouts[p].join(solved[p][0]) for p in weights}, found


def _as_matrices(
    layout: Matrices, tiles: Matrices | None, grid: Grid
) -> tuple[jax.Array, ...]:
    """Scales, and zero points if there are some, as matrices; one a weight if need be."""
    some = [x for x in grid if x is not None]
    if tiles is not None:
        return tuple(tiles.split(x) for x in some)
    return tuple(layout.split(expand_tiles(x, layout.shape)) for x in some)


def _refuse_not_finite(what: str, arrays: dict[str, jax.Array]) -> None:
    for path, x in arrays.items():
        if not isinstance(x, Tracer) and not bool(jnp.isfinite(x).all()):
            raise ValueError(
                f"{what} of {path!r} are not finite. Look for NaN in the batches and in "
                "the weights; if there is none, the layer has fewer rows than features: "
                "give more batches, or a damping above 0."
            )
