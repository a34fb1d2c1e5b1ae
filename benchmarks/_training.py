# SPDX-License-Identifier: Apache-2.0
"""Blocks of training steps for the benchmarks of quantized training."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxcompress as jc

from . import _harness, _networks

TX = optax.adam(1e-6)  # so slow that no variant moves away from the others


def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def block(
    fn: Callable[..., Any],
    variables: Any,
    x: jax.Array,
    steps: int,
    compressor: jc.Compressor | None = None,
    mode: Callable[..., Any] | None = None,
    ranges: Any = None,
) -> _harness.Variant:
    def plain(view: Any, batch: Any) -> jax.Array:
        return loss(fn(view, batch["x"]), batch["y"])

    def rounded(view: Any, batch: Any, *, model_state: Any) -> Any:
        assert mode is not None
        logits, new = mode(view, model_state, batch["x"])
        return loss(logits, batch["y"]), jc.Aux(model_state=new)

    loss_fn = plain if mode is None else rounded
    init, step = jc.train_step(loss_fn, TX, compressor, donate=True)
    state = init(jax.tree.map(jnp.copy, variables), model_state=ranges)
    batch = {"x": x, "y": jnp.arange(len(x)) % 10}

    def run() -> Any:
        nonlocal state
        metrics = None
        for _ in range(steps):
            state, metrics = step(state, batch)
        return state, metrics

    return run


def by_qwix(model: Any, inputs: str | None, weights: str) -> Callable[..., Any]:
    """``(variables, x) -> logits`` as qwix trains it, with types such as ``"int8"``."""
    with quiet():
        import qwix

        rule = qwix.QuantizationRule(weight_qtype=weights, act_qtype=inputs)
        provider = qwix.QtProvider([rule])
        return quietly(qwix.quantize_model(model, provider))


def by_aqt(
    model: _networks.MLP, inputs: int | None, weights: int
) -> Callable[..., Any]:
    """``(variables, x) -> logits`` as AQT trains it, with float gradients."""
    with quiet():
        # By name: it is no dependency, also not of the developers.
        config = importlib.import_module("aqt.jax.v2.config")
        product = config.config_v4(fwd_bits=weights, dlhs_bits=None, drhs_bits=None)
        if inputs != weights:
            config.set_bits(product, inputs, weights, None, None, None, None)
    return quietly(_networks.MLP(model.widths, product))


def quietly(model: Any) -> Callable[..., Any]:
    """Apply a model whose library warns."""

    def fn(variables: Any, x: jax.Array) -> Any:
        with quiet():
            return model.apply(variables, x)

    return fn


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """For libraries that still ask JAX and Flax for what is deprecated there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
