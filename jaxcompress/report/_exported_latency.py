# SPDX-License-Identifier: Apache-2.0
"""Latency of exported files in their runtimes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .. import export
from ._latency import Latency, check_runs, describe, timed_runs

_RUNTIMES = {
    ".tflite": export.targets.litert.name,
    ".onnx": export.targets.onnxruntime.name,
    ".stablehlo": "JAX",
}


def exported_latency(
    exported: export.Exported | str | os.PathLike[str],
    *arrays: Any,
    runs: int = 30,
    warmup: int = 3,
    threads: int = 1,
    target: export.targets.Target | None = None,
) -> Latency:
    """Benchmark an exported file in its runtime, on the processor of this machine.

    Args:
      exported: what an exporter returned, or the path of its file, of which the dtypes of
        the products are then not known.
      *arrays: the leaves of the arguments, in order.
      runs: number of timed runs.
      warmup: number of untimed runs before them.
      threads: number of threads of the runtime.
      target: as for ``export.load``.

    Raises:
      ValueError: as for ``latency`` and ``export.load``.
      ImportError: if the runtime is not installed.
    """
    check_runs(runs, warmup)
    if isinstance(exported, export.Exported):
        path, dtype = exported.path, _product_dtypes(exported)
    else:
        path, dtype = Path(exported), "unknown"
    session = export.load(path, threads=threads, target=target)
    timed, _ = timed_runs(lambda: session(*arrays), runs, warmup)
    return Latency(
        median_seconds=float(np.median(timed)),
        p90_seconds=float(np.quantile(timed, 0.9)),
        runs=runs,
        compilation="not apart",
        compile_seconds=None,
        device=describe(jax.devices("cpu")[0]),
        runtime=_RUNTIMES[path.suffix] if target is None else target.name,
        dtype=dtype,
        threads=threads,
    )


def _product_dtypes(exported: export.Exported) -> str:
    names = [("integers", exported.integers), ("float32", exported.floats)]
    return " and ".join(name for name, sites in names if sites) or "no products"
