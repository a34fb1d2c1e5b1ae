# SPDX-License-Identifier: Apache-2.0
"""The one abstraction: a compressor is four pure functions over a parameter pytree."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax

PyTree = Any
_Mark = TypeVar("_Mark")


def keep(params: PyTree, state: PyTree, **extras: Any) -> tuple[PyTree, PyTree]:
    """The default ``update``: nothing moves."""
    del extras
    return params, state


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compressor:
    """One technique, as four pure functions.

    Laws (``jaxcompress.testing.check_compressor`` tests them):

    1. ``apply`` keeps structure, shapes, dtypes and sharding.
    2. ``update`` keeps the structure, shapes and dtypes of the state.
    3. All of them run under ``jit``, agree with eager execution, and trace once.
    4. ``dense(finalize(p, s)) == apply(p, s)``, bit for bit.
    5. Leaves that are not selected come back bit-identical.
    6. ``apply`` is idempotent.

    Attributes:
      init: ``params -> state``. The state is any pytree of arrays.
      apply: ``(params, state) -> params``. The *view*: what the model sees.
        Differentiable.
      update: ``(params, state, **extras) -> (params, state)``. One step onward, after
        the optimizer's. It may move the parameters (projection, regrowth, rewinding).
        ``grads=`` is the gradient at the view; unknown extras are ignored. Default:
        nothing moves.
      finalize: ``(params, state) -> params``. What ships: leaves may become compressed
        nodes. Default: ``apply``.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> def clip(bound):  # a whole technique
      ...     def apply(params, state):
      ...         return jax.tree.map(lambda p: jnp.clip(p, -bound, bound), params)
      ...     return jc.Compressor(init=lambda params: (), apply=apply)
      >>> jc.compress(clip(1.0), {"w": jnp.array([-3.0, 0.5])})
      {'w': Array([-1. ,  0.5], dtype=float32)}
    """

    init: Callable[[PyTree], PyTree]
    apply: Callable[[PyTree, PyTree], PyTree]
    update: Callable[..., tuple[PyTree, PyTree]] = keep
    finalize: Callable[[PyTree, PyTree], PyTree] = None  # pyright: ignore[reportAssignmentType]

    def __post_init__(self) -> None:
        if self.finalize is None:
            object.__setattr__(self, "finalize", self.apply)


def identity() -> Compressor:
    """The compressor that does nothing: the dense baseline in the same loop."""
    return Compressor(init=lambda params: (), apply=lambda params, state: params)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Learned:
    """Marks parameters of a compressor that the optimizer should train.

    Put it in the state around arrays (step sizes, thresholds); ``train_step``
    differentiates and optimizes what is inside, beside the parameters.

    Attributes:
      value: a pytree of float arrays.
    """

    value: PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Active:
    """Marks, in a state, which weights are trained now.

    ``train_step`` and ``wrap_optimizer`` keep the optimizer's state of the others as it
    was at the start, so that a weight that grows again has none of its old momentum.

    Attributes:
      masks: bool arrays like the parameters; None where a leaf is not pruned.
    """

    masks: PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Restart:
    """Marks, in a state, that the parameters were exchanged (rewound).

    ``train_step`` and ``wrap_optimizer`` then start the optimizer anew.

    Attributes:
      now: bool []: whether they were in the last update.
    """

    now: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Teacher:
    """Marks, in a state, parameters of the past that the network learns from.

    ``train_step`` hands what is inside to the loss function, as ``teacher=``.

    Attributes:
      params: like the parameters, floats in float32 or wider.
    """

    params: PyTree


def marks(state: PyTree, kind: type[_Mark]) -> list[_Mark]:
    """All marks of a kind in a state, in tree order."""
    nodes = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, kind))
    return [node for node in nodes if isinstance(node, kind)]


def split_learned(state: PyTree) -> tuple[list[PyTree], Callable[..., PyTree]]:
    """Take the learned parameters out of a state.

    Returns:
      The values inside ``Learned`` marks, in tree order (an empty list if there are
      none), and a function that puts others in their place.
    """

    def is_learned(x: Any) -> bool:
        return isinstance(x, Learned)

    nodes, treedef = jax.tree.flatten(state, is_leaf=is_learned)
    learned = [node.value for node in nodes if is_learned(node)]

    def rebuild(values: list[PyTree]) -> PyTree:
        new = iter(values)
        return treedef.unflatten(
            [Learned(next(new)) if is_learned(node) else node for node in nodes]
        )

    return learned, rebuild


def compress(compressor: Compressor, params: PyTree, **extras: Any) -> PyTree:
    """Compress parameters after training: ``init``, one ``update``, ``finalize``.

    Args:
      compressor: any compressor.
      params: a trained parameter tree.
      **extras: what its ``update`` needs, such as ``grads=`` or ``stats=``.

    Returns:
      The finalized tree, whose leaves may be compressed nodes; ``dense`` opens it.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.array([[1.0, -0.1], [0.2, 4.0]])}
      >>> jc.compress(jc.magnitude_pruning(0.5), params)["kernel"].tolist()
      [[1.0, 0.0], [0.0, 4.0]]
    """
    params, state = compressor.update(params, compressor.init(params), **extras)
    return compressor.finalize(params, state)
