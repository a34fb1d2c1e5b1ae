# SPDX-License-Identifier: Apache-2.0
"""The error for files that cannot be read."""

from __future__ import annotations


class ArtifactError(ValueError):
    """The error of ``load`` and ``inspect`` for files that they cannot read.

    The file is not a jaxcompress file, is damaged, comes from a newer version or exceeds
    ``max_bytes``. The message names the file, the tensor if there is one, and the likely
    cause.
    """
