# SPDX-License-Identifier: Apache-2.0
"""Atomic file writes: a file is either complete or absent."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

LEFT_OVER = ".*.tmp"  # glob for temporary files that a killed run leaves behind


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: to a temporary name first, then rename it.

    Args:
      path: path of the file. An existing file is replaced.
      data: content of the file.

    Raises:
      OSError: if the file cannot be written. No partial file remains.
    """
    # Use the same folder, because a move between file systems is not atomic.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise type(error)(
                error.errno,
                f"cannot save {str(path)!r}: {error.strerror or error}. Check that the "
                "folder is writable and the disk has space left.",
            ) from error
        raise
