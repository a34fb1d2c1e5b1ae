# SPDX-License-Identifier: Apache-2.0
"""This library."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax

import jaxcompress as jc
from jaxcompress.quantize import scales

from ._work import Layers, Predict, Trained, Work, in_jax, network, variables


def rounded(layers: Layers, bits: int) -> Mapping[str, Predict]:
    """Round to nearest, with scales by default and with ``mse()``."""
    run = jax.jit(network(layers).apply)
    compressors = {
        "": jc.weight_quantization(bits=bits),
        ", mse": jc.weight_quantization(bits=bits, scale=scales.mse()),
    }
    return {
        name: functools.partial(run, jc.dense(jc.compress(c, variables(layers))))
        for name, c in compressors.items()
    }


def trained(work: Work, bits: int) -> Mapping[str, Trained]:
    """Train with scales by default, and with learned ones."""
    compressors = {
        "": jc.weight_quantization(bits=bits),
        ", LSQ": jc.weight_quantization(bits=bits, scale=scales.lsq()),
    }
    return {name: in_jax(work, compressor=c) for name, c in compressors.items()}


def served(work: Work) -> Mapping[str, Predict]:
    """Multiply integers, and simulate with calibrated ranges."""
    fn: Any = network(work.layers).apply
    packed = jc.compress(jc.weight_quantization(bits=8), variables(work.layers))
    modes = jc.quantize_activations(fn)
    dense, x = jc.dense(packed), work.calibration
    _, ranges = jax.jit(modes.calibrate)(dense, modes.init(dense, x), x)
    integers = jax.jit(jc.execute(fn, pays=jc.program.always).run)
    frozen = jax.jit(modes.frozen)
    return {
        ", int8 products": functools.partial(integers, packed),
        ", int8 simulated": lambda x: frozen(dense, ranges, x)[0],
    }
