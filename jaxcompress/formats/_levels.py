# SPDX-License-Identifier: Apache-2.0
"""Levels from a table: normal floats, powers of two, codebooks."""

from __future__ import annotations

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from ..numerics import ste
from ._format import ToInteger, nearest


@dataclasses.dataclass(frozen=True)
class Levels:
    """Any short list of levels; a code is an index into it.

    Attributes:
      values: 2 to 256 finite, increasing numbers, in units of the scale; zero is among
        them, so that pruned weights stay zero.

    Raises:
      ValueError: for another list.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> jc.formats.Levels((-1, 0, 0.25, 1)).round(jnp.array([-0.6, 0.2, 9.0])).tolist()
      [-1.0, 0.25, 1.0]
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        values = tuple(float(np.float32(v)) for v in self.values)
        if not 2 <= len(values) <= 256:
            raise ValueError(f"a format of {len(values)} levels: 2 to 256 have a code.")
        if not all(map(math.isfinite, values)) or any(
            a >= b for a, b in itertools.pairwise(values)
        ):
            raise ValueError(f"levels increase and are finite, unlike {self.values}.")
        if 0.0 not in values:
            raise ValueError(
                f"zero is not among the levels {self.values}: pruned weights and padding "
                "would not stay zero. Replace the smallest by 0."
            )
        object.__setattr__(self, "values", values)

    @property
    def bits(self) -> int:
        """Bits that hold an index."""
        return (len(self.values) - 1).bit_length()

    @property
    def symmetric(self) -> bool:
        """There is no zero point."""
        return True

    @property
    def scaled(self) -> bool:
        """Values are divided by a scale."""
        return True

    @property
    def binary(self) -> bool:
        """A code is no sign."""
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
        """uint8."""
        return np.dtype(np.uint8)

    def round(self, steps: jax.Array, to_integer: ToInteger = nearest) -> jax.Array:
        """The level beside; ties to the one below."""
        table = jnp.asarray(self.values, steps.dtype)
        if to_integer is nearest:
            rounded = table[self._nearest(steps)]
        else:
            last = len(table) - 2
            below = jnp.searchsorted(table, steps, side="right", method="compare_all")
            below = jnp.clip(below - 1, 0, last)
            low, high = table[below], table[below + 1]
            share = jnp.clip((steps - low) / (high - low), 0, 1)
            # On its side of the middle, as the nearest sees it, whatever it was rounded to.
            above = steps > self._middles(steps.dtype)[below]
            share = jnp.where(
                above, jnp.maximum(share, 0.5 + 2.0**-23), jnp.minimum(share, 0.5)
            )
            up = to_integer(share)
            rounded = low + (high - low) * up
            # Exactly a level, whatever the sum was rounded to.
            rounded = ste(rounded, jnp.where(up > 0.5, high, low))
        return jnp.where(jnp.isnan(steps), steps, rounded)

    def inside(self, steps: jax.Array) -> jax.Array:
        """Where a straight-through gradient passes, with half a step of slack."""
        low = self.low - (self.values[1] - self.low) / 2
        high = self.high + (self.high - self.values[-2]) / 2
        return (steps >= np.float32(low)) & (steps <= np.float32(high))

    def encode(self, levels: jax.Array) -> jax.Array:
        """Indices of levels."""
        return self._nearest(levels).astype(jnp.uint8)

    def decode(self, codes: jax.Array, dtype: np.dtype | jnp.dtype) -> jax.Array:
        """Levels of indices."""
        return jnp.asarray(self.values, dtype)[codes]

    def _nearest(self, steps: jax.Array) -> jax.Array:
        # A sum of comparisons, which fuses.
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
    )
)  # fmt: skip
"""Quantiles of a normal distribution: https://arxiv.org/abs/2305.14314, appendix E."""


def powers_of_two(bits: int) -> Levels:
    """Zero and plus or minus 1, 1/2, 1/4, ...: a product is a shift.

    Args:
      bits: 2 to 7.

    Example:
      >>> import jaxcompress as jc
      >>> jc.formats.powers_of_two(3).values
      (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0)

    References:
      Zhou et al., 2017, https://arxiv.org/abs/1702.03044
    """
    if not 2 <= bits <= 7:
        raise ValueError(f"bits={bits}: powers of two have 2 to 7.")
    return _mirrored([2.0**-k for k in range(2 ** (bits - 1) - 1)])


def additive_powers_of_two(bits: int) -> Levels:
    """Sums of a few powers of two: a product is some shifts and sums.

    Denser near the bound than ``powers_of_two``, where its levels are too far apart.

    Args:
      bits: 2 to 7, the sign included.

    Example:
      >>> import jaxcompress as jc
      >>> [round(v, 3) for v in jc.formats.additive_powers_of_two(4).values[7:]]
      [0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0]

    References:
      Li et al., 2020, https://arxiv.org/abs/1909.13144
    """
    if not 2 <= bits <= 7:
        raise ValueError(f"bits={bits}: additive powers of two have 2 to 7.")
    wide, odd = divmod(bits - 1, 2)
    powers = (2.0**-k for k in itertools.count())
    terms = [[0.0] for _ in range(wide)]
    # Dealt out in turn, three to each; the extra term of an odd width gets one, before
    # the last round.
    for turn in range(3):
        if turn == 2 and odd:
            terms.append([0.0, next(powers)])
        for term in terms[:wide]:
            term.append(next(powers))
    sums = {sum(chosen) for chosen in itertools.product(*terms)}
    return _mirrored([v / max(sums) for v in sums if v])


def codebook(sample: jax.Array | np.ndarray, size: int) -> Levels:
    """Levels fitted to numbers by k-means, for weights or activations like these.

    The levels are fixed then; ``weight_sharing`` moves those of each leaf in training.

    Args:
      sample: concrete numbers of any shape, on their own scale; the levels are divided
        by the largest magnitude.
      size: how many levels, zero included: 2 to 256.

    Raises:
      ValueError: if the sample has fewer different values.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> jc.formats.codebook(jnp.array([-4.0, 0.0, 0.1, 2.0, 2.0]), 3).values
      (-1.0, 0.0, 0.5)

    References:
      Han et al., 2015, https://arxiv.org/abs/1510.00149
    """
    if not 2 <= size <= 256:
        raise ValueError(f"size={size}: 2 to 256 levels have a code.")
    values = np.sort(np.asarray(sample, np.float64).ravel())
    if not len(values) or not np.isfinite(values).all() or not values.any():
        raise ValueError(
            "the sample is empty, all zero, or has NaN or infinite numbers."
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
            f"the sample gives {len(levels)} different levels, not {size}: take fewer, or "
            "a larger sample."
        )
    return Levels(tuple(map(float, levels)))


def _mirrored(magnitudes: list[float]) -> Levels:
    ordered = sorted(magnitudes)
    return Levels((*(-v for v in reversed(ordered)), 0.0, *ordered))
