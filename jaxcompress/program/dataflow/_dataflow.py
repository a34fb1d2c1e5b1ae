# SPDX-License-Identifier: Apache-2.0
"""Turn any function of parameters and data into a graph of operations on the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._select import path_text, paths_and_leaves
from ...formats import Int
from ...leaves import dense, is_leaf
from .._rewrite import check_names
from ..activations._plan import make_plan
from ..activations._quantizer import ActivationQuantizer, Policy
from ..trace import _compat
from ..trace._analyze import analyze
from ..trace._interpret import Interpreter
from ._affine import fold_affine
from ._batch import made_for_one, same_constant
from ._constants import constant
from ._dense import as_matrices
from ._flatten import Flattener, Unsupported
from ._graph import Atom, Graph, Operation, Tensor

_MARK = "quantized activation "


class Dataflow(NamedTuple):
    """A graph, and the points of the policy that it quantizes.

    Attributes:
      graph: the graph.
      points: the quantized points with their quantizers, by name.
      fixed: why the batch cannot vary; "" if it can.
      draws: whether the function drew random numbers, which are constants of the graph.
    """

    graph: Graph
    points: Mapping[str, tuple[Any, ActivationQuantizer]]
    fixed: str
    draws: bool


def dataflow(
    fn: Callable[..., Any],
    params: Any,
    args: Sequence[Any],
    *,
    policy: Policy | None = None,
    ranges: dict[str, Any] | None = None,
    any_batch: bool = False,
) -> Dataflow:
    """Turn a function into a graph of operations on its data.

    Calls are entered, loops are unrolled, and everything that does not depend on the data
    is evaluated. Factors and shifts per output, such as batch norms, are folded into the
    products before them. Packed integer weights keep their codes, and each quantized
    activation becomes a "quantize" operation.

    Args:
      fn: ``(params, *args) -> out``.
      params: tree of arrays, or a packed tree.
      args: the data; trees of arrays.
      policy: which activations are quantized; used only with ``ranges``.
      ranges: calibrated ranges of the policy; None leaves all activations float.
      any_batch: find the axes whose length is that of the batch, the first axis of the
        first argument.

    Raises:
      Unsupported: if the function does what a fixed graph cannot express.
      ValueError: if the ranges do not belong to the function and the policy.
    """
    graph, points, draws = _build(fn, params, args, policy, ranges)
    fixed = ""
    if any_batch:
        fixed = _find_batch(graph, fn, params, args, policy, ranges)
    return Dataflow(graph, points, fixed, draws)


def _build(
    fn: Callable[..., Any],
    params: Any,
    args: Sequence[Any],
    policy: Policy | None,
    ranges: dict[str, Any] | None,
) -> tuple[Graph, Mapping[str, Any], bool]:
    shapes = jax.eval_shape(dense, params)
    flat, _ = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_leaf)
    leaves: list[Atom] = [constant(leaf, path_text(path)) for path, leaf in flat]
    names, data, _ = paths_and_leaves(tuple(args))
    inputs = [Tensor(jnp.shape(x), jnp.result_type(x)) for x in data]
    shaped = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs]
    program = analyze(fn, shapes, args)
    points: Mapping[str, Any] = {}
    marks: dict[str, dict[str, Any]] = {}
    state: list[Any] = []
    if ranges is None:
        run = Interpreter(program, {}, {})
        traced = _compat.trace(lambda xs: run(xs, {})[0], [*_avals(leaves), *shaped])
    else:
        plan = make_plan(program, policy or ActivationQuantizer())
        check_names(ranges, plan.points, all_of=True)
        points = plan.points
        nodes, values = plan.hooks(observe=False, rounds=True, round_at=_marker(marks))
        run = Interpreter(plan.program, nodes, values)
        traced = _compat.trace(
            lambda xs, ranges: run(xs, ranges)[0], [*_avals(leaves), *shaped], ranges
        )
        state = [constant(x, "") for x in jax.tree.leaves(ranges)]
    flattener = Flattener(marks)
    outs = flattener.run(traced.jaxpr, traced.consts, [*leaves, *inputs, *state], "")
    out_names = [path_text(p) for p in _out_paths(traced.out_tree)]
    operations = _needed(flattener.operations, outs)
    graph = Graph(inputs, names, operations, list(outs), out_names)
    fold_affine(graph)
    as_matrices(graph)
    return graph, points, flattener.draws


def _avals(leaves: Sequence[Atom]) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]


def _out_paths(tree: Any) -> list[Any]:
    filled = jax.tree.unflatten(tree, range(tree.num_leaves))
    return [path for path, _ in jax.tree_util.tree_flatten_with_path(filled)[0]]


def _marker(marks: dict[str, dict[str, Any]]) -> Callable[..., jax.Array]:
    """Return what rounds an activation in a call that can be found in the program."""

    def apply(
        name: str, quantizer: ActivationQuantizer, state: Any, x: jax.Array
    ) -> jax.Array:
        fmt = quantizer.fmt
        if not isinstance(fmt, Int) or quantizer.rounding is not None:
            what = (
                f"the format {fmt}" if not isinstance(fmt, Int) else "a rounding state"
            )
            raise Unsupported(
                f"{name!r} has {what}; a runtime rounds activations to the nearest integer "
                "of a scaled grid, such as Int(8, symmetric=False)."
            )
        chosen = quantizer.chosen(state)
        scale, zero_point = chosen(x.astype(jnp.float32), (1,) * x.ndim, fmt)
        grid = [scale] if zero_point is None else [scale, zero_point]
        call = _MARK + name

        def rounded(x: jax.Array, *grid: jax.Array) -> jax.Array:
            fixed = (grid[0], grid[1] if len(grid) > 1 else None)
            at = ActivationQuantizer(fmt, scale=lambda *_: fixed)
            return at(x, None)

        rounded.__name__ = rounded.__qualname__ = call
        marks[call] = {"name": name, "format": fmt}
        return jax.jit(rounded)(x, *grid)

    return apply


def _needed(operations: list[Operation], outs: Sequence[Atom]) -> list[Operation]:
    """Return the operations that the results depend on."""
    wanted = {id(x) for x in outs}
    needed = []
    for op in reversed(operations):
        if wanted.isdisjoint(map(id, op.outs)):
            continue
        needed.append(op)
        wanted.update(map(id, op.ins))
    return needed[::-1]


def _find_batch(
    graph: Graph,
    fn: Callable[..., Any],
    params: Any,
    args: Sequence[Any],
    policy: Policy | None,
    ranges: dict[str, Any] | None,
) -> str:
    """Mark the axes that grow with the batch; return why there are none."""
    first = graph.inputs[0].shape if graph.inputs else ()
    if not first:
        return "the first argument has no axes"
    batch = first[0]

    def grown(x: Any) -> Any:
        shape = jnp.shape(x)
        if shape[:1] != (batch,):
            return x
        return jax.ShapeDtypeStruct((batch + 1, *shape[1:]), jnp.result_type(x))

    try:
        other, _, _ = _build(
            fn, params, jax.tree.map(grown, tuple(args)), policy, ranges
        )
    except Exception as error:
        return f"the function does not accept another batch ({_first_line(error)})"
    pairs = list(zip(graph.operations, other.operations, strict=False))
    if len(graph.operations) != len(other.operations) or any(
        a.primitive != b.primitive or len(a.ins) != len(b.ins) for a, b in pairs
    ):
        return "another batch gives other operations"
    for a, b in pairs:
        if what := made_for_one(a, b):
            where = f" in {a.scope}" if a.scope else ""
            return f"{what} of {a.primitive}{where} depends on the length of the batch"
    if not all(map(same_constant, graph.outputs, other.outputs)):
        return "a result that is a constant depends on the length of the batch"
    tensors = list(zip(graph.inputs, other.inputs, strict=True))
    tensors += [t for a, b in pairs for t in zip(a.outs, b.outs, strict=True)]
    for a, b in tensors:
        if len(a.shape) != len(b.shape):
            return "another batch gives values of another rank"
        a.batch = frozenset(
            i for i, (m, n) in enumerate(zip(a.shape, b.shape, strict=True)) if m != n
        )
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
