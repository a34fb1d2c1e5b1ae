# SPDX-License-Identifier: Apache-2.0
"""``python -m jaxcompress patch``: update a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import pack
from ._progress import progress


def add(commands: Any) -> None:
    """Add the command."""
    made = commands.add_parser(
        "patch",
        help="update a file by what `diff` wrote",
        description="Update a file by what `diff` wrote: the new file, byte for byte.",
    )
    made.add_argument("old", type=Path, help="the file that the delta updates")
    made.add_argument("delta", type=Path, help="result of diff")
    made.add_argument("new", type=Path, help="where to write; may be the old file")
    made.set_defaults(run=_run)


def _run(settings: Any) -> None:
    with progress("updating") as show:
        size = pack.patch(settings.old, settings.delta, settings.new, progress=show)
    print(f"{settings.new}: {size:,} bytes")
