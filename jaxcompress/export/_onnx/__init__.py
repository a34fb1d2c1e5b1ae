# SPDX-License-Identifier: Apache-2.0
"""ONNX: a graph as a model, and models in onnxruntime."""

from ._versions import package

package("onnx")

from ._emit import Emitted as Emitted, emit as emit  # noqa: E402
from ._openvino import run_openvino as run_openvino  # noqa: E402
from ._run import operators as operators, run as run  # noqa: E402
