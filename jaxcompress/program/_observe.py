# SPDX-License-Identifier: Apache-2.0
"""Collect statistics of the inputs of every weight of a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax

from .._arguments import check_function
from .._mesh import on_any_mesh
from .._select import Where, paths_and_leaves, select
from ._rewrite import check_names, check_state_is_dict, stacked
from .products._find import find
from .products._layout import Layout, layout
from .products._site import Opaque, opaque_lines
from .statistics import Statistic
from .trace._analyze import analyze
from .trace._interpret import Frame, Interpreter, NodeHook

_CALL = "observe(fn, params, batches, stats)"


class Observer(NamedTuple):
    """The pure functions that ``observing`` returns, to collect statistics in any loop.

    Attributes:
      init: ``(params, *args) -> state``, without data. The arguments may be shapes.
      update: ``(params, state, *args) -> (out, state)``. Adds one batch. ``out`` is the
        result of the function, from the same equations on the same values. (Under
        ``jit`` XLA may fuse the two programs differently, which can change the last bit.)
      merge: ``(params, state, state, *args) -> state``. Merges two disjoint parts of the
        data.
      read: ``(params, state, *args) -> statistics``, a tree like ``params`` with None at
        leaves that were not observed. ``merge`` and ``read`` use only the shapes of
        ``args``.
    """

    init: Callable[..., dict[str, Any]]
    update: Callable[..., tuple[Any, dict[str, Any]]]
    merge: Callable[..., dict[str, Any]]
    read: Callable[..., Any]


def observe(
    fn: Callable[..., Any],
    params: Any,
    batches: Iterable[Any],
    stats: Any,
    *,
    where: Where | None = None,
    inline_custom: bool = False,
) -> Any:
    """Collect input statistics of every weight over batches of data, for calibration.

    Pass the result as ``stats=`` to methods such as GPTQ or Wanda. The function runs on
    every batch. Statistics merge exactly, so neither the split into batches nor their
    sharding matters. Their order matters only up to rounding.

    Args:
      fn: ``(params, *args) -> out``; see ``sites``.
      params: parameters of ``fn``.
      batches: iterable; each item is the argument of ``fn`` after the parameters, or a
        tuple of arguments.
      stats: a ``Statistic`` (``max_magnitude()``, ``moments()``, ``gram()``,
        ``magnitudes()``) or a tree of them, such as
        ``{"input": moments(), "hessian": gram()}``.
      where: leaves to observe: a glob on the path, ``(path, leaf) -> bool`` or a bool
        tree. None observes every leaf that a product multiplies data by.
      inline_custom: also enter functions with custom derivative rules.

    Returns:
      A tree like ``params``. Observed leaves hold the structure of ``stats``, computed
      from all rows that were multiplied by the leaf, over all its uses. All other leaves
      hold None. Features lie along the contraction axes of the leaf and scan layers along
      their own axis, so ``jnp.abs(leaf) * moments.norm`` is Wanda's score.

    Raises:
      ValueError: if there are no batches or an empty one, or a selected leaf cannot be
        observed.
      TypeError: if a single batch is passed instead of a list.

    Warns:
      OpaqueWarning: if parts of the function are not entered.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
      >>> def fn(params, x):
      ...     return x @ params["w"] + params["b"][None]
      >>> batches = [jnp.array([[1.0, -5.0]]), jnp.array([[2.0, 0.0]])]
      >>> stats = jc.observe(fn, params, batches, jc.program.statistics.max_magnitude())
      >>> stats["w"].tolist(), stats["b"]
      ([[2.0], [5.0]], None)
    """
    check_function(fn, _CALL)
    if isinstance(batches, Statistic):
        raise TypeError(
            f"{_CALL} takes batches third, got a Statistic. Are the arguments in another "
            "order?"
        )
    if isinstance(batches, Mapping) or hasattr(batches, "shape"):
        raise TypeError(
            "batches must be an iterable of batches, got a single "
            f"{type(batches).__name__}. Pass [batch]."
        )
    observer = observing(fn, stats, where=where, inline_custom=inline_custom)
    update = jax.jit(observer.update)
    state, args = None, ()
    for batch in batches:
        args = batch if type(batch) is tuple else (batch,)
        if any(hasattr(x, "size") and not x.size for x in jax.tree.leaves(args)):
            raise ValueError(
                "a batch is empty: it has an array without elements, which says nothing "
                "about the inputs."
            )
        if state is None:
            state = observer.init(params, *args)
        _, state = update(params, state, *args)
    if state is None:
        raise ValueError(
            "batches must contain at least one batch, got none. An iterator that was "
            "already consumed is empty."
        )
    return observer.read(params, state, *args)


def observing(
    fn: Callable[..., Any],
    stats: Any,
    *,
    where: Where | None = None,
    inline_custom: bool = False,
) -> Observer:
    """Collect input statistics inside your own loop, through pure functions.

    Use it instead of ``observe`` while training, inside a jitted loop, or on several hosts
    whose states you merge. The arguments are those of ``observe``.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> fn = lambda params, x: x @ params["w"]
      >>> observer = jc.program.observing(fn, jc.program.statistics.moments())
      >>> params, x = {"w": jnp.eye(2)}, jnp.array([[1.0, 3.0], [3.0, 3.0]])
      >>> state = observer.init(params, x)
      >>> _, state = jax.jit(observer.update)(params, state, x)
      >>> observer.read(params, state, x)["w"].mean.tolist()
      [[2.0], [3.0]]
    """
    statistics, structure = jax.tree.flatten(stats)
    for statistic in statistics:
        if not isinstance(statistic, Statistic):
            raise TypeError(
                "stats must be a Statistic or a tree of them, got a "
                f"{type(statistic).__name__}. Call the function, as in "
                "jaxcompress.program.statistics.gram()."
            )

    def prepare(params: Any, args: tuple[Any, ...]) -> Any:
        program = analyze(fn, params, args, inline_custom=inline_custom)
        index = find(program)
        shapes = {
            p: x.shape for p, x in zip(program.paths, program.leaves, strict=True)
        }
        layouts: dict[str, Layout] = {}
        reasons: dict[str, str] = {}
        for node, site in index.sites.items():
            if site.leaf is not None:
                layout_or_reason = layout(node, site, shapes[site.leaf])
                if isinstance(layout_or_reason, Layout):
                    layouts[site.name] = layout_or_reason
                elif site.primitive != "gather":
                    for path in (site.leaf, *(path for path, _ in site.parts)):
                        reasons.setdefault(path, layout_or_reason)
        paths = _select_paths(params, where, layouts, reasons, index.opaque)
        layouts = {k: v for k, v in layouts.items() if v.site.leaf in paths}
        return program, index, layouts, shapes

    def init(params: Any, *args: Any) -> dict[str, Any]:
        _, _, layouts, _ = prepare(params, args)
        return {
            name: stacked(
                [s.empty(x.groups, x.features) for s in statistics], x.site.layers
            )
            for name, x in layouts.items()
        }

    def update(params: Any, state: dict[str, Any], *args: Any) -> tuple[Any, Any]:
        check_state_is_dict(state)
        program, index, layouts, _ = prepare(params, args)
        index.warn("observe")
        check_names(state, layouts, all_of=True)

        def hook(x: Layout) -> NodeHook:
            name, side = x.site.name, 1 - (x.site.weight or 0)

            @on_any_mesh
            def collect(summaries: list[Any], inputs: jax.Array) -> list[Any]:
                rows = x.rows(inputs)
                return [
                    s.merge(old, s.of(rows))
                    for s, old in zip(statistics, summaries, strict=True)
                ]

            def run(op: Any, operands: list[Any], frame: Frame) -> Any:
                frame.state[name] = collect(frame.state[name], operands[side])
                return op(*operands)

            return NodeHook((name,), run)

        hooks = {x.node: hook(x) for x in layouts.values()}
        leaves = jax.tree.leaves((params, args))
        out, new, _ = Interpreter(program, hooks)(leaves, state)
        return out, new

    def merge(params: Any, a: dict[str, Any], b: dict[str, Any], *args: Any) -> Any:
        _, _, layouts, _ = prepare(params, args)
        return {
            name: _merge(statistics, a[name], b[name], len(x.site.layers))
            for name, x in layouts.items()
        }

    def read(params: Any, state: dict[str, Any], *args: Any) -> Any:
        _, _, layouts, shapes = prepare(params, args)
        check_names(state, layouts, all_of=True)
        by_leaf: dict[str, tuple[Layout, Any]] = {}
        for name, x in layouts.items():
            leaf, summary = x.site.leaf or "", state[name]
            if leaf in by_leaf:
                first, other = by_leaf[leaf]
                _check_same_features(leaf, first, x)
                summary = _merge(statistics, other, summary, len(x.site.layers))
            by_leaf[leaf] = (x, summary)

        def of_leaf(path: str) -> Any:
            if path not in by_leaf:
                return None
            leaf_layout, summary = by_leaf[path]

            def like_leaf(x: jax.Array) -> jax.Array:
                return leaf_layout.like_leaf(x, shapes[path])

            parts = zip(statistics, summary, strict=True)
            return structure.unflatten([s.read(x, like_leaf) for s, x in parts])

        paths, _, treedef = paths_and_leaves(params)
        return treedef.unflatten([of_leaf(path) for path in paths])

    return Observer(init, update, merge, read)


def _merge(statistics: Any, a: Any, b: Any, layers: int) -> Any:
    def merge_one(statistic: Statistic, a: Any, b: Any) -> Any:
        merge = statistic.merge
        for _ in range(layers):
            merge = jax.vmap(merge)
        return merge(a, b)

    return [merge_one(*parts) for parts in zip(statistics, a, b, strict=True)]


def _select_paths(
    params: Any,
    where: Where | None,
    layouts: dict[str, Layout],
    reasons: dict[str, str],
    opaque: list[Opaque],
) -> set[str]:
    """Return the paths of the leaves to observe, or raise and name those that cannot be."""
    observable = {x.site.leaf or "" for x in layouts.values()}
    if where is None:
        selected = observable | set(reasons)
    else:
        selected = set(paths_and_leaves(select(params, where).tree)[0])
    opaque_note = "\n".join(["", *opaque_lines(opaque)])
    failures = [
        f"{path!r} ({reasons.get(path, 'no product reads it')})"
        for path in sorted(selected - observable)
    ]
    if failures:
        raise ValueError(
            f"the inputs of {', '.join(failures)} cannot be observed. Select the other "
            f"leaves with `where=`.{opaque_note}"
        )
    if not selected:
        raise ValueError(
            f"no product of the function multiplies data by a parameter.{opaque_note}"
        )
    return selected


def _check_same_features(leaf: str, a: Layout, b: Layout) -> None:
    def features(x: Layout) -> Any:
        return x.inside, x.batch, x.layers, x.groups

    if features(a) != features(b):
        raise ValueError(
            f"{leaf!r} is used in two ways: {a.site.name!r} sums over its axes "
            f"{a.inside} in {a.groups} groups, and {b.site.name!r} over {b.inside} in "
            f"{b.groups}. Their inputs cannot share statistics. Exclude the leaf with "
            "`where=`."
        )
