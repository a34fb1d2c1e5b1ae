# SPDX-License-Identifier: Apache-2.0
"""Ensembles, the largest probabilities, and heads in chunks."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from examples import examples
from losses import logits, softmax

from jaxcompress import distill
from jaxcompress.distill import bucket, renormalize, top_k, top_k_kl, zero


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_an_ensemble_is_the_mean_of_the_probabilities(temperature):
    teachers = jnp.stack([logits(i) for i in range(3)])
    weights = jnp.array([1.0, 0.0, 3.0])
    got = distill.ensemble(teachers, weights=weights, temperature=temperature)
    p = softmax(teachers, temperature)
    want = (p[0] + 3 * p[2]) / 4
    np.testing.assert_allclose(softmax(got, temperature), want, rtol=1e-4, atol=1e-6)
    each = jnp.broadcast_to(weights[:, None], (3, 6))
    np.testing.assert_allclose(
        distill.ensemble(teachers, weights=each, temperature=temperature),
        got,
        rtol=1e-6,
    )


def test_the_gradient_to_an_ensemble_is_the_mean_of_those_to_its_members():
    s, teachers = logits(9), jnp.stack([logits(i) for i in range(3)])
    together = jax.grad(lambda s: distill.kl(s, distill.ensemble(teachers)).sum())(s)
    alone = [jax.grad(lambda s, t=t: distill.kl(s, t).sum())(s) for t in teachers]
    np.testing.assert_allclose(together, sum(alone) / 3, rtol=1e-3, atol=1e-5)


@hypothesis.given(
    seed=st.integers(0, 99),
    classes=st.integers(1, 7),
    temperature=st.sampled_from([1.0, 2.5]),
    tail=st.sampled_from([bucket, renormalize, zero]),
)
@examples(15)
def test_with_all_classes_kept_it_is_kl(seed, classes, temperature, tail):
    s, t = logits(seed, (4, classes)), logits(seed + 100, (4, classes))
    kept = top_k(t, classes, temperature=temperature)
    np.testing.assert_allclose(
        top_k_kl(s, kept, tail=tail),
        distill.kl(s, t, temperature=temperature),
        rtol=1e-4,
        atol=1e-4,
    )


@hypothesis.given(seed=st.integers(0, 99))
@examples(10)
def test_a_bucket_bounds_the_divergence_from_below_and_grows_with_k(seed):
    s, t = logits(seed, (4, 8)), logits(seed + 100, (4, 8))
    values = [top_k_kl(s, top_k(t, k)) for k in range(1, 9)]
    for less, more in zip(values, values[1:], strict=False):
        assert (less <= more + 1e-5).all()


def test_a_student_whose_mass_is_elsewhere_is_seen_by_the_bucket_alone():
    t = logits(0, (1, 1000), size=1.0).at[:, :8].add(12.0)
    away = t.at[:, 8:].add(25.0)  # the kept classes keep their ratios
    full = distill.kl(away, t)[0]
    kept = top_k(t, 8)
    assert full > 5
    assert top_k_kl(away, kept, tail=renormalize)[0] < 1e-3
    assert 0.8 * full < top_k_kl(away, kept)[0] <= full + 1e-3


@hypothesis.given(
    seed=st.integers(0, 99),
    classes=st.sampled_from([1, 7, 16, 33]),
    chunk=st.sampled_from([1, 5, 16, 64]),
    temperature=st.sampled_from([1.0, 3.0]),
)
@examples(8)
def test_heads_in_chunks_have_the_loss_and_gradients_of_their_logits(
    seed, classes, chunk, temperature
):
    shapes = (2, 3, 6), (6, classes), (2, 3, 4), (4, classes)
    s, s_head, t, t_head = (
        normal(*shape, seed=4 * seed + i) for i, shape in enumerate(shapes)
    )
    where = jnp.array([[True, True, False], [True, False, True]])

    def dense(s, s_head):
        loss = distill.kl(s @ s_head, t @ t_head, temperature=temperature, where=where)
        return loss.sum(), loss

    def chunked(s, s_head):
        loss = distill.kl_of_heads(
            s, s_head, t, t_head, chunk=chunk, temperature=temperature, where=where
        )
        return loss.sum(), loss

    grads, losses = zip(
        *(
            jax.jit(jax.grad(f, argnums=(0, 1), has_aux=True))(s, s_head)
            for f in (dense, chunked)
        ),
        strict=True,
    )
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4, atol=1e-4)
    for a, b in zip(*grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_large_logits_in_chunks_are_stable_and_no_array_has_all_classes():
    s, s_head = 1e2 * logits(0, (3, 8)), 1e2 * logits(1, (8, 600))
    t, t_head = 1e2 * logits(2, (3, 8)), 1e2 * logits(3, (8, 600))

    def loss(s, t):
        return distill.kl_of_heads(s, s_head, t, t_head, chunk=100).sum()

    value, grad = jax.value_and_grad(loss)(s, t)
    assert jnp.isfinite(value) and jnp.isfinite(grad).all()
    text = str(jax.make_jaxpr(jax.grad(loss))(s, t))
    assert "f32[3,100]" in text and "f32[3,600]" not in text


@pytest.mark.parametrize(
    ("shapes", "chunk", "message"),
    [
        (((3, 4), (4, 9), (2, 4), (4, 9)), 4, "must have the same leading axes"),
        (((3, 4), (4, 9), (3, 4), (4, 8)), 4, "same number of classes, got 9 and 8"),
        (((3, 4), (4, 9), (3, 4), (4, 9)), 0, "chunk must be at least 1, got 0"),
    ],
)
def test_heads_that_do_not_fit(shapes, chunk, message):
    arrays = [jnp.ones(shape) for shape in shapes]
    with pytest.raises(ValueError, match=message):
        distill.kl_of_heads(*arrays, chunk=chunk)
