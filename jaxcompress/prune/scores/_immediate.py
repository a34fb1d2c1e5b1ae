# SPDX-License-Identifier: Apache-2.0
"""Scores from the parameters and extras of one update. The lowest are pruned first."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from ..._refuse import refuse_values
from ..._select import map_with_path, path_text

PyTree = Any


class Score(Protocol):
    """A scoring function ``(params, **extras) -> scores``, float arrays like the params.

    Its required keyword-only arguments name the extras that it needs: ``grads`` (the
    gradient at the view, which ``train_step`` passes), ``stats`` (the result of
    ``observe``) or any other tree aligned with the parameters. Pass them as
    ``pruner.update(params, state, grads=...)``.
    """

    def __call__(self, params: PyTree, **extras: Any) -> PyTree: ...  # noqa: D102


def magnitude(params: PyTree, **extras: Any) -> PyTree:
    """Score weights by absolute value: the standard score, and the default.

    References:
      Han et al., 2015, https://arxiv.org/abs/1506.02626
    """
    del extras
    return jax.tree.map(jnp.abs, params)


def random(key: jax.Array) -> Score:
    """Score weights with random numbers in [0, 1): the baseline for every other score.

    The numbers are the same at every call, so masks only shrink under a rising schedule.

    Args:
      key: PRNG key; each leaf gets its own numbers.
    """

    def score(params: PyTree, **extras: Any) -> PyTree:
        del extras
        leaves, treedef = jax.tree.flatten(params)
        keys = jax.random.split(key, max(len(leaves), 1))
        # Adding a zero computed from the leaf gives the numbers its sharding.
        scores = [
            jax.random.uniform(k, p.shape) + jnp.isnan(p).astype(jnp.float32) * 0
            for k, p in zip(keys, leaves, strict=False)
        ]
        return treedef.unflatten(scores)

    return score


def saliency(params: PyTree, *, grads: PyTree, **extras: Any) -> PyTree:
    """Score weights by ``|w g|``: the first-order change of the loss when one is removed.

    References:
      Mozer and Smolensky, 1988, "Skeletonization"; Molchanov et al., 2017,
      https://arxiv.org/abs/1611.06440
    """
    del extras
    return jax.tree.map(lambda w, g: jnp.abs(_product(w, g)), params, grads)


def snip(params: PyTree, *, grads: PyTree, **extras: Any) -> PyTree:
    """Score weights by SNIP, to prune before training: saliency as a fraction of its sum.

    Pass the gradient of one large batch at the initial parameters, and use the budget
    ``global_``.

    References:
      Lee et al., 2019, https://arxiv.org/abs/1810.02340

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
      >>> grads = {"kernel": jnp.array([[9.0, 1.0], [0.1, 1.0]])}
      >>> score, budget = jc.prune.scores.snip, jc.prune.budgets.global_
      >>> pruner = jc.prune.prune(0.5, score=score, budget=budget)
      >>> jc.compress(pruner, params, grads=grads)["kernel"].tolist()
      [[1.0, 0.0], [0.0, 4.0]]
    """
    scores = saliency(params, grads=grads, **extras)
    total = sum(jnp.sum(s) for s in jax.tree.leaves(scores))
    return jax.tree.map(lambda s: s / total, scores)


def grasp(params: PyTree, *, hessian_gradient: PyTree, **extras: Any) -> PyTree:
    """Score weights by GraSP, to prune before training: ``w (H g)``.

    It estimates how much the norm of the gradient falls when the weight is removed.

    Args:
      params: the parameters, before training.
      hessian_gradient: product of the Hessian and the gradient, aligned with the
        parameters: ``hessian_gradient(loss_fn, params, batch)``.
      **extras: ignored.

    References:
      Wang et al., 2020, https://arxiv.org/abs/2002.07376. Their score has the opposite
      sign, and they prune the highest.
    """
    del extras
    return jax.tree.map(_product, params, hessian_gradient)


def synflow(params: PyTree, *, flow: PyTree, **extras: Any) -> PyTree:
    """Score weights by SynFlow, to prune before training without data: ``|w dR/dw|``.

    R is the synaptic flow. Redraw the masks many times while the sparsity rises
    exponentially, each time with the flow of the current view. A single redraw destroys
    whole layers.

    Args:
      params: the parameters, before training.
      flow: ``synaptic_flow(fn, view, x)``.
      **extras: ignored.

    References:
      Tanaka et al., 2020, https://arxiv.org/abs/2006.05467
    """
    del extras
    return saliency(params, grads=flow)


def wanda(params: PyTree, *, stats: PyTree, **extras: Any) -> PyTree:
    """Score weights by Wanda, ``|w| ||x||``, to prune a trained network without retraining.

    ``||x||`` is the norm of the input feature that the weight multiplies. The paper ranks
    within each output: use the pattern ``PerOutput()``.

    Args:
      params: the parameters.
      stats: ``observe(fn, params, batches, moments())``, or a tree of norms that
        broadcast against the leaves.
      **extras: ignored.

    Raises:
      ValueError: if a leaf has no statistics (names the leaf).

    References:
      Sun et al., 2024, https://arxiv.org/abs/2306.11695

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.array([[1.0, 1.0], [2.0, -2.0]])}
      >>> x = jnp.array([[3.0, 1.0]])
      >>> fn = lambda params, x: x @ params["kernel"]
      >>> stats = jc.observe(fn, params, [x], jc.program.statistics.moments())
      >>> pruner = jc.prune.prune(0.5, score=jc.prune.scores.wanda)
      >>> jc.compress(pruner, params, stats=stats)["kernel"].tolist()
      [[1.0, 1.0], [0.0, 0.0]]
    """
    del extras
    return map_with_path(lambda p, w, s: jnp.abs(w) * input_norm(p, s), params, stats)


def activation(params: PyTree, *, stats: PyTree, **extras: Any) -> PyTree:
    """Score weights by ``||x||``, the norm of their input feature, to prune idle inputs.

    The weight itself does not matter. With the pattern ``Slices(axis)`` along the input
    axis, inputs with little activity are pruned as a whole.

    Args:
      params: the parameters.
      stats: see ``wanda``.
      **extras: ignored.

    Raises:
      ValueError: if a leaf has no statistics (names the leaf).

    References:
      Hu et al., 2016, https://arxiv.org/abs/1607.03250
    """
    del extras
    return map_with_path(
        lambda p, w, s: jnp.broadcast_to(input_norm(p, s), w.shape), params, stats
    )


def input_norm(path: str, stat: Any) -> jax.Array:
    """Return the input norm from the statistics of a leaf."""
    if stat is None:
        raise ValueError(
            f"{path!r} has no input statistics: observe() saw no matrix product with this "
            "leaf. Exclude it with `where=`, or list the products with "
            "jaxcompress.sites(fn, params, x)."
        )
    if hasattr(stat, "gram"):
        raise ValueError(
            f"{path!r}: stats must come from moments(), got statistics of gram(). Run "
            "observe(fn, params, batches, moments())."
        )
    return stat.norm if hasattr(stat, "norm") else jnp.asarray(stat)


def required_extras(score: Any) -> list[str]:
    """List the names of the extras that a score requires."""
    return [
        p.name
        for p in inspect.signature(score).parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty
    ]


def check_score(score: Any) -> None:
    """Refuse an object that is not a score, such as a function that makes one.

    Raises:
      TypeError: naming it.
    """
    name = getattr(score, "__name__", repr(score))
    if not callable(score):
        raise TypeError(
            f"score must be a function such as magnitude or a Running score, got {name}."
        )
    kinds = [p.kind for p in inspect.signature(score).parameters.values()]
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        raise TypeError(
            f"score must take (params, **extras), got {name}. If it makes a score, call "
            f"it: {name}(). Your own score must end with **extras, because train_step "
            "passes the extras of every score."
        )


def check_extras(
    score: Any, extras: Mapping[str, Any], name: str | None = None
) -> None:
    """Refuse a call that lacks extras the score requires.

    Raises:
      TypeError: naming what is missing and how to pass it.
    """
    missing = [name for name in required_extras(score) if extras.get(name) is None]
    if missing:
        name = name or getattr(score, "__name__", type(score).__name__)
        arguments = ", ".join(f"{n}=..." for n in missing)
        raise TypeError(
            f"the score {name!r} needs {arguments}: pass it to pruner.update(params, "
            f"state, {arguments}) or compress(pruner, params, {arguments}). train_step and "
            "wrap_optimizer pass grads=, the gradient at the view. To keep the zeros of "
            "an already pruned network, train it with hold_zeros()."
        )


def refuse_nan(scores: PyTree) -> None:
    """Refuse NaN in concrete arrays. Under jit, NaN ranks highest and is kept.

    Raises:
      ValueError: naming the leaf.
    """
    refuse_values(
        scores,
        jnp.isnan,
        lambda path: (
            f"{path!r} contains NaN, in its weights or in the gradients or statistics "
            "that score them. NaN cannot be ranked: check the last step."
        ),
    )


def refuse_unranked(scores: PyTree) -> None:
    """Refuse scores of a dtype that cannot be ranked exactly, traced or not.

    Raises:
      TypeError: naming the leaf.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(scores):
        if leaf.dtype not in (jnp.float32, jnp.bfloat16, jnp.float16):
            raise TypeError(
                f"{path_text(path)!r} has scores of dtype {leaf.dtype}, and only float32, "
                "bfloat16 and float16 can be ranked. Cast the leaf, or leave it out with "
                "`where=`."
            )


def _product(w: jax.Array, g: jax.Array) -> jax.Array:
    # In float32: the product of two small float16 numbers would underflow to zero.
    return w.astype(jnp.float32) * g.astype(jnp.float32)
