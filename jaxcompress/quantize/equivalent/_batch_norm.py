# SPDX-License-Identifier: Apache-2.0
"""Fold batch norms into the kernels before them, keeping the network's structure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ..._axes import Axis
from ..._compressor import PyTree
from ..._select import closest, map_with_path, paths_and_leaves
from ._links import ByPath, channel_axes, spread


@dataclasses.dataclass(frozen=True)
class Fold:
    """A batch norm, and the layer whose output it reads.

    Attributes:
      kernel: path of the layer's kernel, such as ``"Conv_0/kernel"``.
      norm: path of the batch norm, such as ``"BatchNorm_0"``: its ``scale`` and ``bias``
        are in the parameters (either may be missing), its ``mean`` and ``var`` in the
        batch statistics.
      bias: path of the layer's bias; None if it has none.
      axis: the kernel's output axis, or several, as for ``Link``.
    """

    kernel: str
    norm: str
    bias: str | None = None
    axis: Axis = -1


def fold_batch_norm(
    params: PyTree, batch_stats: PyTree, folds: Sequence[Fold], *, epsilon: float
) -> tuple[PyTree, PyTree]:
    """Fold batch norms into the layers before them, so that kernels are what is multiplied.

    With ``g = scale / sqrt(var + epsilon)``: the kernel and the bias of the layer are
    multiplied by ``g``, and the norm is left with ``scale 1, mean 0, var 1 - epsilon``,
    the identity to rounding, and ``bias - mean * g``; where the norm has no bias, the
    layer's takes that up. The structure stays as it is, so the same function runs, to the
    same result in evaluation mode. In training mode a norm uses the statistics of the
    batch, and folding changes the function.

    A link across what was folded rescales the kernel, its bias and the norm's bias, and
    leaves the norm's scale out.

    Args:
      params: tree of floats.
      batch_stats: tree of the running statistics: Flax's ``variables["batch_stats"]``, or
        the state of ``nnx.BatchStat``.
      folds: which norms; each norm and each kernel once.
      epsilon: of the norms; 1e-5 is Flax's default.

    Returns:
      The parameters and the statistics, of the structure, shapes and dtypes they had.

    Raises:
      ValueError: for a path that is not there (naming the closest), sizes that do not
        fit, a kernel or norm that is folded twice, a layer's bias that is not named, and
        where neither the norm nor the layer has a bias.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> from jaxcompress.quantize.equivalent import Fold, fold_batch_norm
      >>> params = {"Dense_0": {"kernel": jnp.ones((1, 2))},
      ...           "BatchNorm_0": {"scale": jnp.array([1.0, 3.0]), "bias": jnp.zeros(2)}}
      >>> stats = {"BatchNorm_0": {"mean": jnp.ones(2), "var": jnp.full(2, 4.0)}}
      >>> fold = Fold("Dense_0/kernel", "BatchNorm_0")
      >>> params, stats = fold_batch_norm(params, stats, [fold], epsilon=0.0)
      >>> params["Dense_0"]["kernel"].tolist(), params["BatchNorm_0"]["bias"].tolist()
      ([[0.5, 1.5]], [-0.5, -1.5])
      >>> params["BatchNorm_0"]["scale"].tolist(), stats["BatchNorm_0"]["mean"].tolist()
      ([1.0, 1.0], [0.0, 0.0])

    References:
      Jacob et al., 2017, https://arxiv.org/abs/1712.05877
    """
    if isinstance(folds, Fold):
        raise TypeError("folds is one Fold; give a sequence of them: [fold].")
    if not 0 <= epsilon < 1:
        raise ValueError(f"epsilon={epsilon}: the norms' own, such as 1e-5, is needed.")
    known, seen = _by_path(params), _by_path(batch_stats)
    new: ByPath = {}
    new_stats: ByPath = {}
    for fold in folds:
        for path, done in ((fold.kernel, new), (f"{fold.norm}/mean", new_stats)):
            if path in done:
                raise ValueError(f"{path!r} is folded twice: each belongs to one Fold.")
        changed, stats = _folded(fold, known, seen, epsilon)
        new |= {p: x.astype(known[p].dtype) for p, x in changed.items()}
        new_stats |= {p: x.astype(seen[p].dtype) for p, x in stats.items()}
    return (
        map_with_path(lambda path, leaf: new.get(path, leaf), params),
        map_with_path(lambda path, leaf: new_stats.get(path, leaf), batch_stats),
    )


def _folded(
    fold: Fold, params: ByPath, batch_stats: ByPath, epsilon: float
) -> tuple[ByPath, ByPath]:
    """What one fold changes: in the parameters, and in the statistics."""
    mean_path, var_path = f"{fold.norm}/mean", f"{fold.norm}/var"
    scale_path, shift_path = f"{fold.norm}/scale", f"{fold.norm}/bias"
    mean = _get(mean_path, batch_stats, "batch_stats")
    var = _get(var_path, batch_stats, "batch_stats")
    kernel = _get(fold.kernel, params, "params")
    _check_bias(fold, params)
    g = 1 / jnp.sqrt(var + epsilon)
    if scale_path in params:
        g = g * _get(scale_path, params, "params")
    new = {fold.kernel: kernel * _along(g, fold.kernel, kernel, fold.axis, fold.norm)}
    shift = -mean * g
    if fold.bias is not None:
        bias = _get(fold.bias, params, "params")
        every = tuple(range(bias.ndim))
        new[fold.bias] = bias * _along(g, fold.bias, bias, every, fold.norm)
    if shift_path in params:
        new[shift_path] = _get(shift_path, params, "params") + shift
    elif fold.bias is not None:
        new[fold.bias] += shift
    else:
        raise ValueError(
            f"{fold.norm!r} has no bias in params and {fold.kernel!r} names none: nothing "
            f"could take up the mean. Keep the norm, or give the layer a bias of zeros."
        )
    if scale_path in params:
        new[scale_path] = jnp.ones_like(g)
    # With this variance, and not with 1, the norm is the identity without a scale, too.
    stats = {mean_path: jnp.zeros_like(mean), var_path: jnp.full_like(var, 1 - epsilon)}
    return new, stats


def _along(
    g: jax.Array, path: str, leaf: jax.Array, axis: Axis, norm: str
) -> jax.Array:
    axes = channel_axes(path, leaf.shape, axis)
    sizes = tuple(leaf.shape[a] for a in axes)
    if sizes != g.shape:
        raise ValueError(
            f"{norm!r} has {g.shape} channels, and {path!r} of shape {leaf.shape} has "
            f"{sizes} along its axes {axes}. Is it the norm of this layer, and axis= its "
            "output axis?"
        )
    return spread(g, leaf.shape, axes)


def _check_bias(fold: Fold, params: ByPath) -> None:
    stem = fold.kernel.rpartition("/")[0]
    for name in ("bias", "b"):
        path = f"{stem}/{name}" if stem else name
        if fold.bias is None and path in params:
            raise ValueError(
                f"{fold.kernel!r} has a bias, which the norm rescales too: "
                f"Fold({fold.kernel!r}, {fold.norm!r}, bias={path!r})."
            )


def _by_path(tree: PyTree) -> ByPath:
    paths, leaves, _ = paths_and_leaves(tree)
    return dict(zip(paths, leaves, strict=True))


def _get(path: str, known: ByPath, where: str) -> jax.Array:
    """A leaf, in float32 or more."""
    if path not in known:
        near = ", ".join(repr(p) for p in closest(path, list(known))) or "it is empty"
        raise ValueError(f"there is no leaf {path!r} in {where}; closest: {near}.")
    return known[path].astype(jnp.promote_types(known[path].dtype, jnp.float32))
