# SPDX-License-Identifier: Apache-2.0
"""The cache folder: a manifest, and shards that hold columns of answers.

A shard is named by a hash of its content and the key. So a damaged one, or one of another
key, is noticed, and no two writers choose the same name for different answers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from .._atomic import write_bytes
from ._key import Key

MANIFEST = "manifest.json"
VERSION = 3
COLUMNS = ("ids", "seeds", "inputs", "indices", "log_probs")


class CacheError(ValueError):
    """A teacher cache cannot be used; the message names the folder and the reason."""


def check(folder: Path, key: Key) -> None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if not isinstance(manifest, dict):
            raise ValueError("not a JSON object")
    except ValueError as error:
        raise CacheError(
            f"{folder / MANIFEST} is damaged. Delete it, and continue writing the cache "
            f"with the same key. ({error})"
        ) from error
    if manifest.get("version") != VERSION:
        raise CacheError(
            f"the cache {folder} must have version {VERSION}, got "
            f"{manifest.get('version')!r}. Delete it and write it again."
        )
    mismatches = [
        f"{name} is {manifest.get(name)!r} in the cache, but the key has {value!r}"
        for name, value in dataclasses.asdict(key).items()
        if manifest.get(name) != value
    ]
    if mismatches:
        raise CacheError(
            f"the cache {folder} does not match the key: {'; '.join(mismatches)}. Choose "
            "another folder, or delete this one."
        )


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def write_shard(folder: Path, key: Key, columns: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save

    content = save({name: np.ascontiguousarray(x) for name, x in columns.items()})
    write_bytes(folder / f"{_digest(content, key)}.safetensors", content)


def read_shard(path: Path, key: Key) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
        if _digest(content, key) != path.stem:
            raise CacheError(
                "its name is not the checksum of its content and the cache's key"
            )
        return {name: x for name, x in load(content).items() if name in COLUMNS}
    except (SafetensorError, CacheError, OSError) as error:
        raise CacheError(
            f"{path} is damaged. Delete it and write the cache again: only its answers "
            f"are then computed again. ({error})"
        ) from error


def _digest(content: bytes, key: Key) -> str:
    digest = hashlib.blake2b(content, digest_size=16)
    digest.update(json.dumps(dataclasses.asdict(key), sort_keys=True).encode())
    return digest.hexdigest()


def ids_and_seeds(ids: Any, seeds: Any) -> tuple[np.ndarray, np.ndarray]:
    ids = np.asarray(ids)
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(
            f"ids must be integers of shape (n,), got {ids.dtype} of shape {ids.shape}."
        )
    ids = ids.astype(np.int64)
    return ids, np.broadcast_to(np.asarray(seeds, np.int64), ids.shape).copy()


def hashes(inputs: Any, count: int) -> np.ndarray:
    """Hash every input to a nonzero uint64; without inputs, return zeros."""
    if inputs is None:
        return np.zeros(count, np.uint64)
    rows = np.ascontiguousarray(inputs)
    if rows.shape[:1] != (count,):
        raise ValueError(
            f"inputs must have one row for each of the {count} ids, got shape "
            f"{rows.shape}."
        )
    prefix = f"{rows.dtype.name}{rows.shape[1:]}".encode()
    digests = [hashlib.blake2b(prefix + row.tobytes(), digest_size=8) for row in rows]
    hashes = [int.from_bytes(digest.digest(), "little") for digest in digests]
    return np.maximum(np.array(hashes, np.uint64), np.uint64(1))
