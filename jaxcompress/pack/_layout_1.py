# SPDX-License-Identifier: Apache-2.0
"""The first layout of a file, which is only read: a tensor for each leaf.

The manifest is JSON in the metadata: ``tree``, ``by_path``, and ``crc32``, which holds its
own checksum and those of the tensors, sorted by name.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any

from ._manifest import Tensor
from ._opened import Opened
from ._payload import Bytes, CorruptPayload


def open_file(file: Any, file_bytes: int, manifest: dict[str, Any]) -> Opened:
    """Read the manifest of an open safetensors file.

    Args:
      file: what ``safe_open`` returned.
      file_bytes: size of the file.
      manifest: the JSON of its metadata.
    """
    sizes = {name: _size(file, name) for name in file.offset_keys()}
    checksums = _check_manifest(manifest, len(sizes))
    by_name = dict(zip(sorted(sizes), checksums, strict=True))

    def reader(name: str) -> Callable[[], Bytes]:
        return lambda: file.get_tensor(name).data

    tensors = {
        name: Tensor(reader(name), size, by_name[name]) for name, size in sizes.items()
    }
    head = file_bytes - sum(sizes.values())
    return Opened(manifest.get("tree"), manifest.get("by_path"), tensors, head)


def _size(file: Any, name: str) -> int:
    part = file.get_slice(name)
    if part.get_dtype() != "U8" or len(part.get_shape()) != 1:
        raise CorruptPayload(f"tensor {name!r} is not a vector of bytes")
    return part.get_shape()[0]


def _check_manifest(manifest: dict[str, Any], count: int) -> list[Any]:
    """Verify the manifest against its own checksum; return those of the tensors."""
    checksums = manifest.get("crc32")
    if not isinstance(checksums, list) or len(checksums) != count + 1:
        raise CorruptPayload("it does not have one checksum per tensor")
    own = [manifest.get("tree"), manifest.get("by_path")]
    text = json.dumps(own, separators=(",", ":"), ensure_ascii=False)
    # "surrogatepass": a damaged manifest may hold text that cannot be encoded.
    if checksums[0] != zlib.crc32(text.encode(errors="surrogatepass")):
        raise CorruptPayload("the checksum of its manifest is wrong")
    return checksums[1:]
