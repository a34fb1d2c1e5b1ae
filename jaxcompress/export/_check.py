# SPDX-License-Identifier: Apache-2.0
"""Compare what a runtime computes with the simulation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..program.dataflow import Constant, Graph, Operation, Tensor
from ._backend import Backend
from ._errors import Mismatch
from ._exported import Check
from ._products import MOVES, PRODUCTS, origin

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
    tolerance: float | None,
) -> Check:
    """Run a model on the example, and compare.

    Where whole results differ by more than a step, each rounded value is compared with what
    the simulation makes of the runtime's own values before it. A value that lies between
    two codes may be rounded either way, and such differences add up over a network, but
    no operation may differ by itself.

    Args:
      backend: the runtime.
      content: the file.
      graph: what was exported.
      example: the data, flat.
      simulated: what the simulation computes, flat.
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
    allowed, rule = _allowed(graph, expected, tolerance)
    if error <= allowed:
        return Check(error=error, rule=rule)
    if tolerance is None and any(True for _ in graph.points()):
        return _by_point(backend, graph, example, error)
    raise Mismatch(
        f"{backend.name} differs from the simulation by {error:.4g}, where {allowed:.4g} "
        f"is allowed ({rule}). Nothing was written. To allow more, pass tolerance=."
    )


def _by_point(
    backend: Backend, graph: Graph, example: Sequence[Any], error: float
) -> Check:
    """Compare each rounded value, computed from the runtime's values before it."""
    points = list(graph.points())
    seen = dataclasses.replace(
        graph,
        outputs=[*(op.outs[0] for op in points), *graph.outputs],
        output_names=[*(op.params["name"] for op in points), *graph.output_names],
    )
    content, _ = backend.convert(seen)
    theirs = backend.run(content, example)
    count = len(points)
    ours = jax.jit(_following(seen))(list(example), theirs[:count])
    makers = graph.makers()
    for op, a, b in zip(points, theirs[:count], ours[:count], strict=True):
        steps = _largest([a], [np.asarray(b)]) / float(op.params["scale"])
        allowed = 1 if _is_exact(op, makers) else 2
        if steps > allowed + 0.01:
            raise Mismatch(
                f"{backend.name} differs from the simulation by {error:.4g}. The first "
                f"point that differs is {op.params['name']!r}"
                f"{f' in {op.scope}' if op.scope else ''}: from the same values before it, "
                f"it is {steps:.0f} steps off. Nothing was written. To allow it, pass "
                "tolerance=."
            )
    rest = [np.asarray(x) for x in ours[count:]]
    allowed, rule = _allowed(graph, rest, None)
    last = _largest(theirs[count:], rest)
    if not last <= allowed:
        raise Mismatch(
            f"{backend.name} differs from the simulation by {error:.4g}, {last:.4g} of it "
            f"after the last rounded value, where {allowed:.4g} is allowed ({rule}). "
            "Nothing was written. To allow more, pass tolerance=."
        )
    return Check(
        error=error,
        rule="every rounded value is as the simulation computes it from the runtime's own "
        "values before it, up to one step (two after smooth functions)",
    )


def _largest(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> float:
    """Return the largest difference; NaN where only one side is NaN counts as infinite."""
    largest = 0.0
    for x, y in zip(a, b, strict=True):
        x, y = x.astype(np.float64), y.astype(np.float64)
        same = np.isnan(x) & np.isnan(y) | (x == y)
        difference = np.abs(np.where(same, 0, x) - np.where(same, 0, y))
        largest = max(
            largest,
            float(np.nan_to_num(difference, nan=np.inf, posinf=np.inf).max(initial=0)),
        )
    return largest


def _allowed(
    graph: Graph, expected: Sequence[np.ndarray], tolerance: float | None
) -> tuple[float, str]:
    """Return the largest allowed difference of results, and why so much is allowed."""
    if tolerance is not None:
        return tolerance, f"within tolerance={tolerance:g}"
    makers = graph.makers()
    step = max((_step(x, makers) for x in graph.outputs), default=0.0)
    if step:
        return 1.001 * step, "within one step of the rounded result"
    floating = [x for op in graph.operations for x in op.outs if _is_float(x)]
    share = 2e-2 if any(x.dtype.itemsize < 4 for x in floating) else 1e-4
    largest = max((float(np.abs(x).max(initial=0)) for x in expected), default=0.0)
    return share * max(largest, 1e-6), f"within {share:g} of the largest result"


def _is_float(x: Tensor) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _is_exact(point: Operation, makers: Mapping[int, Operation]) -> bool:
    """True if everything between the last rounded values and a point is arithmetic."""
    waiting = list(point.ins)
    while waiting:
        op = makers.get(id(waiting.pop()))
        if op is None or op.primitive == "quantize":
            continue
        scaling = op.primitive in ("mul", "div") and any(
            isinstance(x, Constant) for x in op.ins
        )
        if not scaling and op.primitive not in _EXACT:
            return False
        waiting += op.ins
    return True


def _step(x: Any, makers: Mapping[int, Operation]) -> float:
    """Return the step of a rounded result; 0 if it is not rounded."""
    op = origin(x, makers)
    if op is None or op.primitive != "quantize":
        return 0.0
    return float(op.params["scale"])


def _following(graph: Graph) -> Callable[..., list[jax.Array]]:
    """Return a graph as a JAX function that goes on from given rounded values."""

    def run(inputs: Sequence[Any], rounded: Sequence[Any]) -> list[jax.Array]:
        env: dict[int, Any] = {
            id(x): v for x, v in zip(graph.inputs, inputs, strict=True)
        }
        given = iter(rounded)
        computed = []

        def read(atom: Any) -> Any:
            if isinstance(atom, Constant):
                return jnp.asarray(atom.value)
            return env[id(atom)]

        for op in graph.operations:
            outs = op.bind(*map(read, op.ins))
            if op.primitive == "quantize":
                computed.append(outs[0])
                outs = [next(given)]
            env.update((id(x), v) for x, v in zip(op.outs, outs, strict=True))
        return computed + [read(x) for x in graph.outputs[len(computed) :]]

    return run
