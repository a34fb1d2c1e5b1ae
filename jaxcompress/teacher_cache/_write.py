# SPDX-License-Identifier: Apache-2.0
"""Write a teacher's answers to a cache."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._arguments import check_whole
from .._atomic import LEFT_OVER, write_bytes
from .._lock import LOCK, FolderLock
from ..distill import top_k
from ._folder import (
    COLUMNS,
    MANIFEST,
    VERSION,
    CacheError,
    check,
    hashes,
    ids_and_seeds,
    read_shard,
    shards,
    write_shard,
)
from ._key import Key


class Writer:
    """Adds a teacher's answers to a cache; made by ``write``."""

    def __init__(self, folder: Path, key: Key, shard: int) -> None:
        self._folder, self._key, self._shard = folder, key, shard
        self._pending: list[dict[str, np.ndarray]] = []
        parts = [read_shard(path, key) for path in shards(folder)]
        self._seen = {
            pair
            for part in parts
            for pair in zip(part["ids"].tolist(), part["seeds"].tolist(), strict=True)
        }

    def __contains__(self, example: tuple[int, int]) -> bool:
        """True if ``(id, seed)`` is already cached, so you can skip computing it."""
        return example in self._seen

    def add(
        self, ids: Any, logits: jax.Array, *, seeds: Any = 0, inputs: Any = None
    ) -> None:
        """Add the teacher's logits for a batch, and skip examples already cached.

        Args:
          ids: integers of shape ``(n,)``, one per example, the same in every epoch.
          logits: float array of shape ``(n, classes)``.
          seeds: seeds of the augmentation: integers of shape ``(n,)``, or one for all.
          inputs: teacher inputs of shape ``(n, ...)``. A hash of each is stored, so that
            the reader can check that the student gets the same input.

        Raises:
          ValueError: if the shapes do not match the key, or the logits contain NaN.
        """
        ids, seeds = ids_and_seeds(ids, seeds)
        if logits.shape != (len(ids), self._key.classes):
            raise ValueError(
                f"logits must have shape (ids, classes) = {len(ids), self._key.classes}, "
                f"got {logits.shape}."
            )
        answers = top_k(logits, self._key.k, temperature=self._key.temperature)
        values = np.asarray(answers.log_probs)
        if np.isnan(values).any():
            raise ValueError(
                "the teacher's logits contain NaN, so this batch was not cached."
            )
        indices = np.asarray(answers.indices)
        columns = ids, seeds, hashes(inputs, len(ids)), indices, values
        new = []
        for i, pair in enumerate(zip(ids.tolist(), seeds.tolist(), strict=True)):
            if pair not in self._seen:
                self._seen.add(pair)
                new.append(i)
        part = dict(zip(COLUMNS, columns, strict=True))
        self._pending.append({name: x[new] for name, x in part.items()})
        while sum(len(p["ids"]) for p in self._pending) >= self._shard:
            self._write_shard(self._shard)

    def flush(self) -> None:
        """Write all pending answers to disk."""
        self._write_shard(sum(len(p["ids"]) for p in self._pending))

    def _write_shard(self, count: int) -> None:
        """Write the first ``count`` pending answers as one shard."""
        if not count:
            return
        columns = {
            name: np.concatenate([part[name] for part in self._pending])
            for name in self._pending[0]
        }
        shard = {name: x[:count] for name, x in columns.items()}
        write_shard(self._folder, self._key, shard)
        self._pending = [{name: x[count:] for name, x in columns.items()}]


@contextlib.contextmanager
def write(
    folder: str | os.PathLike[str], key: Key, *, shard: int = 4096
) -> Iterator[Writer]:
    """Open a teacher cache for writing; start a new one or continue an existing one.

    Use it to run an expensive teacher once and train students from its answers. Shards
    are written atomically, so a killed run loses at most the shard in progress. Answers
    on disk are not computed again. Several processes may write at the same time, such as
    each a part of the data.

    Args:
      folder: cache folder, created if missing.
      key: everything the answers depend on.
      shard: number of examples per file.

    Raises:
      CacheError: if the folder holds a cache with another key, a damaged shard (names
        it), or other files.
      ValueError: if ``shard`` is below 1.

    Example:
      >>> import tempfile, jax, jax.numpy as jnp, jaxcompress as jc
      >>> from jaxcompress import teacher_cache
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (4, 10))}
      >>> key = teacher_cache.Key(
      ...     teacher=teacher_cache.fingerprint(params), classes=10, k=3)
      >>> folder, x = tempfile.mkdtemp(), jnp.ones((2, 4))
      >>> with teacher_cache.write(folder, key) as cache:
      ...     cache.add([7, 9], x @ params["kernel"])
      >>> answers = teacher_cache.read(folder, key)([9])
      >>> answers.indices.shape
      (1, 3)
    """
    check_whole(shard=shard)
    if shard < 1:
        raise ValueError(f"shard must be at least 1 example per file, got {shard}.")
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    _check_files(path)
    with FolderLock(path) as lock:
        if lock.take():  # so no other writer uses these files
            for leftover in path.glob(LEFT_OVER):
                leftover.unlink()
            if not (path / MANIFEST).exists():
                manifest = {"version": VERSION, **dataclasses.asdict(key)}
                write_bytes(path / MANIFEST, json.dumps(manifest, indent=1).encode())
        lock.share()
        check(path, key)
        writer = Writer(path, key, shard)
        try:
            yield writer
        finally:
            writer.flush()


def _check_files(path: Path) -> None:
    ours = {path / MANIFEST, path / LOCK, *shards(path), *path.glob(LEFT_OVER)}
    if not (path / MANIFEST).exists() and set(path.iterdir()) - ours:
        raise CacheError(
            f"{path} must be empty or a teacher cache, but it holds other files. Choose "
            "another folder."
        )
