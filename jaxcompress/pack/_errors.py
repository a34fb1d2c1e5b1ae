# SPDX-License-Identifier: Apache-2.0
"""The error for files that cannot be read."""

from __future__ import annotations


class ArtifactError(ValueError):
    """A file is no artifact, is damaged, or needs more than this version or limit allows.

    The text names the file, the tensor where there is one, and the likely cause.
    """
