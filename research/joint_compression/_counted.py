# SPDX-License-Identifier: Apache-2.0
"""What is counted in a finished network, and must be what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxcompress as jc

from .. import common
from ..data import Dataset
from ._config import Config
from ._rows import NARROW, NARROW_BITS, STAGES, Row
from ._train import CHANNELS, Params


class Counted(NamedTuple):
    """Of what ships."""

    params: Params  # dense floats, which the model is given
    sparsity: float  # of the weight matrices
    levels: int | None  # most codes of a matrix; None of floats
    weights: int  # in the matrices


def counted(config: Config, row: Row, shipped: Params) -> Counted:
    """Count, and compare with the row.

    Raises:
      RunError: if there are more levels or fewer zeros than were asked for.
    """
    params = jc.dense(shipped)
    stages = STAGES.get(row.method, ())
    sparsity = common.sparsity_of(params)
    weights = sum(x.size for x in jax.tree.leaves(params) if x.ndim > 1)
    # A budget is rounded once a matrix.
    if any(s.prunes for s in stages) and sparsity < config.sparsity - 1e-3:
        raise common.RunError(f"{row.name}: {sparsity:.4f} of the weights are zero.")
    codes = [
        np.asarray(leaf.codes)
        for leaf in jax.tree.leaves(shipped, is_leaf=_is_coded)
        if _is_coded(leaf)
    ]
    levels = max((len(np.unique(c)) for c in codes), default=None)
    bits = NARROW_BITS if row.method == NARROW else row.bits
    if row.method == NARROW or any(s.quantizes for s in stages):
        if sum(c.size for c in codes) != weights or levels is None:
            raise common.RunError(f"{row.name}: not every weight is a code.")
        if bits is None or levels > 2**bits - 1:
            raise common.RunError(f"{row.name}: {levels} levels.")
    return Counted(params, sparsity, levels, weights)


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


def _is_coded(leaf: Any) -> bool:
    return isinstance(leaf, jc.QArray)
