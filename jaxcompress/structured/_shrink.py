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
from .._mesh import on_any_mesh, sharded_like, struct_like
from .._select import paths_and_leaves
from ..program.axes import Axis, AxisGraph, Conflict, Kept, Replay
from ..program.trace._analyze import analyze
from ..program.trace._compat import evaluate
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
    ``jit``, every call traces the function again. On meshes with explicit axes, its values
    are sharded as those of ``fn`` are; where ``fn`` shards pruned channels, their number
    must be a multiple of the devices (``select(round_to=...)``).

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

    def small(params: Any, *args: Any) -> Any:
        return _Pruned(fn, params, args, plan).small(jax.tree.leaves((params, args)))

    return small


class _Pruned:
    """A function that is traced at full size, and what a plan leaves of it.

    Args:
      fn: the function.
      params: its small parameters.
      args: its other arguments.
      plan: the plan.
    """

    def __init__(
        self, fn: Callable[..., Any], params: Any, args: Sequence[Any], plan: Plan
    ):
        paths, leaves, treedef = paths_and_leaves(params)
        _check_small(paths, leaves, plan)
        full = [
            struct_like(jax.typeof(leaf), plan.shapes[path])
            for path, leaf in zip(paths, leaves, strict=True)
        ]
        self.plan = plan
        self.program = analyze(fn, jax.tree.unflatten(treedef, full), args)
        pruned = {path for path, _ in plan} | plan.removed
        inputs = zip(self.program.paths, self.program.root.ins, strict=False)
        if pruned and not any(v.consumers for path, v in inputs if path in pruned):
            raise PlanError(
                "the function reads none of the leaves that the plan prunes. If it "
                "closes over its weights, make them its first argument."
            )
        self.graph = AxisGraph(self.program, outputs=False)
        self.kept = _kept(self.graph, plan)
        self.without, _ = removal(self.program, plan)

    def full(self, leaves: Sequence[Any]) -> list[Any]:
        """Run the function as it is, on full leaves of parameters and arguments."""
        root = self.program.root
        typed = [sharded_like(x, v.aval) for x, v in zip(leaves, root.ins, strict=True)]
        return evaluate(root.jaxpr, root.consts, typed)

    def small(self, leaves: Sequence[Any]) -> Any:
        """Run what is left, on small leaves."""
        leaves = list(leaves)
        for i, path in enumerate(self.program.paths):
            if path in self.plan.removed:
                # Only what mirrors it, such as batch statistics, is computed from it.
                zeros = jnp.zeros(self._shape(self.graph.params[i]), leaves[i].dtype)
                leaves[i] = sharded_like(zeros, self.program.root.ins[i].aval)
        result = Replay(self.graph, self.kept, self.without)(leaves)
        return self._without_removed(result) if self.plan.removed else result

    def _shape(self, axes: Sequence[Axis]) -> tuple[int, ...]:
        return tuple(map(self.kept.size, axes))

    def _without_removed(self, tree: Any) -> Any:
        """Empty the outputs that mirror removed leaves, as ``slice_params`` does."""
        paths, leaves, treedef = paths_and_leaves(tree)
        for i, value in enumerate(self.program.root.outs):
            if mirrors_removed(paths[i], value.aval.shape, self.plan):
                leaves[i] = without_elements(leaves[i])
        return jax.tree.unflatten(treedef, leaves)


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
    small_params = slice_params(params, plan)
    network = _Pruned(fn, small_params, args, plan)
    masked_leaves = jax.tree.leaves((mask_params(params, plan), args))
    masked = jax.jit(network.full)(masked_leaves)
    small = jax.jit(network.small)(jax.tree.leaves((small_params, args)))
    error = scale = 0.0
    outs = network.program.root.outs
    for full, cut, value in zip(masked, jax.tree.leaves(small), outs, strict=True):
        # What mirrors a removed leaf is empty.
        if cut.size and not jnp.issubdtype(full.dtype, jax.dtypes.prng_key):
            masks = list(map(network.kept.mask, network.graph.of(value)))
            own_error, own_scale = _distance(full, cut, masks)
            # numpy's maximum, unlike Python's, keeps a NaN.
            error = float(np.maximum(error, own_error))
            scale = float(np.maximum(scale, own_scale))
    allowed = _rounding((params, masked)) if tolerance is None else tolerance
    if not error <= allowed * max(scale, 1e-30):
        raise PlanError(
            f"masked and sliced outputs differ by {error:.3g} at a scale of {scale:.3g}. "
            "If the outputs are not finite, look at the parameters and the batch first. A "
            "function that draws random numbers, as dropout does, draws others at the "
            "small shapes: verify it in evaluation mode. Otherwise please report it."
        )
    return Verification(error, scale)


@on_any_mesh
def _distance(
    full: jax.Array, cut: jax.Array, masks: Sequence[np.ndarray]
) -> tuple[jax.Array, jax.Array]:
    """Return the largest difference of what is kept, and the largest magnitude."""
    for i, mask in enumerate(masks):
        full = full.take(np.flatnonzero(mask), axis=i)
    full, cut = _wide(full), _wide(cut)
    return jnp.max(jnp.abs(full - cut)), jnp.max(jnp.abs(full))


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
