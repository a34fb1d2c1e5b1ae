# SPDX-License-Identifier: Apache-2.0
"""Shuffled batches whose order depends on the seed and the step only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ._dataset import Split


def batches(
    split: Split, *, batch_size: int, seed: int, step: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """Shuffled batches without end, each a pure function of ``(seed, step)``.

    Every epoch is a new permutation of the split; the examples that do not fill its
    last batch sit that epoch out. Starting at ``step`` gives exactly the batches that
    an iterator from 0 gives from its ``step``-th on, so a resumed run sees the same
    data in the same order.

    Args:
      split: the examples.
      batch_size: examples a batch, at most ``len(split)``.
      seed: of the order, 0 to 2**32 - 1.
      step: number of the first batch, 0 or more.

    Returns:
      An infinite iterator of ``{"x": inputs, "y": labels}``.

    Raises:
      ValueError: for a batch larger than the split, or a negative seed or step.

    Example:
      >>> import numpy as np
      >>> split = Split(np.arange(6.0)[:, None], np.arange(6))
      >>> order = batches(split, batch_size=2, seed=0)
      >>> skipped, second = next(order), next(order)
      >>> resumed = next(batches(split, batch_size=2, seed=0, step=1))
      >>> bool((resumed["y"] == second["y"]).all())
      True
    """
    if not 1 <= batch_size <= len(split):
        raise ValueError(
            f"batch_size={batch_size}: the split has {len(split)} examples, and only "
            f"full batches are given, so 1 to {len(split)} fit."
        )
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed}: seeds are 0 to 2**32 - 1.")
    if step < 0:
        raise ValueError(f"step={step}: batches are numbered from 0.")
    return _batches(split, batch_size, seed, step)


def _batches(
    split: Split, batch_size: int, seed: int, step: int
) -> Iterator[dict[str, np.ndarray]]:
    """The iterator itself; apart, so that arguments are checked before the first batch."""
    epoch, first = divmod(step, len(split) // batch_size)
    while True:
        # RandomState, not Generator: numpy promises that its stream never changes
        # (NEP 19), so a recorded seed means the same order in later versions.
        order = np.random.RandomState([seed, epoch]).permutation(len(split))
        for batch in range(first, len(split) // batch_size):
            rows = order[batch * batch_size : (batch + 1) * batch_size]
            yield {"x": split.x[rows], "y": split.y[rows]}
        epoch, first = epoch + 1, 0
