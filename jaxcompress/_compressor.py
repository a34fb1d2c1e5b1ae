# SPDX-License-Identifier: Apache-2.0
"""The core abstraction: a compressor is four pure functions on a parameter pytree."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax

from ._arguments import check_compressor, check_params
from ._mesh import on_any_mesh
from ._types import PyTree
from ._wrong_state import name_wrong_state

_Mark = TypeVar("_Mark")


def keep(params: PyTree, state: PyTree, **extras: Any) -> tuple[PyTree, PyTree]:
    """Return the parameters and the state unchanged: the default ``update``."""
    del extras
    return params, state


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compressor:
    """A compression technique, written as four pure functions.

    Build one to add a technique; ``train_step``, ``chain`` and ``compress`` take it.

    Laws (``jaxcompress.testing.check_compressor`` tests them):

    1. ``apply`` keeps structure, shapes, dtypes and sharding.
    2. ``update`` keeps the structure, shapes and dtypes of the state.
    3. All four run under ``jit``, agree with eager execution, and trace once.
    4. ``dense(finalize(p, s)) == apply(p, s)``, bit for bit.
    5. Unselected leaves come back bit-identical.
    6. ``apply`` is idempotent.

    Attributes:
      init: ``params -> state``. The state is any pytree of arrays.
      apply: ``(params, state) -> params``. Returns the *view*: the parameters that the
        model sees. Differentiable.
      update: ``(params, state, **extras) -> (params, state)``. Runs once per training
        step, after the optimizer. It may change the parameters (projection, regrowth,
        rewinding). ``grads=`` is the gradient at the view. It must ignore extras that
        it does not know. Default: no change.
      finalize: ``(params, state) -> params``. Returns the tree to ship, whose leaves may
        be compressed nodes. Default: ``apply``.
      penalty: ``(params, state) -> {name: float []}``: terms that training adds to the
        loss, such as the bits of the file. Differentiable with respect to the parameters
        and everything ``Learned``. Default: None, no term.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> def clip(bound):  # a complete technique
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
    penalty: Callable[[PyTree, PyTree], dict[str, jax.Array]] | None = None

    def __post_init__(self) -> None:
        if self.finalize is None:
            object.__setattr__(self, "finalize", self.apply)
        if self.penalty is not None and not callable(self.penalty):
            raise TypeError(
                "penalty must be a function (params, state) -> {name: scalar}, got a "
                f"{type(self.penalty).__name__}."
            )
        wrapped = {keep: keep}  # `keep` itself says that a compressor has no update.
        init = self.init
        for field in dataclasses.fields(self):
            fn = getattr(self, field.name)
            if fn is None:
                continue
            named = fn if fn is init else name_wrong_state(fn, init)
            wrapped.setdefault(fn, on_any_mesh(named))
            object.__setattr__(self, field.name, wrapped[fn])


def identity() -> Compressor:
    """A compressor that does nothing, for a dense baseline in the same training loop."""
    return Compressor(init=lambda params: (), apply=lambda params, state: params)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Learned:
    """Marks arrays in a compressor's state that the optimizer trains.

    Wrap step sizes or thresholds in it. ``train_step`` differentiates the loss with
    respect to ``value`` and optimizes it together with the parameters.

    Attributes:
      value: pytree of float arrays.
    """

    value: PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Active:
    """Marks in a compressor's state which weights are trained now.

    ``train_step`` and ``wrap_optimizer`` reset the optimizer state of all other weights
    to its initial value. A weight that is regrown later starts without old momentum.

    Attributes:
      masks: tree like the parameters, of bool arrays; None for leaves that are not
        pruned.
    """

    masks: PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Restart:
    """Marks in a compressor's state that the last update rewound the parameters.

    ``train_step`` and ``wrap_optimizer`` then reset the optimizer state.

    Attributes:
      now: bool []. True if the last update replaced the parameters.
    """

    now: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Teacher:
    """Marks earlier parameters in a compressor's state that serve as a teacher.

    ``train_step`` passes them to the loss function as ``teacher=``.

    Attributes:
      params: tree like the parameters, with floats in float32 or wider.
    """

    params: PyTree


def marks(state: PyTree, kind: type[_Mark]) -> list[_Mark]:
    """Return all marks of one kind in a state, in tree order."""
    nodes = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, kind))
    return [node for node in nodes if isinstance(node, kind)]


def split_learned(state: PyTree) -> tuple[list[PyTree], Callable[..., PyTree]]:
    """Extract the learned parameters from a compressor's state.

    Returns:
      ``(values, rebuild)``. ``values`` lists what the ``Learned`` marks hold, in tree
      order, and is empty if there are no marks. ``rebuild(values)`` returns the state
      with other values in their place.
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
    """Compress trained parameters in one call: ``init``, one ``update``, ``finalize``.

    Args:
      compressor: any compressor.
      params: trained parameter tree.
      **extras: passed to ``update``, such as ``grads=`` or ``stats=``.

    Returns:
      The finalized tree. Its leaves may be compressed nodes; ``dense`` converts them back
      to arrays.

    Raises:
      TypeError: if the arguments are of the wrong kind or in another order.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.array([[1.0, -0.1], [0.2, 4.0]])}
      >>> jc.compress(jc.magnitude_pruning(0.5), params)["kernel"].tolist()
      [[1.0, 0.0], [0.0, 4.0]]
    """
    call = "compress(compressor, params)"
    check_compressor(compressor, call)
    check_params(params, call)
    params, state = compressor.update(params, compressor.init(params), **extras)
    return compressor.finalize(params, state)
