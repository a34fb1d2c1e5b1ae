# SPDX-License-Identifier: Apache-2.0
"""Training: one step that takes gradients, optimizes, and updates the compressor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ._arguments import (
    check_compressor,
    check_differentiable,
    check_flags,
    check_function,
    check_kind,
    check_optimizer,
    check_params,
    check_whole,
)
from ._compressor import Compressor, Teacher, identity, marks, split_learned
from ._fresh import fresh
from ._loss import LossFn, call, total_of
from ._mesh import on_any_mesh
from ._micro_batches import loss_and_grads
from ._penalty import add_terms, penalty_and_grads, penalty_of
from ._skip import all_finite, keep_unless
from ._types import PyTree

__all__ = [
    "TrainState",
    "train_step",
]


class TrainState(NamedTuple):
    """The complete state of a training run, as an ordinary pytree."""

    params: (
        PyTree  # raw parameters; the model sees compressor.apply(params, compression)
    )
    opt_state: PyTree  # state of `tx`; a pair (tx, learned_tx) if anything is `Learned`
    compression: PyTree  # the compressor's state
    model_state: PyTree  # batch statistics and the like; None if the model has no state
    rng: jax.Array | None  # base key; step t uses fold_in(rng, t)
    step: jax.Array  # int32 []: number of completed steps


class Init(Protocol):
    """Starts a training run: the first function of ``train_step``."""

    def __call__(
        self,
        params: PyTree,
        *,
        model_state: PyTree = None,
        rng: jax.Array | None = None,
    ) -> TrainState:
        """Return the state before the first step."""
        ...


class Step(Protocol):
    """Takes one training step, jitted: the second function of ``train_step``."""

    def __call__(
        self, state: TrainState, batch: PyTree, *args: Any
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Return the new state, and the metrics by name."""
        ...

    def lower(self, state: TrainState, batch: PyTree, *args: Any) -> Any:
        """Lower the step for these shapes, to look at the program or compile it ahead."""
        ...


_CALL = "train_step(loss_fn, tx, compressor)"


