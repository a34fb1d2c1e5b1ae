# SPDX-License-Identifier: Apache-2.0
import functools
import itertools
import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from examples import examples
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxcompress import distill

# Compiled whole: fast, and a test that they can be. Their doctests run without.
contrastive = jax.jit(distill.contrastive)
relational_angle = jax.jit(distill.relational_angle)
relational_distance = jax.jit(distill.relational_distance)
similarity_preserving = jax.jit(distill.similarity_preserving)
LOSSES = {
    "distance": relational_distance,
    "angle": relational_angle,
    "similarity": similarity_preserving,
    "contrastive": contrastive,
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
batches = st.integers(1, 7)
widths = st.integers(1, 5)


def embeddings(seed, shape=(6, 5)):
    return normal(*shape, seed=seed)


@functools.cache  # so that tests share what is compiled
def graded(loss):
    """Function of student, teacher and where: values, and the gradient of their sum."""

    def total(s, t, where):
        values = loss(s, t, where=where)
        return values.sum(), values

    both = jax.jit(jax.value_and_grad(total, has_aux=True))

    def values_and_gradient(s, t, where):
        (_, values), gradient = both(s, t, where)
        return values, gradient

    return values_and_gradient


def wide(x):
    return np.asarray(x, np.float64)


def huber(a, b):
    gap = abs(a - b)
    return gap**2 / 2 if gap <= 1 else gap - 0.5


def rotation(seed, width=5):
    return jnp.linalg.qr(embeddings(seed, (width, width)))[0]


@examples(8)
@hypothesis.given(batches, widths, widths)
def test_distances_are_as_in_the_paper(batch, student, teacher):
    s, t = wide(embeddings(0, (batch, student))), wide(embeddings(1, (batch, teacher)))
    pairs = list(itertools.permutations(range(batch), 2))

    def psi(x):
        far = {(i, j): np.linalg.norm(x[i] - x[j]) for i, j in pairs}
        mean = sum(far.values()) / max(len(far), 1)
        return {pair: d / mean for pair, d in far.items()}

    expected = [
        sum(huber(psi(s)[p], psi(t)[p]) for p in pairs if p[0] == i) / max(batch - 1, 1)
        for i in range(batch)
    ]
    got = relational_distance(jnp.float32(s), jnp.float32(t))
    np.testing.assert_allclose(got, np.asarray(expected), rtol=1e-3, atol=1e-5)


@examples(8)
@hypothesis.given(batches, widths, widths)
def test_angles_are_as_in_the_paper(batch, student, teacher):
    s, t = wide(embeddings(0, (batch, student))), wide(embeddings(1, (batch, teacher)))

    def psi(x, i, j, k):
        a, b = x[i] - x[j], x[k] - x[j]
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    expected = []
    for j in range(batch):
        ends = list(itertools.permutations([i for i in range(batch) if i != j], 2))
        values = [huber(psi(s, i, j, k), psi(t, i, j, k)) for i, k in ends]
        expected.append(sum(values) / max(len(values), 1))
    got = relational_angle(jnp.float32(s), jnp.float32(t))
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


@examples(8)
@hypothesis.given(batches, widths, widths)
def test_similarities_are_as_in_the_paper(batch, student, teacher):
    s, t = embeddings(0, (batch, student)), embeddings(1, (batch, teacher))

    def rows(x):
        gram = wide(x) @ wide(x).T
        return gram / np.linalg.norm(gram, axis=1, keepdims=True)

    values = similarity_preserving(s, t)
    expected = np.linalg.norm(rows(s) - rows(t)) ** 2 / batch**2
    assert values.shape == (batch,)
    np.testing.assert_allclose(values.mean(), expected, rtol=1e-3, atol=1e-6)


@examples(8)
@hypothesis.given(batches, widths, st.floats(0.05, 2))
def test_contrastive_is_a_cross_entropy(batch, width, temperature):
    s, t = (wide(embeddings(i, (batch, width))) for i in (0, 1))
    s, t = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (s, t))
    logits = s @ t.T / temperature
    expected = np.log(np.exp(logits).sum(1)) - np.diag(logits)
    got = contrastive(jnp.float32(s), jnp.float32(t), temperature=temperature)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize(
    "loss", [relational_distance, relational_angle, similarity_preserving]
)
def test_it_is_zero_for_equal_relations_and_positive_otherwise(loss):
    s, t = embeddings(0), embeddings(1)
    np.testing.assert_allclose(loss(s, s), 0, atol=1e-9)
    assert (loss(s, t) > 1e-4).all()


