# SPDX-License-Identifier: Apache-2.0
"""Formats with a table of levels: NF4, powers of two, fitted codebooks."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import statistics

import jax
import jax.numpy as jnp
import numpy as np

from ..numerics import ste
from ._format import ToInteger, nearest


@dataclasses.dataclass(frozen=True)
class Levels:
    """Format with an arbitrary table of levels; a code is an index into the table.

    Attributes:
      values: 2 to 256 finite, increasing numbers, in units of the scale. They must contain
        zero, so that pruned weights stay zero.
      rms_level: which scale suits the format, for the default ``scales.suited``. The root
        mean square of the values, in units of the scale; 0 if instead the largest value
        should become the largest level. None decides by the loss of normal values: the
        levels of a posit are dense around 1 and reach far beyond, so it gets about 1.

    Raises:
      ValueError: if the values are anything else.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> jc.formats.Levels((-1, 0, 0.25, 1)).round(jnp.array([-0.6, 0.2, 9.0])).tolist()
      [-1.0, 0.25, 1.0]
    """

    values: tuple[float, ...]
    rms_level: float | None = None

    def __post_init__(self) -> None:
        values = tuple(float(np.float32(v)) for v in self.values)
        if not 2 <= len(values) <= 256:
            raise ValueError(f"values must hold 2 to 256 levels, got {len(values)}.")
        if not all(map(math.isfinite, values)) or any(
            a >= b for a, b in itertools.pairwise(values)
        ):
            raise ValueError(
                f"values must be finite and increasing, got {self.values}."
            )
        if 0.0 not in values:
            raise ValueError(
                f"values must contain 0, so that pruned weights and padding stay zero; "
                f"got {self.values}. Replace the smallest magnitude by 0."
            )
        level = self.rms_level
        if level is None:
            level = _find_rms_level(values)
        elif not 0 <= level < math.inf:
            raise ValueError(
                f"rms_level must be a positive number, 0 or None, got {level}."
            )
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "rms_level", float(level))

    @property
    def bits(self) -> int:
        """Bits per code: the width of an index."""
        return (len(self.values) - 1).bit_length()

    @property
    def symmetric(self) -> bool:
        """True: there is no zero point."""
        return True

    @property
    def scaled(self) -> bool:
        """True: values are divided by a scale."""
        return True

    @property
    def binary(self) -> bool:
        """False: codes are not just signs."""
        return False

    @property
    def low(self) -> float:
        """Smallest level."""
        return self.values[0]

    @property
    def high(self) -> float:
        """Largest level."""
        return self.values[-1]

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the codes: uint8."""
        return np.dtype(np.uint8)

    def round(self, steps: jax.Array, to_integer: ToInteger = nearest) -> jax.Array:
        """Round values to neighboring levels; ties go to the lower level."""
        table = jnp.asarray(self.values, steps.dtype)
        if to_integer is nearest:
            rounded = table[self._nearest(steps)]
        else:
            last = len(table) - 2
            below = jnp.searchsorted(table, steps, side="right", method="compare_all")
            below = jnp.clip(below - 1, 0, last)
            low, high = table[below], table[below + 1]
            share = jnp.clip((steps - low) / (high - low), 0, 1)
            # Keep the share on the side of the middle that the nearest level is on.
            above = steps > self._middles(steps.dtype)[below]
            share = jnp.where(
                above, jnp.maximum(share, 0.5 + 2.0**-23), jnp.minimum(share, 0.5)
            )
            up = to_integer(share)
            rounded = low + (high - low) * up
            # Undo the rounding of the sum, so that the result is exactly a level.
            rounded = ste(rounded, jnp.where(up > 0.5, high, low))
        return jnp.where(jnp.isnan(steps), steps, rounded)

    def inside(self, steps: jax.Array) -> jax.Array:
        """Return where a straight-through gradient passes, with half a step of slack."""
        low = self.low - (self.values[1] - self.low) / 2
        high = self.high + (self.high - self.values[-2]) / 2
        return (steps >= np.float32(low)) & (steps <= np.float32(high))

    def encode(self, levels: jax.Array) -> jax.Array:
        """Encode levels as indices."""
        return self._nearest(levels).astype(jnp.uint8)

    def decode(self, codes: jax.Array, dtype: np.dtype | jnp.dtype) -> jax.Array:
        """Decode indices to levels."""
        return jnp.asarray(self.values, dtype)[codes]

    def _nearest(self, steps: jax.Array) -> jax.Array:
        # "compare_all" is a sum of comparisons, which XLA fuses.
        middles = self._middles(steps.dtype)
        return jnp.searchsorted(middles, steps, method="compare_all")

    def _middles(self, dtype: np.dtype | jnp.dtype) -> jax.Array:
        table = np.asarray(self.values, np.float64)
        return jnp.asarray((table[1:] + table[:-1]) / 2, dtype)


NF4 = Levels(
    (
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
        -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
        0.07958029955625534, 0.16093020141124725, 0.24611230194568634,
        0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
        0.7229568362236023, 1.0,
    ),
    rms_level=0.0,
)  # fmt: skip
"""NormalFloat of 4 bits: quantiles of a normal distribution.

https://arxiv.org/abs/2305.14314, appendix E."""


