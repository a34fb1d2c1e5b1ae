# SPDX-License-Identifier: Apache-2.0
"""Adding a teacher's answers to a cache."""

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

from .._atomic import LEFT_OVER, write_bytes
from ..distill import top_k
from ._folder import (
    COLUMNS,
    MANIFEST,
    VERSION,
    CacheError,
    check,
    columns_of,
    hashes,
    ids_and_seeds,
    shards,
)
from ._key import Key


class Writer:
    """Adds answers to a cache; made by ``write``."""

    def __init__(self, folder: Path, key: Key, shard: int) -> None:
        self._folder, self._key, self._shard = folder, key, shard
        self._number = len(shards(folder))
        self._rows: list[dict[str, np.ndarray]] = []
        known = [columns_of(path, ("ids", "seeds")) for path in shards(folder)]
        self._seen = {
            pair
            for part in known
            for pair in zip(part["ids"].tolist(), part["seeds"].tolist(), strict=True)
        }

    def __contains__(self, example: tuple[int, int]) -> bool:
        """Whether ``(id, seed)`` is there already, so that it need not be computed."""
        return example in self._seen

    def add(
        self, ids: Any, logits: jax.Array, *, seeds: Any = 0, inputs: Any = None
    ) -> None:
        """Add the teacher's logits of a batch; those that are there already are skipped.

        Args:
          ids: integers ``(n,)``, one for each example, the same in every epoch.
          logits: ``(n, classes)``.
          seeds: integers ``(n,)`` or one for all: of the augmentation that was applied.
          inputs: ``(n, ...)``, what the teacher was given, of which a hash is kept; so
            the reader can tell whether the student is given the same.

        Raises:
          ValueError: if the shapes do not fit the key, or logits are NaN.
        """
        ids, seeds = ids_and_seeds(ids, seeds)
        if logits.shape != (len(ids), self._key.classes):
            raise ValueError(
                f"logits {logits.shape} of {len(ids)} examples and {self._key.classes} "
                "classes do not fit."
            )
        kept = top_k(logits, self._key.k, temperature=self._key.temperature)
        values = np.asarray(kept.log_probs)
        if np.isnan(values).any():
            raise ValueError("the teacher answers NaN; nothing of this batch is kept.")
        indices = np.asarray(kept.indices)
        columns = ids, seeds, hashes(inputs, len(ids)), indices, values
        new = []
        for i, pair in enumerate(zip(ids.tolist(), seeds.tolist(), strict=True)):
            if pair not in self._seen:
                self._seen.add(pair)
                new.append(i)
        part = dict(zip(COLUMNS, columns, strict=True))
        self._rows.append({name: x[new] for name, x in part.items()})
        while sum(len(r["ids"]) for r in self._rows) >= self._shard:
            self._flush(self._shard)

    def flush(self) -> None:
        """Write what is not yet on disk."""
        self._flush(sum(len(r["ids"]) for r in self._rows))

    def _flush(self, number: int) -> None:
        if not number:
            return
        from safetensors.numpy import save

        whole = {
            name: np.concatenate([row[name] for row in self._rows])
            for name in self._rows[0]
        }
        now = {name: np.ascontiguousarray(x[:number]) for name, x in whole.items()}
        write_bytes(self._folder / f"{self._number:06d}.safetensors", save(now))
        self._number += 1
        self._rows = [{name: x[number:] for name, x in whole.items()}]


@contextlib.contextmanager
def write(
    folder: str | os.PathLike[str], key: Key, *, shard: int = 4096
) -> Iterator[Writer]:
    """Begin a cache, or go on with one.

    A shard is written under another name and then renamed, so that a run that is killed
    loses no more than the shard it was gathering; what is there is not computed again.

    Args:
      folder: made if it is not there.
      key: what the answers depend on.
      shard: examples in a file.

    Raises:
      CacheError: if the folder holds another teacher's cache, or something else.

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
    if shard < 1:
        raise ValueError(f"shard={shard}: a file holds 1 or more examples.")
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    if (path / MANIFEST).exists():
        check(path, key)
    elif any(path.iterdir()):
        raise CacheError(f"{path} is not empty and is no cache: choose another folder.")
    else:
        about = {"version": VERSION, **dataclasses.asdict(key)}
        write_bytes(path / MANIFEST, json.dumps(about, indent=1).encode())
    for left in path.glob(LEFT_OVER):  # of a run that was killed
        left.unlink()
    writer = Writer(path, key, shard)
    try:
        yield writer
    finally:
        writer.flush()
