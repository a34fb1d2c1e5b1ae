# SPDX-License-Identifier: Apache-2.0
"""Observe what the products of a function read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax

from .._select import Where, paths_and_leaves, select
from ._rewrite import check_names, check_state_is_dict, stacked
from .products._find import find
from .products._layout import Layout, layout
from .products._site import Opaque, opaque_lines
from .statistics import Statistic
from .trace._analyze import analyze
from .trace._interpret import Frame, Interpreter, NodeHook


class Observer(NamedTuple):
    """Statistics of a function's inputs, for a loop of one's own.

    Attributes:
      init: ``(params, *args) -> state`` of no data; the arguments may be shapes.
      update: ``(params, state, *args) -> (out, state)``, with one more batch. ``out`` is
        that of the function: the same equations on the same values. (Under jit XLA may
        fuse two programs in two ways, which moves a last bit of both.)
      merge: ``(params, state, state, *args) -> state`` of two disjoint parts of the data.
      read: ``(params, state, *args) -> statistics``, shaped like ``params``: None at
        leaves that were not observed. In ``merge`` and ``read`` the arguments tell the
        shapes only.
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
    """Statistics of the inputs of every weight, over batches of data.

    The function runs on every batch. Statistics merge exactly, so the split into batches
    does not matter, nor does their sharding; nor, but for rounding, does their order.

    Args:
      fn: ``(params, *args) -> out``; see ``sites``.
      params: its parameters.
      batches: each is the argument of ``fn`` after the parameters, or a tuple of them.
      stats: a ``Statistic`` (``max_magnitude()``, ``moments()``, ``gram()``, ``magnitudes()``) or
        a tree of some, such as ``{"input": moments(), "hessian": gram()}``.
      where: which leaves: a glob on the path, ``(path, leaf) -> bool`` or a bool tree.
        None: every leaf that a product multiplies its data by.
      inline_custom: look into functions with derivative rules of their own.

    Returns:
      A tree shaped like ``params``: at observed leaves what ``stats`` has, computed from
      all rows that were multiplied by the leaf, in all its uses; None at the others.
      Features lie along the axes of the leaf that are summed over, layers of a scan along
      their own, so ``jnp.abs(leaf) * moments.norm`` is Wanda's score.

    Raises:
      ValueError: if there are no batches, or a selected leaf cannot be observed.
      TypeError: if one batch is given in place of a list.

    Warns:
      OpaqueWarning: where parts of the function are not entered.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
      >>> def fn(params, x):
      ...     return x @ params["w"] + params["b"][None]
      >>> batches = [jnp.array([[1.0, -5.0]]), jnp.array([[2.0, 0.0]])]
      >>> found = jc.observe(fn, params, batches, jc.program.statistics.max_magnitude())
      >>> found["w"].tolist(), found["b"]
      ([[2.0], [5.0]], None)
    """
    if isinstance(batches, Mapping) or hasattr(batches, "shape"):
        raise TypeError(
            f"batches is one {type(batches).__name__}; give a list of batches, [batch]."
        )
    observer = observing(fn, stats, where=where, inline_custom=inline_custom)
    update = jax.jit(observer.update)
    state, args = None, ()
    for batch in batches:
        args = batch if type(batch) is tuple else (batch,)
        if state is None:
            state = observer.init(params, *args)
        _, state = update(params, state, *args)
    if state is None:
        raise ValueError(
            "there are no batches to observe. An iterator that was used up before has none."
        )
    return observer.read(params, state, *args)


