# SPDX-License-Identifier: Apache-2.0
"""qwix, by its providers for Flax modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from .. import _training
from ._work import Layers, Predict, Trained, Work, in_jax, network, variables


def rounded(layers: Layers, bits: int) -> Mapping[str, Predict]:
    """Round weights after training."""
    return {"": _after_training(layers, None, f"int{bits}")}


def trained(work: Work, bits: int) -> Mapping[str, Trained]:
    """Train with rounded weights."""
    model = network(work.layers)
    fn = _training.by_qwix(model, None, f"int{bits}")
    return {"": in_jax(work, fn)}


def served(work: Work) -> Mapping[str, Predict]:
    """Multiply integers, with ranges found on the fly."""
    predict = _after_training(work.layers, "int8", "int8")
    return {", int8 products": predict}


def _after_training(
    layers: Layers, inputs: str | None, weights: str
) -> Callable[[Any], jax.Array]:
    with _training.quiet():
        import qwix

        rule = qwix.QuantizationRule(weight_qtype=weights, act_qtype=inputs)
        provider = qwix.PtqProvider([rule])
        model: Any = qwix.quantize_model(network(layers), provider)
        x = jax.ShapeDtypeStruct((1, len(layers[0][0])), "float32")
        shapes = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
        params = qwix.quantize_params(variables(layers)["params"], shapes)
    run = jax.jit(_training.quietly(model))
    return lambda x: run({"params": params}, x)
