# SPDX-License-Identifier: Apache-2.0
"""Atomic file writes: a file is either complete or absent."""

from __future__ import annotations

import glob
import os
import stat
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from ._lock import take

_SECONDS_TO_LOCK = 10

LEFT_OVER = ".*.tmp"  # glob for temporary files that a killed run leaves behind


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically; see ``write_chunks``."""
    write_chunks(path, [data])


def write_chunks(path: Path, chunks: Iterable[bytes]) -> int:
    """Write a file atomically: to a temporary name first, then rename it.

    A symbolic link stays one: the file that it names is replaced. A replaced file keeps its
    permissions. What killed writers of the same file left behind is removed.

    Args:
      path: path of the file. An existing file is replaced.
      chunks: content of the file, in order.

    Returns:
      The size of the file in bytes.

    Raises:
      OSError: if the file cannot be written. No partial file remains.
    """
    path = path.resolve()
    # Use the same folder, because a move between file systems is not atomic.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        _remove_left_over(path)
        with open(temporary, "xb") as file:
            take(file)  # as long as it is open, this writer lives
            if path.exists():
                os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
            size = sum(map(file.write, chunks))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        return size
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise type(error)(
                error.errno,
                f"cannot save {str(path)!r}: {error.strerror or error}. Check that the "
                "folder is writable and the disk has space left.",
            ) from error
        raise


def _remove_left_over(path: Path) -> None:
    """Remove temporary files of writers of this file that were killed."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        try:
            with open(left, "ab") as file:
                # A writer locks its file right after it made it.
                old = time.time() - left.stat().st_mtime > _SECONDS_TO_LOCK
                if old and take(file):
                    left.unlink()
        except OSError:
            continue  # somebody else's, or gone by now
