# SPDX-License-Identifier: Apache-2.0
"""Training: one step that differentiates the view, optimizes, and moves the compressor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ._compressor import Compressor, PyTree, Teacher, identity, marks, split_learned
from ._fresh import fresh
from ._loss import call, total_of
from ._micro_batches import loss_and_grads


class TrainState(NamedTuple):
    """Everything that training carries; an ordinary pytree."""

    params: PyTree  # raw parameters; what the model sees is compressor.apply of them
    opt_state: PyTree  # of `tx`; a pair of them where the compressor learns too
    compression: PyTree  # the compressor's state
    model_state: PyTree  # batch statistics and the like; None if the model has none
    rng: jax.Array | None  # base key; step t uses fold_in(rng, t)
    step: jax.Array  # int32 []: steps done


Init = Callable[..., TrainState]
Step = Callable[..., tuple[TrainState, dict[str, jax.Array]]]


def train_step(
    loss_fn: Callable[..., Any],
    tx: optax.GradientTransformation,
    compressor: Compressor | None = None,
    *,
    learned_tx: optax.GradientTransformation | None = None,
    schedules: Mapping[str, optax.Schedule] = MappingProxyType({}),
    micro_batches: int = 1,
    donate: bool = False,
) -> tuple[Init, Step]:
    """Make the two functions of a training loop.

    One step takes the gradient at the view (dense, also where a mask is zero), pulls it
    back to the raw parameters and to what the compressor has marked ``Learned``, lets
    optax move them, and then lets the compressor's ``update`` see the result, with that
    gradient (``grads=``), the loss (``value=``) and the raw parameters that both were
    taken at (``before=``).

    Args:
      loss_fn: ``(view, batch, *args, **known) -> loss`` or ``(loss, Aux)``. The loss is a
        scalar, a ``Mean``, or a dict of them by name: terms, which are added, and stand
        in the metrics by themselves. The ``*args`` are those of ``step``: what belongs to
        no batch, such as a teacher's parameters. By keyword come ``model_state=`` and
        ``rng=``, if ``init`` got them; ``teacher=``, if the compressor keeps one
        (``distill.ema_teacher``); and the values of ``schedules``. With a model state the
        loss returns the new one in ``Aux``; what is ``Learned`` in it (the scales of
        ``quantize_activations``) is trained too.
      tx: any optax optimizer; those that want the loss value get it.
      compressor: what compresses the parameters; None trains the dense baseline.
      learned_tx: optimizer of the compressor's learned parameters; None: ``tx``.
      schedules: optax schedules of what the loss takes by keyword, such as
        ``{"temperature": optax.linear_schedule(8.0, 1.0, 1000)}``; it gets the value at
        ``state.step``, traced.
      micro_batches: split the leading axis of every batch leaf into so many parts and
        add up their gradients, with one view for all. Scalars are averaged; a ``Mean``
        is that of the whole batch, however unequal the parts are. On CPU prefer 1 for
        convolutions, which are slow inside the loop this makes.
      donate: let ``step`` reuse the memory of the state it is given, which the caller
        then must not touch again.

    Returns:
      ``init(params, *, model_state=None, rng=None) -> TrainState`` and a jitted
      ``step(state, batch, *args) -> (state, metrics)`` with ``metrics["loss"]``.

    Raises:
      TypeError: if a schedule is no function of the step.
      ValueError: if a schedule has the name of something else that the loss is given. In
        ``init``, if the compressor keeps two teachers. In ``step``, if the loss is no
        scalar, the batch does not divide into micro-batches, or a model state is not
        returned.

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
    tx = optax.with_extra_args_support(tx)
    learned_tx = tx if learned_tx is None else optax.with_extra_args_support(learned_tx)
    if micro_batches < 1:
        raise ValueError(f"micro_batches={micro_batches} is below 1.")
    _check_schedules(schedules)

    def init(
        params: PyTree, *, model_state: PyTree = None, rng: jax.Array | None = None
    ) -> TrainState:
        compression = c.init(params)
        _teacher(compression)  # refused here if there are two
        opt_state = _strong(tx.init(params))
        if donate:  # some start from the parameters themselves, or from one zero twice
            opt_state, compression, model_state = jax.tree.map(
                jnp.copy, (opt_state, compression, model_state)
            )
        learned, _ = split_learned((compression, model_state))
        if learned:
            opt_state = (opt_state, _strong(learned_tx.init(learned)))
        step = jnp.zeros((), jnp.int32)
        return TrainState(params, opt_state, compression, model_state, rng, step)

    def step(
        state: TrainState, batch: PyTree, *args: Any
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        known = {name: at(state.step) for name, at in schedules.items()}
        known |= _teacher(state.compression)
        if state.model_state is not None:
            known["model_state"] = state.model_state
        if state.rng is not None:
            known["rng"] = jax.random.fold_in(state.rng, state.step)
        learned, rebuild = split_learned(state.compression)

        def view_of(params: PyTree, learned: Any) -> PyTree:
            return c.apply(params, rebuild(learned))

        view, pullback = jax.vjp(view_of, state.params, learned)
        taken = loss_and_grads(loss_fn, view, batch, args, known, micro_batches)
        loss = taken.metrics["loss"]
        grads, learned_grads = pullback(taken.view_grads)

        def value_fn(params: PyTree) -> jax.Array:  # for optimizers with a line search
            view = view_of(params, learned)
            return total_of(call(loss_fn, view, batch, args, known)[0])

        in_model, rebuild_model = split_learned(taken.model_state)
        number = len(learned)
        learned = learned + in_model
        learned_grads = learned_grads + taken.model_grads
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
        params, compression = c.update(
            params,
            rebuild(learned[:number]),
            grads=taken.view_grads,
            value=loss,
            before=state.params,
        )
        state = TrainState(
            params,
            opt_state,
            compression,
            rebuild_model(learned[number:]),
            state.rng,
            state.step + 1,
        )
        return state, taken.metrics

    return init, jax.jit(step, donate_argnums=(0,) if donate else ())


def _strong(tree: PyTree) -> PyTree:
    """Without weak types, which some optimizers start from and step 2 would recompile."""

    def strong(x: jax.Array) -> jax.Array:
        weak = jax.typeof(x).weak_type
        return lax.convert_element_type(x, x.dtype) if weak else x

    return jax.tree.map(strong, tree)


def _check_schedules(schedules: Mapping[str, optax.Schedule]) -> None:
    for name, schedule in schedules.items():
        if name in ("model_state", "rng", "teacher"):
            raise ValueError(
                f"{name!r} of schedules= is what the loss is given already; choose "
                "another name."
            )
        if not callable(schedule):
            raise TypeError(
                f"{name!r} of schedules= is {schedule!r}, no function of the step. For a "
                f"constant take optax.constant_schedule, or write it into the loss."
            )


def _teacher(compression: PyTree) -> dict[str, PyTree]:
    """The one that a compressor keeps, by the keyword that the loss gets it by."""
    teachers = marks(compression, Teacher)
    if len(teachers) > 1:
        raise ValueError(
            f"the compressor keeps {len(teachers)} teachers, and the loss takes one: "
            "chain one ema_teacher or earlier_teacher only."
        )
    return {"teacher": teachers[0].params} if teachers else {}
