# SPDX-License-Identifier: Apache-2.0
"""``python -m jaxcompress inspect``: what a packed file holds, leaf by leaf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import report


def add(commands: Any) -> None:
    """Add the command."""
    made = commands.add_parser(
        "inspect",
        help="show the leaves of a packed file: formats, densities, bytes",
        description="Decode a file of jaxcompress.save, and show its leaves: kind, format, "
        "shape, density, bits a weight, bytes, and the order-0 entropy bound.",
    )
    made.add_argument("file", type=Path, help="file of jaxcompress.save")
    made.set_defaults(run=_run)


def _run(settings: Any) -> None:
    print(report.size(settings.file))
