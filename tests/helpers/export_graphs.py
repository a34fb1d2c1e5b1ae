# SPDX-License-Identifier: Apache-2.0
"""Graphs for exporters, read from the jaxpr of a function."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress.export._graph import Codes, Constant, Graph, Operation, Tensor
from jaxcompress.formats import Int

UINT8 = Int(8, symmetric=False)
INT8 = Int(8)
_POINTS = {}
_CALLS = ("closed_call", "custom_jvp_call", "custom_vjp_call", "jit", "pjit", "remat2")


def point(x, scale, zero_point=0, format=UINT8):
    """Round an activation; the graph has a ``quantize`` operation for it."""
    scale = np.float32(scale)

    def simulated(x):
        codes = jnp.clip(jnp.round(x / scale) + zero_point, format.low, format.high)
        return scale * (codes - zero_point)

    name = simulated.__name__ = f"point_{scale}_{zero_point}_{format}"
    _POINTS[name] = {
        "name": name,
        "scale": scale,
        "zero_point": np.int32(zero_point),
        "format": format,
    }
    return jax.jit(simulated)(x)


def coded(w, format=INT8, axes=None):
    """Round an array to codes with a scale for each index of the other axes."""
    w = np.asarray(w, np.float32)
    axes = tuple(range(w.ndim)) if axes is None else axes
    scale = (np.abs(w).max(axes, keepdims=True) / format.high).astype(np.float32)
    codes = np.clip(np.rint(w / scale), format.low, format.high)
    zero = np.zeros(scale.shape, np.int32)
    return Codes(codes.astype(np.int8), scale, zero, format)


def graph_of(fn, params, *args, dynamic=False):
    """Return the graph of ``fn(params, *args)``; leaves of ``params`` may be ``Codes``."""
    graph = _graph(fn, params, *args)
    if not dynamic:
        return graph
    longer = [
        jnp.zeros((a.shape[0] + 3, *a.shape[1:]), a.dtype)
        for a in map(jnp.asarray, args)
    ]
    other = _graph(fn, params, *longer)
    n = np.shape(args[0])[0]

    def tensors(graph):
        ops = (out for op in graph.operations for out in op.outs)
        return [*graph.inputs, *ops]

    for a, b in zip(tensors(graph), tensors(other), strict=True):
        axes = zip(a.shape, b.shape, strict=True)
        a.batch = frozenset(i for i, s in enumerate(axes) if s == (n, n + 3))
    return graph


def _graph(fn, params, *args):
    leaf = lambda x: isinstance(x, Codes)  # noqa: E731
    leaves, tree = jax.tree.flatten_with_path(params, is_leaf=leaf)
    dense = jax.tree.unflatten(
        tree, [jnp.asarray(v.dense() if leaf(v) else v) for _, v in leaves]
    )
    closed = jax.make_jaxpr(fn)(dense, *args)
    n = len(leaves)
    env = {}
    for var, (path, value) in zip(closed.jaxpr.invars[:n], leaves, strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if leaf(value):
            env[var] = Constant(value.dense(), value, name)
        else:
            env[var] = Constant(np.asarray(value), leaf=name)
    inputs = []
    for var in closed.jaxpr.invars[n:]:
        env[var] = Tensor(tuple(var.aval.shape), np.dtype(var.aval.dtype))
        inputs.append(env[var])
    operations = []
    outs = _walk(closed.jaxpr, closed.consts, env, operations)
    return Graph(
        inputs,
        [f"x{i}" for i in range(len(inputs))],
        operations,
        outs,
        [f"y{i}" for i in range(len(outs))],
    )


def _walk(jaxpr, consts, env, operations):
    env = dict(env)
    for var, value in zip(jaxpr.constvars, consts, strict=True):
        env[var] = Constant(np.asarray(value))

    def read(var):
        if hasattr(var, "val"):
            return Constant(np.asarray(var.val, var.aval.dtype))
        return env[var]

    for eqn in jaxpr.eqns:
        ins = [read(v) for v in eqn.invars]
        name = eqn.primitive.name
        params = dict(eqn.params)
        if params.get("name") in _POINTS:
            outs = [_tensor(v) for v in eqn.outvars]
            point = _POINTS[params["name"]]
            operations.append(Operation("quantize", point, ins, outs, "model"))
        elif name == "scan":
            outs = _scan(params, ins, operations)
        elif name in _CALLS:
            inner = params["jaxpr" if "jaxpr" in params else "call_jaxpr"]
            body = getattr(inner, "jaxpr", inner)
            inside = dict(zip(body.invars, ins, strict=True))
            outs = _walk(body, getattr(inner, "consts", []), inside, operations)
        elif all(isinstance(a, Constant) for a in ins):
            outs = eqn.primitive.bind(
                *(jnp.asarray(a.value) for a in ins), **eqn.params
            )
            outs = outs if eqn.primitive.multiple_results else [outs]
            outs = [Constant(_plain(out)) for out in outs]
        else:
            outs = [_tensor(v) for v in eqn.outvars]
            scope = str(eqn.source_info.name_stack)
            operations.append(Operation(name, params, ins, outs, scope))
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _plain(array):
    # Keys of random numbers are no arrays of numpy; initializers compute with them.
    return (
        array if jnp.issubdtype(array.dtype, jax.dtypes.prng_key) else np.asarray(array)
    )


def _tensor(var):
    return Tensor(tuple(var.aval.shape), np.dtype(var.aval.dtype))


def _scan(params, ins, operations):
    """Unroll a scan; every step takes a slice, and the results are joined."""
    n, k = params["num_consts"], params["num_carry"]
    consts, carry, xs = ins[:n], ins[n : n + k], ins[n + k :]
    body, stacked = params["jaxpr"], []
    steps = range(params["length"])
    for i in reversed(steps) if params["reverse"] else steps:
        rows = [_row(x, i, operations) for x in xs]
        inside = dict(zip(body.jaxpr.invars, [*consts, *carry, *rows], strict=True))
        outs = _walk(body.jaxpr, body.consts, inside, operations)
        carry = outs[:k]
        stacked.append([_reshaped(y, (1, *y.shape), operations) for y in outs[k:]])
    stacked = stacked[::-1] if params["reverse"] else stacked
    joined = []
    for parts in zip(*stacked, strict=True):
        shape = (len(parts), *parts[0].shape[1:])
        out = Tensor(shape, parts[0].dtype)
        operations.append(
            Operation("concatenate", {"dimension": 0}, list(parts), [out], "")
        )
        joined.append(out)
    return [*carry, *joined]


def _row(x, i, operations):
    if isinstance(x, Constant):
        return Constant(x.value[i])
    params = {
        "start_indices": (i, *[0] * (len(x.shape) - 1)),
        "limit_indices": (i + 1, *x.shape[1:]),
        "strides": None,
    }
    out = Tensor((1, *x.shape[1:]), x.dtype)
    operations.append(Operation("slice", params, [x], [out], ""))
    return _reshaped(out, x.shape[1:], operations)


def _reshaped(x, shape, operations):
    if isinstance(x, Constant):
        return Constant(x.value.reshape(shape))
    out = Tensor(tuple(shape), x.dtype)
    operations.append(Operation("reshape", {"new_sizes": shape}, [x], [out], ""))
    return out
