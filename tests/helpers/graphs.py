# SPDX-License-Identifier: Apache-2.0
"""Run the graphs that exporters read."""

from typing import Any

import jax.numpy as jnp

from jaxcompress.program.dataflow import Constant


def run_graph(graph, *inputs):
    """Evaluate a graph in JAX, operation by operation."""
    env = {id(x): value for x, value in zip(graph.inputs, inputs, strict=True)}

    def read(atom):
        return jnp.asarray(atom.value) if isinstance(atom, Constant) else env[id(atom)]

    for op in graph.operations:
        outs = op.bind(*map(read, op.ins))
        for x, value in zip(op.outs, outs, strict=True):
            assert value.shape == x.shape and value.dtype == x.dtype
            env[id(x)] = value
    return [read(x) for x in graph.outputs]


def primitives(graph):
    """Names of the operations of a graph, in order."""
    return [op.primitive for op in graph.operations]


def weights(graph) -> Any:
    """Constants that products read."""
    return [
        x
        for op in graph.operations
        if op.primitive in ("dot_general", "conv_general_dilated")
        for x in op.ins
        if isinstance(x, Constant)
    ]
