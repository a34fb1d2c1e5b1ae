# SPDX-License-Identifier: Apache-2.0
"""AQT, by the product of dense layers."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax

from .. import _training
from ._work import Layers, Predict, Trained, Work, in_jax, network, variables


def rounded(layers: Layers, bits: int) -> Mapping[str, Predict]:
    """Round weights after training; inputs stay floats."""
    run = jax.jit(_training.by_aqt(network(layers), None, bits))
    return {"": functools.partial(run, variables(layers))}


def trained(work: Work, bits: int) -> Mapping[str, Trained]:
    """Train with rounded weights; inputs and gradients stay floats."""
    return {"": in_jax(work, _training.by_aqt(network(work.layers), None, bits))}
