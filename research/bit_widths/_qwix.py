# SPDX-License-Identifier: Apache-2.0
"""The same network quantized by qwix, which replaces the class of the module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn


def forward_of(
    model: nn.Module, weights: str, activations: str | None
) -> Callable[..., Any]:
    """``(params, x) -> logits``, simulated by qwix in training and after it.

    Its storage of weights is not used: it refuses convolutions of which only the weights
    are quantized. What it computes is the same.

    Args:
      model: a Linen module.
      weights: qwix's type, such as ``"int4"``; a scale for each output.
      activations: likewise, or None.
    """
    import qwix

    rule = qwix.QtRule(weight_qtype=weights, act_qtype=activations)
    quantized: Any = qwix.quantize_model(model, qwix.QtProvider([rule]))
    return lambda params, x: quantized.apply({"params": params}, x)
