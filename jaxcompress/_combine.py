# SPDX-License-Identifier: Apache-2.0
"""Combine compressors: in sequence, on selected leaves, or one per group of leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from ._arguments import check_compressor
from ._compressor import Compressor, PyTree, keep
from ._select import Where, matches, paths_and_leaves, select
from .leaves import is_leaf


def chain(*compressors: Compressor) -> Compressor:
    """Apply several compressors in order, each to the output of the one before.

    Use it to prune and then quantize, for example. The state is the tuple of the stages'
    states. In ``update`` each stage sees its own view. When a stage moves its view (a
    clip, a projection, a regrown weight), the raw parameters move by the same
    difference. Nesting does not change results.

    Args:
      *compressors: the stages in order. A compressor that changes the representation of
        a leaf (quantization, weight sharing, low rank) must come last on that leaf.

    Raises:
      TypeError: if an argument is not a ``Compressor``.
      ValueError: in ``init``, if a later stage changes a leaf that an earlier stage
        already stores in a compressed representation.

    Example:
      >>> import jax, jaxcompress as jc
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (32, 32))}
      >>> small = jc.chain(jc.magnitude_pruning(0.9), jc.weight_quantization(bits=4))
      >>> int(jc.compress(small, params)["kernel"].codes.astype(bool).sum())
      102
    """
    for c in compressors:
        check_compressor(c, "chain(a, b)")

    def init(params: PyTree) -> tuple[PyTree, ...]:
        view, states = params, []
        for c in compressors:
            state = c.init(view)
            view = c.apply(view, state)
            states.append(state)
        if len(compressors) > 1:
            _check_finalize(params, tuple(states))
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
            params = jax.tree.map(_move_raw, params, view, moved)
            view = c.apply(moved, state)
            new_states.append(state)
        return params, tuple(new_states)

    def finalize(params: PyTree, states: tuple[PyTree, ...]) -> PyTree:
        shipped = params
        for c, state in zip(compressors, states, strict=True):
            view = c.apply(params, state)
            # One tree less in memory where what ships is the view.
            final = view if c.finalize is c.apply else c.finalize(params, state)
            shipped = _merge_final(shipped, params, view, final)
            del final
            params = view
        return shipped

    def _check_finalize(params: PyTree, states: tuple[PyTree, ...]) -> None:
        """Reject an impossible order before training instead of after it."""
        try:
            leaves, treedef = jax.tree.flatten((params, states))
            is_array = [hasattr(leaf, "dtype") for leaf in leaves]

            def run(arrays: list[Any]) -> None:
                # Modules hold functions too, and a traced function takes only arrays.
                given = iter(arrays)
                pairs = zip(leaves, is_array, strict=True)
                merged = [next(given) if array else leaf for leaf, array in pairs]
                finalize(*treedef.unflatten(merged))

            jax.eval_shape(
                run, [x for x, array in zip(leaves, is_array, strict=True) if array]
            )
        except TypeError:
            pass  # A finalize that needs concrete values is checked when it runs.

    def penalty(params: PyTree, states: tuple[PyTree, ...]) -> dict[str, jax.Array]:
        terms: dict[str, jax.Array] = {}
        for c, state in zip(compressors, states, strict=True):
            for name, term in (c.penalty(params, state) if c.penalty else {}).items():
                terms[name] = terms[name] + term if name in terms else term
            params = c.apply(params, state)
        return terms

    idle = all(c.update is keep for c in compressors)
    return Compressor(
        init=init,
        apply=apply,
        update=keep if idle else update,
        finalize=finalize,
        penalty=penalty if any(c.penalty for c in compressors) else None,
    )


def masked(compressor: Compressor, where: Where) -> Compressor:
    """Restrict a compressor to selected leaves and leave all others unchanged.

    The compressor receives the tree with None, which JAX does not count as a leaf, in
    place of unselected leaves. ``grads=`` and all other extras with the same tree
    structure are masked the same way.

    Args:
      compressor: compressor to restrict.
      where: a glob that must match the whole path (``"*/kernel"``), a function
        ``(path, leaf) -> bool``, or a tree of bools like the parameters.

    Raises:
      ValueError: in ``init``, if nothing is selected. The message names the closest
        paths.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"a": {"kernel": jnp.ones((2, 2))}, "b": {"kernel": jnp.ones((2, 2))}}
      >>> jc.masked(jc.magnitude_pruning(0.5), "*/kernal").init(params)
      Traceback (most recent call last):
      ...
      ValueError: '*/kernal' selected none of 2 leaves; closest: 'a/kernel', 'b/kernel'. \
