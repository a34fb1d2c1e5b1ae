# SPDX-License-Identifier: Apache-2.0
"""Budgets in bytes or multiply-accumulates: the cost of the weights that are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ..._select import closest, matches
from ..._signatures import name_defaults
from ._sparsity import Budget, Scores, bisect, global_

Price = Callable[[Mapping[str, jax.Array], Mapping[str, int]], jax.Array]
"""``(kept, sizes) -> price``, for example bytes or MACs. ``kept`` maps paths to the number
of weights kept (float32), ``sizes`` maps paths to leaf sizes. The price is a float32 scalar
that does not fall when more weights are kept."""


@name_defaults
def saving(price: Price, budget: Budget = global_) -> Budget:
    """Prune until a price has fallen by the given fraction, such as 75 % of the MACs.

    The sparsity of the pruner then means the fraction of the price to save.
    ``magnitude_pruning(0.75, budget=saving(macs(...)))`` leaves a quarter of the MACs,
    and ``sparsity = 1 - 100_000 / dense`` leaves 100 kB of a network of ``dense``
    bytes. Bisection on traced values finds the lowest sparsity of the inner budget that
    saves enough. If even one weight a leaf costs more, that is what remains.

    Args:
      price: the quantity to reduce, such as ``macs(...)`` or ``coded_bytes()``.
      budget: how the sparsity is divided among the leaves.

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
        target = (1.0 - jnp.asarray(sparsity, jnp.float32)) * dense
        # Slack of half a weight, or rounding would prune one more.
        target = target * (1 + 1e-6)
        # 24 halvings exhaust the float32 numbers near 1.
        high = jnp.where(sparsity < 1, np.float32(1 - 2.0**-24), 1)
        x = bisect(lambda x: price_at(x) <= target, high, steps=24)
        # The mask itself has a price: pruning a little can cost more than pruning nothing.
        return budget(scores, jnp.where(dense <= target, 0.0, x))

    return spend


def macs(per_weight: Mapping[str, float]) -> Price:
    """Price weights in multiply-accumulates per example, skipping zeros; for ``saving``.

    Args:
      per_weight: ``{glob: MACs}``, the MACs per weight of the leaf: the number of output
        positions for a convolution, of tokens for a dense layer. To read them off a
        function:
        ``{s.leaf: s.macs / leaf_size for s in jaxcompress.sites(fn, params, x)}``.

    Raises:
      ValueError: when masks are drawn, if a leaf has no entry (names the leaf).
    """

    def price(kept: Mapping[str, jax.Array], sizes: Mapping[str, int]) -> jax.Array:
        del sizes
        total = jnp.zeros(())
        for path, number in kept.items():
            macs_each = per_weight.get(path)
            if macs_each is None:
                macs_each = next(
                    (m for g, m in per_weight.items() if matches(g, path)), None
                )
            if macs_each is None:
                near = ", ".join(map(repr, closest(path, list(per_weight))))
                raise ValueError(
                    f"per_weight must have an entry for {path!r}; closest entries: "
                    f"{near or 'none'}."
                )
            total = total + macs_each * number
        return total

    return price


def coded_bytes(bits: float = 32.0) -> Price:
    """Price weights in bytes of an entropy-coded file: mask entropy plus the kept values.

    For ``saving``. It is an estimate with one width for all values; ``save`` gives the
    exact size. Above a density of about ``1 - 2**-bits``, the mask costs more than
    pruning saves.

    Args:
      bits: width of a kept value.
    """

    def price(kept: Mapping[str, jax.Array], sizes: Mapping[str, int]) -> jax.Array:
        total = jnp.zeros(())
        for path, number in kept.items():
            size = sizes[path]
            density = number / size
            # The slope is bits - log2(density / (1 - density)): the price rises until
            # nearly all weights are kept.
            entropy = -(_x_log2(density) + _x_log2(1 - density))
            total = total + (number * bits + size * entropy) / 8
        return total

    return price


def _x_log2(x: jax.Array) -> jax.Array:
    positive = jnp.where(x > 0, x, 1.0)
    return jnp.where(x > 0, x * jnp.log2(positive), 0.0)
