# SPDX-License-Identifier: Apache-2.0
"""One run of a study, from the command line to the files in its folder."""

from __future__ import annotations

import dataclasses
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from jaxcompress import report

from ..data import Split, load
from ._cli import Options
from ._folder import Folder
from ._jobs import Codec, Job, fields_of, run_jobs
from ._ledger import Ledger
from ._progress import Progress, console
from ._search import Search
from ._verdicts import Claim, verdicts

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")
Record = TypeVar("Record")


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
      folder: where the files are.
      console: where tables are printed.
    """

    def __init__(
        self,
        options: Options,
        config: DataclassInstance,
        *,
        free: Collection[str] = (),
    ) -> None:
        """Load the data. Nothing is written before the first job.

        Args:
          options: of the command line.
          config: settings of the run.
          free: names of settings that may change when a run is continued.

        Raises:
          RunError: if a new run would meet files, or there is no run to continue.
        """
        self.console, self._start = console(), time.monotonic()
        self._earlier_seconds = 0.0
        self.folder = Folder.check(options.out, resume=options.resume)
        self.data = load(
            options.data, data_dir=options.data_dir, download=options.download
        )
        self._config, self._free = dataclasses.asdict(config), free
        self._settings = {
            "study": options.study,
            "choose": options.choose,
            "training_data": _checksum(self.data.train),
            **self._config,
        }

    def run(
        self,
        kind: type[Record],
        jobs: Callable[[list[Record]], Iterable[Job[Record]]],
        *,
        codec: Codec[Record] | None = None,
        file: str = "records.json",
    ) -> list[Record]:
        """Run the jobs of a study that are not recorded yet; returns all records.

        Args:
          kind: of the records.
          jobs: lists the jobs, given the records, which are filled in as jobs end.
          codec: how records become JSON; None for dataclasses.
          file: where they are recorded.

        Raises:
          RunError: if the folder holds a run with other settings.
        """
        records: list[Record] = []
        listed = list(jobs(records))
        self.folder.claim(self._settings, free=self._free)
        ledger = Ledger(self.folder, file)
        with Progress(self.console, len(listed)) as progress:
            run_jobs(listed, records, codec or fields_of(kind), ledger, progress)
        self._earlier_seconds += ledger.earlier_seconds
        return records

    def choose(
        self,
        choose: Callable[[Search], Mapping[str, Any]],
        *,
        setting: str = "",
        shown: Callable[[Mapping[str, Any]], Any] | None = None,
    ) -> None:
        """Choose on validation data, and write what was chosen.

        Args:
          choose: content of the file. It is called twice; the first time to count.
          setting: the one that is being chosen, left out of the settings of the run.
          shown: what is printed of the content, if not all of it.

        Raises:
          RunError: if the folder holds a run with other settings.
        """
        counted = Search()
        choose(counted)
        self.folder.claim(self._settings, free=self._free)
        ledger = Ledger(self.folder, "trials.json")
        with Progress(self.console, counted.trials) as progress:
            content = choose(Search(ledger, progress))
        about = self._about()
        about["config"].pop(setting, None)
        split = {"split": "validation", "examples": len(self.data.validation)}
        about |= {"data": self.data.name, **split}
        self.folder.write("choices.json", {**content, **about})
        self.console.print(content if shown is None else shown(content))

    def finish(
        self,
        content: Mapping[str, Any],
        tables: Any,
        draw: Callable[[Path], object],
        claims: Iterable[Claim] = (),
    ) -> None:
        """Write the results and their picture, and show the tables and the verdicts.

        Args:
          content: of the file, beside the settings.
          tables: Markdown, printed as it is, or what rich draws.
          draw: draws the picture into a file.
          claims: what is compared with a trivial way.
        """
        seconds = time.monotonic() - self._start + self._earlier_seconds
        about = {**self._about(), "test": len(self.data.test), "seconds": seconds}
        self.folder.write("results.json", {**about, **content})
        if isinstance(tables, str):
            print(tables)
        else:
            self.console.print(tables)
        if claims := list(claims):
            print(f"\n{verdicts(claims)}\n")
        draw(self.folder.path / "results.png")
        self.console.print(
            f"{seconds:.0f} s. Results: {self.folder.path}", soft_wrap=True
        )

    def _about(self) -> dict[str, Any]:
        return {
            "config": dict(self._config),
            "train": len(self.data.train),
            "provenance": dataclasses.asdict(report.provenance()),
        }


def _checksum(split: Split) -> int:
    """Tells one training split from another."""
    x, y = (np.ascontiguousarray(part) for part in (split.x, split.y))
    return zlib.crc32(y.data, zlib.crc32(x.data))
