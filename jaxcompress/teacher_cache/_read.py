# SPDX-License-Identifier: Apache-2.0
"""Looking a teacher's answers up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..distill import TopK
from ._folder import (
    COLUMNS,
    MANIFEST,
    CacheError,
    as_records,
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
        order = np.lexsort((whole["seeds"], whole["ids"]))
        self._folder, self._key = folder, key
        self._whole = {name: x[order] for name, x in whole.items()}
        self._pairs = as_records(self._whole["ids"], self._whole["seeds"])

    def __len__(self) -> int:
        return len(self._pairs)

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
        wanted = as_records(*ids_and_seeds(ids, seeds))
        rows = np.minimum(np.searchsorted(self._pairs, wanted), len(self._pairs) - 1)
        missing = self._pairs[rows] != wanted
        if missing.any():
            example, seed = wanted[missing][0].tolist()
            raise CacheError(
                f"{self._folder} has no answer for example {example} with seed {seed} (and "
                f"{int(missing.sum()) - 1} others): write it, or give the ids and seeds "
                "that were written."
            )
        if inputs is not None:
            self._check_inputs(rows, hashes(inputs, len(rows)))
        return TopK(
            jnp.asarray(self._whole["indices"][rows]),
            jnp.asarray(self._whole["log_probs"][rows]),
            jnp.float32(self._key.temperature),
        )

    def _check_inputs(self, rows: np.ndarray, given: np.ndarray) -> None:
        known = self._whole["inputs"][rows]
        if not known.all():
            raise CacheError(
                f"{self._folder} was written without inputs=, so they cannot be compared."
            )
        if (other := known != given).any():
            example, seed = self._pairs[rows[other][0]].tolist()
            raise CacheError(
                f"the student's input for example {example} with seed {seed} is not what "
                f"the teacher was given (nor are {int(other.sum()) - 1} others): give both "
                "the same augmentation, seeds and dtype."
            )


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
