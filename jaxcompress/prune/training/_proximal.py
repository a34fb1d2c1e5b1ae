# SPDX-License-Identifier: Apache-2.0
"""Proximal training: penalties that make weights exactly zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from ..._combine import masked
from ..._compressor import Compressor, PyTree
from ..._select import Where, is_weight, map_with_path
from ..._signatures import name_defaults
from ..._warn import warn
from ..patterns._blocks import Blocks, Slices, block_sizes, block_sums, expand_blocks
from ..scores._immediate import refuse_nan

Prox = Callable[[str, jax.Array, Any], jax.Array]
"""``(path, array, strength) -> array``: the minimizer ``new`` of ``|new - array|^2 / 2 +
strength * penalty(new)``, with the array's shape and dtype; ``strength`` is a scalar."""

Strength = float | optax.Schedule


class ProximalState(NamedTuple):
    """State of ``proximal``."""

    count: jax.Array  # int32 []: updates so far


@name_defaults
def proximal(prox: Prox, *, strength: Strength, where: Where = is_weight) -> Compressor:
    """Apply a proximal step of a penalty after each optimizer step, to get exact zeros.

    Use it for your own penalty; ``l1_pruning``, ``l0_pruning`` and
    ``group_lasso_pruning`` are ready-made. The optimizer minimizes the loss and the
    proximal step minimizes the penalty, whose kink at zero a gradient cannot see.
    Weights become exactly zero in the raw parameters and may return. The view is the
    parameters, unchanged.

    A proximal gradient step of a penalty ``lambda * r(w)`` at learning rate ``lr`` has
    strength ``lr * lambda``. The compressor does not see the learning rate, so
    ``strength`` is that product. With a learning-rate schedule, pass
    ``lambda count: lr(count) * lam``; both count from zero. An optimizer that scales
    gradients per weight (Adam) does not scale the penalty with them.

    Args:
      prox: ``(path, array, strength) -> array``: ``soft_threshold``,
        ``hard_threshold``, ``group_soft_threshold()`` or your own.
      strength: learning rate times lambda, at least 0, or an optax schedule of it. Under
        jit, a schedule that is negative or NaN penalizes nothing.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      TypeError: if the strength is a string.
      ValueError: if the strength is negative or NaN; in ``init``, if ``where`` selects
        nothing, or ``prox`` rejects a leaf or changes its shape or dtype.

    Warns:
      UserWarning: in ``finalize``, if a leaf has only zeros left.

    References:
      Parikh and Boyd, 2014, https://web.stanford.edu/~boyd/papers/prox_algs.html

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> def nonnegative(path, array, strength):  # your own penalty
      ...     return jnp.maximum(array, 0)
      >>> positive = jc.prune.proximal(nonnegative, strength=0.0)
      >>> jc.compress(positive, {"kernel": jnp.array([[-1.0, 2.0]])})["kernel"].tolist()
      [[0.0, 2.0]]
    """
    _check_strength(strength)
    schedule = strength if callable(strength) else lambda count: strength

    def step(params: PyTree, amount: jax.Array) -> PyTree:
        return map_with_path(lambda path, leaf: prox(path, leaf, amount), params)

    def init(params: PyTree) -> ProximalState:
        refuse_nan(params)
        stepped = jax.eval_shape(step, params, jnp.zeros(()))
        map_with_path(_check_unchanged_type, params, stepped)
        return ProximalState(jnp.zeros((), jnp.int32))

    def apply(params: PyTree, state: ProximalState) -> PyTree:
        del state
        # Copies, free under jit: by law 5, `update` must leave alone what `apply` returns
        # as the same object.
        return jax.tree.map(jnp.copy, params)

    def update(
        params: PyTree, state: ProximalState, **extras: Any
    ) -> tuple[PyTree, ProximalState]:
        del extras
        refuse_nan(params)
        amount = jnp.asarray(schedule(state.count), jnp.float32)
        if not isinstance(amount, Tracer):
            _check_strength(float(amount))
        # A traced one that is negative or NaN penalizes nothing.
        params = step(params, jnp.where(amount > 0, amount, 0))
        return params, ProximalState(state.count + 1)

    def finalize(params: PyTree, state: ProximalState) -> PyTree:
        map_with_path(_warn_if_empty, params)
        return apply(params, state)

    return masked(
        Compressor(init=init, apply=apply, update=update, finalize=finalize), where
    )


