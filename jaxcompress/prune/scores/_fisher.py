# SPDX-License-Identifier: Apache-2.0
"""The empirical Fisher matrix: second moments of per-example gradients, by block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._arguments import check_counts, check_whole
from ..._names import outputs_come_first
from ..._select import Where, is_weight, map_with_path, select
from ..._signatures import name_defaults
from ...numerics import EXACT

PyTree = Any
LossFn = Callable[[PyTree, Any], jax.Array]


class FisherBlocks(NamedTuple):
    """Diagonal blocks of the empirical Fisher matrix of one weight, as sums over examples.

    The sums are not divided, so two trees of them add up: ``jax.tree.map(jnp.add, a, b)``.
    """

    count: jax.Array  # uint32 []: number of examples
    blocks: jax.Array  # float32 (blocks, block, block): sum of g g^T

    @property
    def mean(self) -> jax.Array:
        """The blocks divided by the number of examples; float32 (blocks, block, block)."""
        return self.blocks / jnp.maximum(self.count, 1)


@name_defaults
def fisher_blocks(
    loss_fn: LossFn,
    params: PyTree,
    batch: Any,
    block: int = 64,
    *,
    chunk: int = 32,
    where: Where = is_weight,
) -> PyTree:
    """Compute diagonal blocks of the empirical Fisher matrix from per-example gradients.

    Second-order pruning takes the result. The function is pure: wrap it in ``jax.jit`` with
    the loss closed over. For several batches, add the trees. It takes memory for ``block``
    floats per weight and for ``chunk`` gradients.

    Args:
      loss_fn: ``(params, example) -> scalar``; the example is a batch of one.
      params: a trained parameter tree.
      batch: a tree of arrays with a leading axis of examples.
      block: weights per block; see ``weight_blocks`` for their order.
      chunk: examples differentiated at once.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Returns:
      A tree like ``params``: ``FisherBlocks`` at selected leaves, None elsewhere.

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
    check_whole(block=block, chunk=chunk)
    if block < 1 or chunk < 1:
        raise ValueError(
            f"block and chunk must be at least 1, got block={block}, chunk={chunk}."
        )

    def block_products(path: str, grads: jax.Array) -> FisherBlocks:
        rows = jax.vmap(lambda g: weight_blocks(path, g, block))(grads)
        products = jnp.einsum("ebi,ebj->bij", rows, rows, precision=EXACT)
        return FisherBlocks(jnp.zeros((), jnp.uint32), products)

    examples = len(jax.tree.leaves(batch)[0])
    total = _sum_over_examples(loss_fn, params, batch, where, chunk, block_products)
    return jax.tree.map(
        lambda fisher: fisher._replace(count=jnp.uint32(examples)),
        total,
        is_leaf=lambda x: isinstance(x, FisherBlocks),
    )


@name_defaults
def fisher_diagonal(
    loss_fn: LossFn,
    params: PyTree,
    batch: Any,
    *,
    chunk: int = 32,
    where: Where = is_weight,
) -> PyTree:
    """Compute the diagonal of the empirical Fisher matrix, for the score ``obd``.

    It is the mean of squared per-example gradients. ``w^2 F / 2`` estimates how much
    the loss rises when a weight is removed and no other weight compensates. The
    arguments are those of ``fisher_blocks``.

    Returns:
      A tree like ``params``: float32 arrays like the selected leaves, None elsewhere.

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
    check_counts(chunk=chunk)
    examples = len(jax.tree.leaves(batch)[0])
    total = _sum_over_examples(
        loss_fn, params, batch, where, chunk, lambda _, g: jnp.sum(g**2, axis=0)
    )
    return jax.tree.map(lambda x: x / examples, total)


def weight_blocks(path: str, leaf: jax.Array, block: int) -> jax.Array:
    """Reshape a leaf into blocks of consecutive weights of one output: ``(blocks, block)``.

    The outputs are assumed to be the last axis, or the first axis of Equinox's ``weight``.
    In other layouts the blocks hold other neighbors and are just as valid. The last block
    is padded with zeros.

    Args:
      path: path of the leaf, for its name.
      leaf: array of any shape.
      block: weights per block.
    """
    flat = _move_outputs_first(path, leaf).ravel()
    return jnp.pad(flat, (0, -flat.size % block)).reshape(-1, block)


def from_weight_blocks(path: str, blocks: jax.Array, like: jax.Array) -> jax.Array:
    """Invert ``weight_blocks``: return an array of the shape of ``like``."""
    flat = blocks.ravel()[: like.size]
    if like.ndim == 0 or outputs_come_first(path):
        return flat.reshape(like.shape)
    return jnp.moveaxis(flat.reshape(like.shape[-1], *like.shape[:-1]), 0, -1)


def _move_outputs_first(path: str, leaf: jax.Array) -> jax.Array:
    in_place = leaf.ndim == 0 or outputs_come_first(path)
    return leaf if in_place else jnp.moveaxis(leaf, -1, 0)


def _sum_over_examples(
    loss_fn: LossFn,
    params: PyTree,
    batch: Any,
    where: Where,
    chunk: int,
    summary: Callable[[str, jax.Array], Any],
) -> PyTree:
    """Sum a summary of per-example gradients, one chunk of examples at a time.

    Args:
      loss_fn: ``(params, batch of one) -> scalar``.
      params: the parameters.
      batch: arrays with a leading axis of examples.
      where: which leaves.
      chunk: examples per chunk.
      summary: ``(path, gradients) -> tree``, for float32 gradients ``(chunk, *leaf)``;
        gradients of zero must add nothing.
    """
    selection = select(params, where)
    examples = len(jax.tree.leaves(batch)[0])
    chunk = min(chunk, examples)
    chunks = -(-examples // chunk)
    # Pad with real examples, so that every gradient is defined.
    rows = jnp.arange(chunks * chunk)
    batches = jax.tree.map(
        lambda x: jnp.asarray(x)[rows % examples][:, None].reshape(
            chunks, chunk, 1, *x.shape[1:]
        ),
        batch,
    )

    def loss(tree: PyTree, example: Any) -> jax.Array:
        return loss_fn(selection.put(tree), example)

    def summarize_chunk(examples_chunk: Any, is_real: jax.Array) -> PyTree:
        grads = jax.vmap(jax.grad(loss), (None, 0))(selection.tree, examples_chunk)

        def summarize_leaf(path: str, g: jax.Array) -> Any:
            keep = is_real.reshape(-1, *(1,) * (g.ndim - 1))
            return summary(path, jnp.where(keep, g.astype(jnp.float32), 0))

        return map_with_path(summarize_leaf, grads)

    def step(
        total: PyTree, chunk_and_mask: tuple[Any, jax.Array]
    ) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, summarize_chunk(*chunk_and_mask)), None

    is_real = (rows < examples).reshape(chunks, chunk)
    shapes = jax.eval_shape(
        summarize_chunk, *jax.tree.map(lambda x: x[0], (batches, is_real))
    )
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(step, zeros, (batches, is_real))[0]
