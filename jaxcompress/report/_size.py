# SPDX-License-Identifier: Apache-2.0
"""Size: the bytes of a model file, verified by decoding it, broken down by leaf."""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
from typing import Any

import jax
import numpy as np

from .. import pack
from .._origin import format_name
from .._table import table
from ..leaves import Codebook, LowRank, QArray, SparseArray, dense
from ._entropy import bound_bytes
from ._text import shape_text


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeafSize:
    """The size of one leaf in a model file.

    Attributes:
      path: path text, such as ``"Dense_0/kernel"``.
      shape: shape of the dense array.
      kind: ``"array"``, or the class name of the compressed leaf.
      codecs: codecs of the leaf's arrays in the file.
      params: number of elements of the dense array.
      nonzeros: number of nonzero elements.
      nbytes: payload bytes in the file.
      bound_bytes: order-0 bound; see the function ``bound_bytes``.
      fmt: format of the stored numbers, such as ``"int4"`` or ``"float32"``.
    """

    path: str
    shape: tuple[int, ...]
    kind: str
    codecs: tuple[str, ...]
    params: int
    nonzeros: int
    nbytes: int
    bound_bytes: float
    fmt: str

    @property
    def density(self) -> float | None:
        """Fraction of nonzero elements; None if there are no elements."""
        return self.nonzeros / self.params if self.params else None

    @property
    def bits_per_weight(self) -> float | None:
        """Payload bits per element; None if there are no elements."""
        return 8 * self.nbytes / self.params if self.params else None

    def __post_init__(self) -> None:
        # JSON has no tuples.
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "codecs", tuple(self.codecs))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """The size of a model file, verified by decoding it; prints as a table.

    Law: ``file_bytes`` is the size that the file system reports, including headers.

    Attributes:
      file_bytes: size of the whole file.
      leaves: one entry per leaf.
    """

    file_bytes: int
    leaves: tuple[LeafSize, ...]

    @property
    def params(self) -> int:
        """Number of elements of the dense arrays."""
        return sum(leaf.params for leaf in self.leaves)

    @property
    def nonzeros(self) -> int:
        """Number of nonzero elements of the dense arrays."""
        return sum(leaf.nonzeros for leaf in self.leaves)

    @property
    def payload_bytes(self) -> int:
        """Bytes of coded arrays in the file."""
        return sum(leaf.nbytes for leaf in self.leaves)

    @property
    def overhead_bytes(self) -> int:
        """Bytes of the file outside arrays: names, manifest, padding."""
        return self.file_bytes - self.payload_bytes

    @property
    def bound_bytes(self) -> float:
        """Sum of the leaves' order-0 bounds; see the function ``bound_bytes``."""
        return math.fsum(leaf.bound_bytes for leaf in self.leaves)

    @property
    def float32_bytes(self) -> int:
        """Bytes of the dense arrays as float32, without a header."""
        return 4 * self.params

    @property
    def bfloat16_bytes(self) -> int:
        """Bytes of the dense arrays as bfloat16, without a header."""
        return 2 * self.params

    @property
    def bits_per_param(self) -> float | None:
        """Bits of the whole file per element; None if there are no elements."""
        return 8 * self.file_bytes / self.params if self.params else None

    @property
    def bits_per_weight(self) -> float | None:
        """Payload bits per element of compressed leaves; None if there are none.

        Scales and centroids count; names and uncompressed leaves do not.
        """
        compressed = [leaf for leaf in self.leaves if leaf.kind != "array"]
        weights = sum(leaf.params for leaf in compressed)
        return (
            8 * sum(leaf.nbytes for leaf in compressed) / weights if weights else None
        )

    def __str__(self) -> str:
        head = ["leaf", "kind", "format", "shape", "density", "bits/weight", "bytes"]
        rows = [
            [leaf.path, leaf.kind, leaf.fmt, shape_text(leaf.shape)]
            + [_number(leaf.density), _number(leaf.bits_per_weight)]
            + [f"{leaf.nbytes:,}", f"{leaf.bound_bytes:,.0f}"]
            for leaf in self.leaves
        ]
        rows.append(
            ["names, manifest", "", "", "", "", "", f"{self.overhead_bytes:,}", ""]
        )
        density = self.nonzeros / self.params if self.params else None
        rows.append(
            ["file", "", "", "", _number(density), _number(self.bits_per_param)]
            + [f"{self.file_bytes:,}", f"{self.bound_bytes:,.0f}"]
        )
        lines = [
            f"{self.params:,} parameters, {self.nonzeros:,} not zero",
            f"{_ratio(self.float32_bytes, self.file_bytes)} smaller than float32, "
            f"{_ratio(self.bfloat16_bytes, self.file_bytes)} than bfloat16",
        ]
        return "\n".join([table([[*head, "order-0 bound"], *rows]), *lines])


def size(artifact: Any, *, expected: Any = None) -> Size:
    """Measure the real file size of a model, from a saved file or a parameter tree.

    The file is decoded and the checksums of the decoded arrays are verified. If the tree
    is given, the decoded tree is compared with it bit for bit.

    Args:
      artifact: path of a file that ``pack.save`` wrote, or a tree, which is saved to a
        temporary file.
      expected: tree that the file at a path should hold; None skips the comparison.

    Raises:
      FileNotFoundError: if the file does not exist.
      ArtifactError: if the file cannot be decoded.
      ValueError: if the decoded tree differs from the expected one.

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
            fmt=_format(entry.leaf),
        )
        rows.append(row)
    return Size(file_bytes=contents.file_bytes, leaves=tuple(rows))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _ratio(dense_bytes: int, file_bytes: int) -> str:
    return f"{dense_bytes / file_bytes:.1f}x"


def _format(leaf: Any) -> str:
    """Name the format of the numbers that a leaf stores."""
    match leaf:
        case QArray():
            return format_name(leaf.format)
        case Codebook():
            return f"{leaf.centroids.shape[-1]} values"
        case LowRank():
            return f"rank {leaf.left.shape[-1]}, {_format(leaf.left)}"
        case SparseArray():
            return f"{leaf.values.dtype.name} and mask"
    return np.dtype(leaf.dtype).name


def _check_same(loaded: Any, expected: Any, path: str | os.PathLike[str]) -> None:
    def bits(leaf: Any) -> tuple[str, tuple[int, ...], bytes]:
        array = np.asarray(leaf)
        return array.dtype.name, array.shape, array.tobytes()

    same_structure = jax.tree.structure(loaded) == jax.tree.structure(expected)
    pairs = zip(jax.tree.leaves(loaded), jax.tree.leaves(expected), strict=False)
    if not same_structure or any(bits(a) != bits(b) for a, b in pairs):
        raise ValueError(
            f"{os.fspath(path)!r} does not hold the expected tree: structure, dtypes or "
            "values differ. Was it saved from another model, or before more training?"
        )