def soft_threshold(
    path: str, array: jax.Array, strength: jax.Array | float
) -> jax.Array:
    """Move every weight toward zero by ``strength``: the prox of ``|w|`` (L1).

    Args:
      path: not used.
      array: float array of any shape.
      strength: scalar.

    References:
      Daubechies et al., 2004, https://arxiv.org/abs/math/0307152

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> jc.prune.training.soft_threshold("", jnp.array([-3.0, 0.5, 2.0]), 1.0).tolist()
      [-2.0, 0.0, 1.0]
    """
    del path
    wide = _widen(array)
    # A difference in each branch, not a product with the sign: NaN stays NaN.
    moved = jnp.where(wide > 0, wide - strength, wide + strength)
    return jnp.where(jnp.abs(wide) <= strength, 0, moved).astype(array.dtype)


def hard_threshold(
    path: str, array: jax.Array, strength: jax.Array | float
) -> jax.Array:
    """Zero the weights with ``w**2 < 2 * strength``: the prox of ``w != 0`` (L0).

    Args:
      path: not used.
      array: float array of any shape.
      strength: scalar.

    References:
      Blumensath and Davies, 2008, https://arxiv.org/abs/0805.0510

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> jc.prune.training.hard_threshold("", jnp.array([-3.0, 0.5, 2.0]), 1.0).tolist()
      [-3.0, 0.0, 2.0]
    """
    del path
    # Not squared: the square of a small weight would underflow.
    small = jnp.abs(_widen(array)) < jnp.sqrt(2 * jnp.asarray(strength, jnp.float32))
    return jnp.where(small, jnp.zeros((), array.dtype), array)


def group_soft_threshold(groups: Slices | Blocks = Slices()) -> Prox:  # noqa: B008
    """Make a prox that shrinks groups of weights together: the prox of the group lasso.

    The penalty of a group of ``g`` weights is ``sqrt(g)`` times its Euclidean norm, so
    groups of different sizes shrink alike. A group whose norm is at most
    ``strength * sqrt(g)`` becomes zero as a whole.

    Args:
      groups: ``Slices()`` for whole outputs, ``Slices(axis)``, or ``Blocks(shape)``.

    Returns:
      ``(path, array, strength) -> array``.

    References:
      Yuan and Lin, 2006, https://doi.org/10.1111/j.1467-9868.2005.00532.x; Wen et al.,
      2016, https://arxiv.org/abs/1608.03665

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> kernel = jnp.array([[3.0, 0.5], [4.0, 0.5]])
      >>> jc.prune.training.group_soft_threshold()("kernel", kernel, 2.5 / 2**0.5).tolist()
      [[1.5, 0.0], [2.0, 0.0]]
    """

    def prox(path: str, array: jax.Array, strength: jax.Array | float) -> jax.Array:
        extents = groups.extents(path, array.shape)
        wide = _widen(array)
        norm = jnp.sqrt(block_sums(wide * wide, extents))
        threshold = strength * jnp.sqrt(block_sizes(array.shape, extents))
        # Compare, to get exact zeros: a computed factor may round to a nonzero value.
        safe_norm = jnp.where(norm > 0, norm, 1)
        factor = jnp.where(norm <= threshold, 0, 1 - threshold / safe_norm)
        shrunk = wide * expand_blocks(factor, array.shape, extents)
        return shrunk.astype(array.dtype)

    return prox


