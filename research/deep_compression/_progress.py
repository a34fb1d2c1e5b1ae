# SPDX-License-Identifier: Apache-2.0
"""One progress bar over all seeds and stages."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress as Bar,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Progress:
    """Shows which stage of which seed is training and how long all of it will take."""

    def __init__(self, console: Console, total: int) -> None:
        self._bar = Bar(
            TextColumn("{task.description:>22}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
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

    def skip(self, steps: int) -> None:
        """A stage that an earlier run has finished."""
        self._bar.advance(self._task, steps)

    @contextlib.contextmanager
    def task(self, seed: int, name: str, steps: int) -> Iterator[Callable[[int], None]]:
        """Show a stage; yields the function to call with the number of steps done."""
        self._bar.update(self._task, description=f"seed {seed}: {name}")
        done = 0

        def tick(now: int) -> None:
            nonlocal done
            if now - done >= 20 or now == steps:
                self._bar.advance(self._task, now - done)
                done = now

        yield tick
