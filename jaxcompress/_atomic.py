# SPDX-License-Identifier: Apache-2.0
"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

LEFT_OVER = ".*.tmp"  # glob of what a run that was killed while writing leaves behind


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file under another name, and rename it when it is on the disk.

    Args:
      path: of the file; one that is there is replaced.
      data: its content.

    Raises:
      OSError: if the folder or the disk refuses it; nothing is left behind.
    """
    # In the same folder, because a move between file systems is not atomic.
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
                f"cannot save {str(path)!r}: {error.strerror or error}. Is the folder "
                "writable, and is there space left?",
            ) from error
        raise
