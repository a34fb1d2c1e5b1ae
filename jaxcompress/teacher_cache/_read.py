# SPDX-License-Identifier: Apache-2.0
"""Looking a teacher's answers up."""

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
    columns_of,
    hashes,
    ids_and_seeds,
    shards,
)
from ._key import Key


class Reader:
    """Looks answers up; made by ``read``. Calling it gives a ``distill.TopK``."""

    def __init__(self, folder: Path, key: Key) -> None:
        parts = [columns_of(path, COLUMNS) for path in shards(folder)]
        if not parts:
            raise CacheError(f"{folder} holds no answers yet.")
        whole = {name: np.concatenate([p[name] for p in parts]) for name in COLUMNS}
        self._folder, self._temperature = folder, jnp.float32(key.temperature)
        self._ids, self._seeds = np.unique(whole["ids"]), np.unique(whole["seeds"])
        numbers, _ = self._numbers(whole["ids"], whole["seeds"])
        order = np.argsort(numbers)
        self._sorted = numbers[order]
        self._whole = {name: x[order] for name, x in whole.items()}

    def __len__(self) -> int:
        return len(self._sorted)

    def __call__(self, ids: Any, *, seeds: Any = 0, inputs: Any = None) -> TopK:
        """The answers for a batch, in its order.

        Args:
          ids: integers ``(n,)``.
          seeds: integers ``(n,)`` or one for all.
          inputs: ``(n, ...)``, what the student is given, to be compared with what the
            teacher was, bit for bit.

        Raises:
          CacheError: naming an example that is not there, or whose input is another.
        """
        ids, seeds = ids_and_seeds(ids, seeds)
        numbers, known = self._numbers(ids, seeds)
        rows = _places(self._sorted, numbers)
        missing = ~known | (self._sorted[rows] != numbers)
        if missing.any():
            first = np.argmax(missing)
            raise CacheError(
                f"{self._folder} has no answer for example {ids[first]} with seed "
                f"{seeds[first]} (and {int(missing.sum()) - 1} others): write it, or give "
                "the ids and seeds that were written."
            )
        if inputs is not None:
            self._check_inputs(rows, hashes(inputs, len(rows)))
        indices, values = (self._whole[name][rows] for name in ("indices", "log_probs"))
        indices, values = jax.device_put((indices, values))
        return TopK(indices, values, self._temperature)

    def _check_inputs(self, rows: np.ndarray, given: np.ndarray) -> None:
        known = self._whole["inputs"][rows]
        if not known.all():
            raise CacheError(
                f"{self._folder} was written without inputs=, so they cannot be compared."
            )
        if (other := known != given).any():
            example, seed = (self._whole[n][rows[other][0]] for n in ("ids", "seeds"))
            raise CacheError(
                f"the student's input for example {example} with seed {seed} is not what "
                f"the teacher was given (nor are {int(other.sum()) - 1} others): give both "
                "the same augmentation, seeds and dtype."
            )

    def _numbers(
        self, ids: np.ndarray, seeds: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """One integer for each pair, in the order of ids and seeds; and if both occur."""
        of_ids, of_seeds = _places(self._ids, ids), _places(self._seeds, seeds)
        known = (self._ids[of_ids] == ids) & (self._seeds[of_seeds] == seeds)
        return of_ids * len(self._seeds) + of_seeds, known


def _places(among: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Where values are, if they are there, in a sorted array."""
    return np.minimum(np.searchsorted(among, values), len(among) - 1)


def read(folder: str | os.PathLike[str], key: Key) -> Reader:
    """Open a cache for reading; see ``write``.

    Args:
      folder: that ``write`` was given.
      key: what the student's training expects.

    Raises:
      CacheError: if it is no cache, or one of another teacher or other settings; it says
        what differs.
    """
    path = Path(folder)
    if not (path / MANIFEST).exists():
        raise CacheError(f"{path} is no cache of a teacher: it has no {MANIFEST}.")
    check(path, key)
    return Reader(path, key)
