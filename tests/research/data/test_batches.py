# SPDX-License-Identifier: Apache-2.0
import itertools

import numpy as np
import pytest
from hypothesis import given, strategies as st

from research.data import Split, batches


def labeled(n):
    return Split(np.arange(n, dtype=np.float32)[:, None] * 2, np.arange(n))


def take(iterator, n):
    return [batch["y"].tolist() for batch in itertools.islice(iterator, n)]


sizes = st.integers(1, 20).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


@given(sizes, st.integers(0, 2**32 - 1), st.integers(0, 50))
def test_resuming_gives_the_same_batches(size, seed, step):
    n, batch_size = size
    split = labeled(n)
    whole = take(batches(split, batch_size=batch_size, seed=seed), step + 30)
    resumed = take(batches(split, batch_size=batch_size, seed=seed, step=step), 30)
    assert resumed == whole[step:]


@given(sizes, st.integers(0, 2**32 - 1))
def test_an_epoch_has_no_example_twice_and_drops_the_rest(size, seed):
    n, batch_size = size
    for epoch in range(3):
        start = epoch * (n // batch_size)
        stream = batches(labeled(n), batch_size=batch_size, seed=seed, step=start)
        rows = sum(take(stream, n // batch_size), [])
        assert len(rows) == len(set(rows)) == n - n % batch_size
        assert set(rows) <= set(range(n))


def test_inputs_stay_with_their_labels():
    for batch in itertools.islice(batches(labeled(10), batch_size=3, seed=0), 9):
        assert batch["x"].shape == (3, 1)
        np.testing.assert_array_equal(batch["x"][:, 0], batch["y"] * 2)


def test_epochs_and_seeds_differ():
    split = labeled(100)
    first, second = take(batches(split, batch_size=100, seed=0), 2)
    (other,) = take(batches(split, batch_size=100, seed=1), 1)
    assert first != second
    assert first != other


def test_the_global_random_state_is_neither_used_nor_changed():
    np.random.seed(0)
    before = np.random.get_state()[1].tolist()  # pyright: ignore
    first = take(batches(labeled(9), batch_size=4, seed=3), 5)
    assert np.random.get_state()[1].tolist() == before  # pyright: ignore
    np.random.seed(1)
    assert take(batches(labeled(9), batch_size=4, seed=3), 5) == first


def test_batches_are_copies():
    split = labeled(4)
    batch = next(batches(split, batch_size=4, seed=0))
    batch["x"][:] = -1
    assert split.x.min() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 11, "seed": 0}, "the split has 10 examples"),
        ({"batch_size": 0, "seed": 0}, "1 to 10 fit"),
        ({"batch_size": 2, "seed": -1}, "seed=-1"),
        ({"batch_size": 2, "seed": 2**32}, r"0 to 2\*\*32 - 1"),
        ({"batch_size": 2, "seed": 0, "step": -1}, "numbered from 0"),
    ],
)
def test_bad_arguments_fail_before_the_first_batch(arguments, message):
    with pytest.raises(ValueError, match=message):
        batches(labeled(10), **arguments)


def test_the_order_is_the_same_for_ever():
    # Recorded once: results of studies name a seed, and must mean the same data later.
    first = take(batches(labeled(10), batch_size=5, seed=7), 4)
    assert first == [[0, 1, 5, 7, 6], [9, 4, 3, 2, 8], [9, 8, 5, 6, 2], [3, 7, 0, 1, 4]]