def observing(
    fn: Callable[..., Any],
    stats: Any,
    *,
    where: Where | None = None,
    inline_custom: bool = False,
) -> Observer:
    """The pure functions behind ``observe``, with the same arguments.

    To observe while training, inside of somebody's jitted loop, or on several hosts whose
    states are merged.

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
                f"stats holds a {type(statistic).__name__}; give a Statistic such as "
                "jaxcompress.program.statistics.gram(), called, or a tree of some."
            )

    def prepare(params: Any, args: tuple[Any, ...]) -> Any:
        program = analyze(fn, params, args, inline_custom=inline_custom)
        found = find(program)
        shapes = {
            p: x.shape for p, x in zip(program.paths, program.leaves, strict=True)
        }
        layouts: dict[str, Layout] = {}
        reasons: dict[str, str] = {}
        for node, site in found.sites.items():
            if site.leaf is not None:
                known = layout(node, site, shapes[site.leaf])
                if isinstance(known, Layout):
                    layouts[site.name] = known
                elif site.primitive != "gather":
                    reasons.setdefault(site.leaf, known)
        wanted = _wanted(params, where, layouts, reasons, found.opaque)
        layouts = {k: v for k, v in layouts.items() if v.site.leaf in wanted}
        return program, found, layouts, shapes

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
        program, found, layouts, _ = prepare(params, args)
        found.warn("observe")
        check_names(state, layouts, all_of=True)

        def hook(known: Layout) -> NodeHook:
            name, side = known.site.name, 1 - (known.site.weight or 0)

            def run(op: Any, operands: list[Any], frame: Frame) -> Any:
                rows = known.rows(operands[side])
                frame.state[name] = [
                    s.merge(old, s.of(rows))
                    for s, old in zip(statistics, frame.state[name], strict=True)
                ]
                return op(*operands)

            return NodeHook((name,), run)

        hooks = {known.node: hook(known) for known in layouts.values()}
        leaves = jax.tree.leaves((params, args))
        out, new, _ = Interpreter(program, hooks)(leaves, state)
        return out, new

    def merge(params: Any, a: dict[str, Any], b: dict[str, Any], *args: Any) -> Any:
        _, _, layouts, _ = prepare(params, args)
        return {
            name: _merged(statistics, a[name], b[name], len(known.site.layers))
            for name, known in layouts.items()
        }

    def read(params: Any, state: dict[str, Any], *args: Any) -> Any:
        _, _, layouts, shapes = prepare(params, args)
        check_names(state, layouts, all_of=True)
        by_leaf: dict[str, tuple[Layout, Any]] = {}
        for name, known in layouts.items():
            leaf, summary = known.site.leaf or "", state[name]
            if leaf in by_leaf:
                first, other = by_leaf[leaf]
                _same_features(leaf, first, known)
                depth = len(known.site.layers)
                summary = _merged(statistics, other, summary, depth)
            by_leaf[leaf] = (known, summary)

        def of_leaf(path: str) -> Any:
            if path not in by_leaf:
                return None
            known, summary = by_leaf[path]

            def like_leaf(x: jax.Array) -> jax.Array:
                return known.like_leaf(x, shapes[path])

            parts = zip(statistics, summary, strict=True)
            return structure.unflatten([s.read(x, like_leaf) for s, x in parts])

        paths, _, treedef = paths_and_leaves(params)
        return treedef.unflatten([of_leaf(path) for path in paths])

    return Observer(init, update, merge, read)


def _merged(statistics: Any, a: Any, b: Any, layers: int) -> Any:
    def one(statistic: Statistic, a: Any, b: Any) -> Any:
        merge = statistic.merge
        for _ in range(layers):
            merge = jax.vmap(merge)
        return merge(a, b)

    return [one(*parts) for parts in zip(statistics, a, b, strict=True)]


def _wanted(
    params: Any,
    where: Where | None,
    layouts: dict[str, Layout],
    reasons: dict[str, str],
    opaque: list[Opaque],
) -> set[str]:
    """The leaves to observe; those that cannot be are said by name."""
    seen = {known.site.leaf or "" for known in layouts.values()}
    if where is None:
        chosen = seen | set(reasons)
    else:
        chosen = set(paths_and_leaves(select(params, where).tree)[0])
    beside = "\n".join(["", *opaque_lines(opaque)])
    lost = [
        f"{path!r} ({reasons.get(path, 'no product reads it')})"
        for path in sorted(chosen - seen)
    ]
    if lost:
        raise ValueError(
            f"the inputs of {', '.join(lost)} cannot be observed. Select the others with "
            f"`where=`.{beside}"
        )
    if not chosen:
        raise ValueError(
            f"no product of the function multiplies data by a parameter.{beside}"
        )
    return chosen


def _same_features(leaf: str, a: Layout, b: Layout) -> None:
    def features(x: Layout) -> Any:
        return x.inside, x.batch, x.layers, x.groups

    if features(a) != features(b):
        raise ValueError(
            f"{leaf!r} is used in two ways, {a.site.name!r} sums over its axes "
            f"{a.inside} in {a.groups} groups and {b.site.name!r} over {b.inside} in "
            f"{b.groups}; their inputs have no statistics in common. Leave it out with "
            "`where=`."
        )
