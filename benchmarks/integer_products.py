# SPDX-License-Identifier: Apache-2.0
"""Is a product by a packed weight faster on integers than on floats, on this device?

A square matrix of 8-bit codes, times rows of floats that are rounded on the way in: int8
times int8 into int32, scaled. The baseline is the product of float32 matrices.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

import jaxcompress as jc

from . import _harness


@_harness.one_core()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = _harness.parser("integer_products", __doc__, rounds=20)
    made.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32, 256])
    made.add_argument("--width", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    settings = _harness.parse(made, argv)
    for name in ("rows", "width"):
        if min(getattr(settings, name)) < 1:
            made.error(f"--{name}: sizes are 1 or more.")
    if settings.quick:
        settings.rows, settings.width = [2], [16]
    rows = []
    for width in settings.width:
        for count in settings.rows:
            made_rows = _measure(count, width, settings.rounds)
            rows += made_rows if not rows else made_rows[1:]
    _harness.show(rows, settings)


def _measure(count: int, width: int, rounds: int) -> list[_harness.Row]:
    key = jax.random.key(0)
    params = {"kernel": jax.random.normal(key, (width, width))}
    x = jax.random.normal(key, (count, width))
    packed = jc.compress(jc.weight_quantization(bits=8), params)

    def fn(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return x @ params["kernel"]

    run = jax.jit(jc.execute(fn, pays=lambda site: True).run)
    floats, size = jax.jit(fn), f"{count} x {width} x {width}"
    variants = {
        f"float32, {size}": lambda: floats(params, x),
        f"int8, {size}": lambda: run(packed, x),
    }
    if count < 8:
        variants[f"int8 without padding, {size}"] = lambda: _plain(packed["kernel"], x)
    return _harness.measure(variants, rounds=rounds, clock=time.process_time)


@jax.jit
def _plain(kernel: jc.QArray, x: jax.Array) -> jax.Array:
    """The product as it would be written by hand."""
    rows = jc.quantize.to_qarray(x, jc.formats.Int(8), scale_shape=(len(x), 1))
    total = lax.dot(rows.codes, kernel.codes, preferred_element_type=jnp.int32)
    return total * rows.scale * kernel.scale


if __name__ == "__main__":
    main()
