# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from research.data import Split, load


def test_a_split_cannot_be_edited():
    split = load("digits").train
    with pytest.raises(ValueError, match="read-only"):
        split.x[0] = 1


def test_every_example_needs_a_label():
    with pytest.raises(ValueError, match="x has 3 examples and y 2"):
        Split(np.zeros((3, 1)), np.zeros(2))
