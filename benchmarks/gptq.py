# SPDX-License-Identifier: Apache-2.0
"""How long GPTQ takes for one layer, against rounding it to the nearest level.

Four bits, from a Gram matrix that is there already. That the layer's outputs change less
than by rounding to nearest is checked first. Where qwix is installed its GPTQ runs beside
ours, on the same weights: a loop in Python over features, dispatched one by one, so
``--qwix`` sets a size of its own, at which ours is timed once more.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxcompress.formats import Int
from jaxcompress.quantize import fake_quant
from jaxcompress.quantize.post_training import gptq

from . import _harness

_FORMAT = Int(4)


@_harness.one_core()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = _harness.parser("gptq", __doc__, rounds=5)
    made.add_argument(
        "--size", type=int, default=1024, help="features and outputs (1024)"
    )
    made.add_argument(
        "--qwix", type=int, default=256, help="features and outputs beside qwix (256)"
    )
    made.add_argument("--group", type=int, default=128, help="weights in a group (128)")
    settings = _harness.parse(made, argv)
    if settings.quick:
        settings.size, settings.qwix, settings.group = 16, 8, 4
    for size in (settings.size, settings.qwix):
        if settings.group < 1 or size < 1 or size % settings.group:
            made.error(
                f"--group {settings.group}: does not divide {size} features evenly."
            )
    rows = _measure(settings.size, settings.group, settings.rounds)
    if importlib.util.find_spec("qwix") is not None:
        rows += _beside_qwix(settings.qwix, settings.group, settings.rounds)
    _harness.show(rows, settings)


def _layer(size: int) -> tuple[jax.Array, jax.Array]:
    """Weights and the Gram matrix of correlated inputs behind a ReLU."""
    kx, km, kw = jax.random.split(jax.random.key(0), 3)
    mixing = jnp.eye(size) + 0.5 * jax.random.normal(km, (size, size)) / size**0.5
    x = jax.nn.relu(jax.random.normal(kx, (2 * size, size)) @ mixing)
    return jax.random.normal(kw, (size, size)), x.T @ x


def _ours(size: int, group: int) -> dict[str, _harness.Variant]:
    w, h = _layer(size)
    groups = size // group
    nearest = jax.jit(functools.partial(fake_quant, fmt=_FORMAT, scale_shape=(1, size)))
    variants: dict[str, _harness.Variant] = {
        "round to nearest": lambda: nearest(w),
        "per channel": lambda: gptq(w, h, _FORMAT)[0],
        "per channel, by activation": lambda: gptq(w, h, _FORMAT, act_order=True)[0],
        f"groups of {group}": lambda: gptq(w, h, _FORMAT, scale_shape=(groups, size))[
            0
        ],
    }
    errors = {
        k: float(jnp.sum((f() - w) * (h @ (f() - w)))) for k, f in variants.items()
    }
    for name, error in errors.items():
        if not error <= errors["round to nearest"]:
            raise SystemExit(f"{name}: the outputs change more than by rounding.")
    return variants


def _measure(size: int, group: int, rounds: int) -> list[_harness.Row]:
    rows = _harness.measure(_ours(size, group), rounds=rounds, clock=time.process_time)
    return [dataclasses.replace(row, name=f"{size}: {row.name}") for row in rows]


def _beside_qwix(size: int, group: int, rounds: int) -> list[_harness.Row]:
    from qwix.contrib import gptq_core

    w, h = _layer(size)

    def qwix(tiles: dict[int, int]) -> _harness.Variant:
        # One scale a row of the transposed weights, and a tile of the other axis.
        how = gptq_core.qarray.HowToQuantize(
            qtype=jnp.int4, channelwise_axes=[0], tiled_axes=tiles
        )

        def run() -> jax.Array:
            with jax.numpy_rank_promotion("allow"):
                return gptq_core.quantize_weight(w.T, h, how)[0].qvalue

        return run

    ours = _ours(size, group)
    variants = {
        "per channel": ours["per channel"],
        f"groups of {group}": ours[f"groups of {group}"],
        "qwix, per channel": qwix({}),
        f"qwix, groups of {group}": qwix({1: group}),
    }
    rows = _harness.measure(variants, rounds=rounds, clock=time.process_time)
    return [dataclasses.replace(row, name=f"{size}: {row.name}") for row in rows]


if __name__ == "__main__":
    main()
