# SPDX-License-Identifier: Apache-2.0
"""Numbers of several seeds, and the file that they are written to."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxcompress as jc


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation, which one value does not have."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return statistics.fmean(values), spread


def text_of(values: Sequence[float]) -> str:
    """``97.22 ± 0.28``: fractions as percent."""
    mean, spread = mean_and_spread(values)
    return f"{100 * mean:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")


def sparsity_of(params: Any) -> float:
    """Counted: the fraction of zeros in the weight matrices."""
    pairs = jax.tree_util.tree_flatten_with_path(params)[0]
    weights = [
        np.asarray(leaf)
        for path, leaf in pairs
        if jc.is_weight(jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
    ]
    zeros = sum(int((w == 0).sum()) for w in weights)
    return zeros / sum(w.size for w in weights)


def file_bytes(params: Any) -> int:
    """Bytes of the packed file, which codes zeros for what they are."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "network.safetensors")
        jc.save(file, params)
        return file.stat().st_size


def write(file: Path, content: dict[str, Any]) -> None:
    """Write JSON; the file appears whole or not at all."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    os.replace(part, file)
