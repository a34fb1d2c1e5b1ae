# SPDX-License-Identifier: Apache-2.0
"""Bias correction: remove the mean output shift of quantization through the biases."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from ..._axes import AxesLike, contraction_axes
from ..._compressor import PyTree
from ..._select import Where, is_weight, matches, paths_and_leaves, select
from ..._signatures import name_defaults
from ..._warn import warn
from ...layerwise import Evidence, check_summed_axes
from ...leaves import dense, is_leaf

# Checked by `norm`, since arrays have a `mean` too.
_MEANS = Evidence(
    "stats", "norm", "observe(fn, params, batches, program.statistics.moments())"
)
_BIAS_OF = {"kernel": ("bias",), "weight": ("bias",), "w": ("b", "bias")}


@name_defaults
def bias_correction(
    params: PyTree,
    quantized: PyTree,
    stats: PyTree,
    *,
    axes: AxesLike = None,
    biases: Mapping[str, str] | None = None,
    where: Where = is_weight,
) -> PyTree:
    """Correct biases after quantization so that each layer keeps its mean output.

    Use it after any weight compression, with statistics of a few batches and no
    training. The weight error times the mean input is a constant shift of the output,
    which is subtracted from the bias. Exact for the inputs of the float network, padding
    included: on them, no layer's error grows. A layer whose shift cannot be told from
    chance by the rows observed is left as it was.

    Compare the outputs of the whole network with and without it, because the statistics
    cannot tell everything. In a pretrained sentence encoder at 4 bits, it lowered their
    error from 33 to 30 % with a scale per channel, but raised it from 45 to 134 % with a
    scale per layer, where a mean that few tokens dominate moved the biases far. Inputs of
    one sentence or image are alike, so count examples rather than rows: statistics of a
    single sentence raised 33 to 35 % (``benchmarks/README.md``).

    Args:
      params: float parameters.
      quantized: the same tree with weights on a grid or compressed leaves, such as the
        result of ``compress``. Its biases must be arrays.
      stats: ``observe(fn, params, batches, program.statistics.moments())``. Each selected
        weight has the ``mean`` of its input, which broadcasts against the weight.
      axes: the contraction axes of each leaf: None for the default of a matrix,
        ``{glob: Axes(...)}`` or ``weight_axes(fn, params, x)``.
      biases: ``{glob of a weight: path of its bias}`` for biases that are not named
        ``bias`` (or ``b``) next to the weight.
      where: which weights: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Returns:
      ``quantized`` with corrected biases.

    Raises:
      ValueError: if a selected weight has no bias or no statistics, or its bias does not
        have one element per output. The message names the weight.

    Warns:
      UserWarning: if a layer is left as it was, by name; under ``jit`` nothing is said.

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
    all_paths, _, full_treedef = paths_and_leaves(params)
    nodes = dict(zip(all_paths, full_treedef.flatten_up_to(quantized), strict=True))
    new = dict(nodes)
    for path, w in zip(paths, weights, strict=True):
        bias = _find_bias(path, nodes, biases or {})
        error = dense(nodes[path]).astype(jnp.float32) - w
        summed = contraction_axes(path, w.shape, axes)
        check_summed_axes(path, w.shape, means[path].mean, summed)
        shift = _known_shift(path, error, means[path], summed)
        new[bias] = _shift_bias(path, bias, new[bias], shift)
    return full_treedef.unflatten([new[path] for path in all_paths])


def _find_bias(path: str, nodes: Mapping[str, Any], biases: Mapping[str, str]) -> str:
    """Return the path of the bias of a weight."""
    named = next((b for glob, b in biases.items() if matches(glob, path)), None)
    name = re.split(r"[/.]", path)[-1]  # "layers.0.weight", as torch names it, has dots
    folder = path.removesuffix(name)
    defaults = [f"{folder}{b}" for b in _BIAS_OF.get(name, ("bias",))]
    for candidate in defaults if named is None else [named]:
        if candidate in nodes:
            return candidate
    if named is not None:
        raise ValueError(
            f"biases= maps {path!r} to {named!r}, but params has no such leaf. Pass the "
            "full path of the bias."
        )
    raise ValueError(
        f"{path!r} is selected but has no bias: no leaf "
        f"{' or '.join(map(repr, defaults))}. Pass its bias as "
        f"biases={{{path!r}: path}}, or exclude the layer with `where=`."
    )


def _known_shift(
    path: str, error: jax.Array, moments: Any, summed: tuple[int, ...]
) -> jax.Array:
    """Return the shift of the mean output; zeros where too few rows tell it from chance.

    Of ``n`` rows, the mean has the variance ``var / n``. Other inputs come off better with
    the correction if its square is more than twice the variance of the shift.
    """
    count = moments.count.astype(jnp.float32)
    rows = count.reshape(*count.shape, *(1,) * (error.ndim - count.ndim))
    shift = jnp.sum(error * moments.mean, axis=summed)
    noise = jnp.sum(error**2 * moments.var / jnp.maximum(rows - 1, 1))
    is_known = ~(jnp.sum(shift**2) < 2 * noise)  # true of NaN, which stays visible
    if not isinstance(is_known, Tracer) and not bool(is_known):
        warn(
            f"{path!r}: its bias is left as it was. {int(jnp.min(count))} rows of input "
            "are too few to tell the shift of its mean output from chance, so correcting "
            "it would make other inputs worse. Observe more batches.",
        )
    return jnp.where(is_known, shift, 0)


def _shift_bias(path: str, name: str, bias: Any, shift: jax.Array) -> jax.Array:
    if is_leaf(bias):
        raise ValueError(
            f"bias {name!r} must be an array, got a {type(bias).__name__}. Correct biases "
            "before compressing them, or exclude them from compression with `where=`."
        )
    if bias.size != math.prod(shift.shape):
        raise ValueError(
            f"a bias must have one element per output, but {name!r} has shape "
            f"{bias.shape} and {path!r} has outputs of shape {shift.shape}. Pass the "
            "contraction axes as axes=; jaxcompress.weight_axes(fn, params, *args) reads "
            "them from the function."
        )
    return (bias.astype(jnp.float32) - shift.reshape(bias.shape)).astype(bias.dtype)
