# SPDX-License-Identifier: Apache-2.0
"""The empirical Fisher matrix: second moments of per-example gradients, block by block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._select import Where, is_weight, map_with_path, select
from ...numerics import EXACT

PyTree = Any
LossFn = Callable[[PyTree, Any], jax.Array]


class FisherBlocks(NamedTuple):
    """Diagonal blocks of the empirical Fisher matrix of one weight, not divided.

    Sums over examples, so trees of them add up: ``jax.tree.map(jnp.add, a, b)``.
    """

    count: jax.Array  # uint32 []: examples
    blocks: jax.Array  # float32 (blocks, block, block): sum of g g^T

    @property
    def mean(self) -> jax.Array:
        """The blocks divided by the examples; float32 (blocks, block, block)."""
        return self.blocks / jnp.maximum(self.count, 1)


def fisher_blocks(
    loss_fn: LossFn,
    params: PyTree,
    batch: Any,
    block: int = 64,
    *,
    chunk: int = 32,
    where: Where = is_weight,
) -> PyTree:
    """Second moments of per-example gradients within blocks of weights.

    Pure, to be put under ``jax.jit`` with the loss closed over. For several batches add
    the trees up. Memory: ``block`` floats a weight, and ``chunk`` gradients.

    Args:
      loss_fn: ``(params, example) -> scalar``; the example is a batch of one.
      params: a trained parameter tree.
      batch: a tree of arrays with a leading axis of examples.
      block: weights in a block; see ``weight_blocks`` for their order.
      chunk: examples differentiated at once.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Returns:
      A tree like ``params``: ``FisherBlocks`` at selected leaves, None at the others.

    Raises:
      ValueError: if ``block`` or ``chunk`` is not positive, or nothing is selected.

    References:
      Singh and Alistarh, 2020, "WoodFisher", https://arxiv.org/abs/2004.14340; Kurtic et
      al., 2022, "oBERT", https://arxiv.org/abs/2203.07259

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def loss_fn(params, x):
      ...     return 0.5 * jnp.sum((x @ params["kernel"]) ** 2)
      >>> params = {"kernel": jnp.ones((2, 1))}
      >>> x = jnp.array([[1.0, 0.0], [1.0, 2.0]])
      >>> fisher_blocks(loss_fn, params, x, 2)["kernel"].blocks.tolist()
      [[[10.0, 18.0], [18.0, 36.0]]]
    """
    if block < 1 or chunk < 1:
        raise ValueError(f"block={block} and chunk={chunk} are 1 or more.")

    def summary(path: str, grads: jax.Array) -> FisherBlocks:
        rows = jax.vmap(lambda g: weight_blocks(path, g, block))(grads)
        products = jnp.einsum("ebi,ebj->bij", rows, rows, precision=EXACT)
        return FisherBlocks(jnp.zeros((), jnp.uint32), products)

    examples = len(jax.tree.leaves(batch)[0])
    total = _sum_over_examples(loss_fn, params, batch, where, chunk, summary)
    return jax.tree.map(
        lambda fisher: fisher._replace(count=jnp.uint32(examples)),
        total,
        is_leaf=lambda x: isinstance(x, FisherBlocks),
    )


def fisher_diagonal(
    loss_fn: LossFn,
    params: PyTree,
    batch: Any,
    *,
    chunk: int = 32,
    where: Where = is_weight,
) -> PyTree:
    """Mean squares of per-example gradients: the diagonal of the empirical Fisher matrix.

    ``w^2 F / 2`` is how much the loss rises if a weight is removed and nothing makes up
    for it. The arguments are those of ``fisher_blocks``.

    Returns:
      A tree like ``params``: float32 arrays like the selected leaves, None at the others.

    References:
      LeCun et al., 1989, "Optimal Brain Damage"; Theis et al., 2018,
      https://arxiv.org/abs/1801.05787

    Example:
      >>> import jax, jax.numpy as jnp
      >>> def loss_fn(params, x):
      ...     return jnp.sum(x @ params["kernel"])
      >>> x = jnp.array([[1.0, 0.0], [3.0, 2.0]])
      >>> fisher_diagonal(loss_fn, {"kernel": jnp.ones((2, 1))}, x)["kernel"].tolist()
      [[5.0], [2.0]]
    """
    examples = len(jax.tree.leaves(batch)[0])
    total = _sum_over_examples(
        loss_fn, params, batch, where, chunk, lambda _, g: jnp.sum(g**2, axis=0)
    )
    return jax.tree.map(lambda x: x / examples, total)


def weight_blocks(path: str, leaf: jax.Array, block: int) -> jax.Array:
    """A leaf as blocks of consecutive weights of an output: ``(blocks, block)``.

    The outputs are taken to be the last axis, of Equinox's ``weight`` the first; of other
    layouts blocks hold other neighbors, and are no less valid. The last block is filled
    up with zeros.

    Args:
      path: path text of the leaf, for its name.
      leaf: array of any shape.
      block: weights in a block.
    """
    flat = _outputs_first(path, leaf).ravel()
    return jnp.pad(flat, (0, -flat.size % block)).reshape(-1, block)


def from_weight_blocks(path: str, blocks: jax.Array, like: jax.Array) -> jax.Array:
    """The inverse of ``weight_blocks``: an array of the shape of ``like``."""
    flat = blocks.ravel()[: like.size]
    if like.ndim == 0 or _outputs_lead(path):
        return flat.reshape(like.shape)
    return jnp.moveaxis(flat.reshape(like.shape[-1], *like.shape[:-1]), 0, -1)


def _outputs_first(path: str, leaf: jax.Array) -> jax.Array:
    lead = leaf.ndim == 0 or _outputs_lead(path)
    return leaf if lead else jnp.moveaxis(leaf, -1, 0)


def _outputs_lead(path: str) -> bool:
    return path.rsplit("/", 1)[-1] == "weight"


def _sum_over_examples(
    loss_fn: LossFn,
    params: PyTree,
    batch: Any,
    where: Where,
    chunk: int,
    summary: Callable[[str, jax.Array], Any],
) -> PyTree:
    """Add up a summary of per-example gradients, a chunk of examples at a time.

    Args:
      loss_fn: of parameters and a batch of one.
      params: the parameters.
      batch: arrays with a leading axis of examples.
      where: which leaves.
      chunk: examples at once.
      summary: ``(path, gradients) -> tree``, of float32 ``(chunk, *leaf)``; zeros must
        add nothing.
    """
    selection = select(params, where)
    examples = len(jax.tree.leaves(batch)[0])
    chunk = min(chunk, examples)
    chunks = -(-examples // chunk)
    # Filled up with examples that are there, so that no gradient is undefined.
    rows = jnp.arange(chunks * chunk)
    parts = jax.tree.map(
        lambda x: jnp.asarray(x)[rows % examples][:, None].reshape(
            chunks, chunk, 1, *x.shape[1:]
        ),
        batch,
    )

    def loss(tree: PyTree, example: Any) -> jax.Array:
        return loss_fn(selection.put(tree), example)

    def of_chunk(part: Any, real: jax.Array) -> PyTree:
        grads = jax.vmap(jax.grad(loss), (None, 0))(selection.tree, part)

        def of_leaf(path: str, g: jax.Array) -> Any:
            shown = real.reshape(-1, *(1,) * (g.ndim - 1))
            return summary(path, jnp.where(shown, g.astype(jnp.float32), 0))

        return map_with_path(of_leaf, grads)

    def step(total: PyTree, at: tuple[Any, jax.Array]) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, of_chunk(*at)), None

    real = (rows < examples).reshape(chunks, chunk)
    shapes = jax.eval_shape(of_chunk, *jax.tree.map(lambda x: x[0], (parts, real)))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(step, zeros, (parts, real))[0]
