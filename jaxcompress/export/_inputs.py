# SPDX-License-Identifier: Apache-2.0
"""The arguments of exporters: refused before any work, and simulated."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._arguments import check_function
from .._refuse import refuse_not_finite
from .._select import path_text
from ..formats import Int
from ..leaves import dense, is_leaf
from ..program import ActivationQuantizer, Policy, quantize_activations
from ..quantize.scales import dynamic
from ._errors import ExportError

_FUNCTIONS = {".tflite": "litert", ".onnx": "onnx", ".stablehlo": "stablehlo"}


def check_inputs(
    fn: Callable[..., Any],
    params: Any,
    ranges: Mapping[str, Any] | None,
    example: Any,
    path: str | os.PathLike[str],
    suffix: str,
) -> tuple[Path, tuple[Any, ...], dict[str, Any] | None]:
    """Refuse what cannot be exported, and return path, example and ranges as they are read.

    Args:
      fn: the function.
      params: its parameters, dense or packed.
      ranges: ranges, or None.
      example: the arguments, or the only one.
      path: the file to write.
      suffix: what the path must end in.
    """
    call = f"export.{_FUNCTIONS[suffix]}(fn, params, ranges, example, path)"
    check_function(fn, call)
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"path must be a path, got a {type(path).__name__}. The order is {call}."
        )
    if not (ranges is None or isinstance(ranges, Mapping)):
        raise TypeError(
            "ranges must be the dict from quantize_activations(fn, policy).calibrate, or "
            f"None, got a {type(ranges).__name__}. The order is {call}."
        )
    if ranges is not None and not ranges:
        raise ValueError("ranges must not be empty; pass None to export floats.")
    path = _checked_path(path, suffix)
    _check_leaves(params)
    refuse_not_finite(dense(params))
    return path, _checked_example(example), None if ranges is None else dict(ranges)


def check_tolerance(tolerance: float | None) -> None:
    """Refuse a tolerance that nothing could keep."""
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, got {tolerance}.")


def _check_leaves(params: Any) -> None:
    """Refuse leaves that no runtime stores, by name."""
    pairs, _ = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_leaf)
    for path, leaf in pairs:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None:
            raise TypeError(
                f"parameters must be arrays, but {path_text(path)!r} is a "
                f"{type(leaf).__name__}."
            )
        if jnp.issubdtype(dtype, jax.dtypes.prng_key):
            raise TypeError(
                f"{path_text(path)!r} is a random key, which a file cannot hold. Export in "
                "evaluation mode, without the state of random numbers: with nnx, split it "
                "off by nnx.split(model, nnx.RngState, ...)."
            )


def _checked_example(example: Any) -> tuple[Any, ...]:
    """Return the arguments with the dtypes that JAX gives them."""
    if isinstance(example, list):
        raise TypeError(
            "example must be a tuple of arguments, or the only argument, got a list."
        )
    example = example if isinstance(example, tuple) else (example,)
    example = jax.tree.map(jnp.asarray, example)
    for x in jax.tree.leaves(example):
        if not x.size:
            raise ValueError(
                f"the example must have rows to check the file on, got shape {x.shape}."
            )
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            raise TypeError(
                "a random key cannot be an argument of a file; export in evaluation mode."
            )
    return example


def _checked_path(path: str | os.PathLike[str], suffix: str) -> Path:
    """Refuse a path that could not be written, before any work is done."""
    path = Path(path)
    if path.suffix != suffix:
        raise ValueError(f"the path must end in {suffix!r}, got {str(path)!r}.")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}; create it first.")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"the folder {str(folder)!r} is not writable.")
    return path


def simulate(
    fn: Callable[..., Any],
    params: Any,
    ranges: dict[str, Any] | None,
    example: tuple[Any, ...],
    policy: Policy | None,
) -> list[Any]:
    """Return what JAX computes on the example.

    Raises:
      ExportError: if it is not finite.
    """

    def run(params: Any, ranges: Any, example: tuple[Any, ...]) -> Any:
        if ranges is None:
            return fn(dense(params), *example)
        return quantize_activations(fn, policy).frozen(dense(params), ranges, *example)[
            0
        ]

    outs = jax.tree.leaves(jax.jit(run)(params, ranges, example))
    if not all(np.isfinite(np.asarray(x)).all() for x in outs):
        raise ExportError(
            "the function gives NaN or infinity on the example, so the file cannot be "
            "checked; pass an example on which it is finite."
        )
    return outs


def change_by_rounding_inputs(
    fn: Callable[..., Any], params: Any, example: Any
) -> float:
    """Return by how much a result changes if products round their inputs to 8 bits."""
    check_function(fn, "export.litert(fn, params, ranges, example, path)")
    example = example if isinstance(example, tuple) else (example,)
    quantizer = ActivationQuantizer(Int(8, symmetric=False), dynamic())
    modes = quantize_activations(fn, quantizer)
    weights = dense(params)

    def change(weights: Any, ranges: Any, example: tuple[Any, ...]) -> Any:
        exact = jax.tree.leaves(fn(weights, *example))
        rounded = jax.tree.leaves(modes.frozen(weights, ranges, *example)[0])
        pairs = zip(exact, rounded, strict=True)
        return jnp.stack([jnp.max(jnp.abs(a - b)) for a, b in pairs]).max()

    ranges = modes.init(weights, *example)
    return float(jax.jit(change)(weights, ranges, example))
