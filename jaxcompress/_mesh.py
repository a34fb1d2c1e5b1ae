# SPDX-License-Identifier: Apache-2.0
"""Run a compressor's functions on meshes with explicit axes as on automatic ones."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ._types import PyTree


class _Source(NamedTuple):
    """An argument whose sharding is part of its type."""

    keys: tuple[str, ...]
    shape: tuple[int, ...]
    spec: PartitionSpec


def on_any_mesh(fn: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """Let ``fn`` take and return arrays on a mesh with explicit axes.

    ``jax.make_mesh`` makes axes explicit by default: the sharding is part of an array's
    type, and operations with an ambiguous result, such as flattening a sharded matrix, are
    refused. Inside ``fn`` the axes are automatic, so the compiler places intermediate
    values. Results are explicit again: one that has the path or the shape of an argument
    is sharded like it, and every other result is replicated along the dimensions that it
    does not share. Without explicit axes this calls ``fn`` and nothing else.

    Args:
      fn: function of pytrees.
    """

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        mesh = _explicit_mesh((args, kwargs))
        return fn(*args, **kwargs) if mesh is None else _run(fn, mesh, args, kwargs)

    return run


def struct_like(
    aval: Any, shape: tuple[int, ...] | None = None
) -> jax.ShapeDtypeStruct:
    """Return a type without its value; with its sharding, if the mesh is explicit."""
    sharding = aval.sharding if _explicit_axes(aval.sharding.mesh) else None
    shape = aval.shape if shape is None else shape
    return jax.ShapeDtypeStruct(shape, aval.dtype, sharding=sharding)


def sharded_like(x: Any, aval: Any) -> Any:
    """Give an array the sharding of a type, if the type's mesh is explicit."""
    sharding = aval.sharding
    return jax.sharding.reshard(x, sharding) if _explicit_axes(sharding.mesh) else x


def _run(fn: Callable[..., PyTree], mesh: Any, args: Any, kwargs: Any) -> PyTree:
    sources = _sources((*args, kwargs))
    abstract = mesh.abstract_mesh if isinstance(mesh, Mesh) else mesh
    kinds = {name: AxisType.Auto for name in _explicit_axes(abstract)}
    originals: dict[int, Any] = {}

    def enter(x: Any) -> Any:
        if not _is_explicit(x):
            return x
        automatic = jax.sharding.reshard(x, PartitionSpec())
        originals[id(automatic)] = (x, automatic)  # The second keeps its id taken.
        return automatic

    with jax.sharding.use_abstract_mesh(abstract.update_axis_types(kinds)):
        args, kwargs = jax.tree.map(enter, (args, kwargs))
        result = fn(*args, **kwargs)

    def leave(path: Any, x: Any) -> Any:
        if id(x) in originals:
            return originals[id(x)][0]
        if not isinstance(x, jax.Array):
            return x
        actual = None if isinstance(x, Tracer) else x.sharding
        if isinstance(actual, NamedSharding) and not actual.is_fully_replicated:
            spec = _whole(actual.spec, x.ndim)
            return jax.device_put(x, NamedSharding(mesh, spec))
        spec = _spec_of(_keys(path), x.shape, sources)
        return jax.sharding.reshard(x, NamedSharding(mesh, spec))

    return jax.tree_util.tree_map_with_path(leave, result)


def _explicit_axes(mesh: Any) -> tuple[str, ...]:
    types = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in types if kind == AxisType.Explicit)


def _is_explicit(x: Any) -> bool:
    return isinstance(x, jax.Array) and bool(
        _explicit_axes(jax.typeof(x).sharding.mesh)
    )


def _explicit_mesh(tree: PyTree) -> Any:
    """Return the mesh of the first explicit leaf; a concrete one if a leaf knows it."""
    explicit = [x for x in jax.tree.leaves(tree) if _is_explicit(x)]
    for x in explicit:
        if not isinstance(x, Tracer):
            return x.sharding.mesh
    return jax.typeof(explicit[0]).sharding.mesh if explicit else None


def _sources(args: PyTree) -> list[_Source]:
    leaves = jax.tree_util.tree_flatten_with_path(args)[0]
    return [
        _Source(_keys(path), x.shape, jax.typeof(x).sharding.spec)
        for path, x in leaves
        if _is_explicit(x)
    ]


def _keys(path: Any) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr(path, simple=True, separator="/").split("/"))


def _spec_of(
    keys: tuple[str, ...], shape: tuple[int, ...], sources: Sequence[_Source]
) -> PartitionSpec:
    """Shard a result like the argument of the same rank with the most similar path.

    Without one of the same rank, like one that begins with the same dimensions: a loss for
    each example, like the batch.
    """
    alike = [source for source in sources if len(source.shape) == len(shape)]
    alike = alike or [s for s in sources if s.shape[: len(shape)] == shape]
    if not alike or not shape:
        return PartitionSpec()
    source = max(alike, key=lambda s: (s.shape == shape, _common_run(s.keys, keys)))
    spec = _whole(source.spec, len(source.shape))
    sizes = zip(spec, source.shape, shape, strict=False)
    return PartitionSpec(*(entry if old == new else None for entry, old, new in sizes))


def _whole(spec: PartitionSpec, ndim: int) -> PartitionSpec:
    """Name every dimension: specs that differ in trailing None would compile twice."""
    return PartitionSpec(*spec, *[None] * (ndim - len(spec)))


def _common_run(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """Return the length of the longest run of keys that occurs in both paths."""
    runs = [
        [*itertools.takewhile(bool, map(operator.eq, a[i:], b[j:]))]
        for i in range(len(a))
        for j in range(len(b))
    ]
    return max(map(len, runs), default=0)


def without_mesh(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``fn`` trace programs without a mesh, whatever ``jax.set_mesh`` set."""

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        empty = jax.sharding.AbstractMesh((), ())
        with jax.sharding.use_abstract_mesh(empty):
            return fn(*args, **kwargs)

    return run
