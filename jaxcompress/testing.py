# SPDX-License-Identifier: Apache-2.0
"""A test that anyone's technique can pass: does it keep the laws of a compressor?"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ._compressor import Compressor, PyTree
from ._laws import LAWS, Case, LawError as LawError, Program, step


def check_compressor(
    compressor: Compressor,
    params: PyTree,
    *,
    steps: int = 3,
    rounding: float = 0.0,
    seed: int = 0,
) -> dict[int, str]:
    """Check that a compressor keeps the eleven laws, on the given parameters.

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
      compressor: to be checked.
      params: a float parameter tree that it accepts, as large as you like.
      steps: updates with random gradients before the laws are looked at.
      rounding: how far, relative to a leaf's largest magnitude, jit may differ from
        eager and sharded from unsharded. Zero demands equal bits; a compressor that sums
        over weights (means, products) needs a few 1e-6, since XLA orders sums freely.
      seed: of the random steps and gradients.

    Returns:
      ``{law: "held"}``, or why it could not be checked here (sharding needs more than
      one device).

    Raises:
      LawError: at the first law that is broken, naming it, the leaf and the difference.

    Example:
      >>> import jax, jaxcompress as jc
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (16, 8))}
      >>> result = jc.testing.check_compressor(jc.weight_quantization(bits=4), params)
      >>> sorted(result) == list(range(1, 12))
      True
    """
    draws = np.random.default_rng(seed)
    noise = [_noise(params, draws) for _ in range(steps + 1)]
    first = state = compressor.init(params)
    moved, program = params, Program(compressor)
    for grads in noise[:-1]:
        moved, state, _ = program.compiled(step(moved, grads), state, grads)
    case = Case(compressor, program, moved, state, params, first, noise[-1], rounding)
    return {law: check(case) or "held" for law, check in LAWS.items()}


def _noise(params: PyTree, draws: np.random.Generator) -> PyTree:
    """Normal numbers of any float dtype, drawn without a compilation for each shape."""
    return jax.tree.map(
        lambda x: jnp.asarray(draws.normal(size=x.shape), x.dtype), params
    )
