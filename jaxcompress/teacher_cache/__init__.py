# SPDX-License-Identifier: Apache-2.0
"""A teacher's answers on disk: computed once, and refused to whoever asks for others."""

from ._folder import CacheError as CacheError
from ._key import Key as Key, fingerprint as fingerprint
from ._read import Reader as Reader, read as read
from ._write import Writer as Writer, write as write
