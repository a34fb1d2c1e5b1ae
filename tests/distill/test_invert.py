# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import normal

from jaxcompress import distill


def array(seed, shape):
    return normal(*shape, seed=seed)


def test_a_quadratic_has_its_known_minimum():
    a, b = array(0, (5, 5)), array(1, (3, 5))
    matrix = a @ a.T / 5 + jnp.eye(5)
    rate = 1 / float(jnp.linalg.eigvalsh(matrix)[-1])

    def loss(x, matrix, b):
        return jnp.sum(x @ matrix * x, axis=1) / 2 - jnp.sum(b * x, axis=1)

    x, losses = distill.invert(loss, jnp.zeros((3, 5)), optax.sgd(rate), 80, matrix, b)
    exact = jnp.linalg.solve(matrix, b.T).T
    np.testing.assert_allclose(x, exact, atol=1e-3)
    assert losses.shape == (80, 3) and not losses[0].any()
    np.testing.assert_allclose(losses[-1], -jnp.sum(b * exact, 1) / 2, rtol=1e-3)
    assert (jnp.diff(losses, axis=0) < 1e-5).all()


def network(params, x):
    features = jax.nn.relu(x.reshape(len(x), -1) @ params["kernel"])
    return features @ params["last"], features


def params_of(seed):
    return {"kernel": array(seed, (32, 16)) / 4, "last": array(seed + 50, (16, 4))}


def test_inputs_of_a_teacher_get_the_labels_and_statistics_that_were_asked_for():
    labels, traced = jnp.array([0, 1, 2, 3, 3, 0]), 0
    stored = array(9, (16,)), 1 + array(8, (16,)) ** 2

    def loss(x, params, labels, student, *, rng):
        nonlocal traced
        traced += 1
        x = jnp.roll(x, jax.random.randint(rng, (), 0, 2), axis=2)
        logits, features = network(params, x)
        ce = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
        apart = distill.jensen_shannon(network(student, x)[0], logits)
        typical = distill.moment_distance(features, *stored).mean()
        return ce + 0.1 * typical + 0.01 * distill.total_variation(x) - 0.5 * apart

    @jax.jit
    def made(start, params, labels, student):
        return distill.invert(
            loss, start, optax.adam(0.05), 60, params, labels, student,
            rng=jax.random.key(0), project=lambda x: jnp.clip(x, -2, 2),
        )  # fmt: skip

    start = 3 * array(2, (6, 4, 4, 2))
    for seed in (0, 1):
        teacher = params_of(seed)
        x, losses = made(start, teacher, labels, params_of(seed + 2))
        assert x.shape == start.shape and jnp.abs(x).max() <= 2
        assert losses[-10:].mean() < losses[:3].mean() - 1
        assert (network(teacher, x)[0].argmax(-1) == labels).mean() > 0.8
    before = traced
    made(start + 1, params_of(5), labels[::-1], params_of(6))
    assert traced == before


def test_each_step_has_its_key_and_the_start_is_projected():
    def loss(x, *, rng):
        return x * jax.random.normal(rng)

    key = jax.random.key(7)
    x, losses = distill.invert(
        loss,
        jnp.float32(5),
        optax.sgd(1.0),
        3,
        rng=key,
        project=lambda x: x.clip(-9, 2),
    )
    want, found = 2.0, []
    for t in range(3):
        slope = float(jax.random.normal(jax.random.fold_in(key, t)))
        found.append(want * slope)
        want = min(max(want - slope, -9), 2)
    np.testing.assert_allclose(x, want, rtol=1e-5)
    np.testing.assert_allclose(losses, found, rtol=1e-5)


def test_a_tree_is_inverted_and_no_steps_change_nothing():
    start = {"a": array(0, (2,)), "b": array(1, (3,))}

    def loss(tree):
        return jnp.sum(tree["a"] ** 2) + jnp.sum(tree["b"] ** 2)

    halved, _ = distill.invert(loss, start, optax.sgd(0.25), 1)
    same, losses = distill.invert(loss, start, optax.sgd(0.25), 0)
    for name, leaf in start.items():
        np.testing.assert_allclose(halved[name], leaf / 2, rtol=1e-6)
        np.testing.assert_array_equal(same[name], leaf)
    assert losses.shape == (0,)


