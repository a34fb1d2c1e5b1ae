# SPDX-License-Identifier: Apache-2.0
"""The safetensors container, written leaf by leaf: no more than one leaf is in memory."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

# What is smaller than this waits in memory; anything larger in the folder of the file.
_IN_MEMORY = 16 << 20
_CHUNK = 1 << 20


class _Place(NamedTuple):
    """Where the payload of a tensor waits."""

    start: int
    size: int


class Spool:
    """Coded tensors that wait for their header, which comes first in the file."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(
            _IN_MEMORY, dir=str(folder)
        )
        self._places: dict[str, _Place] = {}

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, name: str, parts: list[bytes | bytearray]) -> None:
        """Append a tensor."""
        start = self._file.tell()
        for part in map(memoryview, parts):
            for at in range(0, len(part), _CHUNK):
                self._file.write(part[at : at + _CHUNK])
        self._places[name] = _Place(start, self._file.tell() - start)

    def chunks(self, metadata: dict[str, str]) -> Iterator[bytes]:
        """Yield the bytes of the file, as ``safetensors`` itself would write them."""
        header: dict[str, object] = {"__metadata__": metadata}
        at = 0
        for name, place in sorted(self._places.items()):
            offsets = [at, at := at + place.size]
            header[name] = {
                "dtype": "U8", "shape": [place.size], "data_offsets": offsets
            }  # fmt: skip
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        yield len(text).to_bytes(8, "little") + text
        for _, place in sorted(self._places.items()):
            self._file.seek(place.start)
            for left in range(place.size, 0, -_CHUNK):
                yield self._file.read(min(left, _CHUNK))