@pytest.mark.parametrize("loss", [relational_distance, relational_angle])
def test_relations_ignore_rotation_translation_and_scale(loss):
    s, t = embeddings(0), embeddings(1)
    moved = 7.0 * s @ rotation(2) + jnp.arange(5.0)[None]
    np.testing.assert_allclose(loss(moved, t), loss(s, t), rtol=1e-3)
    np.testing.assert_allclose(loss(moved, s), 0, atol=1e-6)


def test_similarities_ignore_rotation_and_scale_but_not_translation():
    s, t = embeddings(0), embeddings(1)
    expected = similarity_preserving(s, t)
    turned = similarity_preserving(1e-3 * s @ rotation(2), t)
    np.testing.assert_allclose(turned, expected, rtol=1e-3)
    assert not np.allclose(similarity_preserving(s + 1, t), expected, rtol=0.1)


def test_contrastive_ignores_lengths_and_falls_where_the_teacher_is_found():
    s, t = embeddings(0), embeddings(1)
    lengths = 10.0 ** jnp.arange(-3, 3)[:, None]
    np.testing.assert_allclose(
        contrastive(s * lengths, t), contrastive(s, t), rtol=1e-4
    )
    assert contrastive(t, t).mean() < contrastive(s, t).mean()
    grad = jax.grad(lambda s: contrastive(s, t).mean())(s)
    assert contrastive(s - 0.1 * grad, t).mean() < contrastive(s, t).mean()


@every_loss
def test_the_order_of_examples_is_no_matter(loss):
    s, t = embeddings(0), embeddings(1)
    np.testing.assert_allclose(loss(s[::-1], t[::-1]), loss(s, t)[::-1], rtol=1e-4)


@every_loss
def test_images_are_taken_as_vectors(loss):
    s, t = embeddings(0, (6, 12)), embeddings(1, (6, 12))
    images = [x.reshape(6, 2, 2, 3) for x in (s, t)]
    np.testing.assert_array_equal(loss(*images), loss(s, t))


