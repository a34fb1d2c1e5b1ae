# SPDX-License-Identifier: Apache-2.0
"""Look up a teacher's answers in a cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..distill import TopK
from ._folder import (
    COLUMNS,
    MANIFEST,
    CacheError,
    check,
    hashes,
    ids_and_seeds,
    read_shard,
    shards,
)
from ._key import Key


class Reader:
    """Looks up a teacher's answers; made by ``read``. Calls return a ``distill.TopK``."""

    def __init__(self, folder: Path, key: Key) -> None:
        parts = [read_shard(path, key) for path in shards(folder)]
        if not parts:
            raise CacheError(
                f"the cache {folder} holds no answers yet. Fill it with "
                "teacher_cache.write."
            )
        columns = {name: np.concatenate([p[name] for p in parts]) for name in COLUMNS}
        self._folder, self._temperature = folder, jnp.float32(key.temperature)
        self._ids, self._seeds = np.unique(columns["ids"]), np.unique(columns["seeds"])
        pairs, _ = self._pair_numbers(columns["ids"], columns["seeds"])
        # Once each: writers at the same time may have written the same answers.
        self._sorted_pairs, order = np.unique(pairs, return_index=True)
        self._columns = {name: x[order] for name, x in columns.items()}

    def __len__(self) -> int:
        return len(self._sorted_pairs)

    def __call__(self, ids: Any, *, seeds: Any = 0, inputs: Any = None) -> TopK:
        """Return the teacher's answers for a batch, in the order of ``ids``.

        Args:
          ids: integers of shape ``(n,)``.
          seeds: integers of shape ``(n,)``, or one for all examples.
          inputs: student inputs of shape ``(n, ...)``. They are compared bit for bit with
            the inputs of the teacher. None skips the comparison.

        Raises:
          CacheError: if an example is missing, or its input differs. The message names
            the example.
        """
        ids, seeds = ids_and_seeds(ids, seeds)
        pairs, is_known = self._pair_numbers(ids, seeds)
        rows = _indices_in(self._sorted_pairs, pairs)
        missing = ~is_known | (self._sorted_pairs[rows] != pairs)
        if missing.any():
            first = np.argmax(missing)
            raise CacheError(
                f"{self._folder} has no answer for example {ids[first]} with seed "
                f"{seeds[first]} (and {int(missing.sum()) - 1} others). Write it first, or "
                "pass ids and seeds that were written."
            )
        if inputs is not None:
            self._check_inputs(rows, hashes(inputs, len(rows)))
        indices, values = (
            self._columns[name][rows] for name in ("indices", "log_probs")
        )
        indices, values = jax.device_put((indices, values))
        return TopK(indices, values, self._temperature)

    def _check_inputs(self, rows: np.ndarray, student: np.ndarray) -> None:
        teacher = self._columns["inputs"][rows]
        if not teacher.all():
            raise CacheError(
                f"{self._folder} was written without inputs=, so inputs cannot be "
                "compared. Omit inputs=, or write the cache again with inputs=."
            )
        if (differs := teacher != student).any():
            example, seed = (
                self._columns[name][rows[differs][0]] for name in ("ids", "seeds")
            )
            raise CacheError(
                f"the student's input for example {example} with seed {seed} differs from "
                f"the teacher's (and so do {int(differs.sum()) - 1} others). Use the same "
                "augmentation, seeds and dtype for both."
            )

    def _pair_numbers(
        self, ids: np.ndarray, seeds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Number each (id, seed) pair in sorted order.

        Returns:
          Integers of shape ``(n,)``, and bools that are True if both the id and the seed
          occur in the cache.
        """
        i, j = _indices_in(self._ids, ids), _indices_in(self._seeds, seeds)
        is_known = (self._ids[i] == ids) & (self._seeds[j] == seeds)
        return i * len(self._seeds) + j, is_known


def _indices_in(sorted_array: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the indices of values in a sorted array; any index for absent values."""
    return np.minimum(np.searchsorted(sorted_array, values), len(sorted_array) - 1)


def read(folder: str | os.PathLike[str], key: Key) -> Reader:
    """Open a teacher cache that ``write`` filled, to train a student from it.

    Args:
      folder: folder that was passed to ``write``.
      key: key that the student's training expects.

    Raises:
      CacheError: if the folder is not a teacher cache, its key differs, or a shard does
        not match its checksum. The message says what differs, or names the shard.
    """
    path = Path(folder)
    if not (path / MANIFEST).exists():
        raise CacheError(
            f"{path} is not a teacher cache: it has no {MANIFEST}. Pass the folder that "
            "teacher_cache.write filled."
        )
    check(path, key)
    return Reader(path, key)
