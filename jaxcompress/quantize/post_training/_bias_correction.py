# SPDX-License-Identifier: Apache-2.0
"""Bias correction: what quantization adds to the mean of a layer, taken off its bias."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ..._axes import AxesLike, contraction_axes
from ..._compressor import PyTree
from ..._select import Where, is_weight, matches, paths_and_leaves, select
from ...layerwise import Evidence
from ...leaves import dense, is_leaf

# Arrays have a `mean` as well, and no `norm`.
_MEANS = Evidence(
    "stats", "norm", "observe(fn, params, batches, program.statistics.moments())"
)
_BIAS_OF = {"kernel": ("bias",), "weight": ("bias",), "w": ("b", "bias")}


def bias_correction(
    params: PyTree,
    quantized: PyTree,
    stats: PyTree,
    *,
    axes: AxesLike = None,
    biases: Mapping[str, str] | None = None,
    where: Where = is_weight,
) -> PyTree:
    """Shift biases so that the mean output of every layer is what it was.

    The error of a weight times the mean of its input is a constant; the bias takes it
    over. Exact for the inputs of the float network, padding included.

    Args:
      params: float parameters.
      quantized: the same tree, on a grid, or with compressed leaves (what ``compress``
        gives). Its biases are arrays.
      stats: ``observe(fn, params, batches, program.statistics.moments())``: at every selected weight
        the ``mean`` of its input, which broadcasts against the weight.
      axes: which axes of each leaf are summed over: None for the default of a matrix,
        ``{glob: Axes(...)}`` or ``weight_axes(fn, params, x)``.
      biases: ``{glob of a weight: path of its bias}`` where it is not ``bias`` (or ``b``)
        beside the weight.
      where: which weights: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Returns:
      ``quantized`` with other biases.

    Raises:
      ValueError: if a selected weight has no bias or no statistics, naming it, or the
        bias has not one element for each of its outputs.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> kx, kw = jax.random.split(jax.random.key(0))
      >>> params = {"kernel": jax.random.normal(kw, (16, 4)), "bias": jnp.zeros(4)}
      >>> fn = lambda p, x: x @ p["kernel"] + p["bias"][None]
      >>> x = jax.nn.relu(jax.random.normal(kx, (128, 16)))
      >>> small = jc.compress(jc.weight_quantization(bits=2), params)
      >>> means = jc.observe(fn, params, [x], jc.program.statistics.moments())
      >>> better = bias_correction(params, small, means)
      >>> def shift(p):
      ...     return jnp.abs(jnp.mean(fn(jc.dense(p), x) - fn(params, x), 0)).max()
      >>> bool(shift(small) > 0.1), bool(shift(better) < 1e-5)
      (True, True)

    References:
      Nagel et al., 2019, "Data-Free Quantization Through Weight Equalization and Bias
      Correction", https://arxiv.org/abs/1906.04721
    """
    selection = select(params, where)
    paths, weights, treedef = paths_and_leaves(selection.tree)
    means = _MEANS.by_path(selection.like(stats), paths, treedef)
    all_paths, _, whole = paths_and_leaves(params)
    nodes = dict(zip(all_paths, whole.flatten_up_to(quantized), strict=True))
    new = dict(nodes)
    for path, w in zip(paths, weights, strict=True):
        bias = _bias_of(path, nodes, biases or {})
        error = (dense(nodes[path]).astype(jnp.float32) - w) * means[path].mean
        shift = jnp.sum(error, axis=contraction_axes(path, w.shape, axes))
        new[bias] = _shifted(path, bias, new[bias], shift)
    return whole.unflatten([new[path] for path in all_paths])


def _bias_of(path: str, nodes: Mapping[str, Any], biases: Mapping[str, str]) -> str:
    """The path of the bias of a weight."""
    named = next((b for glob, b in biases.items() if matches(glob, path)), None)
    folder, _, name = path.rpartition("/")
    beside = [f"{folder}/{b}" if folder else b for b in _BIAS_OF.get(name, ("bias",))]
    for candidate in beside if named is None else [named]:
        if candidate in nodes:
            return candidate
    if named is not None:
        raise ValueError(f"biases= gives {path!r} the bias {named!r}: no such leaf.")
    raise ValueError(
        f"{path!r} is selected and has no bias: there is no leaf "
        f"{' or '.join(map(repr, beside))}. Say which it is with "
        f"biases={{{path!r}: path}}, or leave the layer out with `where=`."
    )


def _shifted(path: str, name: str, bias: Any, shift: jax.Array) -> jax.Array:
    if is_leaf(bias):
        raise ValueError(
            f"{name!r} is stored as a {type(bias).__name__}; correct biases first, or "
            "leave them out of what is quantized."
        )
    if bias.size != math.prod(shift.shape):
        raise ValueError(
            f"{name!r} has shape {bias.shape}, and {path!r} has outputs of shape "
            f"{shift.shape}: a bias has one element for each. Name the axes that are "
            "summed over with axes=; jaxcompress.weight_axes(fn, params, *args) "
            "reads them."
        )
    return (bias.astype(jnp.float32) - shift.reshape(bias.shape)).astype(bias.dtype)
