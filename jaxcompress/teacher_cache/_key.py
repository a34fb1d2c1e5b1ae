# SPDX-License-Identifier: Apache-2.0
"""What a cache's answers depend on."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from .._compressor import PyTree
from .._select import paths_and_leaves


@dataclasses.dataclass(frozen=True, kw_only=True)
class Key:
    """What a cache's answers depend on, beside the examples.

    Attributes:
      teacher: ``fingerprint`` of the teacher's parameters.
      classes: number of classes.
      k: how many are kept of each example.
      temperature: of the loss to come.
      inputs: how examples are made into inputs, in words of your own: preprocessing,
        resolution, the name of the augmentation whose seeds are given.

    Raises:
      ValueError: if ``k`` does not fit.
    """

    teacher: str
    classes: int
    k: int
    temperature: float = 1.0
    inputs: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.classes:
            raise ValueError(f"k={self.k} of {self.classes} classes cannot be kept.")
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature} is not positive.")


def fingerprint(params: PyTree) -> str:
    """A hash of parameters: their paths, shapes, dtypes and bits.

    Args:
      params: any pytree of arrays, compressed leaves included.

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
