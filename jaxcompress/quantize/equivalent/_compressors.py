# SPDX-License-Identifier: Apache-2.0
"""Compressors that move parameters without changing the function."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from ..._compressor import Compressor, PyTree, Restart
from ..._select import map_with_path, paths_and_leaves, select
from ...layerwise import Evidence
from ._links import Bound, ByPath, Link, bind, checked

Check = Callable[[list[Bound], ByPath], None]


class EquivalentState(NamedTuple):
    """State of a compressor that moves parameters."""

    count: jax.Array  # int32 []: updates so far that moved them
    # The optimizer's state is in the units of before: momentum of a rescaled weight is not.
    restart: Restart


def move_once(
    links: Sequence[Link],
    move: Callable[[list[Bound], ByPath], ByPath],
    *,
    what: str,
    check: Check | None = None,
) -> Compressor:
    """Move parameters in the first update, and never again.

    Args:
      links: what may be moved.
      move: ``(links, leaves) -> leaves``, those of the links by path.
      what: of the warning, if no update came: "nothing is rotated".
      check: raises or warns at links and leaves, traced or not; before each move.
    """
    links = checked(links)

    def update(
        params: PyTree, state: EquivalentState, **extras: Any
    ) -> tuple[PyTree, EquivalentState]:
        del extras
        bound, first = bind(links, params), state.count == 0
        leaves = _touched(params, bound)
        moved = jax.jit(functools.partial(move, bound))
        if isinstance(first, Tracer):
            new = lax.cond(first, moved, lambda x: x, leaves)
        else:  # an eager `lax.cond` would be compiled anew in every update
            if check and bool(first):
                check(bound, leaves)
            new = moved(leaves) if bool(first) else leaves
        count = jnp.maximum(state.count, 1)
        return _with(params, new), EquivalentState(count, Restart(first))

    return _compressor(links, update, f"{what}: there was no update.", check)


def move_given(
    links: Sequence[Link],
    move: Callable[[list[Bound], ByPath, dict[str, Any]], ByPath],
    evidence: Evidence,
    *,
    what: str,
    check: Check | None = None,
) -> Compressor:
    """Move parameters in the updates that are given evidence of the links' consumers.

    Args:
      links: what may be moved.
      move: ``(links, leaves, evidence) -> leaves``, all by path.
      evidence: what those updates are given.
      what: of the warning, if no update was given any: "nothing is smoothed".
      check: as for ``move_once``, in ``init`` only.
    """
    links = checked(links)

    def update(
        params: PyTree, state: EquivalentState, **extras: Any
    ) -> tuple[PyTree, EquivalentState]:
        given = extras.get(evidence.name)
        if given is None:
            return params, EquivalentState(state.count, Restart(jnp.zeros((), bool)))
        bound = bind(links, params)
        readers = {path for link in bound for path in link.consumers}
        selection = select(params, lambda path, leaf: path in readers)
        paths, _, treedef = paths_and_leaves(selection.tree)
        known = evidence.by_path(selection.like(given), paths, treedef)
        new = jax.jit(functools.partial(move, bound))(_touched(params, bound), known)
        return _with(params, new), EquivalentState(
            state.count + 1, Restart(jnp.ones((), bool))
        )

    missing = f"{what}: no update was given {evidence.name}={evidence.how}."
    return _compressor(links, update, missing, check)


def _compressor(
    links: tuple[Link, ...], update: Any, missing: str, check: Check | None
) -> Compressor:
    def init(params: PyTree) -> EquivalentState:
        bound = bind(links, params)
        if check:
            check(bound, _touched(params, bound))
        return EquivalentState(jnp.zeros((), jnp.int32), Restart(jnp.zeros((), bool)))

    def finalize(params: PyTree, state: EquivalentState) -> PyTree:
        if not isinstance(state.count, Tracer) and int(state.count) == 0:
            warnings.warn(missing, stacklevel=2)
        return params

    return Compressor(
        init=init,
        apply=lambda params, state: params,
        update=update,
        finalize=finalize,
    )


def _touched(params: PyTree, bound: list[Bound]) -> ByPath:
    names = {p for link in bound for p in (*link.producers, *link.consumers)}
    paths, leaves, _ = paths_and_leaves(params)
    return {p: x for p, x in zip(paths, leaves, strict=True) if p in names}


def _with(params: PyTree, new: ByPath) -> PyTree:
    return map_with_path(lambda path, leaf: new.get(path, leaf), params)
