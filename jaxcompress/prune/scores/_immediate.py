# SPDX-License-Identifier: Apache-2.0
"""Scores: how much each weight matters. The lowest are pruned first."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.core import Tracer

from ..._select import map_with_path, path_text

PyTree = Any


class Score(Protocol):
    """``(params, **extras) -> scores``: float arrays shaped like the parameters.

    Keyword-only arguments without a default are what the score needs beside the
    parameters: ``grads`` (the gradient at the view, which ``train_step`` passes),
    ``stats`` (what ``observe`` has seen) or any other tree aligned with the parameters.
    They are handed through by ``pruner.update(params, state, grads=...)``.
    """

    def __call__(self, params: PyTree, **extras: Any) -> PyTree: ...  # noqa: D102


def magnitude(params: PyTree, **extras: Any) -> PyTree:
    """Absolute value of each weight.

    References:
      Han et al., 2015, https://arxiv.org/abs/1506.02626
    """
    del extras
    return jax.tree.map(jnp.abs, params)


def random(key: jax.Array) -> Score:
    """The same random numbers in [0, 1) at every call: the baseline of every other score.

    Since they do not change, masks are monotone under a rising schedule.

    Args:
      key: PRNG key; each leaf has its own numbers.
    """

    def score(params: PyTree, **extras: Any) -> PyTree:
        del extras
        leaves, treedef = jax.tree.flatten(params)
        keys = jax.random.split(key, max(len(leaves), 1))
        # Adding a zero made of the leaf gives the numbers its sharding.
        drawn = [
            jax.random.uniform(k, p.shape) + (p - p).astype(jnp.float32)
            for k, p in zip(keys, leaves, strict=False)
        ]
        return treedef.unflatten(drawn)

    return score


def saliency(params: PyTree, *, grads: PyTree, **extras: Any) -> PyTree:
    """``|w g|``: how much the loss changes, to first order, if the weight is removed.

    References:
      Mozer and Smolensky, 1988, "Skeletonization"; Molchanov et al., 2017,
      https://arxiv.org/abs/1611.06440
    """
    del extras
    return jax.tree.map(lambda w, g: jnp.abs(_product(w, g)), params, grads)


def snip(params: PyTree, *, grads: PyTree, **extras: Any) -> PyTree:
    """Saliency as a share of the sum over all weights: pruning before training.

    Give it the gradient of one large batch at the initial parameters and the budget
    ``global_``.

    References:
      Lee et al., 2019, https://arxiv.org/abs/1810.02340

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
      >>> grads = {"kernel": jnp.array([[9.0, 1.0], [0.1, 1.0]])}
      >>> pruner = jc.prune.prune(0.5, score=jc.prune.scores.snip, budget=jc.prune.budgets.global_)
      >>> jc.compress(pruner, params, grads=grads)["kernel"].tolist()
      [[1.0, 0.0], [0.0, 4.0]]
    """
    scores = saliency(params, grads=grads, **extras)
    total = sum(jnp.sum(s) for s in jax.tree.leaves(scores))
    return jax.tree.map(lambda s: s / total, scores)


def grasp(params: PyTree, *, hessian_gradient: PyTree, **extras: Any) -> PyTree:
    """``w (H g)``: how much the gradient's norm falls if the weight is removed.

    Args:
      params: the parameters, before training.
      hessian_gradient: product of the Hessian and the gradient, aligned with the
        parameters: ``hessian_gradient(loss_fn, params, batch)``.
      **extras: ignored.

    References:
      Wang et al., 2020, https://arxiv.org/abs/2002.07376; their score has the other
      sign, and they prune the highest.
    """
    del extras
    return jax.tree.map(_product, params, hessian_gradient)


def synflow(params: PyTree, *, flow: PyTree, **extras: Any) -> PyTree:
    """``|w dR/dw|`` of the synaptic flow R: pruning before training, without data.

    To be drawn again and again while the sparsity rises exponentially, with the flow of
    the view at hand each time; one shot destroys whole layers.

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
    """``|w| ||x||``: magnitude times the norm of the input feature that it multiplies.

    The paper ranks within each output: pattern ``PerOutput()``.

    Args:
      params: the parameters.
      stats: ``observe(fn, params, batches, moments())``, or a tree of norms that
        broadcast against the leaves.
      **extras: ignored.

    Raises:
      ValueError: for a leaf without statistics, naming it.

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
    return map_with_path(lambda p, w, s: jnp.abs(w) * norm(p, s), params, stats)


def activation(params: PyTree, *, stats: PyTree, **extras: Any) -> PyTree:
    """``||x||``: the norm of the input feature alone, whatever the weight.

    With the pattern ``Slices(axis)`` of the input axis, inputs that carry little are
    pruned as a whole.

    Args:
      params: the parameters.
      stats: as for ``wanda``.
      **extras: ignored.

    Raises:
      ValueError: for a leaf without statistics, naming it.

    References:
      Hu et al., 2016, https://arxiv.org/abs/1607.03250
    """
    del extras
    return map_with_path(
        lambda p, w, s: jnp.broadcast_to(norm(p, s), w.shape), params, stats
    )


def norm(path: str, stat: Any) -> jax.Array:
    """The input norm in a leaf's statistics."""
    if stat is None:
        raise ValueError(
            f"{path!r} has no input statistics: no product that reads it was observed. "
            "Leave it out with `where=`, or look at jaxcompress.sites(fn, params, x)."
        )
    if hasattr(stat, "gram"):
        raise ValueError(
            f"{path!r}: these are statistics of gram(); this score takes those of "
            "observe(fn, params, batches, moments())."
        )
    return stat.norm if hasattr(stat, "norm") else jnp.asarray(stat)


