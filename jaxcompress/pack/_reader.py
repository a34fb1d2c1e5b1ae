# SPDX-License-Identifier: Apache-2.0
"""Files opened for reading: the manifest is read at once, a payload when it is asked for.

The file is mapped into memory, so that one leaf is read without the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import _layout_1, _layout_2
from ._delta_file import is_delta
from ._errors import ArtifactError
from ._opened import Opened
from ._payload import CorruptPayload, Unsupported

_KEY = "jaxcompress"
_MOST_BYTES = 8 << 30


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Open a file, check its manifest, and close it in the end.

    Raises:
      FileNotFoundError: if there is no such file.
      ArtifactError: if it cannot be read, or its contents are refused while it is open.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder. Pass the path of a file.")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}. Check the path.")
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield _open(file, path)
    except safetensors.SafetensorError as error:
        if is_delta(path):
            raise ArtifactError(
                f"{str(path)!r} is an update, made by diff. Apply it to the file it was "
                "made for: patch(old, update, new)."
            ) from error
        raise ArtifactError(_damaged(path, f"safetensors reports: {error}")) from error
    except Unsupported as error:
        raise ArtifactError(f"{str(path)!r} cannot be read: {error}.") from error
    except MemoryError as error:
        raise ArtifactError(
            f"{str(path)!r} cannot be read: its arrays do not fit into memory. If the "
            "size of the file makes that unlikely, it is damaged or hostile; max_bytes= "
            "bounds what is decoded."
        ) from error
    except (CorruptPayload, RecursionError) as error:
        raise ArtifactError(_damaged(path, str(error))) from error


def default_max_bytes(path: Path) -> int:
    """Return how much a file may decode to, if the caller does not say."""
    return min(max(256 << 20, 1000 * path.stat().st_size), _MOST_BYTES)


def _damaged(path: Path, why: str) -> str:
    return (
        f"{str(path)!r} cannot be read: {why}. It is damaged, copied only in part, "
        "or not a jaxcompress file."
    )


def _open(file: Any, path: Path) -> Opened:
    text, file_bytes = (file.metadata() or {}).get(_KEY), path.stat().st_size
    if text is None:
        raise CorruptPayload(
            "it is a safetensors file, but not one written by jaxcompress.save"
        )
    try:
        manifest = json.loads(text)
    except ValueError as error:
        raise CorruptPayload(f"the manifest is not valid JSON ({error})") from error
    if not isinstance(manifest, dict):
        raise CorruptPayload("the manifest is not a JSON object")
    match manifest.get("version"):
        case 1:
            return _layout_1.open_file(file, file_bytes, manifest)
        case 2:
            return _layout_2.open_file(file, file_bytes)
        case version:
            raise Unsupported(
                f"its format version is {version!r} (known: 1, 2); a newer jaxcompress "
                "may have written it"
            )


def _safetensors() -> Any:
    # Imported here to keep `import jaxcompress` fast.
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "packing needs `safetensors`, a dependency of jaxcompress that is not "
            "installed; run: pip install 'safetensors>=0.8,<0.9'"
        ) from error
    return safetensors
