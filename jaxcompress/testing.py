# SPDX-License-Identifier: Apache-2.0
"""``check_compressor`` tests whether your own technique keeps the compressor laws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._arguments import check_counts
from ._compressor import Compressor, PyTree
from ._idle_update import LawError, refuse_idle_update
from ._laws import LAWS, Case, Program, step

__all__ = ["LawError", "check_compressor"]

Extras = Mapping[str, Any] | Callable[[PyTree], Mapping[str, Any]]


def check_compressor(
    compressor: Compressor,
    params: PyTree,
    *,
    extras: Extras | None = None,
    steps: int = 3,
    rounding: float = 0.0,
    seed: int = 0,
) -> dict[int, str]:
    """Test that a compressor keeps the eleven laws; put it in the tests of a technique.

    A compressor whose ``update`` does nothing, because it lacks the statistics it needs,
    would keep most laws trivially. It fails the check instead.

    1. ``apply`` keeps structure, shapes, dtypes and sharding.
    2. ``update`` keeps the state's structure, shapes and dtypes, and the parameters'.
    3. ``jit`` agrees with eager, and 100 steps trace once.
    4. ``dense(finalize(p, s)) == apply(p, s)``, bit for bit.
    5. Leaves that are not selected come back bit-identical.
    6. ``apply`` is idempotent, to rounding.
    7. The gradient through ``apply`` is finite.
    8. ``load(save(finalize(p, s)))`` is the same tree, bit for bit.
    9. ``chain`` is associative up to nesting.
    10. Reported bytes are the file's bytes.
    11. Sharded equals unsharded; resumed from a checkpoint equals uninterrupted.

    Args:
      compressor: the compressor to check.
      params: a float parameter tree of any size that the compressor accepts.
      extras: what ``update`` receives besides the parameters and the state, such as
        ``{"stats": stats}``, or a function of the parameters that returns it. The
        function is called before every step, outside of jit. ``grads`` are random unless
        the extras hold some.
      steps: random training steps before the laws are tested.
      rounding: how far, relative to the largest magnitude of a leaf, jit may differ from
        eager and sharded from unsharded. Zero demands equal bits. A compressor that sums
        over weights (means, products) needs a few 1e-6, since XLA orders sums freely.
      seed: seed of the random steps and gradients.

    Returns:
      ``{law: "held"}``, or the reason why a law could not be tested here (sharding needs
      more than one device).

    Raises:
      LawError: at the first broken law, naming it, the leaf and the difference; and if
        ``update`` changed nothing, so that the laws of ``update`` were not tested.

    Example:
      >>> import jax, jaxcompress as jc
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (16, 8))}
      >>> result = jc.testing.check_compressor(jc.weight_quantization(bits=4), params)
      >>> sorted(result) == list(range(1, 12))
      True
    """
    check_counts(steps=steps)
    draws = np.random.default_rng(seed)
    noise = [_noise(params, draws) for _ in range(steps + 1)]
    first = state = compressor.init(params)
    moved, program = params, Program(compressor)
    before = params
    for grads in noise[:-1]:
        before = step(moved, grads)
        last = {"grads": grads, **_evaluate(extras, before)}
        moved, state, _ = program.compiled(before, state, last)
    refuse_idle_update(compressor, (before, first), (moved, state))
    last = {"grads": noise[-1], **_evaluate(extras, moved)}
    grads = noise[-1]
    case = Case(compressor, program, moved, state, params, first, grads, last, rounding)
    return {law: check(case) or "held" for law, check in LAWS.items()}


def _evaluate(extras: Extras | None, params: PyTree) -> Mapping[str, Any]:
    if callable(extras):
        return extras(params)
    return extras or {}


def _noise(params: PyTree, draws: np.random.Generator) -> PyTree:
    """Normal numbers of any float dtype, drawn without compiling for each shape."""
    return jax.tree.map(
        lambda x: jnp.asarray(draws.normal(size=x.shape), x.dtype), params
    )
