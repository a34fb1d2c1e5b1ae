# SPDX-License-Identifier: Apache-2.0
"""The rows of the study, and the small networks that they are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax

import jaxcompress as jc

from .. import common
from ..data import Dataset
from ..stages import (
    AFTERWARDS,
    CHANNELS,
    LABELS,
    METHODS,
    NARROW_BITS,
    THREE,
    Row,
    quantizes,
    taught,
)
from ._config import Config


def of_methods(config: Config) -> Iterator[Row]:
    """Every method with labels, and with a teacher."""
    for method in METHODS:
        for bits in config.bits if quantizes(method) else (None,):
            if method != THREE:  # which has a teacher in its last stage only
                yield Row("methods", method, bits, LABELS)
            yield Row("methods", method, bits, taught(config.chosen, method, bits))


def of_afterwards(config: Config) -> Iterator[Row]:
    """The float network, trained for as long, and only then pruned and quantized."""
    for method in AFTERWARDS:
        for bits in config.bits if quantizes(method) else (None,):
            yield Row("methods", method, bits, LABELS)


def narrow(
    config: Config, nbytes: int, data: Dataset, widths: Sequence[int]
) -> common.Perceptron:
    """A wide network whose file of 4-bit weights takes no more bytes, untrained."""
    coder = jc.weight_quantization(bits=NARROW_BITS, granularity=CHANNELS)
    share = 32 / NARROW_BITS
    if config.quick:  # which would compile every trial of a width
        return common.no_larger(int(share * nbytes), data, widths)
    while share > 1:
        model = common.no_larger(int(share * nbytes), data, widths)
        params: Any = model.init(jax.random.key(0), data.train.x[:1])["params"]
        size = common.file_bytes(jc.compress(coder, params))
        if size <= nbytes:
            return model
        share *= 0.99 * nbytes / size
    raise common.RunError(f"no network of 4-bit weights takes {nbytes} bytes.")
