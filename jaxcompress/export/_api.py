# SPDX-License-Identifier: Apache-2.0
"""The exporters."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ..program import Policy
from . import targets
from ._export import export
from ._exported import Exported
from ._litert import LITERT


def litert(
    fn: Callable[..., Any],
    params: Any,
    ranges: Mapping[str, Any] | None,
    example: Any,
    path: str | os.PathLike[str],
    *,
    policy: Policy | None = None,
    tolerance: float | None = None,
) -> Exported:
    """Write a .tflite file for LiteRT (formerly TensorFlow Lite): phones, small devices.

    The weights of ``params`` and the ranges of ``ranges`` arrive as they are: nothing is
    calibrated again. Batch norms are folded into the products before them. A product runs
    on integers if its weight is a packed integer, and its input and result have ranges.
    Without ranges the file computes with floats, and packed weights only make it smaller.

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
    return export(
        LITERT, targets.litert, fn, params, ranges, example, path, policy, tolerance
    )
