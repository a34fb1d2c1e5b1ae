# SPDX-License-Identifier: Apache-2.0
"""What ``load`` returns: three splits of arrays, and whom to credit for them."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Examples and their labels; both arrays are read-only.

    Attributes:
      x: (n, ...) inputs: float32 images in [0, 1], or int32 characters.
      y: (n,) int32 labels, indices into ``Dataset.classes``.
    """

    x: np.ndarray
    y: np.ndarray

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(
                f"x has {len(self.x)} examples and y {len(self.y)}: "
                "every example needs one label."
            )
        # Splits are shared by every study in the process; a stray in-place edit of one
        # would change the data of all others.
        self.x.setflags(write=False)
        self.y.setflags(write=False)

    def __len__(self) -> int:
        return len(self.y)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """A data set in memory.

    Attributes:
      name: as given to ``load``.
      train: to learn from.
      validation: carved out of the published training set; choose settings with it.
      test: to report on, once.
      classes: the name of each label; for text, the characters, of which the first
        stands for all that the training part lacks.
      source: where these examples were read from.
      license: of the data.
      citation: whom to credit.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    source: str
    license: str
    citation: str

    @property
    def num_classes(self) -> int:
        """Number of labels."""
        return len(self.classes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example, without the batch axis."""
        return self.train.x.shape[1:]
