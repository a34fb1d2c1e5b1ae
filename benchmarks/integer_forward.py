# SPDX-License-Identifier: Apache-2.0
"""What a training step takes with int8 products in its forward pass, against floats.

Weights and inputs of all layers have 8 bits; gradients are floats, passed straight
through. Simulated, the forward products are of rounded floats. Where qwix and AQT are
installed their training of the same network, with int8 products forward, runs beside ours;
both take their gradients at the operands before rounding.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from typing import Any

import jax

import jaxcompress as jc

from . import _harness, _networks, _training


@_harness.one_core()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = _harness.parser("integer_forward", __doc__, rounds=20)
    made.add_argument("--width", type=int, default=512, help="of the layers (512)")
    made.add_argument("--batch", type=int, default=256, help="examples (256)")
    made.add_argument("--steps", type=int, default=4, help="in a block (4)")
    settings = _harness.parse(made, argv)
    for name in ("width", "batch", "steps"):
        if getattr(settings, name) < 1:
            made.error(f"--{name} {getattr(settings, name)}: 1 or more.")
    if settings.quick:
        settings.width, settings.batch, settings.steps = 16, 8, 2
    widths = (*(settings.width,) * 3, 10)
    x = jax.random.normal(jax.random.key(0), (settings.batch, 784))
    variants = _variants(widths, x, settings.steps)
    rows = _harness.measure(
        variants,
        rounds=settings.rounds,
        units=settings.steps,
        control=variants.pop("control"),
        clock=time.process_time,
    )
    _harness.show(rows, settings)


def _variants(
    widths: tuple[int, ...], x: jax.Array, steps: int
) -> dict[str, _harness.Variant]:
    model = _networks.MLP(widths)
    fn, variables = _networks.function(model, x)
    weights, forward = jc.weight_quantization(bits=8), jc.program.integer_forward
    rows = jc.program.ActivationQuantizer(
        jc.formats.Int(8), jc.quantize.scales.dynamic(-1)
    )
    simulated = jc.quantize_activations(fn, rows)

    def block(fn: Any, *more: Any) -> _harness.Variant:
        return _training.block(fn, variables, x, steps, *more)

    variants = {
        "float": block(fn),
        "control": block(fn),
        "simulated": block(fn, weights, simulated.train, simulated.init(variables, x)),
        "integer forward": block(forward(fn).run),
        "integer forward, gradients at floats": block(
            forward(fn, at_rounded=False).run
        ),
    }
    if importlib.util.find_spec("qwix") is not None:
        variants["qwix"] = block(_training.by_qwix(model, "int8", "int8"))
    if importlib.util.find_spec("aqt") is not None:
        variants["AQT"] = block(_training.by_aqt(model, 8, 8))
    return variants


if __name__ == "__main__":
    main()
