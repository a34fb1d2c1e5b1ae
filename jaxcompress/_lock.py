# SPDX-License-Identifier: Apache-2.0
"""Locks on files and folders, which end with the process that took them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows: folders are not locked there
    fcntl = None

LOCK = ".lock"  # name of the file; it is empty and stays in the folder

# File systems of clusters may have no locks. Then nothing is locked.
_UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


def take(file: IO[Any]) -> bool:
    """Lock an open file alone, unless another process or caller has locked it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        if error.errno not in _UNSUPPORTED:
            raise
    return True


class FolderLock:
    """Lock a folder, alone or together with others; a context manager.

    The operating system releases it when the process ends, even if it was killed.

    Args:
      folder: an existing folder.

    Raises:
      OSError: if the folder is not writable.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._file = open(Path(folder) / LOCK, "ab")  # noqa: SIM115

    def take(self) -> bool:
        """Lock it alone, unless another process or caller has locked it."""
        return take(self._file)

    def share(self) -> None:
        """Lock it together with others who share it; wait for one who has it alone."""
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
