# SPDX-License-Identifier: Apache-2.0
"""Find the couplings of a function: channels whose order does not matter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._arguments import check_function
from .._select import paths_and_leaves
from ..prune.patterns import permute
from ..quantize.equivalent._verify import (
    check_finite,
    coarsest_unit,
    largest_difference,
)
from .axes import Axis, AxisGraph, freeze, indices
from .trace._analyze import analyze
from .trace._graph import nodes

Coupling = Mapping[str, int | tuple[int, ...]]
"""``{path: axis}``: where channels lie, as ``prune.patterns.permute`` takes it."""


class Couplings(Sequence[Coupling]):
    """The couplings of a function, for ``prune.patterns.permuted_for``.

    Attributes:
      skipped: channels whose order does not matter, but that ``permute`` cannot reorder,
        by leaf and axis, each with the reason.
    """

    def __init__(self, couplings: Sequence[Coupling], skipped: Mapping[str, str]):
        self._couplings = tuple(couplings)
        self.skipped = dict(skipped)

    def __getitem__(self, i: Any) -> Any:
        return self._couplings[i]

    def __len__(self) -> int:
        return len(self._couplings)

    def __repr__(self) -> str:
        lines = [str(dict(coupling)) for coupling in self]
        return "\n".join(
            [*lines, *(f"{name}: skipped, {why}" for name, why in self.skipped.items())]
        )


def find_couplings(fn: Callable[..., Any], params: Any, *args: Any) -> Couplings:
    """Find every axis along which channels can be reordered, and what is coupled with it.

    Channels can be reordered if nothing between the leaves goes by their position: no
    input, output, index, window or sort, and no random numbers. Unlike for pruning, it
    does not matter what else is computed of them: a softmax over hidden units is fine. If
    all arguments are arrays, every coupling is verified on the function, with channels in
    a random order.

    Args:
      fn: ``(params, *args) -> out`` in evaluation mode; see ``sites``.
      params: tree of arrays or shapes.
      *args: trees of arrays or shapes; real data if the parameters are arrays.

    Returns:
      The couplings, each ``{path: axis}``.

    Raises:
      ValueError: if another order changes the function by more than rounding, or its
        outputs are not finite.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> params = {"up": {"kernel": jax.random.normal(keys[0], (4, 16))},
      ...           "down": {"kernel": jax.random.normal(keys[1], (16, 4))}}
      >>> def fn(params, x):
      ...     return jax.nn.gelu(x @ params["up"]["kernel"]) @ params["down"]["kernel"]
      >>> couplings = jc.program.find_couplings(fn, params, jnp.ones((2, 4)))
      >>> couplings
      {'down/kernel': 0, 'up/kernel': 1}
      >>> new, orders = jc.prune.patterns.permuted_for(
      ...     jc.prune.patterns.NOfM(2, 4), params, couplings, key=keys[2]
      ... )
    """
    check_function(fn, "find_couplings(fn, params, *args)")
    program = analyze(fn, params, args)
    graph = AxisGraph(program, derivatives=False)
    for node in nodes(program.root):
        fixed = [graph.steps[node]] if node in graph.steps else []
        if node.primitive == "random_bits":
            fixed = graph.of(node.outs[0])
        for axis in fixed:
            freeze(axis, "its order matters")
    couplings, skipped = [], {}
    for places in _places(graph).values():
        why = _misfit(places)
        if why:
            path, axis, _ = places[0]
            skipped[f"{path}[{axis}]"] = why
        else:
            axes: dict[str, tuple[int, ...]] = {}
            for path, axis, _ in places:
                axes[path] = (*axes.get(path, ()), axis)
            couplings.append({p: a[0] if len(a) == 1 else a for p, a in axes.items()})
    is_concrete = all(
        isinstance(x, jax.Array | np.ndarray) for x in jax.tree.leaves((params, args))
    )
    if couplings and is_concrete:
        _verify(fn, params, couplings, args)
    return Couplings(couplings, skipped)


def _places(graph: AxisGraph) -> dict[Axis, list[tuple[str, int, np.ndarray]]]:
    """Return where channels lie that may be reordered.

    Returns:
      The path, the axis, and the channel of each index.
    """
    places: dict[Axis, list[tuple[str, int, np.ndarray]]] = {}
    for (path, i), axis in graph.by_leaf().items():
        for atom, index in indices(axis):
            if atom.size > 1 and not atom.reasons:
                places.setdefault(atom, []).append((path, i, index))
    return places


def _misfit(places: Sequence[tuple[str, int, np.ndarray]]) -> str:
    """Say why ``permute`` cannot reorder channels; empty if it can."""
    for path, axis, index in places:
        if not np.array_equal(index, np.arange(index.max() + 1)):
            return f"axis {axis} of {path!r} has other channels too"
    return ""


def _verify(
    fn: Callable[..., Any], params: Any, couplings: Sequence[Coupling], args: Any
) -> None:
    run = jax.jit(fn)
    # Accelerators multiply float32 with fewer bits by default.
    with jax.default_matmul_precision("float32"):
        expected = run(params, *args)
        check_finite(expected)
        allowed = coarsest_unit((params, expected)) ** 0.5
        for coupling, order in zip(couplings, _orders(params, couplings), strict=True):
            moved = permute(params, jnp.asarray(order), coupling)
            difference = largest_difference(expected, run(moved, *args))
            if not difference <= allowed:
                raise ValueError(
                    f"reordering the channels {dict(coupling)} changes the output by "
                    f"{difference:.2g}, relative to its size; {allowed:.2g} is allowed. "
                    "Does the function have a state, or draw random numbers? Otherwise "
                    "please report it."
                )


def _orders(params: Any, couplings: Sequence[Coupling]) -> Iterator[np.ndarray]:
    """Yield a random order for each coupling, other than the one there is."""
    paths, leaves, _ = paths_and_leaves(params)
    shapes = {path: leaf.shape for path, leaf in zip(paths, leaves, strict=True)}
    draws = np.random.default_rng(0)
    for coupling in couplings:
        path, axis = next(iter(coupling.items()))
        size = shapes[path][axis if isinstance(axis, int) else axis[0]]
        order = draws.permutation(size)
        yield order if (order != np.arange(size)).any() else order[::-1]
