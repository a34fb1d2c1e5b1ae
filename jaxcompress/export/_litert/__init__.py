# SPDX-License-Identifier: Apache-2.0
"""LiteRT: .tflite files for phones and small devices."""

import dataclasses

from ...program.dataflow import Constant, Operation
from .._backend import Backend
from ._convert import convert
from ._hybrid import convert_hybrid
from ._lower import why_dense
from ._runtime import load, operators

_PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL")


def _reason(op: Operation) -> str:
    dilated = op.params.get("lhs_dilation", ())
    if any(n > 1 for n in dilated):
        return "LiteRT's converter keeps transposed convolutions in floats"
    weights = [x.codes for x in op.ins if isinstance(x, Constant) and x.codes]
    return why_dense(weights[0]) if weights else ""


LITERT = Backend(
    "LiteRT",
    ".tflite",
    any_batch=False,
    convert=convert,
    load=load,
    operators=operators,
    products=frozenset(f"{name} int8" for name in _PRODUCTS),
    reason=_reason,
)

HYBRID = dataclasses.replace(
    LITERT,
    convert=convert_hybrid,
    products=frozenset(f"{name} float32" for name in _PRODUCTS),
    rounds_inputs=True,
)

__all__ = ["HYBRID", "LITERT"]
