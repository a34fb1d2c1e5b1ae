# SPDX-License-Identifier: Apache-2.0
"""The positions of rare elements, coded as the gaps between them.

If a share p of the elements is set, a gap g has the probability p (1 - p)^g. The longest
token says that so many elements are not set, and nothing of the next. The probabilities
follow from p alone, and a token for each element that is set takes as many bits as a bit
for each element would, but many times less time where p is small.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from . import _ans
from ._payload import CorruptPayload

# Three mean gaps: one element in twenty needs more than one token.
_MEAN_GAPS, _LONGEST = 3, 1024


def weights(ones: int, size: int) -> np.ndarray:
    """Return how likely each token is; the last is the one for a longer gap."""
    if not ones:
        return np.ones(1)
    longest = min(max(1, _MEAN_GAPS * (size - ones) // ones), _LONGEST)
    powers = np.cumprod([1.0] + [1 - ones / size] * longest)
    powers[:-1] *= ones / size
    return powers


def tokens(parts: Iterator[np.ndarray], ones: int, size: int) -> np.ndarray:
    """Return the tokens of a mask.

    Args:
      parts: the mask, part by part.
      ones: how many of its elements are set.
      size: how many elements it has.
    """
    longest = weights(ones, size).size - 1
    found: list[np.ndarray] = []
    begin, last = 0, -1
    for part in parts:
        at = np.flatnonzero(part) + begin
        begin += part.size
        if at.size:
            gaps = np.diff(at, prepend=last) - 1
            last = int(at[-1])
            more = gaps // longest
            run = np.full(int(more.sum()) + gaps.size, longest, np.uint16)
            run[np.cumsum(more + 1) - 1] = gaps - more * longest
            found.append(run)
    return np.concatenate(found) if found else np.zeros(0, np.uint16)


def positions(decoder: _ans.Decoder, ones: int, size: int) -> Iterator[np.ndarray]:
    """Yield the positions that ``tokens`` was made from, part by part."""
    model = weights(ones, size)
    longest, at, left = model.size - 1, 0, ones
    while left:
        # No token is for more than one element, so that so many are there for sure.
        _, count = next(_ans.parts(left))
        part = decoder.draw(model, count)
        ends = np.cumsum(np.where(part < longest, part + 1, longest), dtype=np.int64)
        ends += at
        at = int(ends[-1])
        if at > size:
            raise CorruptPayload(f"{ones} of {size} elements cannot be set")
        yield (found := ends[part < longest] - 1)
        left -= found.size
