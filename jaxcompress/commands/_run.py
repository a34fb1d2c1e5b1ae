# SPDX-License-Identifier: Apache-2.0
"""``python -m jaxcompress run``: run an exported file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .. import export
from ._arrays import read


def add(commands: Any) -> None:
    """Add the command."""
    made = commands.add_parser(
        "run",
        help="run an exported file in its runtime",
        description="Run an exported file in its runtime, and save what it returns.",
    )
    made.add_argument("file", type=Path, help=".tflite, .onnx or .stablehlo")
    made.add_argument("inputs", type=Path, nargs="+", help=".npy or .npz files")
    made.add_argument("--output", type=Path, help=".npz file for the results")
    made.add_argument("--threads", type=int, help="threads of the runtime")
    made.set_defaults(run=_run)


def _run(settings: Any) -> None:
    outs = export.run(settings.file, *read(settings.inputs), threads=settings.threads)
    for i, out in enumerate(outs):
        print(f"output {i}: {out.dtype}{list(out.shape)}")
    if settings.output:
        np.savez(settings.output, *outs)
