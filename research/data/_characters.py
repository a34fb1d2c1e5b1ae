# SPDX-License-Identifier: Apache-2.0
"""From a text to examples: some characters, and the one that follows them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ._dataset import Split

CONTEXT = 64
LIMITS = (200_000, 10_000, 10_000)  # examples to train, validate and test with
UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def characters(parts: Sequence[str]) -> tuple[list[Split], tuple[str, ...]]:
    """Encode the parts of a text and take examples from each.

    Examples are windows at evenly spaced positions, at most ``LIMITS`` of them: all
    4.5 million of the collected works would take 1.2 GB, these take 57 MB. No window
    reaches over the border of its part, so nothing held out is ever seen in training.

    Args:
      parts: the text to train, validate and test with.

    Returns:
      The splits: x is int32 (n, ``CONTEXT``), y the character after each. And the
      vocabulary: ``UNKNOWN``, which stands for whatever the training text lacks, then
      the characters of the training text in ascending order.

    Raises:
      ValueError: if a part is too short for one example.
    """
    codes = [np.frombuffer(part.encode("utf-32-le"), np.uint32) for part in parts]
    for part in codes:
        if len(part) <= CONTEXT:
            raise ValueError(
                f"The text is too short: one part of it has {len(part)} characters, "
                f"and an example takes {CONTEXT + 1}."
            )
    vocabulary = np.unique(codes[0])
    splits = [
        _examples(_encode(part, vocabulary), limit)
        for part, limit in zip(codes, LIMITS, strict=True)
    ]
    return splits, (UNKNOWN, *map(chr, vocabulary))


def _encode(codes: np.ndarray, vocabulary: np.ndarray) -> np.ndarray:
    """Position in the vocabulary plus one; 0 for a character that is not in it."""
    nearest = np.searchsorted(vocabulary, codes).clip(max=len(vocabulary) - 1)
    return np.where(vocabulary[nearest] == codes, nearest + 1, 0).astype(np.int32)


def _examples(ids: np.ndarray, limit: int) -> Split:
    windows = np.lib.stride_tricks.sliding_window_view(ids, CONTEXT + 1)
    number = min(limit, len(windows))
    chosen = windows[np.arange(number) * len(windows) // number]
    return Split(np.ascontiguousarray(chosen[:, :-1]), chosen[:, -1].copy())
