# SPDX-License-Identifier: Apache-2.0
"""Fold batch norms into the kernels before them; the network structure stays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..._axes import Axis
from ..._compressor import PyTree
from ..._refuse import refuse_not_finite
from ..._select import closest, map_with_path, paths_and_leaves
from ._links import ByPath, channel_axes, spread
from ._verify import check_finite, coarsest_unit, largest_difference


@dataclasses.dataclass(frozen=True)
class Fold:
    """Pair a batch norm with the layer before it, for ``fold_batch_norm``.

    Attributes:
      kernel: path of the layer's kernel, such as ``"Conv_0/kernel"``.
      norm: path of the batch norm, such as ``"BatchNorm_0"``. Its ``scale`` and ``bias``
        are in the parameters (either may be missing), its ``mean`` and ``var`` in the
        batch statistics.
      bias: path of the layer's bias; None if the layer has no bias.
      axis: output axis of the kernel, or several, as for ``Link``. In a transposed
        convolution with ``transpose_kernel=True`` it is -2.
      epsilon: epsilon of the norm, in [0, 1); None takes the one of the call.
    """

    kernel: str
    norm: str
    bias: str | None = None
    axis: Axis = -1
    epsilon: float | None = None


def fold_batch_norm(
    params: PyTree,
    batch_stats: PyTree,
    folds: Sequence[Fold],
    *,
    epsilon: float | None = None,
    fn: Callable[..., Any] | None = None,
    args: Sequence[Any] = (),
) -> tuple[PyTree, PyTree]:
    """Fold batch norms into the layers before them, to quantize the kernels as deployed.

    With ``g = scale / sqrt(var + epsilon)``, the layer's kernel and bias are multiplied by
    ``g``. The norm keeps ``scale 1, mean 0, var 1 - epsilon``, the identity up to
    rounding, and the bias ``bias - mean * g``. If the norm has no bias, the layer's bias
    takes the shift. The tree structure does not change, so the same function still runs.
    In evaluation mode its result is the same. In training mode a norm uses the statistics
    of the batch, and folding changes the function.

    Shapes do not tell which norm follows which layer, or with which epsilon.
    ``program.find_folds`` reads both from the traced function. For folds that are written
    by hand, pass ``fn`` to check each by running it; see ``verify_folds``.

    A link across a folded norm rescales the kernel, its bias and the norm's bias; it
    leaves out the norm's scale.

    Args:
      params: tree of floats.
      batch_stats: tree of the running statistics: Flax's ``variables["batch_stats"]``, or
        the state of ``nnx.BatchStat``.
      folds: which norms to fold; each norm and each kernel at most once.
      epsilon: epsilon of the norms whose ``Fold`` has none, in [0, 1); Flax's default is
        1e-5.
      fn: ``(params, batch_stats, *args) -> out`` in evaluation mode, to check the folds
        outside of ``jit``. None folds without a check.
      args: further arguments of ``fn``: real data.

    Returns:
      The parameters and the statistics, with unchanged structure, shapes and dtypes.

    Raises:
      TypeError: if ``folds`` is a single ``Fold``.
      ValueError: if a path does not exist (the closest is named), sizes do not match, a
        kernel or norm is folded twice, a norm has no epsilon, the layer has a bias that
        ``Fold`` does not name, neither the norm nor the layer has a bias, or a fold changes
        ``fn``.

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
        raise TypeError("folds must be a sequence of Fold, got one Fold; pass [fold].")
    epsilons = [_epsilon(fold, epsilon) for fold in folds]
    if fn is not None:
        verify_folds(fn, params, batch_stats, folds, *args, epsilon=epsilon)
    leaves, stat_leaves = _by_path(params), _by_path(batch_stats)
    new: ByPath = {}
    new_stats: ByPath = {}
    for fold, own in zip(folds, epsilons, strict=True):
        for path, folded in ((fold.kernel, new), (f"{fold.norm}/mean", new_stats)):
            if path in folded:
                raise ValueError(
                    f"{path!r} is folded twice; each kernel and norm must be in one Fold."
                )
        changed, stats = _fold(fold, leaves, stat_leaves, own)
        new |= {p: x.astype(leaves[p].dtype) for p, x in changed.items()}
        new_stats |= {p: x.astype(stat_leaves[p].dtype) for p, x in stats.items()}
    refuse_not_finite(new)
    return (
        map_with_path(lambda path, leaf: new.get(path, leaf), params),
        map_with_path(lambda path, leaf: new_stats.get(path, leaf), batch_stats),
    )


