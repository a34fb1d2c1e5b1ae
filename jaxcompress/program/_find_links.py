# SPDX-License-Identifier: Apache-2.0
"""Find the links of a function: channels that can be rescaled without changing it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from .._arguments import check_function
from ..quantize.equivalent import Link, verify_links
from .axes import Axis, AxisGraph, atoms, indices
from .axes._scaling import Exponents, Scaling
from .axes._vanish import flat
from .trace import _compat
from .trace._analyze import analyze
from .trace._graph import Node, Region, Value


class Links(Sequence[Link]):
    """The links of a function, for ``cross_layer_equalization``, ``awq`` and others.

    Attributes:
      skipped: channels that could be rescaled, but that a ``Link`` cannot describe, each
        with the reason.
    """

    def __init__(self, links: Sequence[Link], skipped: Mapping[str, str]):
        self._links = tuple(links)
        self.skipped = dict(skipped)

    def __getitem__(self, i: Any) -> Any:
        return self._links[i]

    def __len__(self) -> int:
        return len(self._links)

    def __repr__(self) -> str:
        lines = [
            f"{dict(link.producers)} -> {dict(link.consumers)}" for link in self._links
        ]
        return "\n".join(
            [*lines, *(f"{name}: skipped, {why}" for name, why in self.skipped.items())]
        )


class _Place(NamedTuple):
    leaf: str
    axis: int
    sign: int
    index: np.ndarray
    layers: tuple[int, ...]  # axes that a scan removed


class _Scope(NamedTuple):
    """A region whose weights are parameters, or layers of them in a scan."""

    nodes: list[Node]
    weights: dict[Value, tuple[str, int]]  # path, and how many axes a scan removed
    fixed: list[Value]


def find_links(
    fn: Callable[..., Any], params: Any, *args: Any, rotated: bool = False
) -> Links:
    """Find all links of a function: which leaves make channels and which read them.

    A link is found where everything between the leaves is linear in each channel or
    positively homogeneous (ReLU, pooling, a gate's partner, attention between values and
    outputs), and complete by construction: all leaves that write to the channels and all
    that read them. If the parameters are arrays, every link is verified on the function.

    Args:
      fn: ``(params, *args) -> out`` in evaluation mode; see ``sites``.
      params: tree of arrays or shapes.
      *args: trees of arrays or shapes; real data if the parameters are arrays.
      rotated: find links for ``hadamard_rotation``: only those without a ReLU, a gate or
        the scale of a norm between producers and consumers.

    Raises:
      ValueError: if rescaling or rotating a link changes the function.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> params = {"up": jnp.full((2, 4), 0.5), "down": jnp.ones((4, 2))}
      >>> def fn(params, x):
      ...     return jax.nn.relu(x @ params["up"]) @ params["down"]
      >>> links = jc.program.find_links(fn, params, jnp.ones((1, 2)))
      >>> links
      {'up': 1} -> {'down': 0}
      >>> even = jc.compress(jc.quantize.cross_layer_equalization(links), params)
    """
    check_function(fn, "find_links(fn, params, *args)")
    program = analyze(fn, params, args)
    graph = AxisGraph(program, outputs=False, derivatives=False)
    shapes = dict(zip(program.paths, program.leaves, strict=True))
    links, skipped = [], {}
    for scope in _scopes(
        program.root, dict(zip(program.root.ins, program.paths, strict=False))
    ):
        places = [_places(graph, scope, s) for s in _scalings(graph, scope, rotated)]
        for found in _joined(places):
            link, why = _link(found)
            if link is not None and rotated:
                link, why = _rotatable(link, shapes)
            if link is not None:
                links.append(link)
            elif why:
                skipped[found[0][0].leaf] = why
    is_concrete = all(
        isinstance(x, jax.Array | np.ndarray) for x in jax.tree.leaves((params, args))
    )
    if links and is_concrete:
        verify_links(fn, params, links, *args, rotated=rotated)
    return Links(links, skipped)


def _scopes(root: Region, names: Mapping[Value, str]) -> Iterator[_Scope]:
    """Iterate over the program, and the bodies of its scans over layers."""
    nodes = list(flat(root))
    data = [v for v in root.ins if v not in names]
    yield _Scope(
        nodes, {v: (path, 0) for v, path in names.items()}, [*data, *root.outs]
    )
    for node in nodes:
        if node.primitive != "scan":
            continue
        (body,) = node.bodies
        parts = _compat.scan_parts(node.eqn)
        first = parts.consts + parts.carry
        layers = {
            inner: (names[outer], 1)
            for inner, outer in zip(body.ins[first:], node.ins[first:], strict=True)
            if outer in names
        }
        fixed = [v for v in body.ins if v not in layers]
        yield _Scope(list(flat(body)), layers, [*fixed, *body.outs])


def _scalings(graph: AxisGraph, scope: _Scope, linear: bool) -> Iterator[Scaling]:
    seen: dict[Axis, None] = {}
    for value in scope.weights:
        for axis in graph.of(value):
            seen.update((a, None) for a in atoms(axis) if a.size > 1)
    for atom in seen:
        weights = list(scope.weights)
        solver = Exponents(
            graph, scope.nodes, atom, weights, scope.fixed, linear=linear
        )
        yield from solver.scalings()


def _places(graph: AxisGraph, scope: _Scope, scaling: Scaling) -> list[_Place]:
    """Return where the channels lie in the leaves, producers first."""
    places = []
    for value, signs in scaling.signs.items():
        if value not in scope.weights:
            continue
        path, offset = scope.weights[value]
        for i, axis in enumerate(graph.of(value)):
            for atom, index in indices(axis):
                if atom is scaling.atom:
                    layers = tuple(range(offset))
                    places += [
                        _Place(path, i + offset, sign, index, layers) for sign in signs
                    ]
    return sorted(places, key=lambda place: place.sign)


def _joined(scalings: Sequence[list[_Place]]) -> list[list[list[_Place]]]:
    """Join axes whose channels lie in the same leaves: heads and their features."""
    joined: dict[object, list[list[_Place]]] = {}
    for i, places in enumerate(scalings):
        leaves = [(place.leaf, place.sign) for place in places]
        is_plain = all(np.array_equal(p.index, np.arange(p.index.size)) for p in places)
        joined.setdefault(tuple(leaves) if is_plain else i, []).append(places)
    return list(joined.values())


def _link(found: Sequence[list[_Place]]) -> tuple[Link | None, str]:
    """Return the link of one or several axes; None and the reason if there is none."""
    sides: dict[int, dict[str, tuple[int, ...]]] = {-1: {}, 1: {}}
    for places in found:
        leaves = [place.leaf for place in places]
        if len(set(leaves)) < len(leaves):
            return None, "a leaf has the channels on two of its axes"
        size = max(place.index.max() for place in places) + 1
        for place in places:
            times = place.index.size // size
            if not np.array_equal(place.index, np.tile(np.arange(size), times)) or (
                times > 1 and place.sign < 0
            ):
                return (
                    None,
                    f"axis {place.axis} of {place.leaf!r} has other channels too",
                )
            side = sides[place.sign]
            side[place.leaf] = (*side.get(place.leaf, ()), place.axis)
    if not all(sides.values()):
        return None, ""
    layers = {place.leaf: place.layers for places in found for place in places}
    producers, consumers = (
        {path: _plain((*layers[path], *axes)) for path, axes in sides[sign].items()}
        for sign in (-1, 1)
    )
    return Link(producers, consumers), ""


def _rotatable(link: Link, leaves: Mapping[str, Any]) -> tuple[Link | None, str]:
    """Return a link that can be rotated; None and the reason if it cannot."""
    for side in (link.producers, link.consumers):
        axes = {path: (a,) if isinstance(a, int) else a for path, a in side.items()}
        if all(len(own) == len(leaves[path].shape) for path, own in axes.items()):
            return None, "no kernel makes the channels, or none reads them"
        for path, own in axes.items():
            if leaves[path].shape[own[-1]] % 2:
                return None, "the number of channels is odd"
    return link, ""


def _plain(axes: tuple[int, ...]) -> int | tuple[int, ...]:
    return axes[0] if len(axes) == 1 else axes
