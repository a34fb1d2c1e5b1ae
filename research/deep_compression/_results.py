# SPDX-License-Identifier: Apache-2.0
"""What a run leaves in its folder: one JSON a seed and row, and all of them together."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from jaxcompress import report

from ._config import Config


class RunError(Exception):
    """What went wrong, in words for the person at the terminal."""


@dataclasses.dataclass(frozen=True)
class Folder:
    """Where a run keeps its files.

    Attributes:
      path: the folder; ``config.json``, ``results.json`` and ``results.png`` lie in it.
    """

    path: Path

    def open(self, config: Config, *, resume: bool) -> None:
        """Make the folder, or check that it is of a run with these settings.

        Raises:
          RunError: if it cannot be written, holds a run already, or one of other
            settings.
        """
        file = self.path / "config.json"
        try:
            if not file.exists():
                if resume:
                    raise RunError(
                        f"{self.path} holds no run to go on with; leave --resume out."
                    )
                self.path.mkdir(parents=True, exist_ok=True)
                config.save(file)
                return
            earlier = Config.load(file)
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be written ({error.strerror}). Choose a folder that "
                "you may write to with --out."
            ) from error
        except (TypeError, ValueError) as error:
            raise RunError(
                f"{file} is no settings file of this study ({error}). Choose another "
                "folder with --out."
            ) from error
        if not resume:
            raise RunError(
                f"{self.path} already holds a run. Go on with it with --resume, or choose "
                "another folder with --out."
            )
        changed = [
            f"{name} {old} -> {new}"
            for (name, old), new in zip(
                dataclasses.asdict(earlier).items(),
                dataclasses.asdict(config).values(),
                strict=True,
            )
            if old != new and name != "seeds"
        ]
        if changed:
            raise RunError(
                f"{self.path} holds a run with other settings ({', '.join(changed)}). "
                "Leave those options out to go on with it, or choose another --out."
            )
        config.save(file)

    def checkpoints(self, seed: int, row: str) -> Path:
        """Folder of the checkpoints of a stage."""
        return self.path / "checkpoints" / f"seed{seed}-{_slug(row)}"

    def artifact(self, seed: int, row: str) -> Path:
        """The saved network of a row."""
        return self.path / f"seed{seed}-{_slug(row)}.safetensors"

    def record(self, seed: int, row: str) -> report.Record | None:
        """The record of a row, if it is finished."""
        file = self._record_file(seed, row)
        if not (file.exists() and self.artifact(seed, row).exists()):
            return None
        return report.Record.from_json(file.read_text())

    def finish(self, seed: int, record: report.Record) -> None:
        """Store a finished row. The file appears whole or not at all."""
        _write(self._record_file(seed, record.name), record.to_json())

    def summarize(self, summary: dict[str, Any]) -> Path:
        """Write ``results.json``."""
        file = self.path / "results.json"
        _write(file, json.dumps(summary, indent=1, allow_nan=False) + "\n")
        return file

    def _record_file(self, seed: int, row: str) -> Path:
        return self.path / f"seed{seed}-{_slug(row)}.json"


def default_folder(data: str, *, resume: bool) -> Path:
    """The next free folder for a data set; to resume, the last one that is there."""
    root = Path("results") / "deep_compression"
    number, free, last = 1, root / data, None
    while free.exists():
        number, last = number + 1, free
        free = root / f"{data}-{number}"
    return last if resume and last is not None else free


def _slug(row: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in row).strip("-")


def _write(file: Path, text: str) -> None:
    part = file.with_suffix(".part")
    part.write_text(text)
    os.replace(part, file)
