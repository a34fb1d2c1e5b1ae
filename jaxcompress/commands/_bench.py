# SPDX-License-Identifier: Apache-2.0
"""``python -m jaxcompress bench``: time exported files side by side."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from .. import export
from .._arguments import check_counts
from ._arrays import read
from ._memory import megabytes


def add(commands: Any) -> None:
    """Add the command."""
    made = commands.add_parser(
        "bench",
        help="time exported files side by side",
        description="Time exported files side by side, in turn, in one process.",
    )
    made.add_argument("files", type=Path, nargs="+", help="the first is the baseline")
    made.add_argument(
        "--inputs", type=Path, nargs="+", required=True, help=".npy or .npz files"
    )
    made.add_argument("--rounds", type=int, default=50, help="default 50")
    made.add_argument("--threads", type=int, default=1, help="default 1")
    made.add_argument(
        "--memory",
        action="store_true",
        help="also load and run each file in a process of its own, and show by how many MB "
        "it grows, the code of the runtime included",
    )
    made.set_defaults(run=_run)


def _run(settings: Any) -> None:
    check_counts(rounds=settings.rounds, threads=settings.threads)
    inputs = read(settings.inputs)
    sessions = {f: export.load(f, threads=settings.threads) for f in settings.files}
    seconds: dict[Path, list[float]] = {f: [] for f in settings.files}
    for session in sessions.values():
        session(*inputs)  # the first call prepares
    for _ in range(settings.rounds):
        for file, session in sessions.items():
            start = time.perf_counter()
            session(*inputs)
            seconds[file].append(time.perf_counter() - start)
    baseline = seconds[settings.files[0]]
    grown = {
        f: f" {megabytes(f, settings.inputs):>7.1f}" if settings.memory else ""
        for f in settings.files
    }
    memory = f" {'MB':>7}" if settings.memory else ""
    print(f"{'bytes':>12} {'median ms':>10} {'ratio':>7}{memory}  file")
    for file, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, baseline, strict=True))
        median = 1e3 * statistics.median(times)
        size = file.stat().st_size
        print(f"{size:>12,} {median:>10.3f} {ratio:>7.3f}{grown[file]}  {file}")
