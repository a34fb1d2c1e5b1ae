# SPDX-License-Identifier: Apache-2.0
"""Run exported files in their runtimes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._arguments import check_counts
from . import _stablehlo, targets
from ._backend import Session
from ._litert import LITERT
from ._onnx import ONNX, OPENVINO

LOADERS = {
    LITERT.suffix: LITERT.load,
    ONNX.suffix: ONNX.load,
    _stablehlo.SUFFIX: _stablehlo.load,
}


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    target: targets.Target | None = None,
) -> Session:
    """Load an exported file into its runtime.

    Args:
      path: a file from ``litert``, ``onnx`` or ``stablehlo``.
      threads: number of threads of the runtime; None leaves it to the runtime.
      target: ``targets.openvino`` runs an .onnx file in OpenVINO; None takes the usual
        runtime of the file.

    Returns:
      ``(*arrays) -> list of arrays``: the leaves of the arguments in, the leaves of the
      result out.

    Raises:
      ValueError: if the runtime of the file cannot be told from its name, or the file is
        damaged.
      ImportError: if the runtime is not installed.
    """
    check_counts(threads=threads)
    if not (target is None or isinstance(target, targets.Target)):
        raise TypeError(
            "target must be one of export.targets, such as targets.openvino, got "
            f"{target!r}."
        )
    path = Path(path)
    if path.suffix not in LOADERS:
        endings = ", ".join(map(repr, LOADERS))
        raise ValueError(f"the path must end in one of {endings}, got {str(path)!r}.")
    loader = LOADERS[path.suffix]
    if target is not None and target.name == OPENVINO.name:
        if path.suffix != OPENVINO.suffix:
            raise ValueError(f"OpenVINO runs .onnx files here, got {str(path)!r}.")
        loader = OPENVINO.load
    session = loader(path.read_bytes(), threads)

    def run(*arrays: Any) -> list[np.ndarray]:
        return session(*map(_as_jax_reads, arrays))

    return run


def _as_jax_reads(x: Any) -> np.ndarray:
    """Return an array with the dtype that JAX gives it: 32 bits for numbers of 64."""
    array = np.asarray(x)
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)


def run(
    path: str | os.PathLike[str],
    *arrays: Any,
    threads: int | None = None,
    target: targets.Target | None = None,
) -> list[np.ndarray]:
    """Run an exported file in its runtime, to measure the accuracy of the file itself.

    A file with a fixed batch takes any number of rows: they are run batch by batch. To run
    it often, use ``load``.

    Args:
      path: a file from ``litert``, ``onnx`` or ``stablehlo``.
      *arrays: the leaves of the arguments, in order, as arrays.
      threads: number of threads of the runtime; None leaves it to the runtime.
      target: see ``load``.

    Returns:
      The leaves of the result.
    """
    return load(path, threads=threads, target=target)(*arrays)
