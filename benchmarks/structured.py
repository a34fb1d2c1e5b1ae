# SPDX-License-Identifier: Apache-2.0
"""The time of a pruned network: masked, shrunk, and built with half the channels.

The network is a ResNet-20 in Flax Linen. Half of the channels of every group are removed.
A masked network computes everything and is not faster. The shrunk function has to be as
fast as a module that was built with half the widths; whether both compile to the same
operations is counted beside the times.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

import jaxcompress as jc

from . import _harness, _networks


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = _harness.parser("structured", __doc__, rounds=30)
    made.add_argument("--batch", type=int, default=8, help="images of a call")
    made.add_argument("--blocks", type=int, default=3, help="of each of three widths")
    settings = _harness.parse(made, argv)
    if settings.batch < 1 or settings.blocks < 1:
        made.error("--batch and --blocks: 1 or more")
    widths = (4, 8, 16) if settings.quick else (16, 32, 64)
    each = 1 if settings.quick else settings.blocks
    side = 8 if settings.quick else 32
    x = jax.random.normal(jax.random.key(0), (settings.batch, side, side, 3))
    dense = _networks.ResNet(tuple(w for w in widths for _ in range(each)))
    native = _networks.ResNet(tuple(w // 2 for w in widths for _ in range(each)))
    fn, params = _networks.function(dense, x)
    native_fn, native_params = _networks.function(native, x)
    groups = jc.trace_axes(fn, params, x)
    masks = {n: np.arange(g.size) < g.size // 2 for n, g in groups.prunable.items()}
    plan = groups.plan(masks)
    masked = jc.structured.mask_params(params, plan)
    small = jc.structured.slice_params(params, plan)
    variants = {
        "dense": (fn, params),
        "masked": (fn, masked),
        "shrunk": (jc.shrink(fn, plan), small),
        "built at half width": (native_fn, native_params),
    }
    compiled = {
        name: jax.jit(function).lower(p, x).compile()
        for name, (function, p) in variants.items()
    }
    rows = _harness.measure(
        {name: _call(compiled[name], p, x) for name, (_, p) in variants.items()},
        rounds=settings.rounds,
        aims={"masked": "1", "shrunk": "<= 0.55", "built at half width": "as shrunk"},
    )
    _harness.show([_described(row, compiled, variants) for row in rows], settings)


def _described(row: Any, compiled: dict[str, Any], variants: dict[str, Any]) -> Any:
    name = row.name.removesuffix(" (again)")
    built = _operations(compiled["built at half width"])
    return dataclasses.replace(
        row,
        extra={
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(variants[name][1])),
            "operations": sum(_operations(compiled[name]).values()),
            "as built": _operations(compiled[name]) == built,
        },
    )


def _call(compiled: Any, params: Any, x: jax.Array) -> Callable[[], Any]:
    return lambda: compiled(params, x)


def _operations(compiled: Any) -> dict[str, int]:
    """Count the operations of an optimized program, by name."""
    names = re.findall(r"= \S+ ([\w-]+)\(", compiled.as_text())
    return dict(collections.Counter(names))


if __name__ == "__main__":
    main()
