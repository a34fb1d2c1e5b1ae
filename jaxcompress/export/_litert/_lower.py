# SPDX-License-Identifier: Apache-2.0
"""Lower a graph to StableHLO text, with quantization as LiteRT's converter reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...program.dataflow import Atom, Codes, Constant, Graph
from ._grids import prescribed

_CALL = "litert_quantized_"
_CALLED = re.compile(rf"call @({_CALL}\d+)\w*\((%[\w#]+)\)(.*)$")
_DEFINED = re.compile(rf"^\s*func\.func private @{_CALL}\d+")


def lower(graph: Graph) -> str:
    """Return a graph as StableHLO text.

    Rounded activations and quantized weights stand there as calls of
    ``@quant.fake_quant``, which carry the scales.
    """
    attributes: list[str] = []
    grids = prescribed(graph)

    def marked(x: jax.Array, text: str) -> jax.Array:
        def call(x: jax.Array) -> jax.Array:
            return -x  # Anything the lowering keeps; the call is replaced.

        call.__name__ = call.__qualname__ = f"{_CALL}{len(attributes)}"
        attributes.append(text)
        return jax.jit(call)(x)

    weights: dict[int, jax.Array] = {}

    def read(atom: Atom, env: dict[int, jax.Array]) -> Any:
        if not isinstance(atom, Constant):
            return env[id(atom)]
        if id(atom) not in weights:
            value = jnp.asarray(atom.value)
            if atom.codes is not None and not why_dense(atom.codes):
                value = marked(value, of_weight(atom.codes))
            weights[id(atom)] = value
        return weights[id(atom)]

    def fn(*inputs: jax.Array) -> list[jax.Array]:
        env = {id(x): value for x, value in zip(graph.inputs, inputs, strict=True)}
        for op in graph.operations:
            ins = [read(x, env) for x in op.ins]
            if op.primitive == "quantize":
                first = grids.get(id(op))
                x = ins[0] if first is None else marked(ins[0], of_point(first))
                outs = [marked(x, of_point(op.params))]
            else:
                outs = op.bind(*ins)
            env.update((id(x), value) for x, value in zip(op.outs, outs, strict=True))
        return [read(x, env) for x in graph.outputs]

    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in graph.inputs]
    text = jax.jit(fn, keep_unused=True).lower(*shapes).as_text()
    return "\n".join(_without_calls(text.splitlines(), attributes))


def of_point(p: Mapping[str, Any]) -> str:
    """Return the attributes of a rounded activation."""
    offset = 0 if p["format"].symmetric else 2 ** (p["format"].bits - 1)
    return _attributes(
        [p["scale"]], [int(p["zero_point"]) - offset], p["format"].bits, narrow=False
    )


def why_dense(codes: Codes) -> str:
    """Return why LiteRT cannot store codes as integers; "" if it can."""
    if codes.format.bits > 8:
        return f"its weight has {codes.format.bits} bits"
    if codes.zero_point.any():
        return "LiteRT's weights have no zero point; use symmetric=True"
    if sum(n > 1 for n in codes.scale.shape) > 1:
        return "its scales belong to groups"
    return ""


def of_weight(codes: Codes) -> str:
    """Return the attributes of a quantized weight."""
    axes = [i for i, n in enumerate(codes.scale.shape) if n > 1]
    axis = axes[0] if axes else None
    bits = 4 if codes.format.bits <= 4 else 8  # 2 bits exist, but not for convolutions
    return _attributes(
        codes.scale.reshape(-1),
        codes.zero_point.reshape(-1),
        bits,
        narrow=bool(codes.codes.min(initial=0) > -(2 ** (bits - 1))),
        axis=axis,
    )


def _attributes(
    scales: Iterable[Any],
    zero_points: Iterable[Any],
    bits: int,
    *,
    narrow: bool,
    axis: int | None = None,
) -> str:
    numbers = [f"0x{np.float32(s).view(np.uint32):08X}" for s in scales]
    points = [str(int(z)) for z in zero_points]
    n = len(numbers)
    parts = [
        f"scale = dense<[{', '.join(numbers)}]> : tensor<{n}xf32>",
        f"zero_point = dense<[{', '.join(points)}]> : tensor<{n}xi64>",
        f'dtype = "i{bits}"',
        f"narrow_range = {str(narrow).lower()}",
    ]
    if axis is not None:
        parts.append(f"quantization_dimension = {axis} : i32")
    return "{" + ", ".join(parts) + "}"


def _without_calls(lines: Sequence[str], attributes: Sequence[str]) -> list[str]:
    """Replace the calls that stand for quantization, and drop what they call."""
    kept, inside = [], False
    for line in lines:
        if _DEFINED.match(line):
            inside = True
        if not inside:
            kept.append(_CALLED.sub(lambda m: _custom_call(m, attributes), line))
        elif line.rstrip() == "  }":
            inside = False
    return kept


def _custom_call(match: re.Match[str], attributes: Sequence[str]) -> str:
    number = int(match[1].removeprefix(_CALL))
    call = f"stablehlo.custom_call @quant.fake_quant({match[2]})"
    return f"{call} {attributes[number]}{match[3]}"
