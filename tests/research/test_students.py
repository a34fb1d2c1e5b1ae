# SPDX-License-Identifier: Apache-2.0
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.data import Split
from research.students import ByPatches, Record, gain, grouped, subset, views_of


@pytest.mark.parametrize(("size", "stride", "side"), [(5, 3, 8), (3, 2, 3)])
def test_patches_are_a_convolution(size, stride, side):
    x = jnp.asarray(np.random.RandomState(0).normal(size=(2, side, side, 3)), "float32")
    ours = ByPatches(4, size, stride)
    params: Any = ours.init(jax.random.key(0), x)["params"]
    kernel = params["Dense_0"]["kernel"].reshape(size, size, 3, 4)
    conv = nn.Conv(4, (size, size), strides=(stride, stride), use_bias=False)
    theirs: Any = conv.apply({"params": {"kernel": kernel}}, x)
    made: Any = ours.apply({"params": params}, x)
    np.testing.assert_allclose(made, theirs, atol=1e-5)


def test_a_share_has_all_classes_alike():
    y = np.repeat(np.arange(3, dtype=np.int32), 20)
    rows = subset(Split(np.zeros(60), y), 0.1, seed=0)
    assert np.bincount(y[rows]).tolist() == [2, 2, 2]
    assert subset(Split(np.zeros(60), y), 0.1, seed=1).tolist() != rows.tolist()


@pytest.mark.parametrize("kind", ["shifted", "mixed", "smooth noise"])
def test_views_have_the_labels_of_their_images(kind):
    y = np.eye(2, dtype=np.float32)
    x = np.ones((2, 8, 8, 1), np.float32) * y[:, 1].reshape(2, 1, 1, 1)
    views, labels = views_of(kind, x, y, number=5, seed=0)
    assert views.shape == (10, 8, 8, 1) and views.min() >= 0 and views.max() <= 1
    if kind == "smooth noise":
        assert not labels.any()
    else:  # white is class 1, a blend is gray
        np.testing.assert_allclose(views[:, 4, 4, 0], labels[:, 1], atol=1e-6)
        np.testing.assert_allclose(labels.sum(-1), 1, atol=1e-6)


def test_gains_are_paired_by_seed():
    def records(name, accuracies):
        return [
            Record(part="logits", name=name, seed=i, accuracy=a)
            for i, a in enumerate(accuracies)
        ]

    made = records("student alone", [0.5, 0.7]) + records("kl", [0.6, 0.8])
    groups = grouped(made)
    assert gain(groups["kl"], groups) == pytest.approx((0.1, 0.0))
