# SPDX-License-Identifier: Apache-2.0
"""Errors of this package, and the checksum that raises one of them."""

from __future__ import annotations

import hashlib
from pathlib import Path


class DatasetNotFound(FileNotFoundError):
    """A data set is in none of the places searched; the text says how to get it."""


class DatasetCorrupted(ValueError):
    """A file, or what was read from it, is not the published data."""


def check_sha256(content: bytes, expected: str, *, path: Path, what: str) -> None:
    """Raise unless ``content`` has the published checksum.

    Args:
      content: the bytes to check.
      expected: sha256 in hexadecimal.
      path: the file to name in the error.
      what: of the file was hashed, such as "decompressed content".

    Raises:
      DatasetCorrupted: if the checksum differs.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise DatasetCorrupted(
            f"{path}: its {what} has sha256 {found}, the published data {expected}. "
            "The file is damaged or of another data set; remove it and get it again."
        )
