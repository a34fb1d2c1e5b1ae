# SPDX-License-Identifier: Apache-2.0
"""The folder of a cache: a manifest, and shards of columns."""

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
    """A cache that cannot be used: which one, and why."""


def check(folder: Path, key: Key) -> None:
    try:
        found = json.loads((folder / MANIFEST).read_text())
    except ValueError as error:
        raise CacheError(f"{folder / MANIFEST} is damaged: {error}") from error
    if found.get("version") != VERSION:
        raise CacheError(
            f"{folder} has version {found.get('version')!r}, not {VERSION}: write it anew."
        )
    wanted = dataclasses.asdict(key)
    differs = [
        f"{name} is {found.get(name)!r} there and {value!r} here"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    if differs:
        raise CacheError(
            f"{folder} is the cache of something else: {'; '.join(differs)}. Choose "
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
        raise CacheError(f"{path} is damaged, delete it: {error}") from error


def ids_and_seeds(ids: Any, seeds: Any) -> tuple[np.ndarray, np.ndarray]:
    ids = np.asarray(ids)
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"ids are integers (n,), not {ids.dtype} {ids.shape}.")
    ids = ids.astype(np.int64)
    return ids, np.broadcast_to(np.asarray(seeds, np.int64), ids.shape).copy()


def hashes(inputs: Any, number: int) -> np.ndarray:
    """A hash of every input, uint64 and never 0; zeros where there are none."""
    if inputs is None:
        return np.zeros(number, np.uint64)
    rows = np.ascontiguousarray(inputs)
    if rows.shape[:1] != (number,):
        raise ValueError(f"inputs {rows.shape} are not those of {number} examples.")
    kind = f"{rows.dtype.name}{rows.shape[1:]}".encode()
    digests = [hashlib.blake2b(kind + row.tobytes(), digest_size=8) for row in rows]
    hashes = [int.from_bytes(digest.digest(), "little") for digest in digests]
    return np.maximum(np.array(hashes, np.uint64), np.uint64(1))
