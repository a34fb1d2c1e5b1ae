# SPDX-License-Identifier: Apache-2.0
"""Training: one step that differentiates the view, optimizes, and moves the compressor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ._compressor import Compressor, PyTree, identity, split_learned
from ._fresh import fresh


class TrainState(NamedTuple):
    """Everything that training carries; an ordinary pytree."""

    params: PyTree  # raw parameters; what the model sees is compressor.apply of them
    opt_state: PyTree  # of `tx`; a pair of them where the compressor learns too
    compression: PyTree  # the compressor's state
    model_state: PyTree  # batch statistics and the like; None if the model has none
    rng: jax.Array | None  # base key; step t uses fold_in(rng, t)
    step: jax.Array  # int32 []: steps done


class Aux(NamedTuple):
    """What a loss function may return beside the loss: ``return loss, Aux(...)``."""

    metrics: Mapping[str, jax.Array] = {}  # scalars; averaged over micro-batches
    model_state: PyTree = None  # the new model state, where the model has one


Init = Callable[..., TrainState]
Step = Callable[..., tuple[TrainState, dict[str, jax.Array]]]


def train_step(
    loss_fn: Callable[..., Any],
    tx: optax.GradientTransformation,
    compressor: Compressor | None = None,
    *,
    learned_tx: optax.GradientTransformation | None = None,
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
      loss_fn: ``(view, batch, *args, model_state=, rng=) -> loss`` or ``(loss, Aux)``.
        The loss is a scalar. ``model_state`` and ``rng`` are passed if ``init`` got them;
        with a model state the loss returns the new one in ``Aux``; what is ``Learned`` in
        it (the scales of ``quantize_activations``) is trained too. The ``*args`` are those
        of ``step``: what belongs to no batch, such as a teacher's parameters.
      tx: any optax optimizer; those that want the loss value get it.
      compressor: what compresses the parameters; None trains the dense baseline.
      learned_tx: optimizer of the compressor's learned parameters; None: ``tx``.
      micro_batches: split the leading axis of every batch leaf into so many parts and
        average their gradients, with one view for all. On CPU prefer 1 for convolutions,
        which are slow inside the loop this makes.
      donate: let ``step`` reuse the memory of the state it is given, which the caller
        then must not touch again.

    Returns:
      ``init(params, *, model_state=None, rng=None) -> TrainState`` and a jitted
      ``step(state, batch, *args) -> (state, metrics)`` with ``metrics["loss"]``.

    Raises:
      ValueError: in ``step``, if the loss is no scalar, the batch does not divide into
        micro-batches, or a model state is not returned.

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

    def init(
        params: PyTree, *, model_state: PyTree = None, rng: jax.Array | None = None
    ) -> TrainState:
        compression = c.init(params)
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
        rng = None if state.rng is None else jax.random.fold_in(state.rng, state.step)
        learned, rebuild = split_learned(state.compression)

        def view_of(params: PyTree, learned: Any) -> PyTree:
            return c.apply(params, rebuild(learned))

        view, pullback = jax.vjp(view_of, state.params, learned)
        loss, aux, (view_grads, model_grads) = _loss_and_grads(
            loss_fn, view, batch, args, state.model_state, rng, micro_batches
        )
        grads, learned_grads = pullback(view_grads)

        def value_fn(params: PyTree) -> jax.Array:  # for optimizers with a line search
            view = view_of(params, learned)
            return _call(loss_fn, view, batch, args, state.model_state, rng)[0]

        in_model, rebuild_model = split_learned(aux.model_state)
        number = len(learned)
        learned, learned_grads = learned + in_model, learned_grads + model_grads
        known = {"value": loss, "grad": grads, "value_fn": value_fn}
        opt_state, learned_state = state.opt_state if learned else (state.opt_state, ())
        opt_state = fresh(tx, opt_state, state.params, state.compression)
        updates, opt_state = tx.update(grads, opt_state, state.params, **known)
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
            grads=view_grads,
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
        return state, {"loss": loss, **aux.metrics}

    return init, jax.jit(step, donate_argnums=(0,) if donate else ())


def _strong(tree: PyTree) -> PyTree:
    """Without weak types, which some optimizers start from and step 2 would recompile."""

    def strong(x: jax.Array) -> jax.Array:
        weak = jax.typeof(x).weak_type
        return lax.convert_element_type(x, x.dtype) if weak else x

    return jax.tree.map(strong, tree)


def _call(
    loss_fn: Callable[..., Any],
    view: PyTree,
    batch: PyTree,
    args: tuple[Any, ...],
    model_state: PyTree,
    rng: jax.Array | None,
) -> tuple[jax.Array, Aux]:
    known = {"model_state": model_state, "rng": rng}
    given = {name: value for name, value in known.items() if value is not None}
    out = loss_fn(view, batch, *args, **given)
    loss, aux = out if isinstance(out, tuple) else (out, Aux())
    if not isinstance(aux, Aux):
        raise TypeError(
            f"the loss function returned {type(aux).__name__} beside the loss; return "
            "`loss` or `loss, jaxcompress.Aux(metrics={...}, model_state=...)`."
        )
    if jnp.ndim(loss):
        raise ValueError(
            f"the loss has shape {jnp.shape(loss)}: reduce it to a scalar, for instance "
            "with .mean()."
        )
    if model_state is not None and aux.model_state is None:
        raise ValueError(
            "init was given a model_state, so the loss function returns the new one: "
            "`return loss, jaxcompress.Aux(model_state=...)`."
        )
    return loss, aux


def _loss_and_grads(
    loss_fn: Callable[..., Any],
    view: PyTree,
    batch: PyTree,
    args: tuple[Any, ...],
    model_state: PyTree,
    rng: jax.Array | None,
    parts: int,
) -> tuple[jax.Array, Aux, PyTree]:
    """Loss, aux, and gradients at the view and at what the model state has ``Learned``.

    Averaged over micro-batches.
    """

    def one(batch: PyTree, model_state: PyTree, rng: jax.Array | None) -> Any:
        learned, rebuild = split_learned(model_state)

        def loss_of(view: PyTree, learned: list[PyTree]) -> tuple[jax.Array, Aux]:
            return _call(loss_fn, view, batch, args, rebuild(learned), rng)

        return jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)(view, learned)

    if parts == 1:
        (loss, aux), grads = one(batch, model_state, rng)
        return loss, aux, grads

    def body(model_state: PyTree, part: tuple[PyTree, Any]) -> Any:
        (loss, aux), grads = one(part[0], model_state, part[1])
        return aux.model_state, (loss, dict(aux.metrics), grads)

    keys = None if rng is None else jax.random.split(rng, parts)
    split = jax.tree.map(lambda x: _split(x, parts), batch)
    first = jax.tree.map(lambda x: x[0], (split, keys))
    # The sums live in the carry: a stack of gradients would be `parts` times the size.
    shapes = jax.eval_shape(body, model_state, first)[1]
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(carry: tuple[PyTree, PyTree], part: tuple[PyTree, Any]) -> Any:
        new_state, out = body(carry[0], part)
        return (new_state, jax.tree.map(jnp.add, carry[1], out)), None

    (model_state, total), _ = lax.scan(add, (model_state, zeros), (split, keys))
    loss, metrics, grads = jax.tree.map(lambda x: x / parts, total)
    return loss, Aux(metrics, model_state), grads


def _split(x: jax.Array, parts: int) -> jax.Array:
    if not x.shape or x.shape[0] % parts:
        raise ValueError(
            f"a batch leaf of shape {tuple(x.shape)} does not split into {parts} "
            "micro-batches along its leading axis."
        )
    return x.reshape(parts, x.shape[0] // parts, *x.shape[1:])
