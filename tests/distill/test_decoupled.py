# SPDX-License-Identifier: Apache-2.0
"""Decoupled distillation and DIST."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
from examples import examples
from losses import divergence, logits, softmax

from jaxcompress import distill

LABELS = jnp.array([0, 4, 2, 2, 1, 3])
ROWS = np.arange(6)


@hypothesis.given(
    seed=st.integers(0, 99),
    temperature=st.sampled_from([1.0, 3.0]),
    others=st.sampled_from([0.0, 1.0, 8.0]),
)
@examples(8)
def test_it_is_the_papers_formula(seed, temperature, others):
    s, t = logits(seed), logits(seed + 500)
    q, p = softmax(s, temperature), softmax(t, temperature)

    def parts(p):
        of_label = p[ROWS, LABELS]
        rest = np.stack([np.delete(row, k) for row, k in zip(p, LABELS, strict=True)])
        binary = np.stack([of_label, 1 - of_label], -1)
        return binary, rest / rest.sum(-1, keepdims=True)

    (b, o), (b_hat, o_hat) = parts(p), parts(q)
    want = 1.5 * divergence(b, b_hat) + others * divergence(o, o_hat)
    got = distill.decoupled(
        s, t, LABELS, target=1.5, others=others, temperature=temperature
    )
    np.testing.assert_allclose(got, temperature**2 * want, rtol=1e-3, atol=1e-4)


@hypothesis.given(seed=st.integers(0, 99), temperature=st.sampled_from([1.0, 3.0]))
@examples(8)
def test_with_what_the_teacher_leaves_as_the_weight_it_is_kl(seed, temperature):
    s, t = logits(seed), logits(seed + 500)
    p = softmax(t, temperature)[ROWS, LABELS]
    got = distill.decoupled(
        s, t, LABELS, others=jnp.asarray(1 - p), temperature=temperature
    )
    want = distill.kl(s, t, temperature=temperature)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


def test_sequences_have_a_value_at_every_position():
    s, t = logits(0, (2, 3, 5)), logits(1, (2, 3, 5))
    got = distill.decoupled(s, t, LABELS.reshape(2, 3))
    flat = distill.decoupled(s.reshape(6, 5), t.reshape(6, 5), LABELS)
    np.testing.assert_allclose(got.ravel(), flat, rtol=1e-6)


def test_dist_is_one_minus_pearsons_correlation():
    s, t = logits(0), logits(1)
    q, p = softmax(s), softmax(t)
    inter = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q, p, strict=True)]
    intra = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q.T, p.T, strict=True)]
    np.testing.assert_allclose(distill.dist_inter(s, t), inter, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(distill.dist_intra(s, t), intra, rtol=1e-3, atol=1e-5)


def test_dist_does_not_mind_the_order_of_classes_or_examples():
    s, t = logits(0), logits(1)
    classes, rows = jnp.array([3, 0, 4, 1, 2]), jnp.array([5, 2, 0, 1, 4, 3])
    np.testing.assert_allclose(
        distill.dist_inter(s[:, classes], t[:, classes]),
        distill.dist_inter(s, t),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        distill.dist_intra(s[rows], t[rows]), distill.dist_intra(s, t), rtol=1e-4
    )


def test_padding_does_not_count_among_the_examples_of_a_class():
    s, t = logits(0), logits(1)
    where = jnp.array([True, True, False, True, False, True])
    bad = s.at[2].set(jnp.nan)

    def loss(s):
        return distill.dist_intra(s, t, where=where)

    np.testing.assert_allclose(
        loss(bad), distill.dist_intra(s[where], t[where]), rtol=1e-4, atol=1e-6
    )
    grad = jax.grad(lambda s: loss(s).sum())(bad)
    assert jnp.isfinite(grad).all() and not grad[~where].any()


def test_what_does_not_vary_has_a_loss_and_a_finite_gradient():
    flat, t = jnp.zeros((6, 5)), logits(1)
    for loss in (distill.dist_inter, distill.dist_intra):
        value, grad = jax.value_and_grad(lambda s, loss=loss: loss(s, t).sum())(flat)
        assert value > 0 and jnp.isfinite(grad).all()