Globs match the whole path.
    """
    check_compressor(compressor, "masked(compressor, where)")

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

    def penalty(params: PyTree, state: PyTree) -> dict[str, jax.Array]:
        assert compressor.penalty is not None
        return compressor.penalty(select(params, where).tree, state)

    idle = compressor.update is keep
    return Compressor(
        init=init,
        apply=apply,
        update=keep if idle else update,
        finalize=apply if compressor.finalize is compressor.apply else finalize,
        penalty=None if compressor.penalty is None else penalty,
    )


def partition(compressors: Mapping[str, Compressor]) -> Compressor:
    """Use a different compressor for each group of leaves, chosen by glob pattern.

    Each leaf goes to the first pattern that matches its path. Leaves that match no
    pattern stay unchanged.

    Args:
      compressors: ``{glob: compressor}``, in order of precedence.

    Raises:
      ValueError: in ``init``, if a pattern matches no leaf, or only leaves that earlier
        patterns match too.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"a": {"kernel": jnp.eye(4)}, "b": {"kernel": jnp.eye(4)}}
      >>> int8, int4 = (jc.weight_quantization(bits=b) for b in (8, 4))
      >>> small = jc.compress(jc.partition({"a/*": int8, "*": int4}), params)
      >>> small["a"]["kernel"].bits, small["b"]["kernel"].bits
      (8, 4)
    """
    if not isinstance(compressors, Mapping):
        raise TypeError(
            "partition takes a dict {glob: compressor}, got a "
            f"{type(compressors).__name__}."
        )
    for pattern, c in compressors.items():
        if not isinstance(pattern, str):
            raise TypeError(
                f"partition takes globs as keys, got {type(pattern).__name__}. Write "
                "{glob: compressor}."
            )
        check_compressor(c, f"partition({{{pattern!r}: ...}})")
    patterns = list(compressors)

    def first_match(index: int) -> Any:
        def where(path: str, leaf: Any) -> bool:
            del leaf
            return matches(patterns[index], path) and not any(
                matches(earlier, path) for earlier in patterns[:index]
            )

        return where

    chained = chain(
        *(masked(c, first_match(i)) for i, c in enumerate(compressors.values()))
    )

    def init(params: PyTree) -> PyTree:
        paths, _, _ = paths_and_leaves(params)
        for i, pattern in enumerate(patterns):
            select(params, pattern)  # Raises, naming the closest paths, if none match.
            if not any(first_match(i)(path, None) for path in paths):
                raise ValueError(
                    f"{pattern!r} matches only leaves that {patterns[:i]} already match, "
                    "and the first match wins. Put the narrower pattern first."
                )
        return chained.init(params)

    return Compressor(
        init=init,
        apply=chained.apply,
        update=chained.update,
        finalize=chained.finalize,
        penalty=chained.penalty,
    )


def _move_raw(raw: jax.Array, view: jax.Array, moved: jax.Array) -> jax.Array:
    """Move a raw parameter as its view moved; exactly if the view is the parameter."""
    if moved is view:
        return raw
    return moved if view is raw else raw + (moved - view)


def _merge_final(
    shipped: PyTree, params: PyTree, view: PyTree, final: PyTree
) -> PyTree:
    """Merge one stage's finalized leaves into the output of the earlier stages.

    Args:
      shipped: finalized leaves of the earlier stages.
      params: parameters that this stage received.
      view: parameters after this stage's ``apply``.
      final: parameters after this stage's ``finalize``.
    """
    paths, leaves, treedef = paths_and_leaves(params)

    def merge(path: str, old: Any, before: Any, after: Any, new: Any) -> Any:
        if after is before and not is_leaf(new):
            return old
        if is_leaf(old):
            raise ValueError(
                f"{path!r} is already stored as a {type(old).__name__} by an earlier "
                "stage of this chain, but a later stage changes it again. A leaf can "
                "have only one representation: put the stage that compresses it last, or "
                "apply the two stages to different leaves. To compress the factors of a "
                "low-rank leaf, factorize first and compress the result."
            )
        return new

    # Flatten only down to the leaves of `params`, because a LowRank with compressed
    # factors is a container.
    nodes = [treedef.flatten_up_to(tree) for tree in (shipped, view, final)]
    columns = zip(paths, nodes[0], leaves, *nodes[1:], strict=True)
    return treedef.unflatten([merge(*column) for column in columns])
