# SPDX-License-Identifier: Apache-2.0
"""Budgets in bytes or multiply-accumulates: a price of weights, and how much to save."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from ..._select import closest, matches
from ._sparsity import Budget, Scores, bisect, global_

Price = Callable[[Mapping[str, jax.Array], Mapping[str, int]], jax.Array]
"""``(kept, sizes) -> price``: float32 numbers of weights kept and sizes of leaves, by
path, to a float32 scalar that does not fall when more is kept."""


def saving(price: Price, budget: Budget = global_) -> Budget:
    """Prune until a price has fallen: the sparsity is then the share of it to save.

    ``magnitude_pruning(0.75, budget=saving(macs(...)))`` leaves a quarter of the MACs,
    and ``sparsity = 1 - 100_000 / dense`` leaves 100 kB of a network of ``dense`` bytes.
    The sparsity of the budget inside is found by bisection on traced values, the least
    that saves enough; where the inner budget cannot save so much, it prunes everything.

    Args:
      price: what counts, such as ``macs(...)`` or ``coded_bytes()``.
      budget: how a sparsity is spread over leaves.

    Example:
      >>> import jax, jaxcompress as jc
      >>> keys = jax.random.split(jax.random.key(0))
      >>> params = {
      ...     "conv": {"kernel": jax.random.normal(keys[0], (10, 10))},  # used 9 times
      ...     "dense": {"kernel": jax.random.normal(keys[1], (30, 30))},
      ... }
      >>> price = jc.prune.budgets.macs({"conv/*": 9.0, "dense/*": 1.0})
      >>> budget = jc.prune.budgets.saving(price, jc.prune.budgets.uniform)
      >>> small = jc.compress(jc.magnitude_pruning(0.5, budget=budget), params)
      >>> [int((layer["kernel"] != 0).sum()) for layer in small.values()]
      [50, 450]
    """

    def spend(scores: Scores, sparsity: jax.Array) -> dict[str, jax.Array]:
        sizes = {path: score.size for path, score in scores.items()}

        def price_at(x: jax.Array) -> jax.Array:
            counts = budget(scores, x)
            return price(
                {p: n - counts[p].astype(jnp.float32) for p, n in sizes.items()}, sizes
            )

        dense = price({p: jnp.float32(n) for p, n in sizes.items()}, sizes)
        aim = (1.0 - jnp.asarray(sparsity, jnp.float32)) * dense
        # Half a weight of slack, without which rounding would take one more.
        aim = aim * (1 + 1e-6)
        # 24 halvings exhaust the float32 numbers near 1.
        x = bisect(lambda x: price_at(x) <= aim, jnp.ones(()), steps=24)
        # A mask has a price of its own: a little pruning can cost more than none.
        return budget(scores, jnp.where(dense <= aim, 0.0, x))

    return spend


def macs(per_weight: Mapping[str, float]) -> Price:
    """Multiply-accumulates of one example, in which zeros are skipped.

    Args:
      per_weight: ``{glob: MACs}`` in which one weight of the leaf takes part: the
        number of output positions for a convolution, of tokens for a dense layer. From a
        function: ``{s.leaf: s.macs / leaf_size for s in jaxcompress.sites(fn, params,
        x)}``.

    Raises:
      ValueError: when it is used, for a leaf without a number, naming it.
    """

    def price(kept: Mapping[str, jax.Array], sizes: Mapping[str, int]) -> jax.Array:
        del sizes
        total = jnp.zeros(())
        for path, number in kept.items():
            each = per_weight.get(path)
            if each is None:
                each = next(
                    (m for g, m in per_weight.items() if matches(g, path)), None
                )
            if each is None:
                near = ", ".join(map(repr, closest(path, list(per_weight))))
                raise ValueError(
                    f"macs: no number of MACs for {path!r}; closest of those given: "
                    f"{near or 'none'}."
                )
            total = total + each * number
        return total

    return price


def coded_bytes(bits: float = 32.0) -> Price:
    """Bytes of an entropy-coded file: a mask at its entropy, and the values kept.

    An estimate, for one width of all values; ``save`` tells the truth. From about
    ``1 - 2**-bits`` of the weights on, the mask costs more than what is left out saves.

    Args:
      bits: of a value that is kept.
    """

    def price(kept: Mapping[str, jax.Array], sizes: Mapping[str, int]) -> jax.Array:
        total = jnp.zeros(())
        for path, number in kept.items():
            size = sizes[path]
            d = number / size
            # Its slope is bits - log2(d / (1 - d)): it rises until next to all are kept.
            entropy = -(_x_log2(d) + _x_log2(1 - d))
            total = total + (number * bits + size * entropy) / 8
        return total

    return price


def _x_log2(x: jax.Array) -> jax.Array:
    inside = jnp.where(x > 0, x, 1.0)
    return jnp.where(x > 0, x * jnp.log2(inside), 0.0)
