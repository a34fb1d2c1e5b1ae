# SPDX-License-Identifier: Apache-2.0
"""The key of a cache: everything that its answers depend on."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from .._arguments import check_whole
from .._compressor import PyTree
from .._select import paths_and_leaves


@dataclasses.dataclass(frozen=True, kw_only=True)
class Key:
    """Everything that cached answers depend on, apart from the examples themselves.

    Pass the same key to ``write`` and ``read``. A cache with another key is rejected.

    Attributes:
      teacher: ``fingerprint`` of the teacher's parameters.
      classes: number of classes.
      k: number of classes kept per example.
      temperature: temperature of the distillation loss.
      inputs: free text that says how examples become inputs: preprocessing, resolution,
        and the name of the augmentation that the seeds belong to.

    Raises:
      ValueError: if ``k`` is not between 1 and ``classes``, or ``temperature`` is not
        positive.
    """

    teacher: str
    classes: int
    k: int
    temperature: float = 1.0
    inputs: str = ""

    def __post_init__(self) -> None:
        check_whole(k=self.k, classes=self.classes)
        if not 1 <= self.k <= self.classes:
            raise ValueError(
                f"k must be between 1 and classes={self.classes}, got {self.k}."
            )
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}.")


def fingerprint(params: PyTree) -> str:
    """Hash a teacher's parameters, for ``Key(teacher=...)``.

    The hash covers paths, shapes, dtypes and bits.

    Args:
      params: any pytree of arrays. Compressed leaves are allowed.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> a, b = {"w": jnp.zeros(3)}, {"w": jnp.ones(3)}
      >>> jc.teacher_cache.fingerprint(a) == jc.teacher_cache.fingerprint(b)
      False
    """
    digest = hashlib.sha256()
    for path, leaf in zip(*paths_and_leaves(params)[:2], strict=True):
        array = np.asarray(leaf)
        digest.update(f"{path}|{array.dtype.name}|{array.shape}|".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
