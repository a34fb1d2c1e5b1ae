# SPDX-License-Identifier: Apache-2.0
"""Compare what a runtime computes with the simulation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ..program.dataflow import Constant, Graph, Operation, Tensor
from ._backend import Backend
from ._errors import Mismatch
from ._exported import Check
from ._products import MOVES, PRODUCTS

# Between two rounded values, a runtime computes these as exactly as the simulation.
_EXACT = {
    "add", "add_any", "clamp", "concatenate", "dynamic_slice", "gather", "max", "min",
    "neg", "pad", "quantize", "reduce_max", "reduce_min", "reduce_sum",
    "reduce_window_max", "split", "sub",
} | MOVES | set(PRODUCTS)  # fmt: skip


def compare(
    backend: Backend,
    content: bytes,
    graph: Graph,
    example: Sequence[Any],
    simulated: Sequence[Any],
    floats: Callable[[], Sequence[Any]],
    tolerance: float | None,
) -> Check:
    """Run a model on the example, and compare.

    Args:
      backend: the runtime.
      content: the file.
      graph: what was exported.
      example: the data, flat.
      simulated: what the simulation computes, flat.
      floats: computes what the function without rounded activations computes, flat.
      tolerance: the largest allowed difference; None decides by the graph.

    Raises:
      Mismatch: naming the first point that differs.
    """
    outs = backend.run(content, example)
    expected = [np.asarray(x) for x in simulated]
    for i, (a, b) in enumerate(zip(outs, expected, strict=True)):
        if a.shape != b.shape:
            raise Mismatch(
                f"result {graph.output_names[i] or i!r} of {backend.name} has the shape "
                f"{list(a.shape)}, that of the function {list(b.shape)}."
            )
    error = _largest(outs, expected)
    allowed, reason = _allowed(graph, expected, floats, tolerance)
    if not error <= allowed:
        raise Mismatch(
            f"{backend.name} differs from the simulation by {error:.4g}, where "
            f"{allowed:.4g} is allowed ({reason}). "
            + _first_difference(backend, graph, example)
            + " Nothing was written. To allow more, pass tolerance=."
        )
    return Check(error=error, tolerance=allowed, reason=reason)


def _largest(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> float:
    """Return the largest difference; NaN where only one side is NaN counts as infinite."""
    largest = 0.0
    for x, y in zip(a, b, strict=True):
        x, y = x.astype(np.float64), y.astype(np.float64)
        difference = np.where(np.isnan(x) & np.isnan(y) | (x == y), 0, np.abs(x - y))
        largest = max(largest, float(np.nan_to_num(difference, nan=np.inf).max(initial=0)))
    return largest


def _allowed(
    graph: Graph,
    expected: Sequence[np.ndarray],
    floats: Callable[[], Sequence[Any]],
    tolerance: float | None,
) -> tuple[float, str]:
    if tolerance is not None:
        return tolerance, "as you said"
    points = list(graph.points())
    largest = max((float(np.abs(x).max(initial=0)) for x in expected), default=0.0)
    if not points:
        narrow = any(x.dtype.itemsize < 4 for op in graph.operations for x in op.outs if _is_float(x))
        share = 2e-2 if narrow else 1e-4
        return share * max(largest, 1e-6), f"{share:g} of the largest result, for floats"
    makers = {id(out): op for op in graph.operations for out in op.outs}
    steps = [_step(x, makers) for x in graph.outputs]
    if all(_is_exact(op) for op in graph.operations) and all(steps):
        return 1.001 * max(steps), "one step of the rounded result"
    distance = _largest([np.asarray(x) for x in floats()], expected)
    least = max(steps, default=0.0) * 1.001
    return max(distance, least), "as much as rounding changes the result itself"


def _is_float(x: Tensor) -> bool:
    return jax.numpy.issubdtype(x.dtype, jax.numpy.floating)


def _is_exact(op: Operation) -> bool:
    if op.primitive in ("mul", "div"):
        return any(isinstance(x, Constant) for x in op.ins)
    return op.primitive in _EXACT


def _step(x: Any, makers: dict[int, Operation]) -> float:
    """Return the step of a rounded result; 0 if it is not rounded."""
    while (op := makers.get(id(x))) is not None:
        if op.primitive == "quantize":
            return float(op.params["scale"])
        if op.primitive not in MOVES:
            break
        x = op.ins[0]
    return 0.0


def _first_difference(backend: Backend, graph: Graph, example: Sequence[Any]) -> str:
    """Say at which rounded activation the runtime first leaves the simulation."""
    points = list(graph.points())
    if not points:
        return "There is no rounded activation to compare before the result."
    seen = dataclasses.replace(
        graph,
        outputs=[op.outs[0] for op in points],
        output_names=[op.params["name"] for op in points],
    )
    try:
        content, _ = backend.convert(seen)
        outs = backend.run(content, example)
    except Exception as error:
        return f"The points before it could not be compared ({error})."
    expected = jax.jit(evaluator(seen))(*example)
    for op, a, b in zip(points, outs, expected, strict=True):
        steps = _largest([a], [np.asarray(b)]) / float(op.params["scale"])
        if steps > 1.5:
            return (
                f"The first point that differs is {op.params['name']!r}"
                f"{f' in {op.scope}' if op.scope else ''}, by {steps:.0f} steps."
            )
    return "No rounded activation differs by more than one step before the result."


def evaluator(graph: Graph) -> Callable[..., list[jax.Array]]:
    """Return a graph as a JAX function."""

    def run(*inputs: Any) -> list[jax.Array]:
        env = {id(x): v for x, v in zip(graph.inputs, inputs, strict=True)}

        def read(atom: Any) -> Any:
            if isinstance(atom, Constant):
                return jax.numpy.asarray(atom.value)
            return env[id(atom)]

        for op in graph.operations:
            outs = op.bind(*map(read, op.ins))
            env.update((id(x), v) for x, v in zip(op.outs, outs, strict=True))
        return [read(x) for x in graph.outputs]

    return run