def needs(score: Any) -> list[str]:
    """Names of the extras that a score cannot do without."""
    return [
        p.name
        for p in inspect.signature(score).parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty
    ]


def check_score(score: Any) -> None:
    """Refuse what cannot score, such as a function that makes a score.

    Raises:
      TypeError: naming it.
    """
    name = getattr(score, "__name__", repr(score))
    if not callable(score):
        raise TypeError(f"score={name} is no function of parameters; give magnitude.")
    kinds = [p.kind for p in inspect.signature(score).parameters.values()]
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        raise TypeError(
            f"score={name} does not take (params, **extras). If it makes a score, call it: "
            f"{name}(). A score of your own ends its parameters with **extras, since "
            "train_step passes more than one score needs."
        )


def require(score: Any, extras: Mapping[str, Any], name: str | None = None) -> None:
    """Refuse a call without what the score needs.

    Raises:
      TypeError: naming what is missing and who passes it.
    """
    missing = [name for name in needs(score) if extras.get(name) is None]
    if missing:
        name = name or getattr(score, "__name__", type(score).__name__)
        given = ", ".join(f"{n}=..." for n in missing)
        raise TypeError(
            f"the score {name!r} needs {given}: pass it to pruner.update(params, state, "
            f"{given}) or compress(pruner, params, {given}). train_step and "
            "wrap_optimizer pass grads=, the gradient at the view. To keep the pattern of "
            "a network that is pruned already, train it with hold_zeros()."
        )


def refuse_nan(scores: PyTree) -> None:
    """Refuse NaN where values are known; under jit, NaN ranks highest and is kept.

    Raises:
      ValueError: naming the leaf.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(scores):
        if isinstance(leaf, Tracer) or not jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        found = jnp.any(jnp.isnan(leaf))
        # Inside of a traced function this is a tracer for known values too.
        if not isinstance(found, Tracer) and bool(found):
            raise ValueError(
                f"{path_text(path)!r} holds a NaN, in its weights or in the gradient or "
                "the statistics it is scored by: no ranking of them means anything."
            )


def _product(w: jax.Array, g: jax.Array) -> jax.Array:
    # In float32: a product of two small half floats would be zero.
    return w.astype(jnp.float32) * g.astype(jnp.float32)
