# SPDX-License-Identifier: Apache-2.0
"""``python -m jaxcompress diff``: write what changed between two files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import pack
from ._progress import progress


def add(commands: Any) -> None:
    """Add the command."""
    made = commands.add_parser(
        "diff",
        help="write what changed between two files",
        description="Write what changed between two files of jaxcompress.save.",
    )
    made.add_argument("old", type=Path, help="the file that is to be updated")
    made.add_argument("new", type=Path, help="the file that it becomes")
    made.add_argument("delta", type=Path, help="where to write the update")
    made.set_defaults(run=_run)


def _run(settings: Any) -> None:
    with progress("comparing") as show:
        size = pack.diff(settings.old, settings.new, settings.delta, progress=show)
    whole = settings.new.stat().st_size
    share = 100 * size / whole
    print(
        f"{settings.delta}: {size:,} bytes, {share:.1f} % of the {whole:,} of the file"
    )
