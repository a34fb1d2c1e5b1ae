# SPDX-License-Identifier: Apache-2.0
"""One progress bar over all parts of a study."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress as Bar,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def console() -> Console:
    """The terminal; in a file or a pipe, wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


class Progress:
    """Shows which part is running and how long all of them will take."""

    def __init__(self, console: Console, total: int) -> None:
        self._bar = Bar(
            TextColumn("{task.description:>30}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("runs"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("starting", total=total)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def start(self, name: str) -> None:
        """Show the part that begins."""
        self._bar.update(self._task, description=name)

    def done(self) -> None:
        """Count the part as finished."""
        self._bar.advance(self._task)
