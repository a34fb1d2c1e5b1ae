# SPDX-License-Identifier: Apache-2.0
from typing import Any

import flax.linen as nn
import numpy as np
import pytest
from draws import normal, put
from models import initialized

from jaxcompress.distill import take_slices


class ConvNet(nn.Module):
    channels: int
    width: int

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(self.channels, (3, 3), strides=2, name="conv")(x))
        x = nn.relu(nn.Dense(self.width, name="hidden")(x.mean((1, 2))))
        return nn.Dense(4, name="head")(x)


X = normal(2, 6, 6, 1)
TEACHER: Any = initialized(ConvNet(6, 5), X)["params"]
CHANNELS = put([True, False, True, True, False, True], bool)
UNITS = np.array([4, 0, 3])
PLAN = {
    ("conv/kernel", -1): CHANNELS,
    ("conv/bias", 0): CHANNELS,
    ("hidden/kernel", 0): CHANNELS,
    ("hidden/kernel", 1): UNITS,
    ("hidden/bias", 0): UNITS,
    ("head/kernel", 0): UNITS,
}


def test_where_the_units_that_go_are_dead_the_student_is_the_teacher():
    unit = np.isin(np.arange(5), UNITS)
    head = TEACHER["head"]["kernel"] * unit[:, None]
    hidden = TEACHER["hidden"]["kernel"] * CHANNELS[:, None]
    dead = {
        **TEACHER,
        "hidden": {**TEACHER["hidden"], "kernel": hidden},
        "head": {**TEACHER["head"], "kernel": head},
    }
    student = take_slices(dead, PLAN)
    got: Any = ConvNet(4, 3).apply({"params": student}, X)
    want: Any = ConvNet(6, 5).apply({"params": dead}, X)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_what_is_not_named_is_copied():
    student = take_slices(TEACHER, {("head/bias", 0): np.array([0])})
    kernel = student["head"]["kernel"]
    np.testing.assert_array_equal(kernel, TEACHER["head"]["kernel"])
    assert kernel.unsafe_buffer_pointer() != (
        TEACHER["head"]["kernel"].unsafe_buffer_pointer()
    )
    np.testing.assert_array_equal(student["head"]["bias"], TEACHER["head"]["bias"][:1])


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            {("conv/kernal", 0): UNITS},
            "must name existing leaves, got 'conv/kernal'; closest: 'conv/kernel'",
        ),
        ({("head/bias", 1): UNITS}, r"got axis 1 of 'head/bias' with shape \(4,"),
        ({("conv/bias", 0): CHANNELS[:5]}, "5 bools for axis 0 .* 6 entries"),
        ({("conv/bias", 0): CHANNELS & False}, "keep at least one entry of axis 0"),
        ({("conv/bias", 0): CHANNELS, ("conv/bias", -1): CHANNELS}, "axis -1 .* twice"),
        ({("conv/bias", 0): np.array([6])}, "must use indices in .-6, 6. for axis 0"),
        ({("conv/bias", 0): np.ones((6, 1))}, "must have a vector"),
    ],
    ids=["path", "axis", "length", "nothing", "twice", "range", "kind"],
)
def test_bad_plans(plan, message):
    with pytest.raises(ValueError, match=message):
        take_slices(TEACHER, plan)
