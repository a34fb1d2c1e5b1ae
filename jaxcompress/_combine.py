# SPDX-License-Identifier: Apache-2.0
"""Composition: one after another, on some leaves, each its own leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from ._compressor import Compressor, PyTree
from ._select import Where, matches, paths_and_leaves, select
from .leaves import is_leaf


def chain(*compressors: Compressor) -> Compressor:
    """Apply compressors in order: each sees the parameters as the ones before left them.

    Its state is the tuple of their states. In ``update`` each stage sees its own view;
    where a stage moves what it sees (a clip, a projection, a regrown weight), the raw
    parameters move by that difference. Nesting does not change results.

    Args:
      *compressors: in order. A compressor that changes the representation of a leaf
        (quantization, weight sharing, low rank) comes last on that leaf.

    Raises:
      TypeError: if something else than a compressor is given.
      ValueError: in ``init``, if a later stage changes a leaf that an earlier one has
        already given a compressed representation.

    Example:
      >>> import jax, jaxcompress as jc
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (32, 32))}
      >>> small = jc.chain(jc.magnitude_pruning(0.9), jc.weight_quantization(bits=4))
      >>> int(jc.compress(small, params)["kernel"].codes.astype(bool).sum())
      102
    """
    for c in compressors:
        if not isinstance(c, Compressor):
            raise TypeError(f"chain takes compressors, chain(a, b); {c!r} is none.")

    def init(params: PyTree) -> tuple[PyTree, ...]:
        seen, states = params, []
        for c in compressors:
            state = c.init(params)
            params = c.apply(params, state)
            states.append(state)
        if len(compressors) > 1:
            _check_finalize(seen, tuple(states))
        return tuple(states)

    def apply(params: PyTree, states: tuple[PyTree, ...]) -> PyTree:
        for c, state in zip(compressors, states, strict=True):
            params = c.apply(params, state)
        return params

    def update(
        params: PyTree, states: tuple[PyTree, ...], **extras: Any
    ) -> tuple[PyTree, tuple[PyTree, ...]]:
        view, new_states = params, []
        for c, state in zip(compressors, states, strict=True):
            moved, state = c.update(view, state, **extras)
            params = jax.tree.map(_follow, params, view, moved)
            view = c.apply(moved, state)
            new_states.append(state)
        return params, tuple(new_states)

    def finalize(params: PyTree, states: tuple[PyTree, ...]) -> PyTree:
        shipped = params
        for c, state in zip(compressors, states, strict=True):
            seen, params = params, c.apply(params, state)
            shipped = _ship(shipped, seen, params, c.finalize(seen, state))
        return shipped

    def _check_finalize(params: PyTree, states: tuple[PyTree, ...]) -> None:
        """Refuse an impossible order before the training, not after it."""
        try:
            jax.eval_shape(finalize, params, states)
        except TypeError:
            pass  # A finalize that needs concrete values is checked when it runs.

    return Compressor(init=init, apply=apply, update=update, finalize=finalize)


def masked(compressor: Compressor, where: Where) -> Compressor:
    """Restrict a compressor to the selected leaves; the others come back as they are.

    The compressor is given the tree with None, which JAX takes for no leaf, in place of
    the others; so are ``grads=`` and every other extra with the tree's structure.

    Args:
      compressor: what to restrict.
      where: a glob that must match the whole path (``"*/kernel"``), a function
        ``(path, leaf) -> bool``, or a tree of bools like the parameters.

    Raises:
      ValueError: in ``init``, if nothing is selected; it names the closest paths.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"a": {"kernel": jnp.ones((2, 2))}, "b": {"kernel": jnp.ones((2, 2))}}
      >>> jc.masked(jc.magnitude_pruning(0.5), "*/kernal").init(params)
      Traceback (most recent call last):
      ...
      ValueError: '*/kernal' selected none of 2 leaves; closest: 'a/kernel', 'b/kernel'. \
Globs match the whole path.
    """

    def init(params: PyTree) -> PyTree:
        return compressor.init(select(params, where).tree)

    def apply(params: PyTree, state: PyTree) -> PyTree:
        selection = select(params, where)
        return selection.put(compressor.apply(selection.tree, state))

    def update(params: PyTree, state: PyTree, **extras: Any) -> tuple[PyTree, PyTree]:
        selection = select(params, where)
        extras = {name: selection.like(tree) for name, tree in extras.items()}
        moved, state = compressor.update(selection.tree, state, **extras)
        return selection.put(moved), state

    def finalize(params: PyTree, state: PyTree) -> PyTree:
        selection = select(params, where)
        return selection.put(compressor.finalize(selection.tree, state))

    return Compressor(init=init, apply=apply, update=update, finalize=finalize)


def partition(compressors: Mapping[str, Compressor]) -> Compressor:
    """Give each leaf to the first pattern that matches it; leave the rest alone.

    Args:
      compressors: ``{glob: compressor}``, in order of precedence.

    Raises:
      ValueError: in ``init``, if a pattern matches nothing, or nothing that an earlier
        pattern has left.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"a": {"kernel": jnp.eye(4)}, "b": {"kernel": jnp.eye(4)}}
      >>> int8, int4 = (jc.weight_quantization(bits=b) for b in (8, 4))
      >>> small = jc.compress(jc.partition({"a/*": int8, "*": int4}), params)
      >>> small["a"]["kernel"].bits, small["b"]["kernel"].bits
      (8, 4)
    """
    patterns = list(compressors)

    def first_match(index: int) -> Any:
        def where(path: str, leaf: Any) -> bool:
            del leaf
            return matches(patterns[index], path) and not any(
                matches(earlier, path) for earlier in patterns[:index]
            )

        return where

    together = chain(
        *(masked(c, first_match(i)) for i, c in enumerate(compressors.values()))
    )

    def init(params: PyTree) -> PyTree:
        paths, _, _ = paths_and_leaves(params)
        for i, pattern in enumerate(patterns):
            select(params, pattern)  # raises with near misses
            if not any(first_match(i)(path, None) for path in paths):
                raise ValueError(
                    f"{pattern!r} matches only leaves that {patterns[:i]} have taken "
                    "already: the first match wins. Put the narrower pattern first."
                )
        return together.init(params)

    return Compressor(
        init=init,
        apply=together.apply,
        update=together.update,
        finalize=together.finalize,
    )


def _follow(raw: jax.Array, view: jax.Array, moved: jax.Array) -> jax.Array:
    """The raw parameter, moved as its view was; exactly, where it is its own view."""
    if moved is view:
        return raw
    return moved if view is raw else raw + (moved - view)


def _ship(shipped: PyTree, seen: PyTree, view: PyTree, final: PyTree) -> PyTree:
    """Merge a stage's finalized leaves into what the stages before it ship."""
    paths, before, treedef = paths_and_leaves(seen)

    def merge(path: str, old: Any, before: Any, after: Any, new: Any) -> Any:
        if after is before and not is_leaf(new):
            return old
        if is_leaf(old):
            raise ValueError(
                f"{path!r} is already stored as a {type(old).__name__} by an earlier "
                "stage of this chain, and a later stage changes it again. A leaf has one "
                "representation: put the stage that gives it last, or give the two "
                "stages different leaves. To compress the factors of a low-rank leaf, "
                "factorize first and compress the result."
            )
        return new

    # Up to `seen`, in which a LowRank whose factors are compressed is a container.
    nodes = [treedef.flatten_up_to(tree) for tree in (shipped, view, final)]
    columns = zip(paths, nodes[0], before, *nodes[1:], strict=True)
    return treedef.unflatten([merge(*column) for column in columns])
