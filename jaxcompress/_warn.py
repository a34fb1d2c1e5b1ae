# SPDX-License-Identifier: Apache-2.0
"""Warnings that point at the line of the user."""

from __future__ import annotations

import inspect
import itertools
import os
import warnings

import jax

_OURS = tuple(os.path.dirname(m) + os.sep for m in (__file__, jax.__file__))


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called into this library, however deep the caller is.

    Between the two lie wrappers, of meshes and of JAX, whose number depends on whether a
    function is traced.

    Args:
      message: the text.
      category: class of the warning.
    """
    frame, level = inspect.currentframe(), 1
    for depth in itertools.count(1):
        if frame is None:
            break
        if not frame.f_code.co_filename.startswith(_OURS):
            level = depth
            break
        frame = frame.f_back
    warnings.warn(message, category, stacklevel=level)