@every_loss
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, 1e30])
def test_padding_changes_nothing_and_gets_nothing(loss, bad):
    s, t = embeddings(0), embeddings(1)
    where = jnp.array([True, False, True, True, True, False, True, True])
    places = jnp.flatnonzero(where)
    padded = [jnp.full((8, 5), bad).at[places].set(x) for x in (s, t)]

    values, grad = graded(loss)(padded[0], padded[1], where)
    np.testing.assert_array_equal(values[~where], 0)
    assert not grad[~where].any()
    expected = graded(loss)(s, t, jnp.ones(6, bool))
    np.testing.assert_allclose(values[where], expected[0], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(grad[where], expected[1], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(loss(s, t), expected[0], rtol=1e-4, atol=1e-7)


@every_loss
@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_examples_for_a_relation_are_no_error(loss, count):
    where = jnp.arange(6) < count
    values, grad = graded(loss)(embeddings(0), embeddings(1), where)
    assert jnp.isfinite(values).all() and jnp.isfinite(grad).all()
    if count == 0 or (count < 2 and loss is not contrastive):
        assert not values.any() and not grad.any()


@every_loss
def test_a_value_depends_on_the_batch_as_documented(loss):
    s, t = embeddings(0), embeddings(1)
    parts = [loss(s[i : i + 3], t[i : i + 3]) for i in (0, 3)]
    assert not np.allclose(jnp.concatenate(parts), loss(s, t), rtol=0.05)


@every_loss
def test_no_gradient_reaches_the_teacher(loss):
    assert not jax.grad(lambda t: loss(embeddings(0), t).sum())(embeddings(1)).any()


@every_loss
def test_equal_and_zero_examples_have_finite_gradients(loss):
    t = embeddings(1)
    for s in (
        jnp.zeros((6, 5)),
        jnp.ones((6, 5)),
        embeddings(0).at[1].set(embeddings(0)[0]).at[2].set(0),
        1e-30 * embeddings(0),
        1e25 * embeddings(0),
    ):
        for pair in ((s, t), (t, s), (s, s)):
            values, grad = graded(loss)(*pair, jnp.ones(6, bool))
            assert jnp.isfinite(values).all() and jnp.isfinite(grad).all()


@every_loss
def test_short_floats_are_computed_in_float32(loss):
    short = [1e4 * embeddings(i).astype(jnp.bfloat16) for i in (0, 1)]
    where = jnp.ones(6, bool)
    values, grad = graded(loss)(short[0], short[1], where)
    long = [x.astype(jnp.float32) for x in short]
    expected, _ = graded(loss)(long[0], long[1], where)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert grad.dtype == jnp.bfloat16 and jnp.isfinite(grad.astype(jnp.float32)).all()


@every_loss
def test_gradients_agree_with_differences(loss):
    s, t, direction = (embeddings(i) for i in range(3))

    @jax.jit
    def along(step):
        return loss(s + step * direction, t).sum()

    slope = jax.jvp(along, (0.0,), (1.0,))[1]
    differences = (along(1e-2) - along(-1e-2)) / 2e-2
    np.testing.assert_allclose(slope, differences, rtol=2e-2, atol=2e-3)
    np.testing.assert_allclose(slope, jax.grad(along)(0.0), rtol=1e-4)


@every_loss
def test_transforms_and_shards_change_no_value(loss):
    assert jax.device_count() == 4
    pair = embeddings(0, (8, 5)), embeddings(1, (8, 5))
    where = jnp.arange(8) != 3
    expected = loss(*pair, where=where)
    stacked = [jnp.stack([x, x]) for x in (*pair, where)]
    batched = jax.vmap(lambda s, t, w: loss(s, t, where=w))(*stacked)
    np.testing.assert_allclose(batched[1], expected, rtol=1e-4, atol=1e-7)
    spread = jax.device_put(
        (*pair, where),
        NamedSharding(
            jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,)), PartitionSpec("d")
        ),
    )
    got = loss(*spread[:2], where=spread[2])
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)


def test_random_embeddings_cost_about_the_logarithm_of_the_batch():
    s, t = embeddings(0, (64, 512)), embeddings(1, (64, 512))
    np.testing.assert_allclose(contrastive(s, t).mean(), math.log(64), rtol=0.1)


@every_loss
def test_shapes_that_do_not_fit_are_refused(loss):
    with pytest.raises(
        ValueError, match=r"must have the same batch .*\(6, 5\).*\(4, 5\)"
    ):
        loss(embeddings(0), embeddings(1, (4, 5)))
    with pytest.raises(ValueError, match="must have the same batch"):
        loss(jnp.ones(()), jnp.ones(()))
    with pytest.raises(
        ValueError,
        match=r"where must have shape \(6,\), one bool per example, got \(5,",
    ):
        loss(embeddings(0), embeddings(1), where=jnp.ones(5, bool))


def test_contrastive_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match=r"same width, got 5 and 7.*projector"):
        contrastive(embeddings(0), embeddings(1, (6, 7)))
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        distill.contrastive(embeddings(0), embeddings(1), temperature=0)
