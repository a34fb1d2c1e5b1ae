# SPDX-License-Identifier: Apache-2.0
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcompress as jc
from jaxcompress.prune import NOfM


def scores(shape, seed=0):
    return jnp.abs(jax.random.normal(jax.random.key(seed), shape))


@hypothesis.given(
    n=st.integers(1, 3),
    extra=st.integers(1, 3),
    groups=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_each_group_along_the_inputs_keeps_its_n_largest(n, extra, groups, seed):
    m, columns = n + extra, 5
    s = scores((groups * m, columns), seed)
    keep = NOfM(n, m)("kernel", s, jnp.int32(groups * columns * (m - n)))
    for column in range(columns):
        for g in range(groups):
            group = np.asarray(s[g * m : (g + 1) * m, column])
            expected = np.zeros(m, bool)
            expected[np.argsort(group)[m - n :]] = True
            np.testing.assert_array_equal(keep[g * m : (g + 1) * m, column], expected)


def test_a_ramp_is_followed_group_by_group():
    s = scores((32, 16))
    pattern = NOfM(2, 4)
    before = jnp.ones((32, 16), bool)
    for count in (0, 2, 50, 128, 256, 400):
        keep = pattern("kernel", s, jnp.int32(count))
        assert int((~keep).sum()) == min(count, 256)
        assert not (keep & ~before).any()
        before = keep


def test_the_axis_follows_the_framework_and_can_be_said():
    s = scores((4, 6))
    flax = NOfM(2, 4)("Dense_0/kernel", s, jnp.int32(99))
    equinox = NOfM(2, 4)("layers/0/weight", s.T, jnp.int32(99))
    np.testing.assert_array_equal(flax, equinox.T)
    conv = scores((3, 3, 8, 5))
    keep = NOfM(2, 4, axis={"Conv_*": -2})("Conv_0/kernel", conv, jnp.int32(9999))
    assert (keep.reshape(9, 2, 4, 5).sum(2) == 2).all()


def test_what_does_not_fit_is_refused_by_name():
    pruner = jc.magnitude_pruning(0.5, pattern=NOfM(2, 4))
    with pytest.raises(ValueError, match="'kernel': axis 0 of .10, 4. is no multiple"):
        pruner.init({"kernel": scores((10, 4))})
    with pytest.raises(ValueError, match="'kernel' has shape .3, 3, 8, 5.*Pass axis="):
        pruner.init({"kernel": scores((3, 3, 8, 5))})
    with pytest.raises(ValueError, match="there is no axis 7"):
        NOfM(2, 4, axis=7)("kernel", scores((4, 4)), jnp.int32(0))
    with pytest.raises(ValueError, match="0 < n < m"):
        NOfM(4, 4)
