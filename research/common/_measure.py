# SPDX-License-Identifier: Apache-2.0
"""What is measured of a finished network: zeros, bytes, right answers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

import jaxcompress as jc

from ..data import Split

Params = Any


def sparsity_of(params: Params) -> float:
    """Counted: the fraction of zeros in the weight matrices."""
    pairs = jax.tree_util.tree_flatten_with_path(params)[0]
    weights = [
        np.asarray(leaf)
        for path, leaf in pairs
        if jc.is_weight(jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
    ]
    zeros = sum(int((w == 0).sum()) for w in weights)
    return zeros / sum(w.size for w in weights)


def file_bytes(params: Params) -> int:
    """Bytes of the packed file, which codes zeros for what they are."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "network.safetensors")
        jc.save(file, params)
        return file.stat().st_size


def accuracy(model: nn.Module, params: Params, split: Split) -> float:
    """Fraction of right answers."""
    return right(logits(model, params, split.x), split)


def right(logits: np.ndarray, split: Split) -> float:
    """Fraction of examples whose largest logit is that of their class."""
    return float((logits.argmax(-1) == split.y).mean())


def logits(model: nn.Module, params: Params, x: np.ndarray) -> np.ndarray:
    """Logits of every example, ``(n, classes)``."""
    return in_chunks(lambda part: _apply(model, params, part), 5000, x)


def in_chunks(fn: Callable[..., Any], size: int, *arrays: Any) -> Any:
    """What a function returns for so many rows at once, joined, as numpy arrays."""
    parts = [
        jax.tree.map(np.asarray, fn(*(array[i : i + size] for array in arrays)))
        for i in range(0, len(arrays[0]), size)
    ]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


@jax.jit(static_argnums=0)
def _apply(model: nn.Module, params: Params, x: np.ndarray) -> Any:
    return model.apply({"params": params}, x)
