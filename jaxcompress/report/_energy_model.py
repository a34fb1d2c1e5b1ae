# SPDX-License-Identifier: Apache-2.0
"""Energy by an operation model: what a published table says for the counted operations."""

from __future__ import annotations

import dataclasses
import math

from ..program import Count, SiteCount
from ._text import joules_text

PICOJOULES = {
    "int8 add": 0.03,
    "int32 add": 0.1,
    "int8 multiply": 0.2,
    "int32 multiply": 3.1,
    "float16 add": 0.4,
    "float32 add": 0.9,
    "float16 multiply": 1.1,
    "float32 multiply": 3.7,
    "64 bits, 8 KiB cache": 10.0,
    "64 bits, 32 KiB cache": 20.0,
    "64 bits, 1 MiB cache": 100.0,
    "64 bits, DRAM": 1300.0,
}
"""Energy of operations in a 45 nm process at 0.9 V: Horowitz, 2014, figure 1.1.9. Of DRAM
he gives 1.3 to 2.6 nJ; this is the lower end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnergyParts:
    """Energy of one call by the model, in joules.

    Attributes:
      compute: multiplications and additions of products.
      on_chip: reading weights and activations, and writing results, in a cache of 1 MiB.
      dram: reading all parameters once.
    """

    compute: float
    on_chip: float
    dram: float

    @property
    def joules(self) -> float:
        """The sum."""
        return self.compute + self.on_chip + self.dram

    def __str__(self) -> str:
        return (
            f"{joules_text(self.joules)} (compute {joules_text(self.compute)}, on chip "
            f"{joules_text(self.on_chip)}, DRAM {joules_text(self.dram)})"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnergyModel:
    """Energy of one call by an operation model, under two assumptions.

    An estimate for a process of 2014: compare its values with each other only, never with
    measured ones.

    Attributes:
      no_gain: on hardware that gains nothing from zeros and few bits: everything is
        float32.
      full_gain: on hardware that gains from every zero and every saved bit.
    """

    no_gain: EnergyParts
    full_gain: EnergyParts

    def __str__(self) -> str:
        return f"no gain: {self.no_gain}\nfull gain: {self.full_gain}"


def energy_model(counted: Count) -> EnergyModel:
    """Estimate the energy of one call from what ``jc.count`` counted.

    A multiply-accumulate takes a multiplication and an addition. With up to 8 bits in both
    operands it is one of integers: the multiplication takes ``0.2 * a * w / 64`` pJ (the
    table's values for 8 and 32 bits agree on that proportion within 4 %), the addition is
    one of 32 bits. Wider operands are floats, of 16 bits or of 32. Every parameter is read
    from DRAM once and from the cache once; activations stay on the chip, and are read and
    written once for each product. What is not a product is not counted.

    Args:
      counted: of the compressed model, with the policy of its activations.

    References:
      Horowitz, 2014, Computing's energy problem (and what we can do about it), ISSCC,
      https://doi.org/10.1109/ISSCC.2014.6757323

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"w": jnp.ones((64, 64))}
      >>> counted = jc.count(lambda p, x: x @ p["w"], params, jnp.ones((1, 64)))
      >>> print(energy_model(counted).no_gain)
      2.89 µJ (compute 18.8 nJ, on chip 211 nJ, DRAM 2.66 µJ)
    """
    sites = counted.sites
    weights = sum(site.weights for site in sites) + counted.other_weights
    return EnergyModel(
        no_gain=_parts(
            math.fsum(site.macs * _multiply_accumulate(32, 32) for site in sites),
            4 * weights,
            4 * sum(site.activations for site in sites),
        ),
        full_gain=_parts(
            math.fsum(_full_gain(site) for site in sites),
            counted.weight_bytes,
            counted.activation_bytes,
        ),
    )


def _full_gain(site: SiteCount) -> float:
    return site.effective_macs * _multiply_accumulate(*site.bits)


def _parts(compute: float, weight_bytes: float, activation_bytes: float) -> EnergyParts:
    cache = PICOJOULES["64 bits, 1 MiB cache"] / 8
    return EnergyParts(
        compute=1e-12 * compute,
        on_chip=1e-12 * cache * (weight_bytes + activation_bytes),
        dram=1e-12 * PICOJOULES["64 bits, DRAM"] / 8 * weight_bytes,
    )


def _multiply_accumulate(weight_bits: float, input_bits: float) -> float:
    """Return the picojoules of one multiplication and one addition."""
    widest = max(weight_bits, input_bits)
    if widest <= 8:
        product = PICOJOULES["int8 multiply"] * weight_bits * input_bits / 64
        return product + PICOJOULES["int32 add"]
    kind = "float16" if widest <= 16 else "float32"
    return PICOJOULES[f"{kind} multiply"] + PICOJOULES[f"{kind} add"]
