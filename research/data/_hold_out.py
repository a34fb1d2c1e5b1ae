# SPDX-License-Identifier: Apache-2.0
"""A seeded, stratified split of examples in two."""

from __future__ import annotations

import numpy as np


def hold_out(
    labels: np.ndarray, *, every: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Set aside one example in ``every``, from each class alike.

    The examples are shuffled, lined up by class and every ``every``-th is taken, so the
    share of each class held out is off by less than one example.

    Args:
      labels: (n,) class of each example.
      every: 2 or more; ``ceil(n / every)`` examples are held out.
      seed: of the shuffle.

    Returns:
      Indices of the examples kept and of those held out, both ascending.
    """
    # RandomState: its stream is frozen (NEP 19), so the split is the same for ever.
    shuffled = np.random.RandomState(seed).permutation(len(labels))
    lined_up = shuffled[np.argsort(labels[shuffled], kind="stable")]
    held = np.sort(lined_up[::every])
    return np.setdiff1d(lined_up, held), held
