# SPDX-License-Identifier: Apache-2.0
"""Distillation without data: inputs that a teacher finds typical, by gradient descent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

PyTree = Any


class FeatureMoments(NamedTuple):
    """Statistics of features over examples and positions."""

    mean: jax.Array  # float32 (channels,)
    variance: jax.Array  # float32 (channels,), around the mean, not corrected


def invert(
    loss: Callable[..., jax.Array],
    start: PyTree,
    tx: optax.GradientTransformation,
    steps: int,
    *args: Any,
    rng: jax.Array | None = None,
    project: Callable[[PyTree], PyTree] | None = None,
) -> tuple[PyTree, jax.Array]:
    """Inputs that minimize a loss, from a start of noise, in one scan.

    What the inputs of a teacher look like whose data cannot be had: those that it gives
    the asked-for labels, that have the statistics which its batch norms stored, and that
    are smooth. The loss is their sum, which the caller writes::

        def loss(x, params, labels):
            logits, features = teacher(params, x)
            of_labels = softmax_cross_entropy_with_integer_labels(logits, labels)
            smooth = jc.distill.total_variation(x)
            typical = jc.distill.moment_distance(features, mean, variance)
            return of_labels.mean() + 1e-4 * smooth.mean() + typical.mean()

    Adding ``-jensen_shannon`` of a student asks for inputs that it gets wrong. Features
    inside a model are ``jc.program.taps``. For a generator that makes the inputs (DAFL),
    the start is its parameters.

    Args:
      loss: ``(inputs, *args) -> loss``, with ``rng=`` if there is one. It may be an array,
        such as one value an example: its sum is minimized.
      start: an array of floats, such as ``(batch, height, width, channels)``, or a pytree
        of them.
      tx: any optax optimizer.
      steps: how many.
      *args: what the loss takes beside: the teacher's parameters, labels. Pass them here,
        so that one compiled function serves all of them.
      rng: a key for what is random in the loss, such as shifts and flips of the images;
        step t passes ``rng=fold_in(rng, t)``.
      project: what to do to the inputs after each step, such as
        ``lambda x: jnp.clip(x, 0, 1)``; of the start too.

    Returns:
      The inputs, like the start; and the losses before each step, ``(steps, ...)``.

    Raises:
      ValueError: if the number of steps is negative.
      TypeError: if the start is not made of floats.

    Example:
      >>> import jax.numpy as jnp, optax, jaxcompress as jc
      >>> def loss(x, target):
      ...     return jnp.sum((x - target) ** 2, axis=-1)
      >>> x, losses = jc.distill.invert(
      ...     loss, jnp.zeros((2, 3)), optax.sgd(0.5), 4, jnp.ones((2, 3)))
      >>> x.tolist(), losses[:, 0].tolist()
      ([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], [3.0, 0.0, 0.0, 0.0])

    References:
      Yin et al., DeepInversion, 2020, https://arxiv.org/abs/1912.08795;
      Chen et al., DAFL, 2019, https://arxiv.org/abs/1904.01186
    """
    if steps < 0:
        raise ValueError(f"steps={steps} is below 0.")
    for leaf in jax.tree.leaves(start):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"the start has dtype {leaf.dtype}: floats are expected. Tokens have no "
                "gradient; invert their embeddings."
            )
    tx = optax.with_extra_args_support(tx)

    def total(x: PyTree, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        given = {} if rng is None else {"rng": jax.random.fold_in(rng, t)}
        each = jnp.asarray(loss(x, *args, **given))
        return jnp.sum(each), each

    def body(carry: tuple[PyTree, Any], t: jax.Array) -> Any:
        x, state = carry
        (value, each), grad = jax.value_and_grad(total, has_aux=True)(x, t)
        updates, state = tx.update(grad, state, x, value=value, grad=grad)
        x = optax.apply_updates(x, updates)
        return (x if project is None else project(x), state), each

    x = start if project is None else project(start)
    (x, _), losses = lax.scan(body, (x, tx.init(x)), jnp.arange(steps))
    return x, losses


def total_variation(x: jax.Array, *, axes: tuple[int, int] = (-3, -2)) -> jax.Array:
    """How much an image changes from pixel to pixel: it punishes noise.

    ``sum(|x[i + 1, j] - x[i, j]| + |x[i, j + 1] - x[i, j]|)`` over pixels and channels.

    Args:
      x: ``(batch, ...)`` with two spatial axes, such as ``(batch, height, width,
        channels)``.
      axes: the spatial ones.

    Returns:
      ``(batch,)``, float32 or wider.

    Raises:
      ValueError: if the axes are no two axes behind the batch.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> x = jnp.array([[0.0, 1.0], [0.0, 3.0]])[None, :, :, None]
      >>> jc.distill.total_variation(x).tolist()  # 1 + 3 across, 0 + 2 down
      [6.0]

    References:
      Rudin et al., 1992, https://doi.org/10.1016/0167-2789(92)90242-F
    """
    if any(not -x.ndim < axis < x.ndim or axis == 0 for axis in axes) or (
        len({axis % x.ndim for axis in axes}) < 2
    ):
        raise ValueError(f"axes={axes} are no two axes of {x.shape} behind the batch.")
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))

    def changes(axis: int) -> jax.Array:
        steps = jnp.diff(x, axis=axis)
        # The slope of JAX's magnitude at 0 is 1, which would tilt what is flat.
        steps = steps * lax.stop_gradient(jnp.sign(steps))
        return jnp.sum(steps, axis=range(1, x.ndim))

    return changes(axes[0]) + changes(axes[1])


def feature_moments(
    features: jax.Array, *, where: jax.Array | None = None
) -> FeatureMoments:
    """Mean and variance of each channel over everything else, as a batch norm has them.

    Args:
      features: ``(..., channels)``.
      where: bool ``(...)``: positions that count; at least one.

    Raises:
      ValueError: if where does not fit.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> mean, variance = jc.distill.feature_moments(jnp.array([[1.0, 5.0], [3.0, 5.0]]))
      >>> mean.tolist(), variance.tolist()
      ([2.0, 5.0], [1.0, 0.0])
    """
    if where is not None and where.shape != features.shape[:-1]:
        raise ValueError(
            f"where {where.shape} is not {features.shape[:-1]}, one bool a position."
        )
    x = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    if where is not None:
        where = where[..., None]
        # Before all arithmetic: a NaN in padding would come back through a gradient.
        x = jnp.where(where, x, 0)
    others = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axis=others, keepdims=True, where=where)
    variance = jnp.mean(jnp.square(x - mean), axis=others, where=where)
    return FeatureMoments(mean.reshape(-1), variance)


def moment_distance(
    features: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    *,
    where: jax.Array | None = None,
) -> jax.Array:
    """Squared differences of mean and variance from stored ones, added up, by channel.

    It belongs to the batch as a whole, so parts of a batch have values of their own. The
    stored ones are constants: ``mean`` and ``var`` of a batch norm, or ``feature_moments`` of
    what little data there is. The paper takes norms, the root of a sum over channels.

    Args:
      features: ``(..., channels)``: what goes into the batch norm.
      mean: ``(channels,)``.
      variance: ``(channels,)``.
      where: bool ``(...)``: positions that count; at least one.

    Returns:
      ``(channels,)``, float32 or wider, not reduced.

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> x = jnp.array([[1.0, 5.0], [3.0, 5.0]])
      >>> jc.distill.moment_distance(x, jnp.zeros(2), jnp.ones(2)).tolist()
      [4.0, 26.0]

    References:
      Yin et al., DeepInversion, 2020, https://arxiv.org/abs/1912.08795
    """
    if not mean.shape == variance.shape == features.shape[-1:]:
        raise ValueError(
            f"mean {mean.shape} and variance {variance.shape} are not both "
            f"{features.shape[-1:]}, one a channel of features {features.shape}."
        )
    found = feature_moments(features, where=where)
    mean, variance = (
        lax.stop_gradient(x).astype(found.mean.dtype) for x in (mean, variance)
    )
    return jnp.square(found.mean - mean) + jnp.square(found.variance - variance)
