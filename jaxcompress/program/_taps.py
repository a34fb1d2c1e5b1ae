# SPDX-License-Identifier: Apache-2.0
"""Taps: return intermediate features of a function by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from .._select import closest, matches
from .activations._boundaries import Boundaries
from .activations._sources import is_statistic
from .products._find import SiteIndex, find
from .trace import _compat
from .trace._analyze import analyze
from .trace._graph import Program, Region, Value, nodes, readers, shape_of
from .trace._interpret import Frame, Interpreter, ValueHook

Select = str | Iterable[str] | Callable[[str], bool]
"""Selects names: a glob that matches the whole name, several globs, or a function
``name -> bool``."""


def taps(
    fn: Callable[..., Any], select: Select, *, inline_custom: bool = False
) -> Callable[..., tuple[Any, dict[str, jax.Array]]]:
    """Make a function also return intermediate features, for feature distillation.

    The model code does not change, and gradients flow through the features.
    ``tap_names`` lists the available names:

    - ``"<site>/input"`` (``/lhs`` and ``/rhs`` for data times data) and
      ``"<site>/output"``, which includes the bias, batch norm and ReLU after a product;
    - residual sums: ``"<name stack>/add"``;
    - values that leave a name scope, which is a module in Flax Linen:
      ``"ResNet/Block_0"`` (``#1`` and so on for further results);
    - values marked with ``jax.ad_checkpoint.checkpoint_name(x, "name")``.

    Features in loops, such as a scan over layers, are stacked along a new first axis.
    Features in ``while`` loops and in branches are not available.

    Args:
      fn: ``(params, *args) -> out``; see ``sites``.
      select: names of features; see ``Select``.
      inline_custom: also enter functions with custom derivative rules.

    Returns:
      ``(params, *args) -> (out, {name: feature})``.

    Raises:
      ValueError: when called, if a glob matches no name, or only unavailable ones.

    Warns:
      OpaqueWarning: if parts of the function are not entered.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> params = {"first": jnp.eye(2), "last": jnp.ones((2, 1))}
      >>> def fn(params, x):
      ...     return jax.nn.relu(x @ params["first"]) @ params["last"]
      >>> out, features = jc.taps(fn, "first/*")(params, jnp.array([[-1.0, 2.0]]))
      >>> {name: x.tolist() for name, x in features.items()}
      {'first/input': [[-1.0, 2.0]], 'first/output': [[0.0, 2.0]]}
    """
    if not isinstance(select, str) and not callable(select):
        select = tuple(select)  # An iterator could be read only once.

    def tapped(params: Any, *args: Any) -> tuple[Any, dict[str, jax.Array]]:
        program = analyze(fn, params, args, inline_custom=inline_custom)
        index = find(program)
        index.warn("taps")
        features = _select_features(_name_features(program, index), select)
        by_value: dict[Value, list[str]] = {}
        for name, value in features.items():
            by_value.setdefault(value, []).append(name)
        hooks = {value: _hook(tuple(names)) for value, names in by_value.items()}
        leaves = jax.tree.leaves((params, args))
        out, _, emitted = Interpreter(program, {}, hooks)(leaves, {})
        return out, {name: emitted[name] for name in features}

    return tapped


def tap_names(
    fn: Callable[..., Any], params: Any, *args: Any, inline_custom: bool = False
) -> dict[str, jax.ShapeDtypeStruct]:
    """List the feature names that ``taps`` accepts, with their shapes and dtypes.

    The function is traced, not run; ``params`` and ``args`` may be shapes.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> def fn(params, x):
      ...     return x @ params["w"]
      >>> list(jc.program.tap_names(fn, {"w": jnp.eye(2)}, jnp.ones((3, 2))))
      ['w/input', 'w/output']
    """
    program = analyze(fn, params, args, inline_custom=inline_custom)
    named = _name_features(program, find(program))
    return {
        name: _stacked_shape(value)
        for name, value in named.items()
        if _is_available(value)
    }


def _hook(names: tuple[str, ...]) -> ValueHook:
    def run(x: Any, frame: Frame) -> Any:
        frame.emitted.update(dict.fromkeys(names, x))
        return x

    return ValueHook(names, run)


def _name_features(program: Program, index: SiteIndex) -> dict[str, Value]:
    """Return all features by name."""
    boundaries = Boundaries(program, index, lambda point: point.boundary.is_inside)
    stored = {mark.point.name: mark.value for mark in boundaries.marks}
    named: dict[str, Value] = {}
    for node, site in index.sites.items():
        for i, value in enumerate(node.ins[:2]):
            side = "input" if site.weight is not None else ("lhs", "rhs")[i]
            if value.origin.data and _compat.is_floating(value.aval):
                named[f"{site.name}/{side}"] = value
        if output := stored.pop(f"{site.name}/output", None):
            named[f"{site.name}/output"] = output
    named |= stored
    marked: dict[str, Value] = {}
    for node in nodes(program.root):
        if base := _compat.mark(node.eqn):
            number = sum(n == base or n.startswith(f"{base}#") for n in marked)
            marked[f"{base}#{number}" if number else base] = node.outs[0]
    named |= marked
    for name, value in _scope_outputs(program.root, is_statistic):
        named.setdefault(name, value)
    return {k: v for k, v in named.items() if v.region and not v.region.sealed}


def _scope_outputs(
    root: Region, is_statistic: Callable[[Value], bool]
) -> Iterator[tuple[str, Value]]:
    """Yield the values computed in a name scope and read outside it, by scope name.

    Features come before running statistics, which leave a batch norm only in training.
    That way a name means the same in evaluation.
    """
    results = dict(_results(root, ""))
    scopes: dict[str, list[Value]] = {}
    for node in nodes(root):
        for value in node.outs:
            if not (value.origin.data and _compat.is_floating(value.aval)):
                continue
            users = [reader.scope for reader in readers(value)]
            users += [results[value]] if value in results else []
            for scope in _prefixes(node.scope):
                is_inside = [u == scope or u.startswith(f"{scope}/") for u in users]
                values = scopes.setdefault(scope, [])
                if not all(is_inside) and value not in values:
                    values.append(value)
    for scope, values in scopes.items():
        for i, value in enumerate(sorted(values, key=is_statistic)):
            yield (f"{scope}#{i}" if i else scope), value


def _results(region: Region, scope: str) -> Iterator[tuple[Value, str]]:
    """Yield the results of a program, its loops and branches, with their target scope."""
    yield from ((value, scope) for value in region.outs)
    for node in region.nodes:
        for body in node.bodies:
            if body.home is body:
                yield from _results(body, node.scope)


def _prefixes(scope: str) -> Iterable[str]:
    parts = scope.split("/") if scope else []
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _is_available(value: Value) -> bool:
    """True if enclosing loops can return it: they are all scans, without branches."""
    return value.region is not None and value.region.home.hands_out


def _stacked_shape(value: Value) -> jax.ShapeDtypeStruct:
    shape = shape_of(value)
    loops = value.region.loops if value.region else ()
    return jax.ShapeDtypeStruct(
        (*(x.trips or 0 for x in loops), *shape.shape), shape.dtype
    )


def _select_features(named: dict[str, Value], select: Select) -> dict[str, Value]:
    available = {k: v for k, v in named.items() if _is_available(v)}
    if callable(select):
        selected = {k: v for k, v in available.items() if select(k)}
        if not selected:
            raise ValueError(
                f"the function selected none of {len(available)} features, which include "
                f"{', '.join(map(repr, list(available)[:5]))}."
            )
        return selected
    selected = {}
    for glob in [select] if isinstance(select, str) else select:
        matched = {k: v for k, v in available.items() if matches(glob, k)}
        if not matched:
            unavailable = [k for k in named if matches(glob, k)]
            if unavailable:
                raise ValueError(
                    f"{glob!r} matches {unavailable[0]!r}, but features inside a while "
                    "loop or a branch cannot be returned. Choose a feature outside."
                )
            near = ", ".join(map(repr, closest(glob, list(available))))
            raise ValueError(
                f"{glob!r} matches none of {len(available)} features; closest: {near}. "
                "Globs match the whole name."
            )
        selected |= matched
    return selected