@name_defaults
def l1_pruning(strength: Strength, *, where: Where = is_weight) -> Compressor:
    """Train toward sparse weights with an L1 penalty (proximal soft thresholding).

    Args:
      strength: learning rate times lambda, or a schedule of it; see ``proximal``.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      ValueError: if the strength is negative; in ``init``, if nothing is selected.

    References:
      Daubechies et al., 2004, https://arxiv.org/abs/math/0307152

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.array([[0.5, -0.01]]), "bias": jnp.array([0.01])}
      >>> lasso = jc.prune.l1_pruning(0.25)
      >>> params, _ = lasso.update(params, lasso.init(params))
      >>> params["kernel"].tolist(), params["bias"].tolist() != [0.0]
      ([[0.25, 0.0]], True)
    """
    return proximal(soft_threshold, strength=strength, where=where)


@name_defaults
def l0_pruning(strength: Strength, *, where: Where = is_weight) -> Compressor:
    """Train toward few nonzero weights with an L0 penalty (iterative hard thresholding).

    Weights above ``sqrt(2 * strength)`` in magnitude are not shrunk. Smaller weights
    are set to zero, and stay there unless a single optimizer step carries them over the
    threshold.

    Args:
      strength: learning rate times lambda, or a schedule of it; see ``proximal``.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      ValueError: if the strength is negative; in ``init``, if nothing is selected.

    References:
      Blumensath and Davies, 2008, https://arxiv.org/abs/0805.0510

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.array([[0.5, -0.25]])}
      >>> jc.compress(jc.prune.l0_pruning(0.1), params)["kernel"].tolist()
      [[0.5, 0.0]]
    """
    return proximal(hard_threshold, strength=strength, where=where)


@name_defaults
def group_lasso_pruning(
    strength: Strength,
    *,
    groups: Slices | Blocks = Slices(),  # noqa: B008
    where: Where = is_weight,
) -> Compressor:
    """Train toward outputs or blocks that are zero as a whole, with a group lasso penalty.

    It works by proximal steps. The last group of a leaf is not protected: if the
    strength is too high, all groups become zero.

    Args:
      strength: learning rate times lambda, or a schedule of it; see ``proximal``.
      groups: ``Slices()`` for whole outputs, ``Slices(axis)``, or ``Blocks(shape)``.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      ValueError: if the strength is negative; in ``init``, if nothing is selected, or
        the groups of a leaf are ambiguous.

    References:
      Wen et al., 2016, https://arxiv.org/abs/1608.03665

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.array([[3.0, 0.5], [4.0, 0.5]])}
      >>> jc.compress(jc.prune.group_lasso_pruning(0.7), params)["kernel"][:, 1].tolist()
      [0.0, 0.0]
    """
    return proximal(group_soft_threshold(groups), strength=strength, where=where)


def _widen(array: jax.Array) -> jax.Array:
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def _warn_if_empty(path: str, leaf: jax.Array) -> None:
    if not isinstance(leaf, Tracer) and leaf.size and not bool(jnp.any(leaf)):
        warn(
            f"{path!r} has only zeros left, so its layer passes nothing on. Lower the "
            "strength, or exclude this leaf with `where=`."
        )


def _check_unchanged_type(path: str, old: Any, new: Any) -> None:
    if (old.shape, old.dtype) != (new.shape, new.dtype):
        raise ValueError(
            f"{path!r}: prox must keep shape and dtype, got {new.dtype}{list(new.shape)} "
            f"from {old.dtype}{list(old.shape)}."
        )


def _check_strength(strength: Strength) -> None:
    if isinstance(strength, str):
        raise TypeError(
            f"strength must be a number or an optax schedule, got the string {strength!r}."
        )
    if callable(strength) or isinstance(strength, Tracer):
        return
    if not strength >= 0:
        raise ValueError(
            "strength (learning rate times lambda) must be at least 0, got "
            f"strength={strength}."
        )