def test_total_variation_by_hand():
    image = jnp.array([[0.0, 1.0, -1.0], [4.0, 4.0, 4.0]])  # 1 + 2 and 0; 4 + 3 + 5
    assert distill.total_variation(image[None, :, :, None]).tolist() == [15.0]
    both = jnp.stack([image, jnp.ones((2, 3))])
    assert distill.total_variation(both, axes=(1, 2)).tolist() == [15.0, 0.0]
    channels = jnp.stack([both, 2 * both], axis=1)
    assert distill.total_variation(channels, axes=(-2, -1)).tolist() == [45.0, 0.0]
    gradient = jax.grad(lambda x: distill.total_variation(x).sum())
    assert not gradient(jnp.ones((1, 3, 3, 1))).any()
    peak = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1, 0].set(1)
    cross = [[0, -1, 0], [-1, 4, -1], [0, -1, 0]]
    assert gradient(peak)[0, :, :, 0].tolist() == cross
    assert distill.total_variation(channels.astype(jnp.bfloat16)).dtype == jnp.float32


def test_moments_are_those_of_numpy_and_padding_is_not_among_them():
    x, where = array(0, (4, 5, 3)), array(1, (4, 5)) > -0.5
    assert 0 < where.sum() < 20
    mean, variance = distill.feature_moments(x)
    np.testing.assert_allclose(mean, np.mean(x, (0, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, np.var(x, (0, 1)), rtol=1e-5)
    bad = jnp.where(where[..., None], x, jnp.nan)
    mean, variance = distill.feature_moments(bad, where=where)
    np.testing.assert_allclose(mean, np.mean(x[where], 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, np.var(x[where], 0), rtol=1e-5)

    def total(x):
        return distill.moment_distance(x, mean + 1, variance, where=where).sum()

    value, grad = jax.value_and_grad(total)(bad)
    np.testing.assert_allclose(value, 3, rtol=1e-5)
    assert jnp.isfinite(grad).all() and not grad[~where].any() and grad[where].any()


def test_moments_that_match_have_no_distance_and_stored_ones_no_gradient():
    x = array(0, (4, 5, 3))
    found = distill.feature_moments(x)
    np.testing.assert_array_equal(distill.moment_distance(x, *found), 0)
    other = array(1, (3,)), jnp.abs(array(2, (3,)))
    want = (found.mean - other[0]) ** 2 + (found.variance - other[1]) ** 2
    np.testing.assert_allclose(distill.moment_distance(x, *other), want, rtol=1e-5)
    grads = jax.grad(lambda m, v: distill.moment_distance(x, m, v).sum(), (0, 1))(
        *other
    )
    assert not any(g.any() for g in grads)
    far = 1e4 + x.astype(jnp.float32)
    np.testing.assert_allclose(
        distill.feature_moments(far).variance, found.variance, rtol=1e-2
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: distill.total_variation(x, axes=(0, 1)),
            ValueError,
            r"two distinct axes .* got \(0, 1\)",
        ),
        (
            lambda x: distill.total_variation(x, axes=(1, -2)),
            ValueError,
            "must be two distinct axes",
        ),
        (
            lambda x: distill.total_variation(x[0, 0]),
            ValueError,
            "must be two distinct axes of",
        ),
        (
            lambda x: distill.feature_moments(x, where=jnp.ones(3, bool)),
            ValueError,
            r"where must have shape \(2, 3\), .* got \(3,\)",
        ),
        (
            lambda x: distill.moment_distance(x, x[0, 0], x[0, 0, :2]),
            ValueError,
            r"must have shape \(4,\).* and \(2,\)",
        ),
        (
            lambda x: distill.invert(jnp.sum, x, optax.sgd(1.0), -1),
            ValueError,
            "steps must be at least 0, got -1",
        ),
        (
            lambda x: distill.invert(jnp.sum, x.astype(int), optax.sgd(1.0), 1),
            TypeError,
            "must be made of floats, got dtype int32.*embeddings",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(array(0, (2, 3, 4)))
