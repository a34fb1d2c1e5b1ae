# SPDX-License-Identifier: Apache-2.0
"""What a weight costs at a width: bytes, bit operations, or measured time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .._select import matches
from ..program import Site

__all__ = ["Cost", "bit_operations", "bytes_", "measured"]

Cost = Callable[[str, Any, jax.Array], jax.Array]
"""``(path, leaf, bits) -> cost``: float32 [], for a real number of bits; differentiable."""


def bytes_() -> Cost:
    """Count the bytes of the codes, without entropy coding: what memory has to hold.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> cost = jc.rate.costs.bytes_()
      >>> float(cost("kernel", jnp.zeros((100, 10)), jnp.float32(4)))
      500.0
    """
    return lambda path, leaf, bits: leaf.size * bits / 8


def bit_operations(sites: Iterable[Site], *, activation_bits: int = 8) -> Cost:
    """Count multiply-accumulates times the bits of both operands.

    Args:
      sites: of ``jc.sites(fn, params, *args)``, with the parameters that are compressed.
      activation_bits: width of the other operand.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params, x = {"kernel": jnp.ones((16, 4))}, jnp.ones((1, 16))
      >>> sites = jc.sites(lambda params, x: x @ params["kernel"], params, x)
      >>> cost = jc.rate.costs.bit_operations(sites)
      >>> float(cost("kernel", params["kernel"], jnp.float32(4))) == 16 * 4 * 4 * 8
      True

    References:
      van Baalen et al., 2020, https://arxiv.org/abs/2005.07093
    """
    macs: dict[str, float] = {}
    for site in sites:
        runs = math.prod(site.layers) * (site.trips or 1)
        for path, share in site.parts:
            macs[path] = macs.get(path, 0.0) + share * runs * site.macs
    if not macs:
        raise ValueError("no product of these sites multiplies by a parameter.")

    def cost(path: str, leaf: Any, bits: jax.Array) -> jax.Array:
        del leaf
        if path not in macs:
            raise ValueError(
                f"{path!r} was not counted: no product of the function uses it. Leave it "
                f"out with where=. Products use: {', '.join(macs)}."
            )
        return macs[path] * activation_bits * bits

    return cost


def measured(table: Mapping[str, Mapping[int, float]]) -> Cost:
    """Use measured costs, such as milliseconds on the device, for some widths.

    Between two widths the cost is interpolated, so that it has a slope. Beyond them it is
    that of the nearest, so measure every width that may be chosen.

    Args:
      table: ``{glob: {bits: cost}}``; the first glob that matches a path counts.

    Raises:
      ValueError: if a glob has fewer than two widths, or a cost is negative.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> cost = jc.rate.costs.measured({"*": {4: 1.0, 8: 3.0}})
      >>> float(cost("kernel", None, jnp.float32(6)))
      2.0
    """
    if not table:
        raise ValueError("measured needs {glob: {bits: cost}}, got an empty table.")
    for pattern, costs in table.items():
        if not all(math.isfinite(c) and c >= 0 for c in costs.values()):
            raise ValueError(
                f"{pattern!r} needs finite costs of at least 0, got {dict(costs)}."
            )
        if len(costs) < 2:
            raise ValueError(
                f"{pattern!r} needs costs of two or more widths, got {dict(costs)}."
            )

    def cost(path: str, leaf: Any, bits: jax.Array) -> jax.Array:
        del leaf
        for pattern, costs in table.items():
            if matches(pattern, path):
                widths = sorted(costs)
                values = [float(costs[width]) for width in widths]
                return jnp.interp(
                    bits, jnp.asarray(widths, "f"), jnp.asarray(values, "f")
                )
        raise ValueError(
            f"{path!r} matches none of the measured patterns: {', '.join(table)}."
        )

    return cost
