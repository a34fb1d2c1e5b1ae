# SPDX-License-Identifier: Apache-2.0
"""Weight sharing with the size of the file as a term of the loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax import lax

from .._arguments import check_counts, check_whole
from .._combine import masked
from .._compressor import Compressor
from .._select import Where, is_weight
from .._signatures import name_defaults
from .._types import PyTree
from ..share import ShareState, share
from ._add_price import add_price
from ._multiplier import rule_of

_APART_IN_ZEROS = 0.01


@name_defaults
def entropy_constrained_sharing(
    clusters: int,
    multiplier: float | optax.Schedule | None = None,
    *,
    target_bytes: float | None = None,
    every: int = 20,
    where: Where = is_weight,
) -> Compressor:
    """Share values among weights, with the size of their file as a term of the loss.

    Like ``entropy_constrained``, but the values of a leaf are free instead of multiples of
    a step: each is the mean of its weights, and one of them is zero. They start one root
    mean square of the leaf apart (0.01 in a leaf of zeros), and stay where they are while
    no weight needs them. ``finalize`` returns ``Codebook`` leaves. The result is small as a
    file. It computes in floats.

    Args:
      clusters: number of values of a leaf, 3 to 127. Each takes its 2 or 4 bytes in the
        file, used or not, so few are best for small leaves. Stacked layers share them.
      multiplier: what one bit a weight costs in the loss: a number of at least 0 or an
        optax schedule, as for ``entropy_constrained``.
      target_bytes: instead of ``multiplier``, the most that the selected leaves may take.
      every: updates between two moves of the values, and two changes of the multiplier.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      TypeError: if an argument is of the wrong kind, such as a traced multiplier.
      ValueError: if an argument is out of range; in ``init``, if ``where`` selects nothing,
        the target cannot be reached, or a leaf is empty or has NaN or infinite values; if
        a state was made with another number of clusters, multiplier or target.

    Warns:
      UserWarning: in ``finalize``, if the leaves take more than ``target_bytes``.

    Example:
      >>> import jax, jax.numpy as jnp, optax, jaxcompress as jc
      >>> noise = jax.random.normal(jax.random.key(0), (64, 32))
      >>> params = {"kernel": jnp.eye(64, 32) + 0.1 * noise}
      >>> x = jax.random.normal(jax.random.key(1), (256, 64))
      >>> def loss_fn(view, x):
      ...     return jnp.mean((x @ view["kernel"] - x[:, :32]) ** 2)
      >>> c = jc.rate.entropy_constrained_sharing(9, 0.3)
      >>> init, step = jc.train_step(loss_fn, optax.adam(1e-2), c)
      >>> state = init(params)
      >>> for _ in range(100):
      ...     state, metrics = step(state, x)
      >>> shared = c.finalize(state.params, state.compression)["kernel"]
      >>> len(jnp.unique(shared.dense())) <= 9
      True

    References:
      Chou, Lookabaugh & Gray, 1989, Entropy-constrained vector quantization; Choi et al.,
      2016, https://arxiv.org/abs/1612.01543
    """
    rule = rule_of(multiplier, "target_bytes", target_bytes)
    check_whole(clusters=clusters)
    check_counts(every=every)
    if not 3 <= clusters <= 127:
        raise ValueError(f"clusters must be 3 to 127 values, got {clusters}.")
    sharing = share(clusters, every=every, iterations=0, revive=False)

    def init(params: PyTree) -> ShareState:
        state = sharing.init(params)
        spaced = jax.tree.map(lambda x: _spaced(x, clusters), params)
        return state._replace(centroids=spaced)

    def positions(params: PyTree, state: ShareState) -> PyTree:
        return jax.tree.map(_position, params, state.centroids)

    priced = add_price(
        Compressor(
            init=init,
            apply=sharing.apply,
            update=sharing.update,
            finalize=sharing.finalize,
        ),
        positions,
        high=clusters - 1,
        rule=rule,
        every=every,
        table=clusters,
    )
    return masked(priced, where)


def _spaced(leaf: jax.Array, clusters: int) -> jax.Array:
    """Return multiples of the leaf's root mean square, zero in the middle."""
    wide = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
    info = jnp.finfo(leaf.dtype)
    largest = jnp.max(jnp.abs(wide))
    # Divided by the largest first: squares of large and small floats are out of range.
    share = wide / jnp.where(largest > 0, largest, 1)
    apart = largest * jnp.sqrt(jnp.mean(share**2))
    apart = jnp.where(apart > info.tiny, apart, _APART_IN_ZEROS)
    most = info.max.astype(wide.dtype)
    values = (jnp.arange(clusters) - clusters // 2) * jnp.minimum(
        apart, most / clusters
    )
    return values.astype(leaf.dtype)


def _position(leaf: jax.Array, centroids: jax.Array) -> jax.Array:
    """Return where weights lie among the centroids, counted from the one that is zero."""
    wide = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
    values = lax.stop_gradient(centroids).astype(wide.dtype)
    above = jnp.searchsorted(values, lax.stop_gradient(wide), method="compare_all")
    above = jnp.clip(above, 1, len(values) - 1)
    low, high = values[above - 1], values[above]
    apart = jnp.where(high > low, high - low, 1)
    zero = jnp.argmin(jnp.abs(values))
    return above - 1 - zero + (wide - low) / apart
