# SPDX-License-Identifier: Apache-2.0
"""How fast the smallest of many weights are found, against sorting them.

The scores are a matrix of 1,000 columns with the magnitudes of normal weights; nine in
ten are to be marked. The masks are first compared with those of a stable sort. The
others stop at the threshold: none of them marks weights, or breaks ties.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcompress import numerics

from . import _harness

_COLUMNS = 1000


@_harness.one_core()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = _harness.parser("threshold", __doc__, rounds=5)
    made.add_argument(
        "--size",
        type=int,
        nargs="+",
        default=[1_000_000, 25_000_000],
        help="numbers of weights, multiples of 1000 (1_000_000 25_000_000)",
    )
    settings = _harness.parse(made, argv)
    if settings.quick:
        settings.size = [10_000]
    for size in settings.size:
        if size < _COLUMNS or size % _COLUMNS:
            made.error(f"--size {size}: not a positive multiple of {_COLUMNS}.")
    rows = [row for size in settings.size for row in _measure(size, settings.rounds)]
    _harness.show(rows, settings)


def _measure(size: int, rounds: int) -> list[_harness.Row]:
    scores = jnp.abs(jax.random.normal(jax.random.key(0), (size // _COLUMNS, _COLUMNS)))
    # What a pruner scores in training: the weights it has pruned before are zeros.
    count = jnp.int32(size // 10 * 9)
    pruned = jnp.where(_checked(scores, count), 0, scores)
    _checked(pruned, count)
    compiled: dict[str, _harness.Variant] = {}
    temporary: dict[str, float] = {}

    def compile_once(name: str, fn: Any, *args: Any) -> None:
        program = jax.jit(fn).lower(*args).compile()
        compiled[name] = lambda: program(*args)
        if (memory := program.memory_analysis()) is not None:
            temporary[name] = memory.temp_size_in_bytes / 1e6

    compile_once("smallest", numerics.smallest, scores, count)
    compile_once("smallest, pruned before", numerics.smallest, pruned, count)
    compile_once(
        "smallest_per_leaf (no mask)", numerics.smallest_per_leaf, [scores], count
    )
    compile_once("jnp.sort", lambda x: jnp.sort(x, axis=None), scores)
    compile_once("lax.top_k", lambda x: lax.top_k(x.ravel(), size // 10), scores)
    on_host = np.asarray(scores).ravel()
    compiled["np.partition"] = lambda: np.partition(on_host, size // 10 * 9)
    measured = _harness.measure(
        compiled, rounds=rounds, aims={"jnp.sort": ">= 10"}, clock=time.process_time
    )
    return [
        dataclasses.replace(
            row,
            name=f"{size:,} {row.name}",
            extra={"temp MB": temporary.get(row.name.removesuffix(" (again)"))},
        )
        for row in measured
    ]


def _checked(scores: jax.Array, count: jax.Array) -> jax.Array:
    """The mask, if it is that of a stable sort."""
    mask = numerics.smallest(scores, count)
    expected = np.zeros(scores.size, bool)
    order = np.argsort(np.asarray(scores).ravel(), kind="stable")
    expected[order[: int(count)]] = True
    wrong = int((np.asarray(mask).ravel() != expected).sum())
    if wrong:
        raise SystemExit(f"{wrong} of {scores.size} differ from a stable sort.")
    return mask


if __name__ == "__main__":
    main()
