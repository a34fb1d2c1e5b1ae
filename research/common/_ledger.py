# SPDX-License-Identifier: Apache-2.0
"""What is finished of a run, on disk as soon as it is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ._folder import Folder


class Ledger:
    """Results by name in one JSON file of the folder, complete after each of them.

    Attributes:
      earlier_seconds: what the results took that earlier processes made.
    """

    def __init__(self, folder: Folder, file: str) -> None:
        self._folder, self._file = folder, file
        self._entries: dict[str, Any] = folder.read(file) or {}
        self._asked: set[str] = set()
        self.earlier_seconds = 0.0

    def result(
        self, name: str, make: Callable[[], Any], *, files: Sequence[Path] = ()
    ) -> Any:
        """The recorded result, or that of ``make``, which is then recorded.

        Args:
          name: of the result; no other has it.
          make: returns what JSON can hold.
          files: what ``make`` leaves behind; if one is missing, it runs again.

        Raises:
          ValueError: if the name was asked for before.
        """
        if name in self._asked:
            raise ValueError(f"two results of one run are named {name!r}.")
        self._asked.add(name)
        entry = self._entries.get(name)
        if entry is not None and all(file.exists() for file in files):
            self.earlier_seconds += entry["seconds"]
            return entry["result"]
        start = time.monotonic()
        result = make()
        seconds = time.monotonic() - start
        self._entries[name] = {"seconds": seconds, "result": result}
        self._folder.write(self._file, self._entries)
        return result
