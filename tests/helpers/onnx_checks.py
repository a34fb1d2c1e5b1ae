# SPDX-License-Identifier: Apache-2.0
"""A function in JAX and the same function in onnxruntime."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from export_graphs import graph_of, is_codes

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from jaxcompress.export._onnx import ONNX as ONNX, emit as emit  # noqa: E402


def dense(params):
    """Return parameters without codes."""
    return jax.tree.map(
        lambda x: x.dense() if is_codes(x) else x, params, is_leaf=is_codes
    )


def exported(fn, params, *args, dynamic=True, opset=21):
    """Return a model as bytes, how often it has each operator, and the differences."""
    emitted = emit(graph_of(fn, params, *args, dynamic=dynamic), opset=opset)
    onnx.checker.check_model(emitted.model, full_check=True)
    kinds = collections.Counter(node.op_type for node in emitted.model.graph.node)
    return emitted.model.SerializeToString(), kinds, emitted.differences


def longer(x, n=7):
    """Repeat and mix examples to a batch of ``n``."""
    rows = np.random.default_rng(n).integers(0, len(x), n)
    scaled = np.asarray(x)[rows]
    if scaled.dtype.kind == "f":
        factors = np.linspace(0.5, 1.5, n).reshape(n, *[1] * (scaled.ndim - 1))
        scaled = (scaled * factors).astype(scaled.dtype)
    return scaled


def compare(fn, params, model, *args, rtol=1e-5, atol=1e-5):
    """Assert that a model computes what the function does."""
    args = [jnp.asarray(arg) for arg in args]
    expected = jax.tree.leaves(fn(dense(params), *args))
    results = ONNX.run(model, args)
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        wanted = np.asarray(wanted)
        assert result.shape == wanted.shape
        if wanted.dtype.name == "bfloat16":
            wanted = wanted.astype(np.float32)
        assert result.dtype == wanted.dtype
        np.testing.assert_allclose(result, wanted, rtol=rtol, atol=atol)


def check(fn, params, *args, dynamic=True, opset=21, example=None, **tolerance):
    """Export at one batch size; compare at this and at another. Return the operators.

    Args:
      fn: the function.
      params: its parameters.
      *args: data.
      dynamic: whether the batch may vary.
      opset: version of the operators.
      example: number of rows to export with; None takes those of the data.
      **tolerance: of the comparison.
    """
    short = [x[:example] for x in args]
    model, kinds, _ = exported(fn, params, *short, dynamic=dynamic, opset=opset)
    compare(fn, params, model, *args, **tolerance)
    if dynamic:
        compare(fn, params, model, *map(longer, args), **tolerance)
    return kinds
