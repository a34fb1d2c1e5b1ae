# SPDX-License-Identifier: Apache-2.0
"""The arguments of exporters: refused before any work, and simulated."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from .._arguments import check_function
from .._refuse import refuse_not_finite
from ..formats import Int
from ..leaves import dense
from ..program import ActivationQuantizer, Policy, quantize_activations
from ..quantize.scales import dynamic


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
    check_function(fn, f"export.{suffix[1:]}(fn, params, ranges, example, path)")
    path = _checked_path(path, suffix)
    refuse_not_finite(dense(params))
    example = example if isinstance(example, tuple) else (example,)
    return path, example, None if ranges is None else dict(ranges)


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
    """Return what JAX computes on the example."""

    def run(params: Any, ranges: Any, example: tuple[Any, ...]) -> Any:
        if ranges is None:
            return fn(dense(params), *example)
        return quantize_activations(fn, policy).frozen(dense(params), ranges, *example)[
            0
        ]

    return jax.tree.leaves(jax.jit(run)(params, ranges, example))


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
