# SPDX-License-Identifier: Apache-2.0
"""The exporters."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from .._mesh import without_mesh
from ..program import Policy
from . import _stablehlo, targets
from ._export import export
from ._exported import Exported
from ._inputs import change_by_rounding_inputs
from ._litert import HYBRID, LITERT
from ._onnx import ONNX, OPENVINO


@without_mesh
def litert(
    fn: Callable[..., Any],
    params: Any,
    ranges: Mapping[str, Any] | None,
    example: Any,
    path: str | os.PathLike[str],
    *,
    policy: Policy | None = None,
    dynamic_range: bool = False,
    tolerance: float | None = None,
) -> Exported:
    """Write a .tflite file for LiteRT (formerly TensorFlow Lite): phones, small devices.

    The weights of ``params`` and the ranges of ``ranges`` arrive as they are: nothing is
    calibrated again. Batch norms are folded into the products before them. A product runs
    on integers if its weight is a packed integer, and its input and result have ranges.
    Without ranges the file computes with floats, and packed weights only make it smaller,
    unless ``dynamic_range`` lets products round their inputs on the fly.

    The file is checked each time: LiteRT runs it on the example, and the result must be
    that of ``quantize_activations(fn, policy).frozen``, within one step of the result for
    networks of products, sums and ReLU, and otherwise within what rounding itself changes.

    Args:
      fn: ``(params, *args) -> out`` of dense parameters, in evaluation mode.
      params: tree of arrays, or a packed tree (from ``finalize`` or ``compress``).
      ranges: ranges from ``quantize_activations(fn, export.targets.litert.policy)``; None
        exports floats.
      example: the arguments, as a tuple; their batch is the batch of the file.
      path: the file, ending in ``.tflite``. An existing file is replaced.
      policy: the policy that the ranges were made with, if it was not the target's.
      dynamic_range: without ranges, products by packed weights round each row (image) of
        their input to 8 bits while they run. This is as fast as calibrated ranges in dense
        layers, and is checked less strictly: against twice the change that rounding inputs
        makes in JAX.
      tolerance: the largest allowed difference from the simulation.

    Returns:
      The file, what runs on integers and what does not, and the check.

    Raises:
      ImportError: if the extra ``litert`` is not installed.
      UnsupportedOperation: if LiteRT does not have an operation of the function.
      Mismatch: if LiteRT computes something else; it names the first point that differs.
      ExportError: if weights are closed over, or LiteRT cannot store what was trained.
      ValueError: if a range was never calibrated, a weight is NaN, or the path is wrong.

    References:
      Jacob et al., 2017, https://arxiv.org/abs/1712.05877
    """
    backend = LITERT
    if dynamic_range:
        if ranges is not None:
            raise ValueError(
                "dynamic_range=True needs ranges=None; ranges are calibrated."
            )
        backend = HYBRID
        if tolerance is None:
            tolerance = 2 * change_by_rounding_inputs(fn, params, example)
    return export(
        backend, targets.litert, fn, params, ranges, example, path, policy, tolerance
    )


@without_mesh
def onnx(
    fn: Callable[..., Any],
    params: Any,
    ranges: Mapping[str, Any] | None,
    example: Any,
    path: str | os.PathLike[str],
    *,
    target: targets.Target = targets.onnxruntime,
    policy: Policy | None = None,
    tolerance: float | None = None,
) -> Exported:
    """Write an .onnx file for ONNX Runtime or OpenVINO: PCs and servers.

    Rounded activations stand in the file as pairs of QuantizeLinear and DequantizeLinear,
    which these runtimes fuse with the products around them. Everything else is as in
    ``litert``: scales arrive as they are, batch norms are folded, the runtime runs the
    file on the example, and its result must be that of the simulation.

    Args:
      fn: ``(params, *args) -> out`` of dense parameters, in evaluation mode.
      params: tree of arrays, or a packed tree (from ``finalize`` or ``compress``).
      ranges: ranges from ``quantize_activations(fn, target.policy)``; None exports floats.
      example: the arguments, as a tuple. The file takes any batch if the function does.
      path: the file, ending in ``.onnx``. An existing file is replaced.
      target: ``targets.onnxruntime`` or ``targets.openvino``: the runtime of the check.
      policy: the policy that the ranges were made with, if it was not the target's.
      tolerance: the largest allowed difference from the simulation.

    Returns:
      The file, what runs on integers and what does not, and the check.

    Raises:
      ImportError: if the extra ``onnx`` (``openvino``) is not installed.
      UnsupportedOperation: if ONNX does not have an operation of the function.
      Mismatch: if the runtime computes something else; it names the first point that
        differs.
      ExportError: if weights are closed over, or the runtime cannot store what was trained.
      ValueError: if a range was never calibrated, a weight is NaN, or the path is wrong.
    """
    backends = {backend.name: backend for backend in (ONNX, OPENVINO)}
    if getattr(target, "name", None) not in backends:
        raise ValueError(
            "target must be targets.onnxruntime or targets.openvino, got "
            f"{getattr(target, 'name', target)!r}."
        )
    return export(
        backends[target.name],
        target,
        fn,
        params,
        ranges,
        example,
        path,
        policy,
        tolerance,
    )


@without_mesh
def stablehlo(
    fn: Callable[..., Any],
    params: Any,
    ranges: Mapping[str, Any] | None,
    example: Any,
    path: str | os.PathLike[str],
    *,
    policy: Policy | None = None,
    tolerance: float | None = None,
) -> Exported:
    """Write a portable program for any JAX, with the packed weights beside it.

    ``load`` and ``run`` need neither the code of the model nor its framework. The weights
    are stored as ``save`` stores them, and become dense while the program runs: the file
    is small, and the program is not faster. With ranges, activations are rounded as
    ``quantize_activations(fn, policy).frozen`` rounds them, in floats.

    Args:
      fn: ``(params, *args) -> out`` of dense parameters, in evaluation mode.
      params: tree of arrays, or a packed tree (from ``finalize`` or ``compress``).
      ranges: calibrated ranges of ``policy``; None leaves activations as they are.
      example: the arguments, as a tuple. The batch may vary if the function allows it.
      path: the file, ending in ``.stablehlo``. An existing file is replaced.
      policy: the policy that the ranges were made with; None is the default policy of
        ``quantize_activations``.
      tolerance: the largest allowed difference from the function.

    Returns:
      The file, and the check against the function on the example.

    Raises:
      ImportError: if the extra ``stablehlo`` is not installed.
      Mismatch: if the exported program computes something else.
      ExportError: if the function is not finite on the example.
      ValueError: if a weight is NaN, or the path is wrong.
    """
    return _stablehlo.export(fn, params, ranges, example, path, policy, tolerance)
