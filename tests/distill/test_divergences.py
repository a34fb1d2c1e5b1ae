# SPDX-License-Identifier: Apache-2.0
"""What all losses on logits keep, and the formula of each."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from examples import examples
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from losses import divergence, logits, softmax

from jaxcompress import distill

LABELS = jnp.array([0, 4, 2, 2, 1, 3])
SOFT = {
    "kl": distill.kl,
    "reverse kl": distill.reverse_kl,
    "jensen shannon": distill.jensen_shannon,
    "decoupled": lambda s, t, **k: distill.decoupled(s, t, LABELS[: len(s)], **k),
    "dist": distill.dist_inter,
    "all of the top k": lambda s, t, *, where=None, temperature=1.0: distill.top_k_kl(
        s, distill.top_k(t, 5, temperature=temperature), where=where
    ),
    "top 2": lambda s, t, *, where=None, temperature=1.0: distill.top_k_kl(
        s, distill.top_k(t, 2, temperature=temperature), where=where
    ),
}
LOSSES = SOFT | {
    "hard labels": distill.hard_labels,
    "squared logits": distill.squared_logits,
}
# Of a teacher that is not sure there is always something to learn.
ZERO_AT_TEACHER = [name for name in LOSSES if name != "hard labels"]


@pytest.mark.parametrize("name", ZERO_AT_TEACHER)
def test_it_is_zero_at_the_teacher_and_positive_elsewhere(name):
    s, t = logits(0), logits(1)
    np.testing.assert_allclose(LOSSES[name](t, t), 0, atol=2e-5)
    assert (LOSSES[name](s, t) > 0).all() and LOSSES[name](s, t).shape == (6,)


@pytest.mark.parametrize("name", LOSSES)
def test_no_gradient_reaches_the_teacher(name):
    grad = jax.grad(lambda t: LOSSES[name](logits(0), t).sum())(logits(1))
    assert not grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_padding_changes_nothing_whatever_it_holds(name):
    s, t = logits(0), logits(1)
    where = jnp.array([True, False, True, True, False, True])
    s, t = (x.at[1].set(jnp.nan).at[4].set(-jnp.inf) for x in (s, t))

    def loss(s):
        return LOSSES[name](s, t, where=where)

    good = LOSSES[name](logits(0), logits(1))
    np.testing.assert_allclose(loss(s), np.where(where, good, 0), rtol=1e-5, atol=1e-6)
    grad = jax.grad(lambda s: loss(s).sum())(s)
    assert jnp.isfinite(grad).all() and not grad[~where].any() and grad[where].any()


@pytest.mark.parametrize("name", LOSSES)
def test_parts_of_a_batch_have_the_values_of_the_batch(name):
    s, t = logits(0), logits(1)
    if name == "decoupled":  # its labels are those of the first rows
        parts = [LOSSES[name](s[:2], t[:2])]
    else:
        parts = [LOSSES[name](s[i : i + 2], t[i : i + 2]) for i in (0, 2, 4)]
    together = jnp.concatenate(parts)
    np.testing.assert_allclose(
        together, LOSSES[name](s, t)[: len(together)], rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_large_logits_and_short_floats_are_stable(name, dtype):
    s, t = (1e4 * logits(i).astype(dtype) for i in (0, 1))
    value, grad = jax.value_and_grad(lambda s: LOSSES[name](s, t).mean())(s)
    assert jnp.isfinite(value) and jnp.isfinite(grad.astype(jnp.float32)).all()
    assert value.dtype == jnp.float32


@pytest.mark.parametrize("name", ["kl", "reverse kl", "jensen shannon", "top 2"])
def test_classes_that_are_ruled_out_do_not_count(name):
    s, t = (logits(i).at[:, 3].set(-jnp.inf) for i in (0, 1))
    fewer = [jnp.delete(x, 3, axis=1) for x in (s, t)]
    np.testing.assert_allclose(
        LOSSES[name](s, t), LOSSES[name](*fewer), rtol=1e-5, atol=1e-6
    )
    grad = jax.grad(lambda s: LOSSES[name](s, t).sum())(s)
    assert jnp.isfinite(grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_sharded_batch_has_the_values_of_the_batch(name):
    s, t = logits(0, (6, 5)), logits(1, (6, 5))
    mesh = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Auto,))
    spread = NamedSharding(mesh, PartitionSpec("x"))
    value = jax.jit(LOSSES[name])(*(jax.device_put(x, spread) for x in (s, t)))
    np.testing.assert_allclose(value, LOSSES[name](s, t), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SOFT)
def test_the_temperature_may_be_traced_and_its_square_keeps_gradients_alike(name):
    s, t = logits(0), logits(1)

    def size(temperature):
        loss = functools.partial(SOFT[name], temperature=temperature)
        return jnp.linalg.norm(jax.grad(lambda s: loss(s, t).sum())(s))

    traced = jax.jit(size)(2.0)
    np.testing.assert_allclose(traced, size(2.0), rtol=1e-4)
    if name not in ("top 2", "dist"):  # whose tail and correlation change with it
        assert 0.8 < size(100.0) / size(200.0) < 1.25


@hypothesis.given(
    seed=st.integers(0, 99),
    temperature=st.sampled_from([0.7, 1.0, 4.0]),
    mix=st.sampled_from([0.1, 0.5, 0.8]),
)
@examples(10)
def test_divergences_are_the_textbook_formulas(seed, temperature, mix):
    s, t = logits(seed), logits(seed + 1000)
    q, p = softmax(s, temperature), softmax(t, temperature)
    square = temperature**2
    m = mix * p + (1 - mix) * q
    for got, want in (
        (distill.kl(s, t, temperature=temperature), divergence(p, q)),
        (distill.reverse_kl(s, t, temperature=temperature), divergence(q, p)),
        (
            distill.jensen_shannon(s, t, mix=mix, temperature=temperature),
            mix * divergence(p, m) + (1 - mix) * divergence(q, m),
        ),
        (
            distill.kl_by_class(s, t, temperature=temperature).sum(-1),
            divergence(p, q),
        ),
    ):
        np.testing.assert_allclose(got, square * want, rtol=3e-4, atol=1e-4)


def test_half_and_half_is_symmetric_and_its_ends_are_the_two_divergences():
    s, t = logits(0), logits(1)
    js = distill.jensen_shannon
    np.testing.assert_allclose(js(s, t), js(t, s), rtol=1e-4, atol=1e-6)
    assert (js(100 * s, 100 * t) <= np.log(2) + 1e-6).all()
    s, t = logits(0, size=0.5), logits(1, size=0.5)
    for mix, want in ((1e-3, distill.kl), (1 - 1e-3, distill.reverse_kl)):
        got = js(s, t, mix=mix) / min(mix, 1 - mix)
        np.testing.assert_allclose(got, want(s, t), rtol=2e-2, atol=1e-3)


def test_a_teacher_smoothed_by_a_share_is_smoothed_labels():
    s = logits(0)
    share, classes = 0.1, s.shape[-1]
    smooth = (1 - share) * jax.nn.one_hot(LABELS, classes) + share / classes
    entropy = -(smooth * jnp.log(smooth)).sum(-1)
    cross = -(smooth * jax.nn.log_softmax(s)).sum(-1)
    np.testing.assert_allclose(
        distill.kl(s, jnp.log(smooth)), cross - entropy, rtol=1e-4, atol=1e-5
    )


def test_hard_labels_and_squares():
    s, t = logits(0), logits(1)
    q = softmax(s)
    want = -np.log(q[np.arange(6), np.argmax(t, -1)])
    np.testing.assert_allclose(distill.hard_labels(s, t), want, rtol=1e-4)
    np.testing.assert_allclose(
        distill.squared_logits(s, t), ((s - t) ** 2).mean(-1), rtol=1e-5
    )


def test_standardized_logits_forget_shift_and_size():
    s = logits(0)
    z = distill.standardized(s)
    np.testing.assert_allclose(z.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(-1), 1, rtol=1e-4)
    np.testing.assert_allclose(distill.standardized(7 * s + 3), z, rtol=1e-3, atol=1e-4)
    flat = jnp.ones((2, 3))
    value, grad = jax.value_and_grad(lambda x: distill.standardized(x).sum())(flat)
    assert value == 0 and jnp.isfinite(grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_other_shapes_are_refused(name):
    same = "leading axes" if "top" in name else "shape"
    with pytest.raises(ValueError, match=f"must have the same {same}, got"):
        LOSSES[name](logits(0, (6, 5)), logits(1, (4, 5)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda s, t: distill.kl(s, t, temperature=-1.0),
            "temperature must be positive, got -1.0",
        ),
        (
            lambda s, t: distill.jensen_shannon(s, t, mix=1.0),
            "mix must be in .0, 1., got 1.0",
        ),
        (
            lambda s, t: distill.kl(s, t, where=jnp.ones((6, 5), bool)),
            "where must have shape",
        ),
        (lambda s, t: distill.decoupled(s, t, LABELS[:2]), "one integer per position"),
        (
            lambda s, t: distill.decoupled(s[:, :1], t[:, :1], LABELS),
            "at least 2 classes, got 1",
        ),
        (lambda s, t: distill.top_k(t, 9), "k must be in .1, 5., got 9"),
        (lambda s, t: distill.ensemble(t[0]), "must be .teachers, ..., classes"),
        (
            lambda s, t: distill.ensemble(t[None], weights=jnp.ones(3)),
            "weights must have shape .* got .3,.",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(logits(0), logits(1))
    with pytest.raises(TypeError, match="labels must be integers"):
        distill.decoupled(logits(0), logits(1), jnp.ones(6))
