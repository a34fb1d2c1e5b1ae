# SPDX-License-Identifier: Apache-2.0
"""Compressors that move parameters without changing the function."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from ..._compressor import Compressor, PyTree, Restart
from ..._refuse import refuse_unfit
from ..._select import map_with_path, paths_and_leaves, select
from ..._warn import warn
from ...layerwise import Evidence
from ...numerics import cond
from ._links import Bound, ByPath, Link, bind, checked

Check = Callable[[list[Bound], ByPath], None]


class EquivalentState(NamedTuple):
    """State of the compressors that rescale or rotate links."""

    count: jax.Array  # int32 []: number of updates that moved the parameters
    # Optimizer state must restart: momentum is in the units before the rescaling.
    restart: Restart


def move_once(
    links: Sequence[Link],
    move: Callable[[list[Bound], ByPath], ByPath],
    *,
    what: str,
    check: Check | None = None,
) -> Compressor:
    """Move parameters in the first update only.

    Args:
      links: the links to move.
      move: ``(links, leaves) -> leaves``, the leaves of the links by path.
      what: start of the warning if there was no update, such as "nothing is rotated".
      check: called with links and leaves, traced or not, before each move; it raises or
        warns.
    """
    links = checked(links)

    def update(
        params: PyTree, state: EquivalentState, **extras: Any
    ) -> tuple[PyTree, EquivalentState]:
        del extras
        bound, is_first = bind(links, params), state.count == 0
        leaves = _touched(params, bound)
        moved = jax.jit(functools.partial(move, bound))
        if check and not isinstance(is_first, Tracer) and bool(is_first):
            check(bound, leaves)
        new = cond(is_first, moved, lambda x: x, leaves)
        count = jnp.maximum(state.count, 1)
        return _with(params, new), EquivalentState(count, Restart(is_first))

    def warn_if_idle(count: jax.Array) -> None:
        if not isinstance(count, Tracer) and int(count) == 0:
            warn(f"{what}: there was no update.")

    return _compressor(links, update, warn_if_idle, check)


def move_given(
    links: Sequence[Link],
    move: Callable[[list[Bound], ByPath, dict[str, Any]], ByPath],
    evidence: Evidence,
    *,
    what: str,
    check: Check | None = None,
) -> Compressor:
    """Move parameters in each update that receives evidence of the links' consumers.

    Args:
      links: the links to move.
      move: ``(links, leaves, evidence) -> leaves``, all by path.
      evidence: the extra argument that those updates receive.
      what: start of the warning if no update received evidence, such as "nothing is
        smoothed".
      check: as for ``move_once``, in ``init`` only.
    """
    links = checked(links)

    def update(
        params: PyTree, state: EquivalentState, **extras: Any
    ) -> tuple[PyTree, EquivalentState]:
        statistics = extras.get(evidence.name)
        if statistics is None:
            return params, EquivalentState(state.count, Restart(jnp.zeros((), bool)))
        bound = bind(links, params)
        readers = {path for link in bound for path in link.consumers}
        selection = select(params, lambda path, leaf: path in readers)
        paths, _, treedef = paths_and_leaves(selection.tree)
        by_path = evidence.by_path(selection.like(statistics), paths, treedef)
        new = jax.jit(functools.partial(move, bound))(_touched(params, bound), by_path)
        return _with(params, new), EquivalentState(
            state.count + 1, Restart(jnp.ones((), bool))
        )

    def warn_if_idle(count: jax.Array) -> None:
        evidence.warn_if_never_given(count, what)

    return _compressor(links, update, warn_if_idle, check)


def _compressor(
    links: tuple[Link, ...],
    update: Any,
    warn_if_idle: Callable[[jax.Array], None],
    check: Check | None,
) -> Compressor:
    def init(params: PyTree) -> EquivalentState:
        bound = bind(links, params)
        leaves = _touched(params, bound)
        if check:
            check(bound, leaves)
        return EquivalentState(jnp.zeros((), jnp.int32), Restart(jnp.zeros((), bool)))

    def finalize(params: PyTree, state: EquivalentState) -> PyTree:
        warn_if_idle(state.count)
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
    touched = {p: x for p, x in zip(paths, leaves, strict=True) if p in names}
    refuse_unfit(touched)
    return touched


def _with(params: PyTree, new: ByPath) -> PyTree:
    return map_with_path(lambda path, leaf: new.get(path, leaf), params)
