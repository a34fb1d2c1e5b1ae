# SPDX-License-Identifier: Apache-2.0
"""Data-free distillation: synthesize inputs by gradient descent through a teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from .._arguments import check_whole
from .._mesh import on_any_mesh
from .._types import PyTree


class FeatureMoments(NamedTuple):
    """Mean and variance of each channel, over examples and positions."""

    mean: jax.Array  # float32 (channels,)
    variance: jax.Array  # float32 (channels,), biased (divided by n)


def invert(
    loss: Callable[..., jax.Array],
    start: PyTree,
    tx: optax.GradientTransformation,
    steps: int,
    *args: Any,
    rng: jax.Array | None = None,
    project: Callable[[PyTree], PyTree] | None = None,
) -> tuple[PyTree, jax.Array]:
    """Synthesize inputs that minimize a loss, to distill a teacher without its data.

    It runs all steps in one scan, starting from noise. The loss is yours. Typically it
    asks for inputs that the teacher assigns the requested labels, that match the
    statistics stored in its batch norms, and that are smooth::

        def loss(x, params, labels):
            logits, features = teacher(params, x)
            of_labels = softmax_cross_entropy_with_integer_labels(logits, labels)
            smooth = jc.distill.total_variation(x)
            typical = jc.distill.moment_distance(features, mean, variance)
            return of_labels.mean() + 1e-4 * smooth.mean() + typical.mean()

    Add ``-jensen_shannon`` of a student to get inputs that the student gets wrong. To
    read features inside a model, use ``jc.program.taps``. For a generator that makes
    the inputs (DAFL), start from its parameters.

    Args:
      loss: ``(inputs, *args) -> loss``, called with ``rng=`` if ``rng`` is given. It
        may return an array, such as one value per example; its sum is minimized.
      start: a float array, such as ``(batch, height, width, channels)``, or a pytree of
        float arrays.
      tx: any optax optimizer.
      steps: number of optimizer steps.
      *args: other arguments of the loss, such as the teacher's parameters and labels.
        Pass them here, so that one compiled function serves all values.
      rng: key for randomness in the loss, such as shifts and flips of the images; step
        t passes ``rng=fold_in(rng, t)``.
      project: applied to the start and to the inputs after each step, such as
        ``lambda x: jnp.clip(x, 0, 1)``.

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
    check_whole(steps=steps)
    if steps < 0:
        raise ValueError(f"steps must be at least 0, got {steps}.")
    for leaf in jax.tree.leaves(start):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"start must be made of floats, got dtype {leaf.dtype}. Tokens have no "
                "gradient: invert their embeddings."
            )
    tx = optax.with_extra_args_support(tx)

    def total(x: PyTree, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        kwargs = {} if rng is None else {"rng": jax.random.fold_in(rng, t)}
        losses = jnp.asarray(loss(x, *args, **kwargs))
        return jnp.sum(losses), losses

    def body(carry: tuple[PyTree, Any], t: jax.Array) -> Any:
        x, state = carry
        (value, step_losses), grad = jax.value_and_grad(total, has_aux=True)(x, t)
        updates, state = tx.update(grad, state, x, value=value, grad=grad)
        x = optax.apply_updates(x, updates)
        return (x if project is None else project(x), state), step_losses

    x = start if project is None else project(start)
    (x, _), losses = lax.scan(body, (x, tx.init(x)), jnp.arange(steps))
    return x, losses


@on_any_mesh
def total_variation(x: jax.Array, *, axes: tuple[int, int] = (-3, -2)) -> jax.Array:
    """Measure how much an image changes from pixel to pixel: a penalty on noise.

    It is ``sum(|x[i + 1, j] - x[i, j]| + |x[i, j + 1] - x[i, j]|)`` over pixels and
      channels.

    Args:
      x: ``(batch, ...)`` with two spatial axes, such as ``(batch, height, width,
        channels)``.
      axes: the two spatial axes.

    Returns:
      ``(batch,)``, float32 or wider.

    Raises:
      ValueError: if the axes are not two distinct axes after the batch axis.

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
        raise ValueError(
            f"axes must be two distinct axes of {x.shape} after the batch axis, got {axes}."
        )
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))

    def sum_changes(axis: int) -> jax.Array:
        differences = jnp.diff(x, axis=axis)
        # JAX's abs has slope 1 at 0, which would tilt flat regions.
        differences = differences * lax.stop_gradient(jnp.sign(differences))
        return jnp.sum(differences, axis=range(1, x.ndim))

    return sum_changes(axes[0]) + sum_changes(axes[1])


def feature_moments(
    features: jax.Array, *, where: jax.Array | None = None
) -> FeatureMoments:
    """Compute mean and variance of each channel over all other axes, like a batch norm.

    Args:
      features: ``(..., channels)``.
      where: bool ``(...)``: positions that count; at least one.

    Raises:
      ValueError: if ``where`` has the wrong shape.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> mean, variance = jc.distill.feature_moments(jnp.array([[1.0, 5.0], [3.0, 5.0]]))
      >>> mean.tolist(), variance.tolist()
      ([2.0, 5.0], [1.0, 0.0])
    """
    if where is not None and where.shape != features.shape[:-1]:
        raise ValueError(
            f"where must have shape {features.shape[:-1]}, one bool per position, got "
            f"{where.shape}."
        )
    x = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    if where is not None:
        where = where[..., None]
        # Before any arithmetic: NaN in padding would come back through the gradient.
        x = jnp.where(where, x, 0)
    batch_axes = tuple(range(x.ndim - 1))
    mean = jnp.mean(x, axis=batch_axes, keepdims=True, where=where)
    variance = jnp.mean(jnp.square(x - mean), axis=batch_axes, where=where)
    return FeatureMoments(mean.reshape(-1), variance)


def moment_distance(
    features: jax.Array,
    mean: jax.Array,
    variance: jax.Array,
    *,
    where: jax.Array | None = None,
) -> jax.Array:
    """Penalize feature statistics that differ from stored ones; for use with ``invert``.

    It is the squared difference of the means plus that of the variances, per channel.
    The value belongs to the batch as a whole, so micro-batches give other values. The
    stored statistics are constants: ``mean`` and ``var`` of a batch norm, or
    ``feature_moments`` of a few examples. The paper takes norms, the root of a sum over
    channels.

    Args:
      features: ``(..., channels)``, the input of the batch norm.
      mean: ``(channels,)``.
      variance: ``(channels,)``.
      where: bool ``(...)``: positions that count; at least one.

    Returns:
      ``(channels,)``, float32 or wider, not reduced.

    Raises:
      ValueError: if the shapes do not match.

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
            f"mean and variance must have shape {features.shape[-1:]}, one value per "
            f"channel of features {features.shape}, got {mean.shape} and {variance.shape}."
        )
    moments = feature_moments(features, where=where)
    mean, variance = (
        lax.stop_gradient(x).astype(moments.mean.dtype) for x in (mean, variance)
    )
    return jnp.square(moments.mean - mean) + jnp.square(moments.variance - variance)
