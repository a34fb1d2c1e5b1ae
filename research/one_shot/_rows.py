# SPDX-License-Identifier: Apache-2.0
"""The rows of the study: what each knows of the network, and the compressor it is."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jaxcompress as jc

from ._config import Setting

Sparsity = Any  # a traced float32 scalar
DAMPINGS = (1e-3, 1e-2, 1e-1, 1.0)


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the study.

    Attributes:
      needs: ``""``, ``"moments"``, ``"gram"`` or ``"fisher"``: what ``update`` is given.
      compressor: ``(sparsity, damping, block) -> compressor``; all but block may be traced.
      candidates: settings to choose from.
    """

    needs: str
    compressor: Callable[[Sparsity, Any, int], jc.Compressor]
    candidates: tuple[Setting, ...] = (Setting(),)


def _magnitude(budget: jc.prune.budgets.Budget) -> Method:
    return Method("", lambda s, *_: jc.magnitude_pruning(s, budget=budget))


def _wanda(sparsity: Sparsity, *_: Any) -> jc.Compressor:
    pruner = jc.prune.prune(
        sparsity, score=jc.prune.scores.wanda, pattern=jc.prune.patterns.PerOutput()
    )
    return jc.masked(pruner, jc.is_weight)


def _sparsegpt(sparsity: Sparsity, damping: Any, block: int) -> jc.Compressor:
    return jc.prune.sparsegpt_pruning(sparsity, damping=damping, block=block)


def _at_once(sparsity: Sparsity, damping: Any, _: int) -> jc.Compressor:
    return jc.prune.obs_pruning(
        sparsity, damping=damping, pattern=jc.prune.patterns.unstructured
    )


def _one_by_one(sparsity: Sparsity, damping: Any, _: int) -> jc.Compressor:
    return jc.prune.obs_pruning(sparsity, damping=damping)


def _fisher(sparsity: Sparsity, damping: Any, _: int) -> jc.Compressor:
    return jc.prune.fisher_pruning(sparsity, damping=damping)


GREEDY, GLOBAL = "OBS, one by one", "magnitude, global"
# Those that make up for what they remove.
COMPENSATING = ("SparseGPT", "OBS, at once", GREEDY, "block Fisher")

METHODS: dict[str, Method] = {
    "magnitude, uniform": _magnitude(jc.prune.budgets.uniform),
    GLOBAL: _magnitude(jc.prune.budgets.global_),
    "Wanda": Method("moments", _wanda),
    # Blocks of one weight: nothing makes up for what is removed, damping changes nothing.
    "diagonal Fisher": Method("fisher", _fisher, (Setting(1e-3, 1),)),
    "SparseGPT": Method(
        "gram",
        _sparsegpt,
        tuple(itertools.starmap(Setting, itertools.product(DAMPINGS, (4, 16, 128)))),
    ),
    "OBS, at once": Method("gram", _at_once, tuple(map(Setting, DAMPINGS))),
    GREEDY: Method("gram", _one_by_one, tuple(map(Setting, DAMPINGS))),
    "block Fisher": Method(
        "fisher",
        _fisher,
        tuple(
            itertools.starmap(Setting, itertools.product((*DAMPINGS, 10.0), (16, 64)))
        ),
    ),
}
