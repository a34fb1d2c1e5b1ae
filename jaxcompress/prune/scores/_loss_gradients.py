# SPDX-License-Identifier: Apache-2.0
"""Trees of gradients that some scores need, computed from the loss or the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from ._immediate import PyTree


def hessian_gradient(
    loss_fn: Callable[..., jax.Array], params: PyTree, *args: Any
) -> PyTree:
    """Compute the Hessian of a loss times its gradient, for the score ``grasp``.

    Args:
      loss_fn: ``(params, *args) -> loss``, twice differentiable.
      params: a float tree.
      *args: the other arguments of the loss, such as one large batch.

    Returns:
      A tree like ``params``.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> loss_fn = lambda p: jnp.sum(p["w"] ** 2)  # gradient 2 w, Hessian 2
      >>> jc.prune.scores.hessian_gradient(loss_fn, {"w": jnp.array([3.0])})
      {'w': Array([12.], dtype=float32)}
    """
    gradient = jax.grad(lambda p: loss_fn(p, *args))
    grads = gradient(params)
    return jax.jvp(gradient, (params,), (grads,))[1]


def synaptic_flow(fn: Callable[..., Any], params: PyTree, *args: Any) -> PyTree:
    """Compute the gradient of the synaptic flow R, for the score ``synflow``.

    R is the sum of the outputs for inputs of ones and parameters replaced by their
    magnitudes. The gradient is taken at the magnitudes.

    Args:
      fn: ``(params, *args) -> outputs``, in evaluation mode if it has one.
      params: a float tree.
      *args: arrays or shapes of one batch; floats become ones.

    Returns:
      A tree like ``params``.

    Raises:
      FloatingPointError: if the flow is not finite, which happens in deep networks.

    References:
      Tanaka et al., 2020, https://arxiv.org/abs/2006.05467

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> fn = lambda p, x: x @ p["a"] @ p["b"]
      >>> params = {"a": jnp.array([[1.0, -2.0]]), "b": jnp.array([[3.0], [4.0]])}
      >>> jc.prune.scores.synaptic_flow(fn, params, jnp.zeros((1, 1)))["a"].tolist()
      [[3.0, 4.0]]
    """

    def ones(x: Any) -> Any:
        is_float = jnp.issubdtype(x.dtype, jnp.floating)
        return jnp.ones(x.shape, x.dtype) if is_float else x

    inputs = jax.tree.map(ones, args)

    def flow(magnitudes: PyTree) -> jax.Array:
        outputs = jax.tree.leaves(fn(magnitudes, *inputs))
        return sum((jnp.sum(out) for out in outputs), jnp.zeros(()))

    value, grads = jax.value_and_grad(flow)(jax.tree.map(jnp.abs, params))
    if not isinstance(value, Tracer) and not bool(jnp.isfinite(value)):
        raise FloatingPointError(
            f"the synaptic flow must be finite, got {value}. Scale down the initial "
            "weights: the same factor in every layer leaves the ranking unchanged."
        )
    return grads