def powers_of_two(bits: int) -> Levels:
    """Make a format with the levels 0, ±1, ±1/2, ±1/4, ..., whose products are bit shifts.

    Args:
      bits: 2 to 7, including the sign.

    Raises:
      ValueError: for any other width.

    Example:
      >>> import jaxcompress as jc
      >>> jc.formats.powers_of_two(3).values
      (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0)

    References:
      Zhou et al., 2017, https://arxiv.org/abs/1702.03044
    """
    if not 2 <= bits <= 7:
        raise ValueError(f"bits must be 2 to 7 for powers of two, got {bits}.")
    return _mirrored([2.0**-k for k in range(2 ** (bits - 1) - 1)])


def additive_powers_of_two(bits: int) -> Levels:
    """Make a format (APoT) whose levels are sums of a few powers of two.

    A product is a few shifts and additions. Levels are denser near the bound than those of
    ``powers_of_two``, which are too far apart there.

    Args:
      bits: 2 to 7, including the sign.

    Raises:
      ValueError: for any other width.

    Example:
      >>> import jaxcompress as jc
      >>> [round(v, 3) for v in jc.formats.additive_powers_of_two(4).values[7:]]
      [0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0]

    References:
      Li et al., 2020, https://arxiv.org/abs/1909.13144
    """
    if not 2 <= bits <= 7:
        raise ValueError(f"bits must be 2 to 7 for additive powers of two, got {bits}.")
    wide, odd = divmod(bits - 1, 2)
    powers = (2.0**-k for k in itertools.count())
    terms = [[0.0] for _ in range(wide)]
    # Deal the powers out in turn, three to each term. The extra term of an odd width gets
    # one, before the last round.
    for turn in range(3):
        if turn == 2 and odd:
            terms.append([0.0, next(powers)])
        for term in terms[:wide]:
            term.append(next(powers))
    sums = {sum(addends) for addends in itertools.product(*terms)}
    return _mirrored([v / max(sums) for v in sums if v])


def codebook(sample: jax.Array | np.ndarray, size: int) -> Levels:
    """Fit a format to sample weights or activations by k-means.

    The levels stay fixed afterwards. ``weight_sharing`` instead updates the values of each
    leaf during training.

    Args:
      sample: concrete array of any shape and scale; the levels are divided by its largest
        magnitude.
      size: number of levels including zero: 2 to 256.

    Raises:
      ValueError: if ``size`` is out of range, or the sample is empty, all zero, not finite
        or has too few distinct values.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> jc.formats.codebook(jnp.array([-4.0, 0.0, 0.1, 2.0, 2.0]), 3).values
      (-1.0, 0.0, 0.5)

    References:
      Han et al., 2015, https://arxiv.org/abs/1510.00149
    """
    if not 2 <= size <= 256:
        raise ValueError(f"size must be 2 to 256 levels, got {size}.")
    values = np.sort(np.asarray(sample, np.float64).ravel())
    if not len(values) or not np.isfinite(values).all() or not values.any():
        raise ValueError(
            "sample must hold finite numbers that are not all zero, and not be empty."
        )
    values = values / np.abs(values).max()
    levels = np.quantile(values, (np.arange(size) + 0.5) / size)
    for _ in range(100):
        levels[np.argmin(np.abs(levels))] = 0.0
        parts = np.split(
            values, np.searchsorted(values, (levels[1:] + levels[:-1]) / 2)
        )
        moved = np.array(
            [p.mean() if len(p) else v for p, v in zip(parts, levels, strict=True)]
        )
        moved[np.argmin(np.abs(moved))] = 0.0
        moved.sort()
        if np.array_equal(moved, levels):
            break
        levels = moved
    levels = np.unique(np.float32(levels))
    if len(levels) < size:
        raise ValueError(
            f"sample must yield {size} distinct levels, got {len(levels)}. Use a smaller "
            "size or a larger sample."
        )
    return Levels(tuple(map(float, levels)), rms_level=0.0)  # fitted to its largest


# A scale from the largest value may lose this many times the least squared error.
_LOSS = 4.0


@functools.cache
def _find_rms_level(values: tuple[float, ...]) -> float:
    """Find the RMS, in units of the scale, at which normal values lose least.

    Returns:
      That RMS; 0 if a scale from the largest value loses about as little.
    """
    shares = (np.arange(1, 2048) / 2048).tolist()
    normal = np.array([statistics.NormalDist().inv_cdf(share) for share in shares])
    table = np.asarray(values, np.float64)
    middles = (table[1:] + table[:-1]) / 2

    def loss(rms: float) -> float:
        steps = normal * rms
        error = table[np.searchsorted(middles, steps)] - steps
        return float(np.mean(error**2)) / rms**2

    largest = np.abs(table).max()
    # From where nothing is clipped to where the normal values span a few levels.
    start = largest / normal.max()
    least = np.abs(table[table != 0]).min()
    candidates = np.geomspace(start, min(start, least), 96)
    losses = [loss(rms) for rms in candidates]
    best = int(np.argmin(losses))
    return float(candidates[best]) if losses[0] > _LOSS * losses[best] else 0.0


def _mirrored(magnitudes: list[float]) -> Levels:
    ordered = sorted(magnitudes)
    values = (*(-v for v in reversed(ordered)), 0.0, *ordered)
    return Levels(values, rms_level=0.0)