def verify_folds(
    fn: Callable[..., Any],
    params: PyTree,
    batch_stats: PyTree,
    folds: Sequence[Fold],
    *args: Any,
    epsilon: float | None = None,
    tolerance: float | None = None,
) -> None:
    """Check that each fold leaves the function unchanged, up to rounding.

    Norms of equal size that are swapped, another epsilon, and the wrong axis of a square
    kernel all have shapes that fit. Each norm in turn is folded alone. The function is
    compiled once and runs once more than there are folds.

    Args:
      fn: ``(params, batch_stats, *args) -> out``, a tree; in evaluation mode.
      params: parameters of ``fn``.
      batch_stats: running statistics, as after training: with means of 0 and variances of
        1, swapped norms cannot be told apart.
      folds: the folds to check.
      *args: further arguments of ``fn``: real data.
      epsilon: epsilon of the norms whose ``Fold`` has none.
      tolerance: largest allowed difference, relative to the largest magnitude of the same
        output. None uses 1000 times the machine epsilon of the least precise float among
        parameters, statistics and outputs, at most the square root of that epsilon.

    Raises:
      ValueError: at the first fold that changes the function (the error names the fold and
        the change); if folds do not fit; or if the function returns NaN or infinity.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> from jaxcompress.quantize.equivalent import Fold, verify_folds
      >>> params = {"w": jnp.ones((1, 2)), "norm": {"bias": jnp.ones(2)}}
      >>> stats = {"norm": {"mean": jnp.ones(2), "var": jnp.array([1.0, 0.01])}}
      >>> def fn(params, stats, x):
      ...     mean, var = stats["norm"]["mean"][None], stats["norm"]["var"][None]
      ...     normed = (x @ params["w"] - mean) / jnp.sqrt(var + 1e-5)
      ...     return normed + params["norm"]["bias"][None]
      >>> folds, x = [Fold("w", "norm")], jnp.array([[3.0]])
      >>> verify_folds(fn, params, stats, folds, x, epsilon=1e-5)
      >>> verify_folds(  # doctest: +ELLIPSIS
      ...     fn, params, stats, folds, x, epsilon=1e-2
      ... )
      Traceback (most recent call last):
      ...
      ValueError: folding 'norm' into 'w' changes the output by ...
    """
    run = jax.jit(lambda params, stats: fn(params, stats, *args))
    # Accelerators multiply float32 with fewer bits by default.
    with jax.default_matmul_precision("float32"):
        expected = run(params, batch_stats)
        check_finite(expected)
        allowed = tolerance
        if allowed is None:
            unit = coarsest_unit((params, batch_stats, expected))
            allowed = min(1000 * unit, unit**0.5)
        for fold in folds:
            new = fold_batch_norm(params, batch_stats, [fold], epsilon=epsilon)
            difference = largest_difference(expected, run(*new))
            if not difference <= allowed:
                raise ValueError(
                    f"folding {fold.norm!r} into {fold.kernel!r} changes the output by "
                    f"{difference:.1e} of its largest magnitude; rounding explains "
                    f"{allowed:.1e}. Either the norm does not read the result of this "
                    f"layer alone, or its epsilon is not {_epsilon(fold, epsilon):g}, or "
                    f"axis={fold.axis} "
                    "is not the output axis of the kernel, or fn is in training mode."
                )


def _epsilon(fold: Fold, default: float | None) -> float:
    """Return the epsilon of one norm."""
    epsilon = default if fold.epsilon is None else fold.epsilon
    if epsilon is None:
        raise ValueError(
            f"{fold.norm!r} has no epsilon. Pass epsilon= with the norms' own, such as "
            "1e-5, or give the Fold its epsilon=."
        )
    if not 0 <= epsilon < 1:
        raise ValueError(
            f"epsilon must be the norms' own, in [0, 1), such as 1e-5; got {epsilon}."
        )
    return epsilon


def _fold(
    fold: Fold, params: ByPath, batch_stats: ByPath, epsilon: float
) -> tuple[ByPath, ByPath]:
    """Return the parameters and the statistics that one fold changes, by path."""
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
            f"{fold.norm!r} has no bias in params and the Fold of {fold.kernel!r} has no "
            "bias=, so no bias can absorb the mean. Keep the norm, or give the layer a "
            "bias of zeros."
        )
    if scale_path in params:
        new[scale_path] = jnp.ones_like(g)
    # This variance makes the norm the identity, with or without a scale.
    stats = {mean_path: jnp.zeros_like(mean), var_path: jnp.full_like(var, 1 - epsilon)}
    return new, stats


def _along(
    g: jax.Array, path: str, leaf: jax.Array, axis: Axis, norm: str
) -> jax.Array:
    axes = channel_axes(path, leaf.shape, axis)
    sizes = tuple(leaf.shape[a] for a in axes)
    if sizes != g.shape:
        raise ValueError(
            f"{norm!r} has {g.shape} channels, but {path!r} of shape {leaf.shape} has "
            f"{sizes} along its axes {axes}. Check that the norm reads this layer and "
            "that axis= is the layer's output axis."
        )
    return spread(g, leaf.shape, axes)


def _check_bias(fold: Fold, params: ByPath) -> None:
    stem = fold.kernel.rpartition("/")[0]
    for name in ("bias", "b"):
        path = f"{stem}/{name}" if stem else name
        if fold.bias is None and path in params:
            raise ValueError(
                f"{fold.kernel!r} has the bias {path!r}, which the norm rescales, too. "
                f"Use Fold({fold.kernel!r}, {fold.norm!r}, bias={path!r})."
            )


def _by_path(tree: PyTree) -> ByPath:
    paths, leaves, _ = paths_and_leaves(tree)
    return dict(zip(paths, leaves, strict=True))


def _get(path: str, leaves: ByPath, tree: str) -> jax.Array:
    """Return a leaf in float32 or wider."""
    if path not in leaves:
        near = ", ".join(repr(p) for p in closest(path, list(leaves)))
        raise ValueError(
            f"no leaf {path!r} in {tree}; closest: {near or 'none, the tree is empty'}."
        )
    return leaves[path].astype(jnp.promote_types(leaves[path].dtype, jnp.float32))
