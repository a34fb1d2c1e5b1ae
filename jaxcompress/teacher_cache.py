# SPDX-License-Identifier: Apache-2.0
"""A teacher's answers on disk: computed once, and refused to whoever asks for others."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._compressor import PyTree
from ._select import paths_and_leaves
from .distill import TopK, top_k

_MANIFEST = "manifest.json"
_VERSION = 1


class CacheError(ValueError):
    """A cache that cannot be used: which one, and why."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Key:
    """What a cache's answers depend on, beside the examples.

    Attributes:
      teacher: ``fingerprint`` of the teacher's parameters.
      classes: number of classes.
      k: how many are kept of each example.
      temperature: of the loss to come.
      inputs: how examples are made into inputs, in words of your own: preprocessing,
        resolution, the name of the augmentation whose seeds are given.

    Raises:
      ValueError: if ``k`` does not fit.
    """

    teacher: str
    classes: int
    k: int
    temperature: float = 1.0
    inputs: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.classes:
            raise ValueError(f"k={self.k} of {self.classes} classes cannot be kept.")
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature} is not positive.")


def fingerprint(params: PyTree) -> str:
    """A hash of parameters: their paths, shapes, dtypes and bits.

    Args:
      params: any pytree of arrays, compressed leaves included.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> a, b = {"w": jnp.zeros(3)}, {"w": jnp.ones(3)}
      >>> jc.teacher_cache.fingerprint(a) == jc.teacher_cache.fingerprint(b)
      False
    """
    digest = hashlib.sha256()
    for path, leaf in zip(*paths_and_leaves(params)[:2], strict=True):
        array = np.asarray(leaf)
        digest.update(f"{path}|{array.dtype.name}|{array.shape}|".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class Writer:
    """Adds answers to a cache; made by ``write``."""

    def __init__(self, folder: Path, key: Key, shard: int) -> None:
        self._folder, self._key, self._shard = folder, key, shard
        self._number = len(_shards(folder))
        self._rows: list[dict[str, np.ndarray]] = []
        known = [_open(path, ("ids", "seeds")) for path in _shards(folder)]
        self._seen = {
            pair
            for part in known
            for pair in zip(part["ids"].tolist(), part["seeds"].tolist(), strict=True)
        }

    def __contains__(self, example: tuple[int, int]) -> bool:
        """Whether ``(id, seed)`` is there already, so that it need not be computed."""
        return example in self._seen

    def add(self, ids: Any, logits: jax.Array, *, seeds: Any = 0) -> None:
        """Add the teacher's logits of a batch; those that are there already are skipped.

        Args:
          ids: integers ``(n,)``, one for each example, the same in every epoch.
          logits: ``(n, classes)``.
          seeds: integers ``(n,)`` or one for all: of the augmentation that was applied.

        Raises:
          ValueError: if the shapes do not fit the key, or logits are NaN.
        """
        ids, seeds = _pairs(ids, seeds)
        if logits.shape != (len(ids), self._key.classes):
            raise ValueError(
                f"logits {logits.shape} of {len(ids)} examples and {self._key.classes} "
                "classes do not fit."
            )
        kept = top_k(logits, self._key.k, temperature=self._key.temperature)
        values = np.asarray(kept.log_probs)
        if np.isnan(values).any():
            raise ValueError("the teacher answers NaN; nothing of this batch is kept.")
        pairs = list(zip(ids.tolist(), seeds.tolist(), strict=True))
        new = [
            i for i, p in enumerate(pairs) if p not in self._seen and p not in pairs[:i]
        ]
        self._seen.update(pairs)
        indices = np.asarray(kept.indices)
        part = {"ids": ids, "seeds": seeds, "indices": indices, "log_probs": values}
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
        _replace(self._folder / f"{self._number:06d}.safetensors", save(now))
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
    if (path / _MANIFEST).exists():
        _check(path, key)
    elif any(path.iterdir()):
        raise CacheError(f"{path} is not empty and is no cache: choose another folder.")
    else:
        about = {"version": _VERSION, **dataclasses.asdict(key)}
        _replace(path / _MANIFEST, json.dumps(about, indent=1).encode())
    for left in path.glob("*.part"):  # of a run that was killed
        left.unlink()
    writer = Writer(path, key, shard)
    try:
        yield writer
    finally:
        writer.flush()


class Reader:
    """Looks answers up; made by ``read``. Calling it gives a ``distill.TopK``."""

    def __init__(self, folder: Path, key: Key) -> None:
        names = ("ids", "seeds", "indices", "log_probs")
        parts = [_open(path, names) for path in _shards(folder)]
        if not parts:
            raise CacheError(f"{folder} holds no answers yet.")
        whole = {name: np.concatenate([p[name] for p in parts]) for name in names}
        order = np.lexsort((whole["seeds"], whole["ids"]))
        self._folder, self._key = folder, key
        self._whole = {name: x[order] for name, x in whole.items()}
        self._pairs = _as_records(self._whole["ids"], self._whole["seeds"])

    def __len__(self) -> int:
        return len(self._pairs)

    def __call__(self, ids: Any, *, seeds: Any = 0) -> TopK:
        """The answers for a batch, in its order.

        Args:
          ids: integers ``(n,)``.
          seeds: integers ``(n,)`` or one for all.

        Raises:
          CacheError: naming an example that is not there.
        """
        wanted = _as_records(*_pairs(ids, seeds))
        rows = np.minimum(np.searchsorted(self._pairs, wanted), len(self._pairs) - 1)
        missing = self._pairs[rows] != wanted
        if missing.any():
            example, seed = wanted[missing][0].tolist()
            raise CacheError(
                f"{self._folder} has no answer for example {example} with seed {seed} (and "
                f"{int(missing.sum()) - 1} others): write it, or give the ids and seeds "
                "that were written."
            )
        return TopK(
            jnp.asarray(self._whole["indices"][rows]),
            jnp.asarray(self._whole["log_probs"][rows]),
            jnp.float32(self._key.temperature),
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
    if not (path / _MANIFEST).exists():
        raise CacheError(f"{path} is no cache of a teacher: it has no {_MANIFEST}.")
    _check(path, key)
    return Reader(path, key)


def _check(folder: Path, key: Key) -> None:
    try:
        found = json.loads((folder / _MANIFEST).read_text())
    except ValueError as error:
        raise CacheError(f"{folder / _MANIFEST} is damaged: {error}") from error
    if found.get("version") != _VERSION:
        raise CacheError(
            f"{folder} has version {found.get('version')!r}, not {_VERSION}: write it anew."
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


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _open(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CacheError(f"{path} is damaged, delete it: {error}") from error


def _pairs(ids: Any, seeds: Any) -> tuple[np.ndarray, np.ndarray]:
    ids = np.asarray(ids)
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"ids are integers (n,), not {ids.dtype} {ids.shape}.")
    ids = ids.astype(np.int64)
    return ids, np.broadcast_to(np.asarray(seeds, np.int64), ids.shape).copy()


def _as_records(ids: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    records = np.empty(len(ids), [("id", np.int64), ("seed", np.int64)])
    records["id"], records["seed"] = ids, seeds
    return records


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    part = path.with_suffix(".part")
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
