# SPDX-License-Identifier: Apache-2.0
"""Rewrite a function: replace its products, convolutions and look-ups."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .products._find import find
from .products._site import Site
from .trace._analyze import analyze
from .trace._interpret import Frame, Interpreter, NodeHook, State

Rule = Callable[[Site, Callable[..., jax.Array], tuple[Any, ...], Any], tuple[Any, Any]]
"""``(site, op, operands, state) -> (result, state)``: replaces the operation at a site.
``op`` is the original operation, so ``op(*operands), state`` changes nothing. ``state`` is
the entry of the state dict under the site's name, or None without an entry."""


def rewrite(
    fn: Callable[..., Any], rule: Rule, *, inline_custom: bool = False
) -> Callable[..., tuple[Any, State]]:
    """Replace the matrix products, convolutions and look-ups of any function by a rule.

    Use it to try a new kernel or number format without touching the model. The result is
    a pure function: ``jit``, ``grad``, ``vmap``, ``shard_map`` and another ``rewrite``
    work on it. Everything else runs unchanged: a rule that changes nothing gives the same
    bits and compiles to the same program.

    Sites in loops over layers see one layer of their state at a time. In other loops the
    state is carried from trip to trip. To rewrite a gradient, rewrite the function and
    take the gradient of the result.

    Args:
      fn: ``(params, *args) -> out``.
      rule: replaces the operation at each site; see ``Rule``. It is called for every site
        and returns ``op(*operands), state`` to leave one unchanged. The new state must
        have the structure, shapes and dtypes of the old state.
      inline_custom: also enter functions with custom derivative rules. Those rules are
        then lost.

    Returns:
      ``(params, state, *args) -> (out, state)``. The state is a dict from site names to
      pytrees, empty for a rule without state. Outside ``jit`` each call traces the
      function again.

    Raises:
      ValueError: if the state names an unknown site, or a rule changes the structure,
        shapes or dtypes of its state or result.
      TypeError: if the state is not a dict, or a rule does not return a pair.

    Warns:
      OpaqueWarning: if parts of the function are not entered.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> def in_bfloat16(site, op, operands, state):
      ...     narrow = (x.astype(jnp.bfloat16) for x in operands)
      ...     return op(*narrow).astype(site.result.dtype), state
      >>> def fn(params, x):
      ...     return x @ params["w"]
      >>> out, _ = jc.rewrite(fn, in_bfloat16)({"w": jnp.ones((2, 2))}, {}, jnp.ones(2))
      >>> out.dtype
      dtype('float32')
    """

    def rewritten(params: Any, state: State, *args: Any) -> tuple[Any, State]:
        check_state_is_dict(state)
        program = analyze(fn, params, args, inline_custom=inline_custom)
        index = find(program)
        index.warn("rewrite")
        check_names(state, [site.name for site in index.sites.values()])
        hooks = {node: _hook(rule, site) for node, site in index.sites.items()}
        out, new, _ = Interpreter(program, hooks)(
            jax.tree.leaves((params, args)), state
        )
        return out, new

    return rewritten


def _hook(rule: Rule, site: Site) -> NodeHook:
    def run(op: Callable[..., Any], operands: list[Any], frame: Frame) -> Any:
        old = frame.state.get(site.name)
        pair = rule(site, op, tuple(operands), old)
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TypeError(
                "the rule must return (result, state), got a "
                f"{type(pair).__name__} at {site.name!r}. Write, for example, "
                "`return op(*operands), state`."
            )
        result, new = pair
        _check_result(site, result)
        check_state(site.name, old, new)
        if new is not None:
            frame.state[site.name] = new
        return result

    return NodeHook((site.name,), run)


def stacked(tree: Any, layers: tuple[int, ...]) -> Any:
    """Repeat a tree of arrays along new leading axes, one per loop over layers."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*layers, *jnp.shape(x))), tree)


def check_state_is_dict(state: Any) -> None:
    """Reject arguments in the wrong order before the function is traced with them."""
    if not isinstance(state, Mapping):
        raise TypeError(
            f"state must be a dict by name, got a {type(state).__name__}. The state is the "
            "second argument: (params, state, *args)."
        )


def check_names(
    state: Mapping[str, Any], names: Iterable[str], *, all_of: bool = False
) -> None:
    """Reject state that belongs to another function.

    Args:
      state: state by name.
      names: valid names.
      all_of: whether every name must have state.
    """
    valid = list(names)
    for name in state:
        if name not in valid:
            close = difflib.get_close_matches(name, valid, 3, 0.0)
            near = ", ".join(map(repr, close)) or "none"
            raise ValueError(
                f"there is state for {name!r}, which this function does not have; "
                f"closest: {near}. Was the state made for another function, or for other "
                "parameters?"
            )
    missing = [name for name in valid if name not in state]
    if all_of and missing:
        raise ValueError(
            f"there is no state for {', '.join(map(repr, missing[:5]))}"
            f"{' and others' if len(missing) > 5 else ''}. Make it with `init` from this "
            "function and these parameters."
        )


def check_state(name: str, old: Any, new: Any) -> None:
    """Reject state that would not fit the next step, or the next trip of a loop."""

    def signature(tree: Any) -> Any:
        leaves, treedef = jax.tree.flatten(tree)
        return treedef, [(jnp.shape(x), jnp.result_type(x)) for x in leaves]

    if signature(old) != signature(new):
        raise ValueError(
            f"the rule must keep the structure, shapes and dtypes of its state, but it "
            f"changed the state of {name!r} from {_describe(old)} to {_describe(new)}."
        )


def _check_result(site: Site, result: Any) -> None:
    """Reject a result that would broadcast silently, or fail far from here."""
    expected = site.result
    if (jnp.shape(result), jnp.result_type(result)) != (expected.shape, expected.dtype):
        raise ValueError(
            f"the rule must return {_describe(expected)} at {site.name!r}, got "
            f"{_describe(result)}."
        )


def _describe(tree: Any) -> str:
    return str(jax.tree.map(lambda x: f"{jnp.result_type(x)}{jnp.shape(x)}", tree))
