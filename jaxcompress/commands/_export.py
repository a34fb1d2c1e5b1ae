# SPDX-License-Identifier: Apache-2.0
"""``python -m jaxcompress export``: write a file for a runtime."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from .. import export, pack
from ..leaves import dense
from ..program import (
    ActivationQuantizer,
    Point,
    operands_only,
    quantize_activations,
)
from ..quantize.scales import minmax
from ._arrays import read

EXPORTERS = {
    ".tflite": (export.litert, export.targets.litert.policy),
    ".onnx": (export.onnx, export.targets.onnxruntime.policy),
    ".stablehlo": (export.stablehlo, operands_only()),
}


def add(commands: Any) -> None:
    """Add the command."""
    made = commands.add_parser(
        "export",
        help="export a function and its saved parameters",
        description="Export a function and its saved parameters, checked on an example.",
    )
    made.add_argument(
        "function", help="package.module:name of fn(params, *args) -> out"
    )
    made.add_argument("params", type=Path, help="file of jaxcompress.save")
    made.add_argument("output", type=Path, help="ends in .tflite, .onnx or .stablehlo")
    made.add_argument(
        "--example", type=Path, nargs="+", required=True,
        help=".npy or .npz with the arguments of one batch",
    )  # fmt: skip
    made.add_argument(
        "--calibrate", type=Path, nargs="+",
        help=".npy or .npz with arguments like the example's, of any number of rows: "
        "activations become integers, with ranges of these",
    )  # fmt: skip
    made.set_defaults(run=_run)


def _run(settings: Any) -> None:
    suffix = settings.output.suffix
    if suffix not in EXPORTERS:
        raise ValueError(
            f"output must end in one of {', '.join(EXPORTERS)}, got "
            f"{str(settings.output)!r}."
        )
    exporter, target = EXPORTERS[suffix]
    policy = functools.partial(_covering, target)
    fn, params = _function(settings.function), pack.load(settings.params)
    example = tuple(read(settings.example))
    ranges = None
    if settings.calibrate:
        ranges = _ranges(fn, params, policy, example, read(settings.calibrate))
    print(exporter(fn, params, ranges, example, settings.output, policy=policy))


def _covering(target: Any, point: Point) -> ActivationQuantizer | None:
    """Give a point the range of all rows; a moving average would forget the first ones."""
    quantizer = target(point)
    if quantizer is None or isinstance(quantizer.scale, export.targets.FixedGrid):
        return quantizer
    return dataclasses.replace(quantizer, scale=minmax())


def _function(text: str) -> Callable[..., Any]:
    module, _, name = text.partition(":")
    if not name:
        raise ValueError(
            f"the function must be given as package.module:name, got {text!r}."
        )
    sys.path.insert(0, os.getcwd())
    return getattr(importlib.import_module(module), name)


def _ranges(
    fn: Callable[..., Any],
    params: Any,
    policy: Any,
    example: tuple[Any, ...],
    rows: list[Any],
) -> dict[str, Any]:
    """Calibrate in batches of the example's size."""
    if len(rows) != len(example):
        raise ValueError(
            f"--calibrate must have as many arrays as --example, {len(example)}, got "
            f"{len(rows)}."
        )
    modes, size, weights = (
        quantize_activations(fn, policy),
        len(example[0]),
        dense(params),
    )
    ranges = modes.init(weights, *example)
    calibrate = jax.jit(modes.calibrate)
    for start in range(0, len(rows[0]), size):  # the last batch may be smaller
        batch = [x[start : start + size] for x in rows]
        _, ranges = calibrate(weights, ranges, *batch)
    return ranges
