# SPDX-License-Identifier: Apache-2.0
"""``python -m jaxcompress verify``: check files of ``save`` and of ``diff``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import pack
from ._progress import progress


def add(commands: Any) -> None:
    """Add the command."""
    made = commands.add_parser(
        "verify",
        help="check files and deltas for damage",
        description="Decode every leaf of files of jaxcompress.save, and check deltas of "
        "diff. The exit status is 1 if one is damaged.",
    )
    made.add_argument("files", type=Path, nargs="+", help="files and deltas")
    made.set_defaults(run=_run)


def _run(settings: Any) -> None:
    failures = []
    for file in settings.files:
        try:
            print(f"{file}: {_described(file)}")
        except (OSError, ValueError) as error:
            failures.append(str(error))
    if failures:
        raise ValueError("\nerror: ".join(failures))


def _described(file: Path) -> str:
    if pack.is_delta(file):
        delta = pack.read_delta(file)
        return (
            f"whole; updates the file with SHA-256 {delta.old_sha256} to "
            f"{delta.new_sha256}, {delta.new_bytes:,} bytes"
        )
    with progress(f"verifying {file.name}") as show:
        count = pack.verify(file, progress=show)
    return f"whole; {count} leaves, {file.stat().st_size:,} bytes"
