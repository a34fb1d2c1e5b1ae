# SPDX-License-Identifier: Apache-2.0
"""Files opened for reading: the manifest is read at once, a payload when it is asked for.

The file is mapped into memory, so that one leaf is read without the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ._errors import ArtifactError
from ._manifest import Tensor
from ._payload import Bytes, CorruptPayload, Unsupported
from ._text import KEY, VERSION, manifest_checksum

_MOST_BYTES = 8 << 30


class Opened(NamedTuple):
    """An open file.

    Attributes:
      tree: the JSON node of the tree.
      by_path: name of the type that required saving by path, else None.
      tensors: by name, in the order in which they lie in the file, one after another.
      head: how many bytes come before the first of them; the last ends with the file.
    """

    tree: Any
    by_path: str | None
    tensors: dict[str, Tensor]
    head: int


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Open a file, check its manifest, and close it in the end.

    Raises:
      FileNotFoundError: if there is no such file.
      ArtifactError: if it cannot be read, or its contents are refused while it is open.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}. Check the path.")
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield _open(file, path)
    except safetensors.SafetensorError as error:
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
    text = (file.metadata() or {}).get(KEY)
    if text is None:
        raise CorruptPayload(
            "it is a safetensors file, but not one written by jaxcompress.save"
        )
    sizes = {name: _size(file, name) for name in file.offset_keys()}
    manifest = _manifest(text)
    checksums = _check_manifest(manifest, len(sizes))
    by_name = dict(zip(sorted(sizes), checksums, strict=True))

    def reader(name: str) -> Any:
        def read() -> Bytes:
            return file.get_tensor(name).data

        return read

    tensors = {
        name: Tensor(reader(name), size, by_name[name]) for name, size in sizes.items()
    }
    head = path.stat().st_size - sum(sizes.values())
    return Opened(manifest.get("tree"), manifest.get("by_path"), tensors, head)


def _size(file: Any, name: str) -> int:
    part = file.get_slice(name)
    if part.get_dtype() != "U8" or len(part.get_shape()) != 1:
        raise CorruptPayload(f"tensor {name!r} is not a vector of bytes")
    return part.get_shape()[0]


def _manifest(text: str) -> dict[str, Any]:
    try:
        manifest = json.loads(text)
    except ValueError as error:
        raise CorruptPayload(f"the manifest is not valid JSON ({error})") from error
    if not isinstance(manifest, dict):
        raise CorruptPayload("the manifest is not a JSON object")
    return manifest


def _check_manifest(manifest: dict[str, Any], count: int) -> list[Any]:
    """Verify the manifest against its own checksum; return those of the tensors."""
    version, checksums = manifest.get("version"), manifest.get("crc32")
    if version != VERSION:
        raise Unsupported(
            f"its format version is {version!r} (known: {VERSION}); a newer jaxcompress "
            "may have written it"
        )
    if not isinstance(checksums, list) or len(checksums) != count + 1:
        raise CorruptPayload("it does not have one checksum per tensor")
    if checksums[0] != manifest_checksum(manifest.get("tree"), manifest.get("by_path")):
        raise CorruptPayload("the checksum of its manifest is wrong")
    return checksums[1:]


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
