# SPDX-License-Identifier: Apache-2.0
"""The safetensors container, written leaf by leaf: no more than one leaf is in memory."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

# What is smaller than this waits in memory; anything larger in the folder of the file.
_IN_MEMORY = 16 << 20
_CHUNK = 1 << 20


class Spool:
    """Coded payloads that wait for what comes before them in the file."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(
            _IN_MEMORY, dir=str(folder)
        )
        self.sizes: dict[str, int] = {}

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, name: str, parts: list[bytes | bytearray]) -> None:
        """Append a payload."""
        start = self._file.tell()
        for part in map(memoryview, parts):
            for at in range(0, len(part), _CHUNK):
                self._file.write(part[at : at + _CHUNK])
        self.sizes[name] = self._file.tell() - start

    def chunks(
        self, metadata: dict[str, str], tensor: str, manifest: bytes
    ) -> Iterator[bytes]:
        """Yield the bytes of the file, as ``safetensors`` itself would write them.

        Args:
          metadata: the metadata of the file.
          tensor: name of its only tensor.
          manifest: what the tensor holds before the payloads.
        """
        size = len(manifest) + sum(self.sizes.values())
        header = {
            "__metadata__": metadata,
            tensor: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]},
        }
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        yield len(text).to_bytes(8, "little") + text + manifest
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK):
            yield chunk
