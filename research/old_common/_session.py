# SPDX-License-Identifier: Apache-2.0
"""One run of a study, from the command line to the files in its folder."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jaxcompress import report

from ..data import load
from ._bar import Progress, console
from ._cli import Options
from ._results import write

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")


def adjusted(
    settings: Settings, *, seeds: int | None, quick: bool, **small: Any
) -> Settings:
    """Settings as they were asked for on the command line.

    Args:
      settings: a dataclass with fields ``seeds`` and ``quick``.
      seeds: how many, or None for its own.
      quick: whether this is a trial, of one seed if nothing else is asked for.
      **small: its fields in a trial.
    """
    if quick:
        small |= {"seeds": seeds or 1, "quick": True}
        return dataclasses.replace(settings, **small)
    if seeds is not None:
        return dataclasses.replace(settings, seeds=seeds)
    return settings


class Session:
    """The data of a run, its clock, and the files that it leaves.

    Attributes:
      data: the data set.
      console: where it speaks.
    """

    def __init__(self, options: Options, config: Mapping[str, Any]) -> None:
        """Load the data; ``config`` are the settings, as JSON."""
        self.console = console()
        self._start, self._out = time.monotonic(), options.out
        self.data = load(
            options.data, data_dir=options.data_dir, download=options.download
        )
        self._about = {
            "config": dict(config),
            "train": len(self.data.train),
            "provenance": dataclasses.asdict(report.provenance()),
        }

    def progress(self, total: int) -> Progress:
        """A bar over so many runs."""
        return Progress(self.console, total)

    def chose(
        self, made: Mapping[str, Any], *, setting: str = "", shown: Any = None
    ) -> None:
        """Write what was chosen on validation data, beside the settings of the run.

        Args:
          made: content of the file.
          setting: the one that was being chosen, which is left out.
          shown: what is printed, if not all that was made.
        """
        about = {**self._about, "config": dict(self._about["config"])}
        about["config"].pop(setting, None)
        write(self._out / "choices.json", {**made, **about})
        self.console.print(made if shown is None else shown)

    def finish(
        self, content: Mapping[str, Any], tables: Any, draw: Callable[[Path], object]
    ) -> None:
        """Write the results and their picture, and show the tables.

        Args:
          content: of the file, beside the settings.
          tables: Markdown, printed as it is, or what rich draws.
          draw: draws the picture into a file.
        """
        seconds = time.monotonic() - self._start
        about = {**self._about, "test": len(self.data.test), "seconds": seconds}
        write(self._out / "results.json", {**about, **content})
        if isinstance(tables, str):
            print(tables)
        else:
            self.console.print(tables)
        draw(self._out / "results.png")
        self.console.print(f"{seconds:.0f} s. Results: {self._out}", soft_wrap=True)
