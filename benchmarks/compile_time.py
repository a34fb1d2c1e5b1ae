# SPDX-License-Identifier: Apache-2.0
"""How long a training step takes to trace and compile, with and without compression."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import jax
import optax

import jaxcompress as jc

from . import _harness, _models


@_harness.one_core()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = _harness.parser("compile_time", __doc__, rounds=5)
    made.add_argument("--model", choices=("mlp", "conv", "deep"), default="mlp")
    settings = _harness.parse(made, argv)
    task = _models.make(settings.model, quick=settings.quick)
    pruner = jc.magnitude_pruning(0.9, every=100)
    four_bits = jc.weight_quantization(
        bits=4, granularity=jc.PerChannel(axes=jc.Axes(outputs=-1))
    )
    compressors = {"float": jc.identity()}
    if not settings.quick:
        compressors |= {"mask every 100": pruner, "4 bits": four_bits}
        compressors["a price of bits"] = jc.rate.entropy_constrained(0.1)
    compressors["mask every 100 + 4 bits"] = jc.chain(pruner, four_bits)
    rows = _harness.measure(
        {name: _compile(task, c) for name, c in compressors.items()},
        rounds=settings.rounds,
        warm_up=False,
        clock=time.process_time,
    )
    _harness.show(rows, settings)


def _compile(task: _models.Task, compressor: jc.Compressor) -> _harness.Variant:
    def loss_fn(params: Any, batch: Any) -> jax.Array:
        logits = task.logits(params, batch["x"])
        return optax.losses.softmax_cross_entropy_with_integer_labels(
            logits, batch["y"]
        ).mean()

    init, _ = jc.train_step(loss_fn, optax.adam(1e-3), compressor)
    state = init(task.params)

    def once() -> None:
        jax.clear_caches()  # or all but the first round would time a look-up
        _, step = jc.train_step(loss_fn, optax.adam(1e-3), compressor)
        step.lower(state, task.batches[0]).compile()  # pyright: ignore[reportFunctionMemberAccess]

    return once


if __name__ == "__main__":
    main()
