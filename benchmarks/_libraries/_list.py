# SPDX-License-Identifier: Apache-2.0
"""The libraries that are compared."""

from __future__ import annotations

import importlib.util

from . import (
    _aqt,
    _brevitas,
    _in_torch,
    _jaxcompress,
    _neural_compressor,
    _qwix,
    _torchao,
)
from ._find import Library
from ._work import Trained, Work, in_jax

LIBRARIES = (
    Library(
        name="jaxcompress",
        rounded=_jaxcompress.rounded,
        trained=_jaxcompress.trained,
        served=_jaxcompress.served,
    ),
    Library(
        name="qwix",
        imports=("qwix",),
        install="qwix",
        rounded=_qwix.rounded,
        trained=_qwix.trained,
        served=_qwix.served,
    ),
    Library(
        name="AQT",
        imports=("aqt",),
        install="aqtp",
        rounded=_aqt.rounded,
        trained=_aqt.trained,
    ),
    Library(
        name="Neural Compressor",
        imports=("keras", "keras_hub", "neural_compressor"),
        install="keras neural-compressor-jax",
        served=_neural_compressor.served,
    ),
    Library(
        name="torchao",
        imports=("torch", "torchao"),
        install="torch torchao",
        rounded=_torchao.rounded,
        trained=_torchao.trained,
        served=_torchao.served,
    ),
    Library(
        name="Brevitas",
        imports=("torch", "brevitas"),
        install="torch brevitas",
        rounded=_brevitas.rounded,
        trained=_brevitas.trained,
        served=_brevitas.served,
    ),
)


def floats(given: Work) -> dict[str, Trained]:
    """Return the float network by framework, PyTorch if it is installed."""
    made = {"JAX": in_jax(given)}
    if importlib.util.find_spec("torch") is not None:
        made["PyTorch"] = _in_torch.trained(given, _in_torch.network(given.layers))
    return made
