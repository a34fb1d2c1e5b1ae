# SPDX-License-Identifier: Apache-2.0
"""Rewrite a function at its sites."""

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
"""``(site, op, operands, state) -> (result, state)``: what happens at a site. ``op``
is the operation itself, with all its parameters: ``op(*operands), state`` changes nothing.
The state is what the site's name stands for, and None where it stands for nothing."""


def rewrite(
    fn: Callable[..., Any], rule: Rule, *, inline_custom: bool = False
) -> Callable[..., tuple[Any, State]]:
    """Replace every matrix product, convolution and look-up of a function.

    The result is a pure function, so ``jit``, ``grad``, ``vmap`` and ``shard_map`` of it
    work, and it can be rewritten again. What surrounds the sites runs as it did: a rule
    that changes nothing gives the same bits, and compiles to the same program.

    Sites inside of loops over layers see one layer of their state at a time; in other
    loops the state is carried from trip to trip. To rewrite a gradient, rewrite the
    function and take the gradient of that.

    Args:
      fn: ``(params, *args) -> out``.
      rule: what happens at each site; see ``Rule``. It gets every site, and returns
        ``op(*operands), state`` for those it leaves alone. The new state has the
        structure, shapes and dtypes of the old.
      inline_custom: look into functions with derivative rules of their own, which are
        lost by it.

    Returns:
      ``(params, state, *args) -> (out, state)``. The state is a dict from names of sites
      to pytrees; ``init_state`` makes one. Called outside of ``jit`` it traces the
      function every time.

    Raises:
      ValueError: if the state names a site that there is not, or a rule changes its kind.

    Warns:
      OpaqueWarning: where parts of the function are not entered.

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
        found = find(program)
        found.warn("rewrite")
        check_names(state, [site.name for site in found.sites.values()])
        hooks = {node: _hook(rule, site) for node, site in found.sites.items()}
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
                f"the rule returned a {type(pair).__name__} at {site.name!r}; it returns "
                "(result, state), for instance `return op(*operands), state`."
            )
        result, new = pair
        _check_result(site, result)
        check_state(site.name, old, new)
        if new is not None:
            frame.state[site.name] = new
        return result

    return NodeHook((site.name,), run)


def stacked(tree: Any, layers: tuple[int, ...]) -> Any:
    """A tree of arrays, repeated along the leading axes of the layers around a site."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*layers, *jnp.shape(x))), tree)


def check_state_is_dict(state: Any) -> None:
    """Refuse arguments in another order, before the function is traced with them."""
    if not isinstance(state, Mapping):
        raise TypeError(
            f"the state is a {type(state).__name__}, not a dict by name. It comes second: "
            "(params, state, *args)."
        )


def check_names(
    state: Mapping[str, Any], names: Iterable[str], *, all_of: bool = False
) -> None:
    """Refuse state that is for another function.

    Args:
      state: by name.
      names: which there are.
      all_of: whether every name needs some.
    """
    known = list(names)
    for name in state:
        if name not in known:
            close = difflib.get_close_matches(name, known, 3, 0.0)
            raise ValueError(
                f"there is state for {name!r}, which this function does not have; "
                f"closest: {', '.join(map(repr, close)) or 'it has none'}. Was the state "
                "made for another function, or for other parameters?"
            )
    missing = [name for name in known if name not in state]
    if all_of and missing:
        raise ValueError(
            f"there is no state for {', '.join(map(repr, missing[:5]))}"
            f"{' and others' if len(missing) > 5 else ''}: make it with `init` from this "
            "function and parameters."
        )


def check_state(name: str, old: Any, new: Any) -> None:
    """Refuse state that would not fit the next step, or the next trip of a loop."""

    def kind(tree: Any) -> Any:
        leaves, treedef = jax.tree.flatten(tree)
        return treedef, [(jnp.shape(x), jnp.result_type(x)) for x in leaves]

    if kind(old) != kind(new):
        raise ValueError(
            f"the rule turned the state of {name!r} from {_describe(old)} into "
            f"{_describe(new)}; structure, shapes and dtypes have to stay."
        )


def _check_result(site: Site, result: Any) -> None:
    """Refuse what would broadcast in silence, or fail far from here."""
    want = site.result
    if (jnp.shape(result), jnp.result_type(result)) != (want.shape, want.dtype):
        raise ValueError(
            f"the rule returned {_describe(result)} at {site.name!r}, where the program "
            f"has {_describe(want)}."
        )


def _describe(tree: Any) -> str:
    return str(jax.tree.map(lambda x: f"{jnp.result_type(x)}{jnp.shape(x)}", tree))
