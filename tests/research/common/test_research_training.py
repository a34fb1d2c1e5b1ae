# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from research import common
from research.data import Split, load


def trainer(examples=10, batch_size=4):
    split = Split(np.zeros((examples, 2), np.float32), np.arange(examples) % 3)
    return common.Trainer(split, batch_size=batch_size, quick=True)


def test_an_epoch_has_as_many_steps_as_whole_batches():
    assert trainer().per_epoch == 2
    order = trainer().order(seed=3, steps=4)
    assert order.shape == (4, 4) and order.dtype == np.int32
    assert len(set(order[:2].ravel().tolist())) == 8
    np.testing.assert_array_equal(order, trainer().order(seed=3, steps=4))
    assert (order != trainer().order(seed=4, steps=4)).any()


def test_less_data_than_a_batch_is_refused():
    with pytest.raises(
        common.RunError, match="no batch of 4 in the 3 training examples"
    ):
        trainer(examples=3)


def test_a_value_is_made_once_a_key():
    once, made = common.Once(), []
    for key in ("a", "b", "a"):
        once(key, lambda key=key: made.append(key))
    assert made == ["a", "b"]


def test_chunks_are_joined():
    x = np.arange(10)
    sizes = []

    def double(part, more):
        sizes.append(len(part))
        return {"y": 2 * part + more}

    joined = common.in_chunks(double, 4, x, x)
    np.testing.assert_array_equal(joined["y"], 3 * x)
    assert sizes == [4, 4, 2]


def test_right_answers_are_counted():
    logits = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    split = Split(np.zeros(4), np.array([0, 1, 1, 1], np.int32))
    assert common.right(logits, split) == 0.5


@pytest.mark.parametrize("nbytes", [100_000, 20_000, 4_000, 600])
def test_a_control_is_the_widest_that_is_no_larger(nbytes):
    data, widths = load("digits"), (300, 100)
    narrow = tuple(common.no_larger(nbytes, data, widths).widths)

    def size(first, second):
        return 4 * (65 * first + (first + 1) * second + (second + 1) * 10)

    each = list(common.narrowed(widths))
    assert size(*narrow) <= nbytes and narrow in each
    wider = each[: each.index(narrow)]
    assert all(size(*other) > nbytes for other in wider)
    assert [w for w in each if size(*w) > size(*widths)] == []


@pytest.mark.parametrize("nbytes", [100_000, 20_000, 4_000, 600])
def test_networks_of_any_kind_are_found_by_their_bytes(nbytes):
    data, widths = load("digits"), (300, 100)
    models = (common.Perceptron(10, w) for w in common.narrowed(widths))
    model = common.no_more_bytes(models, nbytes, data.train.x[:1])
    assert model == common.no_larger(nbytes, data, widths)


@pytest.mark.parametrize("asked", [0.5, 0.98])
def test_a_control_has_no_more_macs_than_pruned_networks_without_zeros(asked):
    data, widths = load("digits"), (300, 100)
    network = common.control(common.SMALL_MACS, [], asked, data, widths)

    def macs(first, second):
        return 64 * first + first * second + second * 10

    left = (1 - asked) * macs(*widths)
    assert 0.8 * left < macs(*network.widths) <= left
