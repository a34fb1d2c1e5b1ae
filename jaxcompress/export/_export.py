# SPDX-License-Identifier: Apache-2.0
"""Export a function for a runtime: trace, convert, check, write."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from .._atomic import write_bytes
from ..leaves import dense
from ..program import Policy, quantize_activations
from ..program.dataflow import CLOSED_OVER, Constant, Graph, Unsupported, dataflow
from ._backend import Backend
from ._check import compare
from ._errors import ExportError, UnsupportedOperation
from ._exported import Exported
from ._inputs import check_inputs, check_tolerance, simulate
from ._products import PRODUCTS, split
from .targets import Target


def export(
    backend: Backend,
    target: Target,
    fn: Callable[..., Any],
    params: Any,
    ranges: Mapping[str, Any] | None,
    example: Any,
    path: str | os.PathLike[str],
    policy: Policy | None,
    tolerance: float | None,
) -> Exported:
    """Export a function with one backend; see ``litert`` and ``onnx``."""
    check_tolerance(tolerance)
    path, example, state = check_inputs(
        fn, params, ranges, example, path, backend.suffix
    )
    policy, notes = _policy(fn, params, state, example, policy, target)
    try:
        flow = dataflow(
            fn,
            params,
            example,
            policy=policy,
            ranges=state,
            any_batch=True,
        )
    except Unsupported as error:
        raise UnsupportedOperation(f"{backend.name}: {error}") from error
    graph = flow.graph
    if not graph.outputs:
        raise ExportError("the function must return arrays, but it returns nothing.")
    _refuse_closed_over(graph)
    if differences := target.differences(flow.points):
        raise ExportError(
            f"{target.name} does not compute what was trained. {'; '.join(differences[:5])}"
            f"{' and others' if len(differences) > 5 else ''}. Train or calibrate with "
            "policy=targets of this runtime."
        )
    if flow.draws:
        notes.append(
            "the function drew random numbers, which are constants of the file; is it in "
            "evaluation mode?"
        )
    simulated = simulate(fn, params, state, example, policy)
    if not backend.any_batch and not flow.fixed:
        # The rows of a file with a fixed batch are run batch by batch.
        one_row = _with_first_row(example)
        again = simulate(fn, params, state, one_row, policy)
        if not _have_same_first_row(simulated, again, len(graph.inputs[0].shape[:1])):
            for x in graph.inputs:
                x.batch = frozenset()
            notes.append("a row of the results depends on the other rows of the batch")
    content, more = backend.convert(graph)
    notes += list(more)
    if backend.any_batch and flow.fixed:
        notes.append(f"the batch is fixed: {flow.fixed}")
    check = compare(
        backend,
        content,
        graph,
        [np.asarray(x) for x in jax.tree.leaves(example)],
        simulated,
        tolerance,
    )
    integers, floats, count = split(
        graph,
        outputs=backend.integer_outputs,
        rounds=backend.rounds_inputs,
        reason=backend.reason,
    )
    operators = backend.operators(content)
    there = sum(n for name, n in operators.items() if name in backend.products)
    if there < count:
        notes.append(
            f"{backend.name} runs only {there} of the {count} products on integers that "
            "have all they need for it; see operators"
        )
    write_bytes(path, content)
    any_batch = backend.any_batch and not flow.fixed
    return Exported(
        path=path,
        bytes=len(content),
        runtime=backend.name,
        integers=tuple(integers),
        floats=floats,
        operators=operators,
        notes=tuple(notes),
        check=check,
        batch=None if any_batch else _batch(graph),
    )


def _policy(
    fn: Callable[..., Any],
    params: Any,
    ranges: dict[str, Any] | None,
    example: tuple[Any, ...],
    policy: Policy | None,
    target: Target,
) -> tuple[Policy | None, list[str]]:
    """Return the policy that some ranges were made with, and what the target would add."""
    if ranges is None:
        return None, ["no ranges were given, so all activations are floats"]
    if policy is not None:
        return policy, []
    shapes = jax.eval_shape(dense, params)
    wanted = quantize_activations(fn, target.policy).points(shapes, *example)
    others = [
        name
        for name, (_, quantizer) in wanted.items()
        if name in ranges
        and jax.tree.structure(ranges[name]) != jax.tree.structure(quantizer.init(name))
    ]
    if others:
        raise ExportError(
            f"the ranges of {', '.join(map(repr, others[:5]))} were made with another "
            f"policy than that of {target.name}; pass the policy of their training as "
            "policy=."
        )
    missing = [name for name in wanted if name not in ranges]
    if not missing:
        return target.policy, []
    quantizers = {name: quantizer for name, (_, quantizer) in wanted.items()}
    default = next(iter(quantizers.values()))

    def trained(point: Any) -> Any:
        return quantizers.get(point.name, default) if point.name in ranges else None

    return trained, [
        f"{len(missing)} values that {target.name} could store as integers have no range "
        f"and stay floats: {', '.join(missing[:8])}{', ...' if len(missing) > 8 else ''}"
    ]


def _with_first_row(example: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the example with its first row in the place of all."""
    rows = len(jax.tree.leaves(example)[0])

    def repeat(x: Any) -> Any:
        is_batch = x.ndim and len(x) == rows
        return np.broadcast_to(np.asarray(x)[:1], x.shape) if is_batch else x

    return jax.tree.map(repeat, example)


def _have_same_first_row(a: list[Any], b: list[Any], axes: int) -> bool:
    """True if results have rows, and the first of both are the same up to rounding."""
    if not axes or any(not x.ndim for x in a):
        return False
    rows = [(np.asarray(x[0]), np.asarray(y[0])) for x, y in zip(a, b, strict=True)]
    return all(
        np.allclose(x, y, 1e-2, 1e-2 * np.abs(x).max(initial=0)) for x, y in rows
    )


def _refuse_closed_over(graph: Graph) -> None:
    for op in graph.operations:
        for x in op.ins if op.primitive in PRODUCTS else ():
            if isinstance(x, Constant) and x.leaf == CLOSED_OVER:
                raise ExportError(
                    f"the function multiplies by an array of shape {list(x.shape)} that it "
                    f"closes over{f', in {op.scope}' if op.scope else ''}; pass it in "
                    "`params`, so that it can be compressed."
                )


def _batch(graph: Graph) -> int | None:
    shapes = [x.shape for x in graph.inputs if x.shape]
    return shapes[0][0] if shapes else None
