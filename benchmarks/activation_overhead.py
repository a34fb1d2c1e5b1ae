# SPDX-License-Identifier: Apache-2.0
"""What quantized activations cost in a training step, against the float step.

Weights and activations are rounded in floats, and gradients pass through. Where qwix is
installed its quantization-aware training of the same network runs beside ours: 8 bits for
both, dynamic ranges, integer products in the forward pass.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

import jaxcompress as jc

from . import _harness, _networks, _training

_AIMS = {
    "8-bit weights": "<= 1.03",
    "8-bit weights and operands": "<= 1.10",
}


@_harness.one_core()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = _harness.parser("activation_overhead", __doc__, rounds=30)
    made.add_argument("--model", choices=("mlp", "conv"), default="mlp")
    made.add_argument("--steps", type=int, default=10, help="in a block (10)")
    settings = _harness.parse(made, argv)
    if settings.steps < 1:
        made.error(f"--steps {settings.steps}: a block has 1 step or more.")
    if settings.quick:
        settings.steps = 2
    model, x = _networks.model(settings.model, quick=settings.quick)
    fn, variables = _networks.function(model, x)
    rows = _harness.measure(
        _variants(model, fn, variables, x, settings.steps),
        rounds=settings.rounds,
        units=settings.steps,
        control=_training.block(fn, variables, x, settings.steps),
        aims=_AIMS,
        clock=time.process_time,
    )
    _harness.show(rows, settings)


def _variants(
    model: Any, fn: Callable[..., Any], variables: Any, x: jax.Array, steps: int
) -> dict[str, _harness.Variant]:
    weights = jc.weight_quantization(
        bits=8, granularity=jc.PerChannel(axes=jc.Axes(outputs=-1))
    )
    average = jc.program.ActivationQuantizer()
    dynamic = jc.program.ActivationQuantizer(
        jc.formats.Int(8), jc.quantize.scales.dynamic()
    )
    operands = jc.quantize_activations(fn, average)
    on_the_fly = jc.quantize_activations(fn, dynamic)
    everywhere = jc.quantize_activations(fn, jc.program.everywhere(average))

    def block(
        compressor: jc.Compressor | None = None,
        mode: Callable[..., Any] | None = None,
        ranges: Any = None,
    ) -> _harness.Variant:
        return _training.block(fn, variables, x, steps, compressor, mode, ranges)

    def seen(quantized: jc.program.QuantizedFunction) -> Any:
        ranges = quantized.init(variables, x)
        return jax.jit(quantized.calibrate)(variables, ranges, x)[1]

    variants = {
        "float": block(),
        "8-bit weights": block(weights),
        "8-bit weights and operands": block(weights, operands.train, seen(operands)),
        "the same, frozen ranges": block(weights, operands.frozen, seen(operands)),
        "the same, dynamic ranges": block(weights, on_the_fly.train, seen(on_the_fly)),
        "8-bit weights and every boundary": block(
            weights, everywhere.train, seen(everywhere)
        ),
    }
    if importlib.util.find_spec("qwix") is not None:
        variants["qwix, 8-bit weights and operands"] = _training.block(
            _training.by_qwix(model, "int8", "int8"),
            variables,
            x,
            steps,
        )
    return variants


if __name__ == "__main__":
    main()
