# SPDX-License-Identifier: Apache-2.0
"""Updates of a file: what changed between two files, and the new file made of it."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .._atomic import write_chunks
from . import _delta_file, _delta_payloads
from ._delta_file import Delta
from ._errors import ArtifactError
from ._payload import CorruptPayload, Unsupported
from ._reader import opened

PathText = str | os.PathLike[str]
Progress = Callable[[int, int], object]


def diff(
    old_path: PathText,
    new_path: PathText,
    delta_path: PathText,
    *,
    progress: Progress | None = None,
) -> int:
    """Write what changed from one file to another, for ``patch``.

    A leaf that did not change costs a byte or less, one that changed is coded against the
    old leaf of the same path: by the frequencies of new codes given the old ones, or by
    the differences of floats.

    Args:
      old_path: file of ``save`` that is to be updated.
      new_path: file of ``save`` that it becomes.
      delta_path: path of the delta; an existing file is replaced.
      progress: called with the bytes that are done, and their total.

    Returns:
      The size of the delta in bytes.

    Raises:
      FileNotFoundError: if there is no such file.
      ArtifactError: if a file cannot be read.
      ValueError: if the delta would replace one of the files.
      OSError: if the delta cannot be written. An existing file is then unchanged.

    Example:
      >>> import tempfile, jax
      >>> from pathlib import Path
      >>> from jaxcompress import pack
      >>> keys = jax.random.split(jax.random.key(0))
      >>> net = {str(i): jax.random.normal(k, (64, 64)) for i, k in enumerate(keys)}
      >>> tuned = net | {"1": net["1"].at[:8].multiply(1.001)}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     old, new, delta = (Path(folder) / name for name in "abc")
      ...     sizes = pack.save(old, net), pack.save(new, tuned)
      ...     update = pack.diff(old, new, delta)
      ...     _ = pack.patch(old, delta, old)
      ...     old.read_bytes() == new.read_bytes()
      True
      >>> update < sizes[1] / 10
      True
    """
    old_path, new_path, delta_path = map(Path, (old_path, new_path, delta_path))
    if delta_path.resolve() in (old_path.resolve(), new_path.resolve()):
        raise ValueError(
            f"delta_path must be another file than old_path and new_path, got "
            f"{str(delta_path)!r}."
        )
    with opened(old_path) as old, opened(new_path) as new:
        sizes = old_path.stat().st_size, new_path.stat().st_size
        step = _counter(progress, sizes[0] + 2 * sizes[1])
        old_hash = _delta_file.sha256(old_path, step)
        new_hash = _delta_file.sha256(new_path, step)
        head = _delta_file.head(Delta(old_hash, new_hash, sizes[1]))
        chunks = _delta_payloads.Diff(old_path, old, new_path, new).chunks(head, step)
        return write_chunks(delta_path, _delta_file.with_checksum(chunks))


def patch(
    old_path: PathText,
    delta_path: PathText,
    new_path: PathText,
    *,
    progress: Progress | None = None,
) -> int:
    """Update a file by a delta of ``diff``: make the new file, byte for byte.

    The new file is written under a temporary name and moved into place when its hash is
    right, so that an interruption or an error leaves the old state.

    Args:
      old_path: the file that the delta updates.
      delta_path: the delta.
      new_path: path of the new file; an existing file is replaced, which may be the old
        one.
      progress: called with the bytes that are done, and their total.

    Returns:
      The size of the new file in bytes.

    Raises:
      FileNotFoundError: if there is no such file.
      ArtifactError: if the delta is damaged, or the old file is not the one that it
        updates; the message says which one it is.
      OSError: if the new file cannot be written. An existing file is then unchanged.
    """
    old_path, delta_path, new_path = map(Path, (old_path, delta_path, new_path))
    with _mapped(delta_path) as data, _refusing(delta_path):
        delta, reader = _delta_file.read_head(data)
        if not old_path.is_file():
            raise FileNotFoundError(
                f"there is no file {str(old_path)!r}. Check the path."
            )
        step = _counter(progress, old_path.stat().st_size + delta.new_bytes)
        _check_base(old_path, delta_path, delta, _delta_file.sha256(old_path, step))
        with opened(old_path) as old, _refusing(delta_path):
            chunks = _delta_payloads.patched(old_path, old, reader, step)
            return write_chunks(new_path, _checked(chunks, delta))


def read_delta(path: PathText) -> Delta:
    """Check a delta of ``diff``, and return which file it updates, and to which.

    Args:
      path: path of the delta.

    Raises:
      FileNotFoundError: if there is no such file.
      ArtifactError: if it is damaged, or no delta.
    """
    with _mapped(Path(path)) as data, _refusing(Path(path)):
        return _delta_file.read_head(data)[0]


def _checked(chunks: Iterator[bytes], delta: Delta) -> Iterator[bytes]:
    """Yield the bytes of the new file, and raise in the end if they are others."""
    digest, left = hashlib.sha256(), delta.new_bytes
    for chunk in chunks:
        digest.update(chunk)
        if (left := left - len(chunk)) < 0:
            raise CorruptPayload("it makes a longer file than it promises")
        yield chunk
    if digest.hexdigest() != delta.new_sha256:
        raise Unsupported(
            "it does not make the file that it promises, with SHA-256 "
            f"{delta.new_sha256}: the entropy coder of this machine or of these versions "
            "makes other bytes. Copy the new file instead"
        )


def _check_base(path: Path, delta_path: Path, delta: Delta, found: str) -> None:
    if found == delta.old_sha256:
        return
    if found == delta.new_sha256:
        raise ArtifactError(
            f"{str(path)!r} is already the file that {str(delta_path)!r} makes (SHA-256 "
            f"{found}); there is nothing to do."
        )
    raise ArtifactError(
        f"{str(path)!r} is not the file that {str(delta_path)!r} updates: that has the "
        f"SHA-256 {delta.old_sha256}, this one {found}. Give the delta made for this "
        "file, or copy the new file."
    )


def _counter(progress: Progress | None, total: int) -> Callable[[int], None]:
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    return step


@contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}. Check the path.")
    with open(path, "rb") as file:
        if not path.stat().st_size:
            yield memoryview(b"")
            return
        # Not closed here: views of it may live in the traceback of an error.
        yield memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Name the delta in errors about it."""
    try:
        yield
    except Unsupported as error:
        raise ArtifactError(f"{str(path)!r} cannot be used: {error}.") from error
    except (CorruptPayload, MemoryError) as error:
        raise ArtifactError(
            f"{str(path)!r} cannot be used: {error}. It is damaged, copied only in part, "
            "or not a delta."
        ) from error
