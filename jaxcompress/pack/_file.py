# SPDX-License-Identifier: Apache-2.0
"""The file: coded tensors in a safetensors container, written atomically."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from .._arguments import PATH, check_kind
from .._atomic import write_chunks
from .._select import path_text
from .._table import table
from ..leaves import Leaf, is_leaf
from . import _layout_2, _manifest
from ._container import Spool
from ._manifest import Entry
from ._reader import default_max_bytes, opened


def save(path: str | os.PathLike[str], tree: Any) -> int:
    """Save a tree of parameters to one small file, each leaf with the best codec.

    ``load(path)`` restores the same tree, bit for bit: values (including the payload of a
    NaN and the sign of a zero), shapes, dtypes and static fields. Only JAX's weak types
    are lost.

    The file is a safetensors file with one tensor of bytes, which holds a manifest and the
    coded leaves; ``inspect`` lists them. It is written under a temporary name and moved
    into place when complete, so a reader sees either the old file or the new one. Equal
    trees give equal files.

    Args:
      path: path of the file; an existing file is replaced.
      tree: nested dicts, lists, tuples and None around arrays and compressed leaves. Any
        other pytree (``nnx.State``, an Equinox module, a NamedTuple) is saved by the
        paths of its leaves, and ``load`` then needs ``like=``. Python numbers and
        functions are not arrays and raise an error.

    Returns:
      The size of the file in bytes.

    Raises:
      TypeError: if a leaf is not an array, or a dict key is not a string.
      ValueError: if a leaf could not be restored exactly.
      OSError: if the file cannot be written. An existing file is then unchanged.

    Example:
      >>> import os, tempfile, jax, jaxcompress as jc
      >>> from jaxcompress import pack
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (256, 256))}
      >>> small = jc.compress(jc.weight_quantization(bits=4), params)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     size = pack.save(os.path.join(folder, "net.safetensors"), small)
      >>> size < params["kernel"].nbytes / 8
      True
    """
    check_kind(path, PATH, "save(path, tree)", "a path first")
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"cannot save {str(path)!r}: the folder {str(path.parent)!r} does not exist. "
            "Create it first."
        )
    if path.is_dir():
        raise IsADirectoryError(f"cannot save {str(path)!r}: it is a folder.")
    return write_chunks(path, _chunks(tree, path.parent))


def load(
    path: str | os.PathLike[str], *, like: Any = None, max_bytes: int | None = None
) -> Any:
    """Load a file written by ``save``, and verify its checksums.

    Args:
      path: path of the file.
      like: tree whose structure is restored; leaves are matched by path and need only a
        shape. None restores plain dicts, lists and tuples as saved.
      max_bytes: maximum total size of the decoded arrays. A larger file raises an error
        before memory is allocated. Decoding needs up to three times the largest array
        besides; the later result of ``dense`` does not count. By default a thousand times
        the size of the file, but 256 MiB at least and 8 GiB at most: a few bytes that
        claim gigabytes are rather hostile than a constant.

    Returns:
      The tree; its leaves are JAX arrays and compressed leaves. Arrays of 64 bits, such as
      the counters of torch, are NumPy arrays unless ``jax_enable_x64`` is on.

    Raises:
      FileNotFoundError: if there is no such file.
      ArtifactError: if the file is not a jaxcompress file, is damaged, comes from a newer
        version or is too large.
      ValueError: if ``like`` has other paths or shapes, or is required but missing.
    """
    contents = inspect(path, max_bytes=max_bytes)
    if like is not None:
        return _restore(contents.tree, like, path)
    if contents.by_path is not None:
        raise ValueError(
            f"{os.fspath(path)!r} holds a tree with a {contents.by_path} in it, which is "
            "saved by the paths of its leaves. Pass like= with a tree of that structure."
        )
    return contents.tree


class Contents(NamedTuple):
    """Hold the decoded contents of a file: the result of ``inspect``; prints as a table.

    Attributes:
      tree: the tree as saved; a dict from path to leaf if it was saved by path.
      entries: one entry per leaf.
      file_bytes: size of the file.
      by_path: name of the first type that required saving by path, else None.
    """

    tree: Any
    entries: tuple[Entry, ...]
    file_bytes: int
    by_path: str | None

    def __str__(self) -> str:
        rows = [("leaf", "kind", "shape", "codecs", "bytes")]
        for entry in self.entries:
            shape = "x".join(map(str, entry.leaf.shape)) or "scalar"
            codecs = ", ".join(dict.fromkeys(entry.codecs))
            rows.append((entry.path, entry.kind, shape, codecs, f"{entry.nbytes:,}"))
        other = self.file_bytes - sum(entry.nbytes for entry in self.entries)
        rows.append(("names, manifest", "", "", "", f"{other:,}"))
        rows.append(("file", "", "", "", f"{self.file_bytes:,}"))
        return table(rows)


def inspect(path: str | os.PathLike[str], *, max_bytes: int | None = None) -> Contents:
    """Decode a file and report how each leaf is stored: codec and size.

    Args:
      path: path of the file.
      max_bytes: as for ``load``.

    Raises:
      FileNotFoundError: if there is no such file.
      ArtifactError: as for ``load``.
    """
    path = Path(path)
    with opened(path) as file:
        if max_bytes is None:
            max_bytes = default_max_bytes(path)
        tree, entries = _manifest.read(file.tree, file.tensors, max_bytes)
        return Contents(tree, tuple(entries), path.stat().st_size, file.by_path)


def _chunks(tree: Any, folder: Path) -> Iterator[bytes]:
    """Yield the bytes of the file; leaves are coded one by one."""
    foreign = _foreign(tree)
    with Spool(folder) as spool:
        node, sums = _manifest.write(_by_path(tree) if foreign else tree, spool.add)
        head = _layout_2.manifest(node, foreign, spool.sizes.values(), sums.values())
        yield from spool.chunks(_layout_2.METADATA, _layout_2.TENSOR, head)


def _restore(tree: Any, like: Any, path: str | os.PathLike[str]) -> Any:
    saved, wanted = _by_path(tree), _by_path(like)
    problems = [f"{name!r} is not in the file" for name in wanted if name not in saved]
    problems += [
        f"{name!r} is only in the file" for name in saved if name not in wanted
    ]
    for name in saved.keys() & wanted.keys():
        shape = getattr(wanted[name], "shape", ())
        if saved[name].shape != shape:
            problems.append(
                f"{name!r} has shape {saved[name].shape} in the file and {shape} in like="
            )
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(
            f"{os.fspath(path)!r} does not match like=: {'; '.join(problems[:5])}{more}."
        )
    treedef = jax.tree.structure(like, is_leaf=is_leaf)
    return jax.tree.unflatten(treedef, [saved[name] for name in wanted])


def _by_path(tree: Any) -> dict[str, Any]:
    """Return leaves by path text, in tree order; a compressed leaf is one leaf."""
    pairs, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)
    leaves = {path_text(path): leaf for path, leaf in pairs}
    if len(leaves) < len(pairs):
        raise ValueError(
            "two leaves of this tree have the same path text. Rename one, or save the "
            "parts of the tree in a dict."
        )
    return leaves


def _foreign(node: Any) -> str | None:
    """Return the name of the first node type that is not a dict, list or tuple."""
    if node is None or isinstance(node, Leaf):
        return None
    # Other mappings count as dicts if all keys are strings; nnx.State may have others.
    if isinstance(node, dict) or isinstance(node, Mapping) and _text_keys(node):
        return next(filter(None, map(_foreign, node.values())), None)
    if type(node) in (list, tuple):
        return next(filter(None, map(_foreign, node)), None)
    return None if jax.tree_util.all_leaves([node]) else type(node).__name__


def _text_keys(node: Mapping[Any, Any]) -> bool:
    return all(isinstance(key, str) for key in node)
