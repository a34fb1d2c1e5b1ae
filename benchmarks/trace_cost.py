# SPDX-License-Identifier: Apache-2.0
"""What it costs to look at a program and to change it, against tracing it.

Once per compilation: none of it is paid in a step. The network is a small ResNet (three
blocks with batch norm) or a transformer of three layers in a scan, both in Flax Linen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

import jaxcompress as jc

from . import _harness, _networks

_AIM = "<= 3"


@_harness.one_core()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = _harness.parser("trace_cost", __doc__, rounds=15)
    made.add_argument("--model", choices=("resnet", "transformer"), default="resnet")
    settings = _harness.parse(made, argv)
    model, x = _networks.model(settings.model, quick=settings.quick)
    fn, params = _networks.function(model, x)
    quantized = jc.quantize_activations(fn, jc.program.everywhere())
    observer = jc.program.observing(fn, jc.program.statistics.moments())
    ranges, state = quantized.init(params, x), observer.init(params, x)
    rewritten = jc.rewrite(fn, _unchanged)
    variants = {
        "make_jaxpr": lambda: jax.make_jaxpr(fn)(params, x),
        "sites": lambda: jc.sites(fn, params, x),
        "rewrite, nothing changed": lambda: jax.make_jaxpr(rewritten)(params, {}, x),
        "quantize_activations, every boundary": lambda: jax.make_jaxpr(quantized.train)(
            params, ranges, x
        ),
        "observe": lambda: jax.make_jaxpr(observer.update)(params, state, x),
    }
    rows = _harness.measure(
        {name: _fresh(run) for name, run in variants.items()},
        rounds=settings.rounds,
        aims=dict.fromkeys(list(variants)[1:], _AIM),
        clock=time.process_time,
    )
    _harness.show(rows, settings)


def _unchanged(site: Any, op: Callable[..., Any], operands: Any, state: Any) -> Any:
    del site
    return op(*operands), state


def _fresh(run: Callable[[], Any]) -> _harness.Variant:
    def once() -> None:
        jax.clear_caches()  # or all but the first round would time a look-up
        run()

    return once


if __name__ == "__main__":
    main()
