# SPDX-License-Identifier: Apache-2.0
"""What it costs to find the groups of channels of a network, by its depth.

The network is a ResNet in Flax Linen, with two convolutions and two batch norms a block.
Tracing it is the baseline. The time of both should grow in proportion to the depth.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

import jaxcompress as jc

from . import _harness, _networks


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = _harness.parser("axes", __doc__, rounds=5)
    made.add_argument(
        "--depth", type=int, nargs="+", default=[10, 20, 50, 100, 200],
        help="numbers of convolutions; two a block",
    )  # fmt: skip
    settings = _harness.parse(made, argv)
    depths = [4, 8] if settings.quick else settings.depth
    if min(depths) < 2:
        made.error("--depth: a network has 2 convolutions or more")
    x = jax.ShapeDtypeStruct((8, 16, 16, 3), "float32")
    variants: dict[str, Callable[[], Any]] = {}
    equations: dict[str, int] = {}
    for depth in depths:
        fn, params = _shapes(depth, x)
        variants[f"make_jaxpr, depth {depth}"] = _fresh(jax.make_jaxpr(fn), params, x)
        name = f"trace_axes, depth {depth}"
        variants[name] = _fresh(_analysis(fn), params, x)
        equations[name] = len(jc.trace_axes(fn, params, x))
    rows = _harness.measure(variants, rounds=settings.rounds)
    _harness.show(
        [
            dataclasses.replace(row, extra={"groups": equations.get(row.name)})
            for row in rows
        ],
        settings,
    )


def _shapes(depth: int, x: Any) -> tuple[Callable[..., Any], Any]:
    model = _networks.ResNet((16,) * (depth // 2))

    def fn(variables: Any, x: jax.Array) -> Any:
        return model.apply(variables, x)

    return fn, jax.eval_shape(model.init, jax.random.key(0), x)


def _analysis(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda params, x: jc.trace_axes(fn, params, x)


def _fresh(run: Callable[..., Any], *args: Any) -> _harness.Variant:
    def once() -> None:
        jax.clear_caches()  # or all but the first round would time a look-up
        run(*args)

    return once


if __name__ == "__main__":
    main()
