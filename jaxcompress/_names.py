# SPDX-License-Identifier: Apache-2.0
"""What the names of leaves say: the conventions of Flax, Haiku, Equinox and torch.

A program says more (``weight_axes``). Names serve where only parameters are given.
"""

from __future__ import annotations

import re

# Names of arrays that multiply the input of a layer, by the order of their axes.
_INPUTS_FIRST = re.compile(
    "kernel"  # Linen and NNX
    "|w|w_i|w_h"  # Haiku: linear layers and convolutions, the two matrices of a GRU
    "|left|right"  # the factors that `factorize` makes
)
_OUTPUTS_FIRST = re.compile(
    "weight"  # Equinox and torch
    r"|weight_(ih|hh)(_l\d+(_reverse)?)?"  # their recurrent cells
    "|(in|q|k|v)_proj_weight"  # torch's attention
)
# Layers whose `weight` is a scale, or a table that is read by index (then a matrix).
_SCALE = re.compile(r"norm|^(ln|bn)(_|\d|$)", re.IGNORECASE)
_TABLE = re.compile(r"embed|^(emb|wte|wpe)(_|\d|$)", re.IGNORECASE)


def is_weight_name(path: str, ndim: int) -> bool:
    """True if a path names an array that a layer multiplies its input by."""
    *layers, name = _parts(path)
    if _INPUTS_FIRST.fullmatch(name):
        return True
    if not _OUTPUTS_FIRST.fullmatch(name):
        return False
    layer = layers[-1] if layers else ""
    return not (_SCALE.search(layer) or (ndim == 2 and _TABLE.search(layer)))


def outputs_come_first(path: str) -> bool:
    """True if the first axis of a weight is its outputs, as in Equinox and torch."""
    return bool(_OUTPUTS_FIRST.fullmatch(_parts(path)[-1]))


def is_table_or_scale(layer: type) -> bool:
    """True for classes of layers whose own arrays are tables or scales: ``LayerNorm``."""
    return layer.__name__.endswith(("Embedding", "Embed", "Norm"))


def _parts(path: str) -> list[str]:
    """Split a path at slashes and, for flat names of checkpoints, at dots."""
    parts = re.split(r"[/.]", path)
    # The variables of an NNX module keep their arrays in `value`.
    return parts[:-1] if parts[-1] == "value" and len(parts) > 1 else parts
