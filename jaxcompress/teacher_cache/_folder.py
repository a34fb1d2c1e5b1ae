# SPDX-License-Identifier: Apache-2.0
"""The cache folder: a manifest, and shards that hold columns of answers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from ._key import Key

MANIFEST = "manifest.json"
VERSION = 2
COLUMNS = ("ids", "seeds", "inputs", "indices", "log_probs")


class CacheError(ValueError):
    """A teacher cache cannot be used; the message names the folder and the reason."""


def check(folder: Path, key: Key) -> None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except ValueError as error:
        raise CacheError(f"{folder / MANIFEST} is damaged: {error}") from error
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


def columns_of(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CacheError(
            f"{path} is damaged. Delete it and write its answers again. ({error})"
        ) from error


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
