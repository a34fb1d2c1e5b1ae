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
from ._inputs import check_inputs, simulate
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
            any_batch=backend.any_batch,
        )
    except Unsupported as error:
        raise UnsupportedOperation(f"{backend.name}: {error}") from error
    graph = flow.graph
    _refuse_closed_over(graph)
    if differences := target.differences(flow.points):
        raise ExportError(
            f"{target.name} does not compute what was trained. {'; '.join(differences[:5])}"
            f"{' and others' if len(differences) > 5 else ''}. Train or calibrate with "
            "policy=targets of this runtime."
        )
    content, more = backend.convert(graph)
    notes += list(more)
    if backend.any_batch and flow.fixed:
        notes.append(f"the batch is fixed: {flow.fixed}")
    check = compare(
        backend,
        content,
        graph,
        [np.asarray(x) for x in jax.tree.leaves(example)],
        simulate(fn, params, state, example, policy),
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
