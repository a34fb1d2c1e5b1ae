# SPDX-License-Identifier: Apache-2.0
"""Save and load a tree of parameters as one small file, bit for bit."""

from ._delta import diff, patch, read_delta
from ._delta_file import Delta, is_delta
from ._errors import ArtifactError
from ._file import Contents, inspect, load, save
from ._manifest import Entry
from ._register import register
from ._stream import load_leaves, stream, verify

register()

__all__ = [
    "ArtifactError",
    "Contents",
    "Delta",
    "Entry",
    "diff",
    "inspect",
    "is_delta",
    "load",
    "load_leaves",
    "patch",
    "read_delta",
    "save",
    "stream",
    "verify",
]