def train_step(
    loss_fn: LossFn,
    tx: optax.GradientTransformation,
    compressor: Compressor | None = None,
    *,
    learned_tx: optax.GradientTransformation | None = None,
    schedules: Mapping[str, optax.Schedule] = MappingProxyType({}),
    micro_batches: int = 1,
    donate: bool = False,
) -> tuple[Init, Step]:
    """Build the ``init`` and ``step`` functions of a training loop with compression.

    Each step:

    1. takes the gradient at the view (dense, even where a mask is zero);
    2. pulls it back to the raw parameters and to everything marked ``Learned``, and adds
       the gradient of the compressor's ``penalty`` (``rate.entropy_constrained``), whose
       terms appear in the loss and the metrics;
    3. updates both with optax;
    4. calls the compressor's ``update`` with the gradient at the view (``grads=``), the
       loss (``value=``) and the raw parameters from before the step (``before=``).

    If the loss or a gradient is not finite, the compressor and the model state stay as
    they were, as an optimizer inside ``optax.apply_if_finite`` does. What is ``Learned`` is
    moved by an optimizer, like the parameters: only such an optimizer keeps it.

    Args:
      loss_fn: ``(view, batch, *args, **kwargs) -> loss`` or ``(loss, Aux)``. The loss is
        a scalar, a ``Mean``, or a dict of named terms, each a scalar or a ``Mean``. Terms
        are summed, and each also appears in the metrics. ``*args`` are those of ``step``,
        for inputs that are not part of a batch, such as a teacher's parameters. The
        keyword arguments are ``model_state=`` and ``rng=`` if ``init`` received them,
        ``teacher=`` if the compressor keeps a teacher (``distill.ema_teacher``), and the
        values of ``schedules``. A loss that takes ``model_state`` must return the new one
        in ``Aux``. ``Learned`` values in it (the scales of ``quantize_activations``) are
        trained too.
      tx: any optax optimizer. Optimizers that need the loss value receive it.
      compressor: compressor of the parameters; None trains the dense baseline.
      learned_tx: optimizer for ``Learned`` values; None uses ``tx``.
      schedules: optax schedules for keyword arguments of the loss, such as
        ``{"temperature": optax.linear_schedule(8.0, 1.0, 1000)}``. The loss receives the
        traced value at ``state.step``.
      micro_batches: number of parts to split the leading axis of every batch leaf into.
        Their gradients are accumulated at the same view. Scalars are averaged; a
        ``Mean`` is exact for the whole batch, even if the parts are unequal. On CPU
        prefer 1 for convolutions, which are slow inside a loop.
      donate: let ``step`` reuse the memory of its input state. The caller must not use
        that state again.

    Returns:
      ``init(params, *, model_state=None, rng=None) -> TrainState`` and a jitted
      ``step(state, batch, *args) -> (state, metrics)`` with ``metrics["loss"]``.

    Raises:
      TypeError: if an argument is of the wrong kind, or a schedule is not a function of
        the step. In ``init``, if a parameter has no gradient.
      ValueError: if ``micro_batches`` is below 1, or if a schedule has the name of another
        keyword argument of the loss. In ``init``, if the compressor keeps two teachers.
        In ``step``, if the loss is not a scalar, the batch does not divide into
        micro-batches, or the loss returns no model state.

    Example:
      >>> import jax.numpy as jnp, optax, jaxcompress as jc
      >>> def loss_fn(params, batch):
      ...     return jnp.mean((batch["x"] @ params["kernel"] - batch["y"]) ** 2)
      >>> init, step = jc.train_step(loss_fn, optax.sgd(0.1), jc.magnitude_pruning(0.5))
      >>> state = init({"kernel": jnp.ones((4, 2))})
      >>> state, metrics = step(state, {"x": jnp.ones((8, 4)), "y": jnp.ones((8, 2))})
      >>> float(metrics["loss"]), int(state.step)
      (1.0, 1)
    """
    c = identity() if compressor is None else compressor
    check_function(loss_fn, _CALL)
    check_optimizer(tx, _CALL)
    check_compressor(c, _CALL)
    tx = optax.with_extra_args_support(tx)
    if learned_tx is None:
        learned_tx = _for_learned_values(tx)
    else:
        check_optimizer(learned_tx, "learned_tx=")
        learned_tx = optax.with_extra_args_support(learned_tx)
    check_whole(micro_batches=micro_batches)
    check_flags(donate=donate)
    if micro_batches < 1:
        raise ValueError(f"micro_batches must be at least 1, got {micro_batches}.")
    _check_schedules(schedules)

    @on_any_mesh
    def init(
        params: PyTree, *, model_state: PyTree = None, rng: jax.Array | None = None
    ) -> TrainState:
        check_params(params, "init(params)")
        check_differentiable(params)
        compression = c.init(params)
        _teacher_kwargs(compression)  # Raises here if there are two teachers.
        opt_state = _strengthen(tx.init(params))
        # Copy, because some states alias the parameters or contain one array twice, and a
        # buffer can be donated only once.
        if donate:
            opt_state, compression, model_state = jax.tree.map(
                jnp.copy, (opt_state, compression, model_state)
            )
        learned, _ = split_learned((compression, model_state))
        if learned:
            opt_state = (opt_state, _strengthen(learned_tx.init(learned)))
        step = jnp.zeros((), jnp.int32)
        return TrainState(params, opt_state, compression, model_state, rng, step)

    def step(
        state: TrainState, batch: PyTree, *args: Any
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        made = "the state that init(params) returned"
        check_kind(state, TrainState, "step(state, batch)", made)
        kwargs = {name: schedule(state.step) for name, schedule in schedules.items()}
        kwargs |= _teacher_kwargs(state.compression)
        if state.model_state is not None:
            kwargs["model_state"] = state.model_state
        if state.rng is not None:
            kwargs["rng"] = jax.random.fold_in(state.rng, state.step)
        learned, rebuild = split_learned(state.compression)

        def view_of(params: PyTree, learned: Any) -> PyTree:
            return c.apply(params, rebuild(learned))

        view, pullback = jax.vjp(view_of, state.params, learned)
        result = loss_and_grads(loss_fn, view, batch, args, kwargs, micro_batches)
        grads, learned_grads = pullback(result.view_grads)
        metrics, penalty_grads = result.metrics, ()
        if c.penalty is not None:
            terms, penalty_grads = penalty_and_grads(c, state.params, learned, rebuild)
            grads, learned_grads = jax.tree.map(
                jnp.add, (grads, learned_grads), penalty_grads
            )
            metrics = add_terms(metrics, terms)
        loss = metrics["loss"]

        def value_fn(params: PyTree) -> jax.Array:  # for optimizers with a line search
            view = view_of(params, learned)
            value = total_of(call(loss_fn, view, batch, args, kwargs)[0])
            return value + penalty_of(c, params, rebuild(learned))

        model_learned, rebuild_model = split_learned(result.model_state)
        split = len(learned)
        learned = learned + model_learned
        learned_grads = learned_grads + result.model_grads
        extras = {"value": loss, "grad": grads, "value_fn": value_fn}
        opt_state, learned_state = state.opt_state if learned else (state.opt_state, ())
        opt_state = fresh(tx, opt_state, state.params, state.compression)
        updates, opt_state = tx.update(grads, opt_state, state.params, **extras)
        params = optax.apply_updates(state.params, updates)
        if learned:
            updates, learned_state = learned_tx.update(
                learned_grads, learned_state, learned, value=loss, grad=learned_grads
            )
            learned = jax.tree.map(optax.apply_updates, learned, updates)
            opt_state = (opt_state, learned_state)
        before = (params, rebuild(learned[:split]))
        params, compression = c.update(
            *before, grads=result.view_grads, value=loss, before=state.params
        )
        model_state = rebuild_model(learned[split:])
        finite = all_finite((loss, result.view_grads, penalty_grads))
        params, compression = keep_unless(finite, (params, compression), before)
        model_state = keep_unless(finite, model_state, state.model_state)
        state = TrainState(
            params, opt_state, compression, model_state, state.rng, state.step + 1
        )
        return state, metrics

    return init, jax.jit(step, donate_argnums=(0,) if donate else ())


def _for_learned_values(
    tx: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """Train learned values by ``tx``; where it does not fit, name ``learned_tx``."""

    def named(fn: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return fn(*args, **kwargs)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    "tx does not fit the learned values (scales, thresholds), which are "
                    "a list of arrays without the names of the parameters. Give them an "
                    "optimizer of their own: learned_tx=optax.adam(1e-3)."
                ) from error

        return call

    return optax.GradientTransformationExtraArgs(named(tx.init), named(tx.update))


def _strengthen(tree: PyTree) -> PyTree:
    """Remove weak types, which some optimizers start from.

    With weak types the second step would recompile.
    """

    def strengthen(x: jax.Array) -> jax.Array:
        weak = jax.typeof(x).weak_type
        return lax.convert_element_type(x, x.dtype) if weak else x

    return jax.tree.map(strengthen, tree)


def _check_schedules(schedules: Mapping[str, optax.Schedule]) -> None:
    for name, schedule in schedules.items():
        if name in ("model_state", "rng", "teacher"):
            raise ValueError(
                f"schedules= cannot use the name {name!r}, which train_step passes to the "
                "loss itself. Choose another name."
            )
        if not callable(schedule):
            raise TypeError(
                f"schedules[{name!r}] must be a function of the step, got {schedule!r}. "
                "For a constant use optax.constant_schedule, or write it into the loss."
            )


def _teacher_kwargs(compression: PyTree) -> dict[str, PyTree]:
    """Return ``{"teacher": params}`` if the compressor keeps a teacher, else ``{}``."""
    teachers = marks(compression, Teacher)
    if len(teachers) > 1:
        raise ValueError(
            f"the compressor keeps {len(teachers)} teachers, but the loss takes only one. "
            "Chain only one ema_teacher or earlier_teacher."
        )
    return {"teacher": teachers[0].params} if teachers else {}
