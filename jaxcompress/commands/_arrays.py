# SPDX-License-Identifier: Apache-2.0
"""Read arrays from .npy and .npz files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def read(paths: Sequence[Path]) -> list[np.ndarray]:
    """Return the arrays of some files, in order.

    Raises:
      ValueError: if a file does not hold arrays.
    """
    arrays: list[np.ndarray] = []
    for path in paths:
        try:
            content = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(
                f"{str(path)!r} is not a .npy or .npz file: {error}"
            ) from error
        if isinstance(content, np.ndarray):
            arrays.append(content)
        else:
            arrays += [content[name] for name in content.files]
    return arrays
