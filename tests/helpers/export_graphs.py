# SPDX-License-Identifier: Apache-2.0
"""Graphs for exporters, of functions that round with scales of the test's choice."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress.formats import Int
from jaxcompress.program.dataflow import Codes, Constant, Graph, Tensor
from jaxcompress.program.dataflow._affine import fold_affine
from jaxcompress.program.dataflow._dense import as_matrices
from jaxcompress.program.dataflow._flatten import Flattener

UINT8 = Int(8, symmetric=False)
INT8 = Int(8)
_MARKS = {}


def point(x, scale, zero_point=0, format=UINT8):
    """Round an activation; the graph has a ``quantize`` operation for it."""

    def rounded(x, scale, zero_point):
        codes = jnp.clip(jnp.round(x / scale) + zero_point, format.low, format.high)
        return scale * (codes - zero_point)

    rounded.__name__ = rounded.__qualname__ = f"round to {format}"
    _MARKS[rounded.__name__] = {"name": "point", "format": format}
    return jax.jit(rounded)(x, np.float32(scale), np.float32(zero_point))


def coded(w, format=INT8, axes=None):
    """Round an array to codes with a scale for each index of the other axes."""
    w = np.asarray(w, np.float32)
    axes = tuple(range(w.ndim)) if axes is None else axes
    scale = (np.abs(w).max(axes, keepdims=True) / format.high).astype(np.float32)
    codes = np.clip(np.rint(w / scale), format.low, format.high)
    zero = np.zeros(scale.shape, np.int32)
    return Codes(codes.astype(np.int32), scale, zero, format)


def is_codes(x):
    """True for codes, as leaves of a tree."""
    return isinstance(x, Codes)


def graph_of(fn, params, *args, dynamic=False):
    """Return the graph of ``fn(params, *args)``; leaves of ``params`` may be ``Codes``."""
    graph = _graph(fn, params, *args)
    if not dynamic:
        return graph
    longer = [jnp.concatenate([jnp.asarray(x), jnp.asarray(x)[:1]]) for x in args]
    other = _graph(fn, params, *longer)

    def tensors(graph):
        return [*graph.inputs, *(out for op in graph.operations for out in op.outs)]

    for a, b in zip(tensors(graph), tensors(other), strict=True):
        pairs = zip(a.shape, b.shape, strict=True)
        a.batch = frozenset(i for i, (m, n) in enumerate(pairs) if m != n)
    return graph


def _graph(fn, params, *args):
    flat, tree = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_codes)
    leaves = []
    for path, x in flat:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        value = x.dense() if is_codes(x) else np.asarray(x)
        leaves.append(Constant(value, x if is_codes(x) else None, name))
    dense = jax.tree.unflatten(tree, [jnp.asarray(x.value) for x in leaves])
    closed = jax.make_jaxpr(fn)(dense, *args)
    inputs = [Tensor(np.shape(x), np.dtype(x.dtype)) for x in args]
    flattener = Flattener(_MARKS)
    outs = flattener.run(closed.jaxpr, closed.consts, [*leaves, *inputs], "")
    names = [f"x{i}" for i in range(len(inputs))]
    results = [f"y{i}" for i in range(len(outs))]
    graph = Graph(inputs, names, flattener.operations, list(outs), results)
    fold_affine(graph)
    as_matrices(graph)
    return graph
