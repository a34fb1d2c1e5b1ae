# SPDX-License-Identifier: Apache-2.0
"""The function of a pruned network: the original one, at the small shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._arguments import check_function
from .._mesh import on_any_mesh
from .._select import paths_and_leaves
from ..program.axes import Axis, AxisGraph, Conflict, Kept, Replay
from ..program.trace._analyze import analyze
from ._params import mask_params, slice_params, without_elements
from ._plan import Plan, PlanError, check_plan
from ._removal import mirrors_removed, removal


def shrink(fn: Callable[..., Any], plan: Plan) -> Callable[..., Any]:
    """Return ``fn`` for the parameters that ``slice_params`` makes small.

    A module was built for the full widths: most refuse the small parameters, and those that
    do not, such as the norms of Equinox, compute something else. The function that this
    returns traces ``fn`` at full size and runs the program at the small shapes. It is an
    ordinary function: it can be trained, quantized, jitted and exported, at any batch size.
    It computes what ``fn`` computes with the removed channels set to zero. Jit it: without
    ``jit``, every call traces the function again.

    Args:
      fn: ``(params, *args) -> out``. It may be another function of the same parameters
        than the one that was traced, such as the network in training mode.
      plan: the plan.

    Returns:
      ``(small params, *args) -> out``. Outputs that mirror leaves of removed blocks by path
      and shape, such as new batch statistics, are empty.

    Raises:
      PlanError: when called, if the parameters are not those of the plan, or if the
        function cannot be pruned that way.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"up": jnp.ones((3, 8)), "down": jnp.ones((8, 2))}
      >>> def fn(params, x):
      ...     return jnp.maximum(x @ params["up"], 0) @ params["down"]
      >>> groups = jc.trace_axes(fn, params, jnp.ones((4, 3)))
      >>> plan = groups.plan({"up[1]": jnp.arange(8) < 2})
      >>> small = jc.structured.slice_params(params, plan)
      >>> jc.structured.shrink(fn, plan)(small, jnp.ones((5, 3))).tolist()[0]
      [6.0, 6.0]
    """
    check_function(fn, "shrink(fn, plan)")
    check_plan(plan, "shrink(fn, plan)")

    @on_any_mesh
    def small(params: Any, *args: Any) -> Any:
        graph, kept = _pruned(fn, params, args, plan)
        without, _ = removal(graph.program, plan)
        leaves = jax.tree.leaves((params, args))
        for i, path in enumerate(graph.program.paths):
            if path in plan.removed:
                # Only what mirrors it, such as batch statistics, is computed from it.
                shape = tuple(map(kept.size, graph.params[i]))
                leaves[i] = jnp.zeros(shape, leaves[i].dtype)
        return _without_removed(Replay(graph, kept, without)(leaves), graph, plan)

    return small


def _without_removed(tree: Any, graph: AxisGraph, plan: Plan) -> Any:
    """Empty the outputs that mirror removed leaves, as ``slice_params`` does."""
    if not plan.removed:
        return tree
    paths, leaves, treedef = paths_and_leaves(tree)
    for i, value in enumerate(graph.program.root.outs):
        if mirrors_removed(paths[i], value.aval.shape, plan):
            leaves[i] = without_elements(leaves[i])
    return jax.tree.unflatten(treedef, leaves)


def _pruned(
    fn: Callable[..., Any], params: Any, args: Sequence[Any], plan: Plan
) -> tuple[AxisGraph, Kept]:
    """Trace a function at full size, and return which of its indices are kept."""
    paths, leaves, treedef = paths_and_leaves(params)
    _check_small(paths, leaves, plan)
    full = [
        jax.ShapeDtypeStruct(plan.shapes[path], leaf.dtype)
        for path, leaf in zip(paths, leaves, strict=True)
    ]
    program = analyze(fn, jax.tree.unflatten(treedef, full), args)
    pruned = {path for path, _ in plan} | plan.removed
    inputs = zip(program.paths, program.root.ins, strict=False)
    if pruned and not any(v.consumers for path, v in inputs if path in pruned):
        raise PlanError(
            "the function reads none of the leaves that the plan prunes. If it closes over "
            "its weights, make them its first argument."
        )
    graph = AxisGraph(program, outputs=False)
    return graph, _kept(graph, plan)


def _kept(graph: AxisGraph, plan: Plan) -> Kept:
    kept, axes = Kept(), graph.by_leaf()
    for (path, i), mask in plan.items():
        if path in plan.removed:
            continue

        def refuse(atom: Axis, path: str = path, i: int = i) -> None:
            if atom.reasons:
                raise PlanError(
                    f"the function cannot be pruned along axis {i} of {path!r}: "
                    + "; ".join(atom.reasons)
                )

        try:
            kept.set(axes[path, i], mask, refuse)
        except Conflict as error:
            raise PlanError(f"axis {i} of {path!r}: {error}") from error
    for (path, i), axis in axes.items():
        if path in plan.removed:
            continue
        wanted = plan.get((path, i))
        mask = kept.mask(axis)
        if not np.array_equal(mask, np.ones_like(mask) if wanted is None else wanted):
            raise PlanError(
                f"axis {i} of {path!r} is coupled with axes that the plan prunes, but "
                "the plan does not prune it alike. Make plans by select or by "
                "trace_axes(...).plan(...)."
            )
    return kept


def _check_small(paths: Sequence[str], leaves: Sequence[Any], plan: Plan) -> None:
    missing = sorted(set(plan.shapes) ^ set(paths))
    if missing:
        raise PlanError(
            f"the parameters and the plan do not have the same leaves: {missing[:3]}"
        )
    for path, leaf in zip(paths, leaves, strict=True):
        if not isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct):
            raise PlanError(
                f"{path!r} must be an array, got {type(leaf).__name__}. Call jc.dense "
                "on packed parameters first."
            )
        if tuple(leaf.shape) != plan.shape(path):
            hint = (
                "; call slice_params on the parameters first"
                if tuple(leaf.shape) == plan.shapes[path]
                else ""
            )
            raise PlanError(
                f"{path!r} must have the pruned shape {plan.shape(path)}, got "
                f"{tuple(leaf.shape)}{hint}"
            )


@dataclasses.dataclass(frozen=True)
class Verification:
    """How far a sliced network is from the masked one.

    Attributes:
      error: largest absolute difference of the outputs.
      scale: largest absolute output of the masked network.
    """

    error: float
    scale: float


def verify(
    fn: Callable[..., Any],
    params: Any,
    plan: Plan,
    *args: Any,
    tolerance: float | None = None,
) -> Verification:
    """Run the masked and the sliced network, and compare what they compute.

    Args:
      fn: ``(params, *args) -> out``.
      params: the unpruned parameters.
      plan: the plan.
      *args: arguments, such as a batch.
      tolerance: largest error, as a fraction of the largest output. Sums are added in
        another order at the small shapes, so the outputs agree to rounding. None allows
        1e-4, and for 16-bit floats the square root of their machine epsilon.

    Returns:
      The error and the scale that it is measured by.

    Raises:
      PlanError: if the outputs differ by more, or are not finite.
    """
    call = "verify(fn, params, plan, *args)"
    check_function(fn, call)
    check_plan(plan, call)
    masked = jax.jit(fn)(mask_params(params, plan), *args)
    small_params = slice_params(params, plan)
    small = jax.jit(shrink(fn, plan))(small_params, *args)
    graph, kept = _pruned(fn, small_params, args, plan)
    error = scale = 0.0
    outs = graph.program.root.outs
    for full, cut, value in zip(
        jax.tree.leaves(masked), jax.tree.leaves(small), outs, strict=True
    ):
        if jnp.issubdtype(full.dtype, jax.dtypes.prng_key):
            continue
        for i, axis in enumerate(graph.of(value)):
            full = full.take(np.flatnonzero(kept.mask(axis)), axis=i)
        full, cut = (_wide(x) for x in (full, cut))
        # What mirrors a removed leaf is empty.
        if cut.size:
            # numpy's maximum, unlike Python's, keeps a NaN.
            error = float(np.maximum(error, jnp.max(jnp.abs(full - cut))))
            scale = float(np.maximum(scale, jnp.max(jnp.abs(full))))
    allowed = _rounding((params, masked)) if tolerance is None else tolerance
    if not error <= allowed * max(scale, 1e-30):
        raise PlanError(
            f"masked and sliced outputs differ by {error:.3g} at a scale of {scale:.3g}. "
            "If the outputs are not finite, look at the parameters and the batch first. A "
            "function that draws random numbers, as dropout does, draws others at the "
            "small shapes: verify it in evaluation mode. Otherwise please report it."
        )
    return Verification(error, scale)


def _wide(x: Any) -> jax.Array:
    """Return an array as floats that hold differences of its values."""
    x = jnp.asarray(x)
    return (
        x if jnp.iscomplexobj(x) else x.astype(jnp.promote_types(x.dtype, jnp.float32))
    )


def _rounding(tree: Any) -> float:
    """Return the relative error that rounding explains, by the least precise float."""
    dtypes = [x.dtype for x in jax.tree.leaves(tree)]
    units = [float(jnp.finfo(d).eps) for d in dtypes if jnp.issubdtype(d, jnp.inexact)]
    unit = max(units, default=0.0)
    return 1e-4 if unit < 1e-6 else unit**0.5
