# SPDX-License-Identifier: Apache-2.0
"""Some leaves of a file, or one after another, without the rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .._select import closest, matches
from . import _manifest, _nodes
from ._manifest import Entry
from ._nodes import Node
from ._reader import default_max_bytes, opened


def load_leaves(
    path: str | os.PathLike[str], only: str, *, max_bytes: int | None = None
) -> dict[str, Any]:
    """Load some leaves of a file, and read no bytes of the others.

    Args:
      path: path of a file written by ``save``.
      only: glob that must match the whole path of a leaf, such as ``"Dense_0/*"``; ``*``
        also crosses ``/``.
      max_bytes: as for ``load``, of the selected leaves together.

    Returns:
      The leaves by path, checked as by ``load``. ``load(path)["Dense_0"]["kernel"]`` is
      ``load_leaves(path, "Dense_0/kernel")["Dense_0/kernel"]``.

    Raises:
      FileNotFoundError: if there is no such file.
      ArtifactError: if the file is not a jaxcompress file, or the manifest or one of these
        leaves is damaged or too large. Damage to other leaves is not seen.
      ValueError: if no leaf matches; the message names the closest paths.

    Example:
      >>> import os, tempfile, jax.numpy as jnp
      >>> from jaxcompress import pack
      >>> net = {"Dense_0": {"bias": jnp.zeros(3)}, "Dense_1": {"bias": jnp.ones(2)}}
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = os.path.join(folder, "net.safetensors")
      ...     _ = pack.save(path, net)
      ...     sorted(pack.load_leaves(path, "Dense_1/*"))
      ['Dense_1/bias']
    """
    path = Path(path)
    with opened(path) as file:
        nodes = _selected(_nodes.leaves(file.tree), only, path)
        limit = default_max_bytes(path) if max_bytes is None else max_bytes
        _nodes.check_claims(nodes, limit)
        _manifest.check_names(_nodes.leaves(file.tree), file.tensors)
        entries = [_manifest.read_leaf(node, file.tensors) for node in nodes]
    return {node.name: e.leaf for node, e in zip(nodes, entries, strict=True)}


def stream(
    path: str | os.PathLike[str], only: str = "*", *, max_bytes: int | None = None
) -> Iterator[Entry]:
    """Decode the leaves of a file one after another, and keep none.

    A file may thus be larger than the memory. Leaves come in the order of the tree. The
    file is open until the iterator ends.

    Args:
      path: path of a file written by ``save``.
      only: as for ``load_leaves``; by default all leaves.
      max_bytes: as for ``load``, of each leaf by itself.

    Yields:
      For each leaf what ``inspect`` says of it: path, kind, codecs, bytes in the file, and
      the leaf.

    Raises:
      FileNotFoundError: if there is no such file.
      ArtifactError: as for ``load``; at the damaged leaf, after those before it.
      ValueError: if ``only`` matches no leaf.
    """
    path = Path(path)
    with opened(path) as file:
        every = _nodes.leaves(file.tree)
        _manifest.check_names(every, file.tensors)
        limit = default_max_bytes(path) if max_bytes is None else max_bytes
        for node in every if only == "*" else _selected(every, only, path):
            _nodes.check_claims([node], limit)
            yield _manifest.read_leaf(node, file.tensors)


def verify(
    path: str | os.PathLike[str],
    *,
    max_bytes: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> int:
    """Decode every leaf of a file, check it, and keep none.

    Args:
      path: path of a file written by ``save``.
      max_bytes: as for ``load``, of each leaf by itself.
      progress: called with the bytes of the file that are checked, and their total.

    Returns:
      The number of leaves.

    Raises:
      FileNotFoundError: if there is no such file.
      ArtifactError: as for ``load``.
    """
    count, done, total = 0, 0, os.stat(path).st_size if os.path.isfile(path) else 0
    for entry in stream(path, max_bytes=max_bytes):
        count, done = count + 1, done + entry.nbytes
        if progress is not None:
            progress(done, total)
    if progress is not None:
        progress(total, total)
    return count


def _selected(nodes: list[Node], only: str, path: Path) -> list[Node]:
    chosen = [node for node in nodes if matches(only, node.path)]
    if not chosen:
        names = [node.path for node in nodes]
        near = ", ".join(map(repr, closest(only, names))) or "there are none"
        raise ValueError(
            f"{only!r} matches none of the {len(names)} leaves of {str(path)!r}; closest: "
            f"{near}. Globs match the whole path."
        )
    return chosen
