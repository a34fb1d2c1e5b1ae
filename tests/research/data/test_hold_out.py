# SPDX-License-Identifier: Apache-2.0
import numpy as np
from hypothesis import given, strategies as st

from research.data._hold_out import hold_out

labels = st.lists(st.integers(0, 3), min_size=1, max_size=60).map(np.array)
every = st.integers(2, 7)
seeds = st.integers(0, 2**32 - 1)


@given(labels, every, seeds)
def test_each_example_is_in_exactly_one_part(labels, every, seed):
    kept, held = hold_out(labels, every=every, seed=seed)
    np.testing.assert_array_equal(
        np.sort(np.concatenate([kept, held])), np.arange(len(labels))
    )
    assert len(held) == -(-len(labels) // every)


@given(labels, every, seeds)
def test_each_class_is_held_out_alike(labels, every, seed):
    _, held = hold_out(labels, every=every, seed=seed)
    for label in set(labels.tolist()):
        exact = (labels == label).sum() / every
        assert abs((labels[held] == label).sum() - exact) < 1


@given(labels, every, seeds)
def test_the_seed_decides(labels, every, seed):
    first, again = (hold_out(labels, every=every, seed=seed) for _ in range(2))
    np.testing.assert_array_equal(first[1], again[1])


def test_another_seed_holds_out_others():
    same = np.zeros(100, int)
    first, other = (hold_out(same, every=4, seed=seed)[1] for seed in (0, 1))
    assert set(first) != set(other)
