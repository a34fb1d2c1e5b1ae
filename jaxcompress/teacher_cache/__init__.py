# SPDX-License-Identifier: Apache-2.0
"""Cache a teacher's top-k outputs on disk, so that each is computed only once.

The cache records what its answers depend on and rejects a reader that expects others.
"""

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
