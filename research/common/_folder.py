# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: its settings, and JSON files that are complete or absent."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ._errors import RunError

SETTINGS = "config.json"


@dataclasses.dataclass(frozen=True)
class Folder:
    """Where a run keeps its files.

    Attributes:
      path: the folder. ``config.json`` in it holds the settings.
    """

    path: Path

    @classmethod
    def check(cls, path: Path, *, resume: bool) -> Folder:
        """The folder of a new run, or of the run to continue; nothing is written.

        Raises:
          RunError: if a new run would meet files, or there is no run to continue.
        """
        if resume:
            if not (path / SETTINGS).exists():
                raise RunError(
                    f"{path} holds no run to continue. Leave --resume out, or name the "
                    "folder of the run with --out."
                )
        elif (path / SETTINGS).exists():
            raise RunError(
                f"{path} already holds a run. Continue it with --resume, or choose "
                "another folder with --out."
            )
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(f"{path} is not empty. Choose another folder with --out.")
        return cls(path)

    def claim(self, settings: Mapping[str, Any], *, free: Collection[str] = ()) -> None:
        """Store the settings of a new run, or compare them with the stored ones.

        Args:
          settings: as JSON can hold them.
          free: names of settings that may change when the run is continued.

        Raises:
          RunError: if the folder cannot be written, or holds a run with other settings.
        """
        file = self.path / SETTINGS
        if file.exists():
            changed = _differences(self._stored(file), _as_json(settings), free)
            if changed:
                raise RunError(
                    f"{self.path} holds a run with other settings ({changed}). Give the "
                    "options of that run to continue it, or choose another --out."
                )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write(file, settings)
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be written ({error.strerror}). Choose a folder that "
                "you may write to with --out."
            ) from error

    def read(self, name: str) -> Any:
        """Content of a JSON file of the folder; None if there is no such file.

        Raises:
          RunError: if it is damaged.
        """
        file = self.path / name
        try:
            return json.loads(file.read_text()) if file.exists() else None
        except ValueError as error:
            raise RunError(
                f"{file} is damaged ({error}). Move it away; --resume then starts over."
            ) from error

    def write(self, name: str, content: Mapping[str, Any]) -> Path:
        """Write a JSON file of the folder; returns its path."""
        return write(self.path / name, content)

    @staticmethod
    def _stored(file: Path) -> dict[str, Any]:
        try:
            return dict(json.loads(file.read_text()))
        except (TypeError, ValueError) as error:
            raise RunError(
                f"{file} is not a settings file of a study ({error}). Choose another "
                "folder with --out."
            ) from error


def write(file: Path, content: Mapping[str, Any]) -> Path:
    """Write JSON; the file appears whole or not at all."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    os.replace(part, file)
    return file


def chosen_by(module: str) -> dict[str, Any]:
    """The ``choices.json`` beside a module: what ``--choose`` of its study wrote."""
    return json.loads(Path(module).with_name("choices.json").read_text())


def default_folder(study: str, data: str, *, resume: bool) -> Path:
    """The next free folder for a data set; to resume, the last one that is there."""
    root = Path("results") / study
    number, free, last = 1, root / data, None
    while free.exists():
        number, last = number + 1, free
        free = root / f"{data}-{number}"
    return last if resume and last is not None else free


def _as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as they are read back: tuples are lists there."""
    return json.loads(json.dumps(settings))


def _differences(
    old: dict[str, Any], new: dict[str, Any], free: Collection[str]
) -> str:
    names = [name for name in (old | new) if name not in free]
    return ", ".join(
        f"{name} {old.get(name)} -> {new.get(name)}"
        for name in names
        if old.get(name) != new.get(name)
    )
