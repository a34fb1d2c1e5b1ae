# SPDX-License-Identifier: Apache-2.0
"""Second-order pruners: OBS and SparseGPT layer by layer, block Fisher over the network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..._arguments import check_counts
from ..._axes import AxesLike
from ..._combine import masked
from ..._compressor import Compressor
from ..._select import Where, is_weight
from ..._signatures import name_defaults
from ...layerwise import STATS, Matrices, batched, joined, matrix_problems
from ...numerics import output_error
from .._prune import draw_masks
from ..budgets._sparsity import Budget, global_, uniform
from ..patterns._protocol import NOfM, Pattern, check_fits, unstructured
from ..scores._fisher import from_weight_blocks, weight_blocks
from ._obs import obs_scores, optimal_brain_surgeon, reconstruct
from ._one_shot import FISHER, ByPath, Schedule, prune_once
from ._sparsegpt import RowGrid, sparsegpt


@name_defaults
def obs_pruning(
    sparsity: float | Schedule,
    *,
    budget: Budget = uniform,
    pattern: Pattern | None = None,
    axes: AxesLike = None,
    damping: float = 0.01,
    batch_size: int = 16,
    where: Where = is_weight,
) -> Compressor:
    """Prune layer by layer with Optimal Brain Surgeon, the most accurate one-shot method.

    ``update(params, state, stats=...)`` prunes and adjusts the remaining weights, so that
    the outputs of each layer on the observed inputs change least. Later updates, without
    statistics, hold the masks while training continues. The view has exact zeros.

    Args:
      sparsity: fraction of the selected weights to prune, in [0, 1), or a schedule of it
        over the number of updates that are given statistics.
      budget: how the sparsity is divided among the leaves, from the scores ``obs_scores``.
      pattern: None removes weights one by one, exactly; use it for up to a few thousand
        features. A pattern such as ``NOfM(2, 4)`` chooses all weights at once by their
        scores, then refits the remaining ones exactly. Without axes of its own it
        follows ``axes``.
      axes: which axes of each leaf are summed over: None for the default of a matrix,
        ``{glob: Axes(...)}`` or ``weight_axes(fn, params, x)``.
      damping: fraction of the mean diagonal of ``X^T X`` that is added to the diagonal.
      batch_size: outputs processed at once; each needs memory for a matrix like ``X^T X``.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      ValueError: for a sparsity outside [0, 1); in ``init``, if ``where`` selects
        nothing; in ``update``, if a selected leaf has no statistics or they do not fit.

    Example:
      >>> import jax, jaxcompress as jc
      >>> kx, kw = jax.random.split(jax.random.key(0))
      >>> params = {"kernel": jax.random.normal(kw, (16, 4))}
      >>> fn = lambda params, x: x @ params["kernel"]
      >>> x = jax.random.normal(kx, (128, 16))
      >>> stats = jc.observe(fn, params, [x], jc.program.statistics.gram())
      >>> small = jc.compress(jc.prune.obs_pruning(0.75), params, stats=stats)
      >>> int((small["kernel"] != 0).sum())
      16

    References:
      Hassibi and Stork, 1992; Frantar and Alistarh, 2022, "Optimal Brain Compression",
      https://arxiv.org/abs/2208.11580
    """
    check_counts(batch_size=batch_size)
    if isinstance(pattern, NOfM) and pattern.axes is None:
        pattern = dataclasses.replace(pattern, axes=axes)

    def refit(w: jax.Array, h: jax.Array, keep: jax.Array) -> Any:
        return reconstruct(w, h, keep, damping, batch_size=batch_size), keep

    def operate(w: jax.Array, h: jax.Array, count: jax.Array) -> Any:
        return optimal_brain_surgeon(w, h, count, damping, batch_size=batch_size)

    def solve(
        weights: ByPath, stats: dict[str, Any], sparsity: jax.Array
    ) -> tuple[ByPath, ByPath]:
        layouts, problems = matrix_problems(weights, stats, axes)
        found = batched(lambda w, h: obs_scores(w, h, damping), problems)
        scores = {p: layouts[p].join(score) for p, score in found.items()}
        if pattern is not None:
            masks = draw_masks(scores, sparsity, budget, pattern)
            given = {p: layout.split(masks[p]) for p, layout in layouts.items()}
            remove = refit
        else:
            counts = budget(scores, sparsity)
            given = {
                p: _evenly(counts[p], weights[p].size, x.batch)
                for p, x in layouts.items()
            }
            remove = operate
        solved = batched(remove, {p: (*problems[p], given[p]) for p in problems})
        return joined(layouts, solved)

    return masked(prune_once(sparsity, STATS, solve, pattern), where)


@name_defaults
def sparsegpt_pruning(
    sparsity: float | Schedule,
    *,
    pattern: NOfM | None = None,
    block: int = 128,
    axes: AxesLike = None,
    damping: float = 0.01,
    quantize: Callable[[jax.Array], RowGrid] | None = None,
    where: Where = is_weight,
) -> Compressor:
    """Prune layer by layer with SparseGPT: one pass that compensates for its own errors.

    A cheaper alternative to ``obs_pruning``, used in the same way: ``update(params, state,
    stats=...)`` prunes, later updates hold the masks. Below four input rows a feature,
    correlations are trusted less: ``X^T X`` is shrunk toward its diagonal. A layer that
    compensation would leave worse keeps its other weights as they were.

    Args:
      sparsity: fraction of the selected weights to prune, the same in each leaf, in
        [0, 1), or a schedule of it over the number of updates that are given statistics.
      pattern: ``NOfM(n, m)``: groups of input channels, at each position of a
        convolution, in the order of features of ``axes``; its own axes are ignored. The
        sparsity is then ``1 - n / m``.
      block: features whose masks are chosen together.
      axes: which axes are summed over; see ``obs_pruning``.
      damping: fraction of the mean diagonal of ``X^T X`` that is added to the diagonal.
      quantize: joint quantization: ``row_grid(Int(4))``, or any function of the weights
        ``(features, outputs)`` to one that rounds a row of them.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      ValueError: for a sparsity outside [0, 1), or another than the pattern's; in
        ``init``, if ``where`` selects nothing; in ``update``, if a selected leaf has no
        statistics or they do not fit.

    Example:
      >>> import jax, jaxcompress as jc
      >>> kx, kw = jax.random.split(jax.random.key(0))
      >>> params = {"kernel": jax.random.normal(kw, (16, 4))}
      >>> fn = lambda params, x: x @ params["kernel"]
      >>> x = jax.random.normal(kx, (128, 16))
      >>> stats = jc.observe(fn, params, [x], jc.program.statistics.gram())
      >>> pruner = jc.prune.sparsegpt_pruning(0.5, pattern=jc.prune.patterns.NOfM(2, 4))
      >>> small = jc.compress(pruner, params, stats=stats)
      >>> (small["kernel"].reshape(4, 4, 4) != 0).sum(1).tolist()[0]
      [2, 2, 2, 2]

    References:
      Frantar and Alistarh, 2023, https://arxiv.org/abs/2301.00774
    """
    check_counts(block=block)
    n_of_m = None if pattern is None else (pattern.n, pattern.m)
    if pattern is not None and not _is(sparsity, pattern.max_sparsity):
        raise ValueError(
            f"sparsity must be {pattern.max_sparsity:g} for the pattern {pattern.n} of "
            f"{pattern.m}, got {sparsity}."
        )

    def solve(
        weights: ByPath, stats: dict[str, Any], sparsity: jax.Array
    ) -> tuple[ByPath, ByPath]:
        layouts, problems = matrix_problems(weights, stats, axes)
        orders = {}
        if pattern is not None:
            along = dataclasses.replace(pattern, axes=axes)
            orders = {p: _by_channels(p, along, x) for p, x in layouts.items()}
            problems = {p: _reordered(*problems[p], orders[p]) for p in problems}

        def one(w: jax.Array, h: jax.Array) -> Any:
            grid = None if quantize is None else quantize(w)
            new, keep = sparsegpt(
                w, h, sparsity, block=block, n_of_m=n_of_m, damping=damping,
                quantize=grid,
            )  # fmt: skip
            # Without compensation, if that is better. Never so where it is exact.
            plain = jnp.where(keep, w if grid is None else jax.vmap(grid)(w), 0)
            is_better = ~(output_error(new, w, h) > output_error(plain, w, h))
            return jnp.where(is_better, new, plain), keep

        solved = batched(one, problems)
        for path, order in orders.items():
            back = np.argsort(order)
            solved[path] = jax.tree.map(lambda x, back=back: x[:, back], solved[path])
        return joined(layouts, solved)

    return masked(prune_once(sparsity, STATS, solve), where)


@name_defaults
def fisher_pruning(
    sparsity: float | Schedule,
    *,
    budget: Budget = global_,
    pattern: Pattern = unstructured,
    damping: float = 0.1,
    where: Where = is_weight,
) -> Compressor:
    """Prune by block-diagonal Optimal Brain Surgeon on the loss of the whole network.

    ``update(params, state, fisher=fisher_blocks(...))`` prunes: all weights are ranked
    by ``w^2 / (2 [F^-1]_ii)``, which has one unit throughout the network. The
    kept weights of a block adjust jointly for the removed ones. Later updates hold the
    masks.

    Args:
      sparsity: fraction of the selected weights to prune, in [0, 1), or a schedule of it
        over the number of updates that are given a Fisher matrix.
      budget: how it is spread over leaves.
      pattern: which weights go together.
      damping: what is added to the diagonals, as a share of their mean over the network.
        Where gradients vanish it is all there is, and makes magnitudes count.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      ValueError: for a sparsity outside [0, 1); in ``init``, if ``where`` selects
        nothing; in ``update``, if a selected leaf has no Fisher blocks.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> kx, kw = jax.random.split(jax.random.key(0))
      >>> params = {"kernel": jax.random.normal(kw, (16, 4))}
      >>> loss_fn = lambda params, x: jnp.sum((x @ params["kernel"]) ** 2)
      >>> x = jax.random.normal(kx, (128, 16))
      >>> fisher = jc.prune.scores.fisher_blocks(loss_fn, params, x, block=16)
      >>> pruner = jc.prune.fisher_pruning(0.75)
      >>> small = jc.compress(pruner, params, fisher=fisher)
      >>> int((small["kernel"] != 0).sum())
      16

    References:
      Singh and Alistarh, 2020, https://arxiv.org/abs/2004.14340; Kurtic et al., 2022,
      https://arxiv.org/abs/2203.07259
    """

    def solve(
        weights: ByPath, fisher: dict[str, Any], sparsity: jax.Array
    ) -> tuple[ByPath, ByPath]:
        def in_blocks(path: str, leaf: jax.Array) -> jax.Array:
            return weight_blocks(path, leaf, fisher[path].blocks.shape[-1])[..., None]

        # A block is a layer of one output. One damping for all: where gradients vanish,
        # what is added to the diagonal makes a weight cost what its square says.
        blocks = {p: fisher[p].mean for p in weights}
        added = damping * _mean_diagonal(blocks)
        problems = {
            p: (in_blocks(p, w), blocks[p] + added * jnp.eye(blocks[p].shape[-1])[None])
            for p, w in weights.items()
        }
        found = batched(lambda w, f: obs_scores(w, f, 0.0), problems)
        scores = {p: from_weight_blocks(p, s, weights[p]) for p, s in found.items()}
        masks = draw_masks(scores, sparsity, budget, pattern)
        refitted = batched(
            lambda w, f, keep: reconstruct(w, f, keep, 0.0),
            {p: (*problems[p], in_blocks(p, masks[p])) for p in problems},
        )
        new = {p: from_weight_blocks(p, w, weights[p]) for p, w in refitted.items()}
        return new, masks

    return masked(prune_once(sparsity, FISHER, solve, pattern), where)


def _by_channels(path: str, pattern: NOfM, layout: Matrices) -> np.ndarray:
    """Return the order of features in which those of a group are neighbors."""
    shape = layout.shape
    check_fits(pattern, path, jax.ShapeDtypeStruct(shape, jnp.float32))
    return layout.with_last(pattern.along(path, shape))


def _reordered(w: jax.Array, h: jax.Array, order: np.ndarray) -> tuple[Any, Any]:
    if (order[1:] > order[:-1]).all():
        return w, h
    return w[:, order], h[:, order][:, :, order]


def _mean_diagonal(blocks: ByPath) -> jax.Array:
    """Mean over all weights that have a gradient; 1 if none has."""
    diagonals = [jnp.diagonal(x, axis1=1, axis2=2) for x in blocks.values()]
    total = sum(jnp.sum(d) for d in diagonals)
    number = sum(jnp.sum(d > 0) for d in diagonals)
    return jnp.where(total > 0, total / jnp.maximum(number, 1), 1)


def _evenly(count: jax.Array, size: int, parts: int) -> jax.Array:
    """Split a count into parts that differ by at most one, larger parts first.

    Each of the ``parts`` matrices keeps a weight, unless all ``size`` weights go.
    """
    extra = jnp.arange(parts, dtype=jnp.uint32) < count % parts
    most = jnp.where(count < size, size // parts - 1, size // parts)
    return jnp.minimum(count // parts + extra, most.astype(jnp.uint32))


def _is(sparsity: float | Schedule, value: float) -> bool:
    """Whether a sparsity has a value; a traced one is taken to have it."""
    if isinstance(sparsity, Tracer):
        return True
    return not callable(sparsity) and math.isclose(sparsity, value, rel_tol=1e-6)
