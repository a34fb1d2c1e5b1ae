# SPDX-License-Identifier: Apache-2.0
"""Block reconstruction: rounding all weights of a block by the block's own output."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..._compressor import PyTree
from ..._select import Where, is_weight, paths_and_leaves, select
from ...formats import Format
from .._fake import fake_quant, to_qarray
from .._granularity import Granularity, PerChannel
from ..scales._fixed import fixed
from ..scales._following import Scale, absmax
from ._learned_rounding import (
    Neighbors,
    Training,
    check,
    decided,
    learn,
    neighbors,
    unrounded,
)


def reconstruct_block(
    fn: Callable[..., Any],
    params: PyTree,
    inputs: PyTree,
    targets: PyTree | None = None,
    *,
    fmt: Format,
    granularity: Granularity | None = None,
    scale: Scale = absmax,
    fisher: PyTree | None = None,
    where: Where = is_weight,
    keep_zeros: bool = True,
    steps: int = 1000,
    learning_rate: float = 1e-2,
    regularization: float = 10.0,
    warm_up: float = 0.2,
) -> PyTree:
    """Round the weights of a block up or down, whichever its output misses less.

    All selected leaves learn together, by the squared change of what the function gives:
    of one layer, a residual block, or the whole network. What is between its layers is
    taken into account, as no statistics of single layers do. Scales are held. The result
    is never worse, on the inputs, than rounding to nearest.

    Args:
      fn: ``(params, input) -> out``, a tree of float arrays.
      params: float parameters of the block.
      inputs: its inputs in batches that are stacked, ``(batches, batch, ...)``; a tuple of
        such arrays for a function of several. Steps take the batches in turn. Give those
        that the blocks before, already quantized, produce.
      targets: what the outputs should be, ``(batches, batch, ...)``; None: those of the
        float parameters on the inputs.
      fmt: integers, of two bits or more.
      granularity: which weights share a scale; None: ``PerChannel()``.
      scale: how to choose the scales.
      fisher: what squared changes of the output are weighted by, such as its squared
        gradients; of the shape of the targets. None: ones.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.
      keep_zeros: whether weights that are zero stay zero.
      steps: of Adam, one batch each.
      learning_rate: of Adam.
      regularization: what undecided weights cost; the error of rounding to nearest costs
        as much as all of them at 1, undecided.
      warm_up: share of the steps before that.

    Returns:
      The tree with ``QArray`` leaves where ``where`` selects: what ships. ``dense`` gives
      the parameters on the grid.

    Raises:
      ValueError: if nothing is selected, an axis is ambiguous, for other formats, or
        numbers out of their range.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> kx, k1, k2 = jax.random.split(jax.random.key(0), 3)
      >>> block = {"a": {"kernel": jax.random.normal(k1, (8, 8))},
      ...          "b": {"kernel": jax.random.normal(k2, (8, 8))}}
      >>> def fn(p, x):
      ...     return x + jnp.tanh(x @ p["a"]["kernel"]) @ p["b"]["kernel"]
      >>> x = jax.random.normal(kx, (4, 32, 8))
      >>> fmt = jc.formats.Int(3)
      >>> small = reconstruct_block(fn, block, x, fmt=fmt, steps=200)
      >>> nearest = jc.compress(jc.weight_quantization(bits=3), block)
      >>> errors = [jnp.sum((fn(jc.dense(p), x) - fn(block, x)) ** 2)
      ...           for p in (small, nearest)]
      >>> bool(errors[0] < errors[1])
      True

    References:
      Li et al., 2021, "BRECQ: Pushing the Limit of Post-Training Quantization by Block
      Reconstruction", https://arxiv.org/abs/2102.05426; the layer by layer original is
      Nagel et al., 2020, https://arxiv.org/abs/2004.10568
    """
    how = Training(steps, learning_rate, regularization, warm_up)
    check(how)
    chosen = PerChannel() if granularity is None else granularity
    selection = select(params, where)
    paths, leaves, treedef = paths_and_leaves(selection.tree)
    shapes = [
        chosen.scale_shape(p, x.shape) for p, x in zip(paths, leaves, strict=True)
    ]

    def call(params: PyTree, x: PyTree) -> PyTree:
        return fn(params, *x) if type(x) is tuple else fn(params, x)

    if targets is None:
        targets = jax.jit(lambda p, x: lax.map(lambda x: call(p, x), x))(params, inputs)

    # Parameters are arguments: XLA would fold those that it is given as constants.
    def error(params: PyTree, leaves: list[jax.Array], batch: Any) -> jax.Array:
        x, target, weight = batch
        whole = select(params, where).put(treedef.unflatten(leaves))
        return _squares(call(whole, x), target, weight)

    def problem(w: jax.Array, shape: tuple[int, ...]) -> tuple[Any, Neighbors]:
        wide, keep = w.astype(jnp.float32), (w != 0) | (not keep_zeros)
        grid = scale(wide, shape, fmt)
        return grid, neighbors(wide, fmt, shape, grid, keep)

    found = [problem(w, shape) for w, shape in zip(leaves, shapes, strict=True)]
    nearest = [
        fake_quant(w, fmt, scale_shape=shape, scale=fixed(*grid))
        for w, shape, (grid, _) in zip(leaves, shapes, found, strict=True)
    ]
    data = inputs, targets, fisher
    learned = jax.jit(functools.partial(_round, error, how))
    rounded = learned(params, leaves, nearest, [x for _, x in found], data)
    codes = [
        to_qarray(w, fmt, scale_shape=shape, scale=fixed(*grid))
        for w, shape, (grid, _) in zip(rounded, shapes, found, strict=True)
    ]
    return selection.put(treedef.unflatten(codes))


def _squares(out: PyTree, target: PyTree, weight: PyTree | None) -> jax.Array:
    """The sum of squared differences of two trees, weighted where there are weights."""
    squares = jax.tree.map(
        lambda o, t: (o.astype(jnp.float32) - t.astype(jnp.float32)) ** 2, out, target
    )
    if weight is not None:
        squares = jax.tree.map(jnp.multiply, squares, weight)
    return sum(map(jnp.sum, jax.tree.leaves(squares)), jnp.zeros(()))


def _round(
    error: Callable[[PyTree, list[jax.Array], Any], jax.Array],
    how: Training,
    params: PyTree,
    leaves: list[jax.Array],
    nearest: list[jax.Array],
    beside: list[Neighbors],
    data: PyTree,
) -> list[jax.Array]:
    """Learn the rounding of all leaves; fall back on the nearest if that is better."""
    batches = len(jax.tree.leaves(data)[0])
    number = sum(x.size for x in leaves)

    def like_leaves(values: list[jax.Array]) -> list[jax.Array]:
        return [v.astype(x.dtype) for v, x in zip(values, leaves, strict=True)]

    def total(leaves: list[jax.Array]) -> jax.Array:
        return jnp.sum(lax.map(lambda batch: error(params, leaves, batch), data))

    reference = total(nearest)
    unit = jnp.where(reference > 0, reference, 1) / batches

    def of_shares(shares: list[jax.Array], step: jax.Array) -> jax.Array:
        batch = jax.tree.map(lambda x: x[step % batches], data)
        soft = [x.at(s) for x, s in zip(beside, shares, strict=True)]
        return error(params, like_leaves(soft), batch) / unit

    def undecided(costs: list[jax.Array]) -> jax.Array:
        open_ = [jnp.where(x.differ, c, 0) for x, c in zip(beside, costs, strict=True)]
        return sum(map(jnp.sum, open_), jnp.zeros(())) / number

    start = [
        unrounded(w.astype(jnp.float32), x) for w, x in zip(leaves, beside, strict=True)
    ]
    learned = learn(of_shares, start, undecided, how)
    found = like_leaves([decided(v, x) for v, x in zip(learned, beside, strict=True)])
    worse = reference < total(found)
    return [jnp.where(worse, n, f) for n, f in zip(nearest, found, strict=True)]
