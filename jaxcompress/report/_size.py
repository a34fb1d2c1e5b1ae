# SPDX-License-Identifier: Apache-2.0
"""Size: the bytes of a file that has been decoded again, and what they are made of."""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
from typing import Any

import jax
import numpy as np

from .. import pack
from ..leaves import dense
from ._entropy import bound_bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeafSize:
    """The size of one leaf in a file.

    Attributes:
      path: such as ``"Dense_0/kernel"``.
      shape: of the dense array.
      kind: ``"array"``, or the name of the compressed leaf.
      codecs: of its arrays in the file.
      params: elements of the dense array.
      nonzeros: those that are not zero.
      nbytes: of its payload in the file.
      bound_bytes: see ``bound_bytes``.
    """

    path: str
    shape: tuple[int, ...]
    kind: str
    codecs: tuple[str, ...]
    params: int
    nonzeros: int
    nbytes: int
    bound_bytes: float

    def __post_init__(self) -> None:
        # JSON has no tuples.
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "codecs", tuple(self.codecs))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """The size of a model that was written, decoded again and found the same.

    Law: ``file_bytes`` is what the file system says, headers and all.

    Attributes:
      file_bytes: of the file.
      leaves: one row a leaf.
    """

    file_bytes: int
    leaves: tuple[LeafSize, ...]

    @property
    def params(self) -> int:
        """Elements of the dense arrays."""
        return sum(leaf.params for leaf in self.leaves)

    @property
    def nonzeros(self) -> int:
        """Elements of the dense arrays that are not zero."""
        return sum(leaf.nonzeros for leaf in self.leaves)

    @property
    def payload_bytes(self) -> int:
        """Bytes of coded arrays in the file."""
        return sum(leaf.nbytes for leaf in self.leaves)

    @property
    def overhead_bytes(self) -> int:
        """Bytes of the file that hold no array: names, manifest, padding."""
        return self.file_bytes - self.payload_bytes

    @property
    def bound_bytes(self) -> float:
        """Sum of the bounds of the leaves; see the function of that name."""
        return math.fsum(leaf.bound_bytes for leaf in self.leaves)

    @property
    def float32_bytes(self) -> int:
        """Of the dense arrays as float32, without a header."""
        return 4 * self.params

    @property
    def bfloat16_bytes(self) -> int:
        """Of the dense arrays as bfloat16, without a header."""
        return 2 * self.params

    @property
    def bits_per_param(self) -> float | None:
        """Bits of the whole file for each element; None without elements."""
        return 8 * self.file_bytes / self.params if self.params else None

    @property
    def bits_per_weight(self) -> float | None:
        """Payload bits for each element of the compressed leaves; None without those.

        Scales and centroids are counted, names and uncompressed leaves are not.
        """
        compressed = [leaf for leaf in self.leaves if leaf.kind != "array"]
        weights = sum(leaf.params for leaf in compressed)
        return (
            8 * sum(leaf.nbytes for leaf in compressed) / weights if weights else None
        )


def size(artifact: Any, *, expected: Any = None) -> Size:
    """Measure a saved file, or the file that a tree would make.

    The file is decoded and its checksums, which are those of the decoded arrays, are
    verified; where the tree is at hand, the decoded one is compared with it bit by bit.

    Args:
      artifact: path of a file that ``pack.save`` wrote, or a tree, which is written to a
        temporary file.
      expected: for a path, the tree that should be in it, if it is at hand.

    Raises:
      FileNotFoundError: if there is no such file.
      ArtifactError: if it cannot be decoded.
      ValueError: if what is decoded is not what was expected.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxcompress import report
      >>> ones = report.size({"kernel": jnp.ones((100, 100))})
      >>> ones.params, ones.float32_bytes, ones.payload_bytes < 10
      (10000, 40000, True)
    """
    if isinstance(artifact, str | os.PathLike):
        return _measure(artifact, expected)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "artifact.safetensors")
        pack.save(path, artifact)
        return _measure(path, artifact)


def _measure(path: str | os.PathLike[str], expected: Any) -> Size:
    contents = pack.inspect(path)
    if expected is not None:
        _check_same(pack.load(path, like=expected), expected, path)
    rows = []
    for entry in contents.entries:
        array = np.asarray(dense(entry.leaf))
        row = LeafSize(
            path=entry.path,
            shape=array.shape,
            kind=entry.kind,
            codecs=entry.codecs,
            params=array.size,
            nonzeros=int(np.count_nonzero(array != 0)),
            nbytes=entry.nbytes,
            bound_bytes=bound_bytes(entry.leaf),
        )
        rows.append(row)
    return Size(file_bytes=contents.file_bytes, leaves=tuple(rows))


def _check_same(found: Any, expected: Any, path: str | os.PathLike[str]) -> None:
    def bits(leaf: Any) -> tuple[str, tuple[int, ...], bytes]:
        array = np.asarray(leaf)
        return array.dtype.name, array.shape, array.tobytes()

    same_structure = jax.tree.structure(found) == jax.tree.structure(expected)
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=False)
    if not same_structure or any(bits(a) != bits(b) for a, b in pairs):
        raise ValueError(
            f"{os.fspath(path)!r} does not hold the expected tree: structure, dtypes or "
            "values differ. Was it saved from another model, or before more training?"
        )
