# SPDX-License-Identifier: Apache-2.0
"""Layer-by-layer post-training quantization from the second moments of layer inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._arguments import check_flags
from ..._axes import AxesLike
from ..._compressor import Compressor, PyTree
from ..._origin import Origin, check_origin, make_origin
from ..._refuse import is_not_finite, refuse_unfit, refuse_values
from ..._select import paths_and_leaves
from ..._signatures import name_defaults
from ...formats import Format
from ...layerwise import STATS, Matrices, batched, matrix_problems
from ...leaves import Leaf
from ...numerics import expand_tiles, output_error
from .._fake import fake_quant, to_qarray
from .._granularity import Granularity, scale_shapes
from ..scales._fixed import fixed
from ..scales._following import Scale
from ..scales._stateful import suited

Grid = tuple[jax.Array, jax.Array | None]
Solve = Callable[
    [jax.Array, jax.Array, jax.Array, Grid, Scale | None], tuple[jax.Array, Grid]
]
"""Quantize one matrix: ``(w, h, keep, grid, scale) -> (w, grid)``.

``w`` is float32 (features, outputs), ``h`` is float32 (features, features) and ``keep``
is bool like ``w``. ``grid`` holds scales and zero points whose shape divides that of ``w``.
The result is weights on a grid, zero where ``keep`` is False, and that grid. A solver may
choose a new grid with ``scale``. If ``scale`` is None it must use ``grid``, because other
matrices share its scales. ``jax.vmap`` maps a solver over layers and groups."""


class LayerwiseState(NamedTuple):
    """State of ``layerwise_quantization``."""

    count: jax.Array  # int32 []: number of updates with statistics so far
    scales: PyTree  # float32, one array per weight, of the shape of its scales
    zero_points: PyTree  # float32, like scales; None if the format is symmetric
    origin: Origin  # the format that the scales belong to


@name_defaults
def layerwise_quantization(
    fmt: Format,
    *,
    granularity: Granularity,
    solve: Solve,
    scale: Scale = suited,
    axes: AxesLike = None,
    keep_zeros: bool = True,
) -> Compressor:
    """Turn a solver for one matrix into a post-training quantizer of all weights.

    Use it to add a solver of your own; ``gptq_quantization`` and
    ``adaround_quantization`` are built on it. An update with
    ``stats=observe(fn, params, batches, program.statistics.gram())`` runs the solver and
    moves the weights onto the grid. Without statistics, weights are rounded to nearest
    and scales are fixed, so training continues from the solution. ``finalize`` gives
    ``QArray`` leaves.

    A matrix whose outputs the solution would change more than rounding to nearest is
    rounded to nearest. Statistics of fewer than four rows a feature are shrunk toward
    their diagonal first, since they hold chance correlations.

    Args:
      fmt: the number format.
      granularity: which weights share a scale.
      solve: quantizes one matrix; see ``Solve``.
      scale: function that chooses the scales.
      axes: the contraction axes of each leaf: None for the default of a matrix,
        ``{glob: Axes(...)}`` or ``weight_axes(fn, params, x)``.
      keep_zeros: whether weights that are zero before rounding stay zero.

    Raises:
      ValueError: in ``init``, if groups do not divide a leaf or its axes are ambiguous;
        in ``update``, if a leaf has no statistics, or they have the wrong shape or are
        not finite.

    Warns:
      UserWarning: in ``finalize``, if no update was given statistics.
    """
    check_flags(keep_zeros=keep_zeros)

    def scale_shape(path: str, x: jax.Array) -> tuple[int, ...]:
        return tuple(granularity.scale_shape(path, x.shape))

    def choose(path: str, x: jax.Array) -> Grid:
        scales, zero_point = scale(x.astype(jnp.float32), scale_shape(path, x), fmt)
        if isinstance(scales, Leaf):
            raise TypeError(
                "scale must give arrays for layer-by-layer quantization, got a "
                f"{type(scales).__name__}. Use a scale such as absmax."
            )
        return scales, zero_point

    def init(params: PyTree) -> LayerwiseState:
        refuse_unfit(params)
        paths, leaves, treedef = paths_and_leaves(params)
        given = {p: x.shape for p, x in zip(paths, leaves, strict=True)}
        scale_shapes(granularity, given)  # warns, once for all leaves
        grids = [choose(path, x) for path, x in zip(paths, leaves, strict=True)]
        origin = make_origin("layerwise", fmt)
        return _make_state(jnp.zeros((), jnp.int32), treedef, grids, origin)

    def map_weights(
        quantize: Callable[..., Any], params: PyTree, state: LayerwiseState
    ) -> PyTree:
        check_origin(state.origin, "layerwise", fmt)
        paths, leaves, treedef = paths_and_leaves(params)
        grids = _list_grids(treedef, state)
        return treedef.unflatten(
            [
                quantize(x, fmt, scale_shape=scale_shape(path, x), scale=fixed(*grid))
                for path, x, grid in zip(paths, leaves, grids, strict=True)
            ]
        )

    def update(
        params: PyTree, state: LayerwiseState, *, stats: Any = None, **extras: Any
    ) -> tuple[PyTree, LayerwiseState]:
        del extras
        check_origin(state.origin, "layerwise", fmt)
        if stats is None:
            return params, state
        refuse_unfit(params)
        paths, leaves, treedef = paths_and_leaves(params)
        stats_by_path = STATS.by_path(stats, paths, treedef)
        grams = {p: s.gram for p, s in stats_by_path.items()}
        _refuse_not_finite("the statistics", grams)
        weights = dict(zip(paths, leaves, strict=True))
        grids = {p: choose(p, w) for p, w in weights.items()}
        solved, grids = _solve_all(
            _never_worse(solve, fmt),
            weights,
            stats_by_path,
            grids,
            scale,
            axes,
            keep_zeros,
        )
        _refuse_not_finite("the solved weights", solved)
        new = treedef.unflatten([solved[p].astype(w.dtype) for p, w in weights.items()])
        chosen = [grids[p] for p in paths]
        return new, _make_state(state.count + 1, treedef, chosen, state.origin)

    def finalize(params: PyTree, state: LayerwiseState) -> PyTree:
        refuse_unfit(params)
        check_origin(state.origin, "layerwise", fmt)
        STATS.warn_if_never_given(state.count, "weights are rounded to nearest")
        return map_weights(to_qarray, params, state)

    return Compressor(
        init=init,
        apply=lambda params, state: map_weights(fake_quant, params, state),
        update=update,
        finalize=finalize,
    )


def _make_state(
    count: jax.Array, treedef: Any, grids: Sequence[Grid], origin: Origin
) -> LayerwiseState:
    scales, zero_points = (treedef.unflatten([g[i] for g in grids]) for i in (0, 1))
    return LayerwiseState(count, scales, zero_points, origin)


def _list_grids(treedef: Any, state: LayerwiseState) -> list[Grid]:
    scales, zero_points = (
        treedef.flatten_up_to(tree) for tree in (state.scales, state.zero_points)
    )
    return list(zip(scales, zero_points, strict=True))


def _never_worse(solve: Solve, fmt: Format) -> Solve:
    """Round a matrix to nearest where the solver changes its outputs more than that."""

    def solve_or_round(
        w: jax.Array, h: jax.Array, keep: jax.Array, grid: Grid, scale: Scale | None
    ) -> tuple[jax.Array, Grid]:
        solved = solve(w, h, keep, grid, scale)
        nearest = fake_quant(w, fmt, scale_shape=grid[0].shape, scale=fixed(*grid))
        nearest = jnp.where(keep, nearest, 0)
        # True of NaN: the caller names the leaf.
        is_better = ~(output_error(solved[0], w, h) > output_error(nearest, w, h))
        return jax.tree.map(
            lambda new, old: jnp.where(is_better, new, old), solved, (nearest, grid)
        )

    return solve_or_round


def _solve_all(
    solve: Solve,
    weights: dict[str, jax.Array],
    stats: dict[str, Any],
    grids: dict[str, Grid],
    scale: Scale,
    axes: AxesLike,
    keep_zeros: bool,
) -> tuple[dict[str, jax.Array], dict[str, Grid]]:
    """Quantize all weights, with one batched call per shape of matrix."""
    layouts, matrices = matrix_problems(weights, stats, axes)
    tiles = {p: layouts[p].of_tiles(grids[p][0].shape) for p in weights}

    def make_problem(path: str) -> tuple[Any, ...]:
        w, h = matrices[path]
        grid = _split_grid(layouts[path], tiles[path], grids[path])
        return w, h, (w != 0) | (not keep_zeros), *grid

    def with_scale(choose: Scale | None) -> Callable[..., tuple[jax.Array, Grid]]:
        def solve_one(
            w: jax.Array,
            h: jax.Array,
            keep: jax.Array,
            scales: jax.Array,
            zero_point: jax.Array | None = None,
        ) -> tuple[jax.Array, Grid]:
            return solve(w, h, keep, (scales, zero_point), choose)

        return solve_one

    problems = {p: make_problem(p) for p in weights}
    own_grid = {p: x for p, x in problems.items() if tiles[p] is not None}
    shared_grid = {p: x for p, x in problems.items() if tiles[p] is None}
    solved = batched(with_scale(scale), own_grid)
    solved |= batched(with_scale(None), shared_grid)
    new_grids = dict(grids)
    for path, layout in tiles.items():
        if layout is not None:
            new_grids[path] = jax.tree.map(layout.join, solved[path][1])
    return {p: layouts[p].join(solved[p][0]) for p in weights}, new_grids


def _split_grid(
    layout: Matrices, tiles: Matrices | None, grid: Grid
) -> tuple[jax.Array, ...]:
    """Lay out scales and any zero points as matrices, per weight if matrices share them."""
    arrays = [x for x in grid if x is not None]
    if tiles is not None:
        return tuple(tiles.split(x) for x in arrays)
    return tuple(layout.split(expand_tiles(x, layout.shape)) for x in arrays)


def _refuse_not_finite(what: str, arrays: dict[str, jax.Array]) -> None:
    refuse_values(
        arrays,
        is_not_finite,
        lambda path: (
            f"{what} of {path!r} are not finite. Check the batches and the weights for "
            "NaN. If they have none, some input features determine others: pass a "
            "damping above 0, or more batches."
        ),
    )
