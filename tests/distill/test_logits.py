# SPDX-License-Identifier: Apache-2.0
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal

from jaxcompress.distill import kl


def logits(seed, shape=(6, 5)):
    return 3 * normal(*shape, seed=seed)


@hypothesis.given(seed=st.integers(0, 99), temperature=st.floats(0.5, 20))
def test_it_is_the_textbook_formula(seed, temperature):
    s, t = (np.asarray(logits(seed + i), np.float64) for i in (0, 1000))

    def softmax(x):
        e = np.exp(x / temperature - (x / temperature).max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    p, q = softmax(t), softmax(s)
    expected = temperature**2 * (p * (np.log(p) - np.log(q))).sum(-1)
    got = kl(
        jnp.asarray(s, jnp.float32),
        jnp.asarray(t, jnp.float32),
        temperature=temperature,
    )
    np.testing.assert_allclose(got, expected, rtol=2e-4, atol=1e-4)


def test_it_is_zero_for_equal_logits_and_positive_otherwise():
    s, t = logits(0), logits(1)
    np.testing.assert_allclose(kl(s, s + 7.0, temperature=3.0), 0, atol=1e-5)
    assert (kl(s, t) > 0).all()


def test_at_high_temperature_the_gradient_is_that_of_squared_centered_logits():
    s, t = logits(0, (1, 5)), logits(1, (1, 5))
    grad = jax.grad(lambda s: kl(s, t, temperature=1e3).sum())(s)

    def centered(x):
        return x - x.mean(-1, keepdims=True)

    np.testing.assert_allclose(grad, (centered(s) - centered(t)) / 5, atol=1e-2)


def test_no_gradient_reaches_the_teacher():
    grad = jax.grad(lambda t: kl(logits(0), t).sum())(logits(1))
    assert not grad.any()


def test_positions_that_do_not_count_are_zero_whatever_they_hold():
    s, t = logits(0), logits(1)
    where = jnp.array([True, False, True, True, False, True])
    bad = s.at[1].set(jnp.nan).at[4].set(-jnp.inf)

    def loss(s, where):
        return kl(s, t, where=where).sum() / where.sum()

    value, grad = jax.value_and_grad(loss)(bad, where)
    np.testing.assert_allclose(value, kl(s, t)[where].mean(), rtol=1e-6)
    assert jnp.isfinite(grad).all() and not grad[~where].any()


def test_splitting_the_batch_changes_no_value():
    s, t = logits(0), logits(1)
    parts = [kl(s[i : i + 2], t[i : i + 2]) for i in (0, 2, 4)]
    np.testing.assert_array_equal(jnp.concatenate(parts), kl(s, t))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_large_logits_and_short_floats_are_stable(dtype):
    s, t = (1e4 * logits(i).astype(dtype) for i in (0, 1))
    value, grad = jax.value_and_grad(lambda s: kl(s, t, temperature=2.0).mean())(s)
    assert jnp.isfinite(value) and jnp.isfinite(grad.astype(jnp.float32)).all()
    assert kl(s, t).dtype == jnp.float32


def test_bad_arguments():
    with pytest.raises(
        ValueError, match=r"logits must have the same shape, got \(6, 5\) and \(6, 4\)"
    ):
        kl(logits(0), logits(1, (6, 4)))
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        kl(logits(0), logits(1), temperature=0)


def test_the_temperature_may_be_traced():
    value = jax.jit(lambda T: kl(logits(0), logits(1), temperature=T))(2.0)
    np.testing.assert_allclose(value, kl(logits(0), logits(1), temperature=2.0), 1e-6)
