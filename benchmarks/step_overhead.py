# SPDX-License-Identifier: Apache-2.0
"""What compression costs in a training step, against the float step.

One call is a block of steps with the state donated, so that masks redrawn every 100
steps are redrawn once a block. Times are per step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxcompress as jc

from . import _harness, _models

_NEVER = 10**9
_AIMS = {
    "mask held": "<= 1.02",
    "mask every 100": "<= 1.03",
    "mask every step": "<= 1.15",
    "RigL every 100": "<= 1.05",
    "4 bits": "<= 1.03",
    "mask every 100 + 4 bits + distilled": "<= 1.08",
}


@_harness.one_core()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = _harness.parser("step_overhead", __doc__, rounds=30)
    made.add_argument("--model", choices=("mlp", "conv"), default="mlp")
    made.add_argument("--steps", type=int, default=100, help="in a block (100)")
    settings = _harness.parse(made, argv)
    if settings.steps < 1:
        made.error(f"--steps {settings.steps}: a block has 1 step or more.")
    if settings.quick:
        settings.steps = 3
    task = _models.make(settings.model, quick=settings.quick)
    rows = _harness.measure(
        _variants(task, settings.steps),
        rounds=settings.rounds,
        units=settings.steps,
        control=_block(task, settings.steps),
        aims=_AIMS,
        clock=time.process_time,
    )
    _harness.show(rows, settings)


def _variants(task: _models.Task, steps: int) -> dict[str, _harness.Variant]:
    def pruner(every: int) -> jc.Compressor:
        return jc.magnitude_pruning(0.9, every=every)

    four_bits = jc.weight_quantization(
        bits=4, granularity=jc.PerChannel(axes=jc.Axes(outputs=-1))
    )
    both = jc.chain(pruner(100), four_bits)
    learned_steps = jc.weight_quantization(
        bits=8, scale=jc.quantize.scales.log_step(), granularity=jc.PerTensor()
    )
    return {
        "float": _block(task, steps),
        "float, without train_step": _by_hand(task, steps),
        "mask held": _block(task, steps, pruner(_NEVER)),
        "mask every 100": _block(task, steps, pruner(100)),
        "mask every step": _block(task, steps, pruner(1)),
        "RigL every 100": _block(
            task, steps, jc.rigl(0.9, key=jax.random.key(0), until=_NEVER)
        ),
        "4 bits": _block(task, steps, four_bits),
        "mask every 100 + 4 bits + distilled": _block(
            task, steps, both, distilled=True
        ),
        "8 bits, learned steps": _block(task, steps, learned_steps),
        "bits of the file in the loss": _block(
            task, steps, jc.rate.entropy_constrained(0.3)
        ),
    }


def _loss(task: _models.Task, distilled: bool) -> Callable[..., jax.Array]:
    def loss_fn(params: Any, batch: Any) -> jax.Array:
        logits = task.logits(params, batch["x"])
        loss = optax.losses.softmax_cross_entropy_with_integer_labels(
            logits, batch["y"]
        ).mean()
        if not distilled:
            return loss
        softened = jc.distill.kl(logits, batch["teacher"], temperature=2.0)
        return loss + softened.mean()

    return loss_fn


# So slow that after any number of rounds the network is as it was: no variant gets to
# sparser activations or to subnormal gradients before the others.
_TX = optax.adam(1e-6)


def _block(
    task: _models.Task,
    steps: int,
    compressor: jc.Compressor | None = None,
    *,
    distilled: bool = False,
) -> _harness.Variant:
    init, step = jc.train_step(_loss(task, distilled), _TX, compressor, donate=True)
    return _models.loop(task, steps, init(jax.tree.map(jnp.copy, task.params)), step)


def _by_hand(task: _models.Task, steps: int) -> _harness.Variant:
    loss_fn = _loss(task, distilled=False)

    @jax.jit(donate_argnums=0)
    def step(state: Any, batch: Any) -> Any:
        params, opt_state = state
        loss, grads = jax.value_and_grad(loss_fn)(params, batch)
        updates, opt_state = _TX.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {"loss": loss}

    params = jax.tree.map(jnp.copy, task.params)
    return _models.loop(task, steps, (params, _TX.init(params)), step)


if __name__ == "__main__":
    main()
