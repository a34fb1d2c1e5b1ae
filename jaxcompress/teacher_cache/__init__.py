# SPDX-License-Identifier: Apache-2.0
"""A teacher's answers on disk: computed once, and refused to whoever asks for others."""

from ._folder import CacheError
from ._key import Key, fingerprint
from ._read import Reader, read
from ._write import Writer, write

__all__ = [
    "CacheError",
    "Key",
    "Reader",
    "Writer",
    "fingerprint",
    "read",
    "write",
]
