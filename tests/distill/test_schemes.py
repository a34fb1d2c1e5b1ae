# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal

from jaxcompress.distill import generations, kl, mixup, same_view

X = normal(6, 3, 2)
KEY = jax.random.key(1)


def network(params, x):
    return x.reshape(len(x), -1) @ params


W, V = (normal(6, 4, seed=i) for i in (2, 3))


def test_each_generation_learns_from_the_one_before():
    asked = []

    def training(number):
        def train(teacher):
            asked.append(teacher["w"])
            return {"w": teacher["w"] + number}

        return train

    made = generations({"w": jnp.zeros(2)}, [training(1), training(10)])
    assert [float(m["w"][0]) for m in made] == [0, 1, 11]
    assert all(a is m["w"] for a, m in zip(asked, made, strict=False))
    assert generations("none yet", []) == ["none yet"]


def test_a_generation_that_diverged_is_named():
    def diverges(teacher):
        return {"a": {"kernel": teacher["a"]["kernel"] * jnp.inf}}

    start = {"a": {"kernel": jnp.ones(2)}}
    with pytest.raises(ValueError, match="'a/kernel' of generation 2 is not finite"):
        generations(start, [lambda t: t, diverges, lambda t: t])


def test_both_see_the_same_augmented_batch():
    seen = []

    def spy(params, x):
        seen.append(x)
        return network(params, x)

    ours, theirs = same_view(spy, spy, mixup)(W, V, X, KEY)
    assert (seen[0] == seen[1]).all() and not (seen[0] == X).all()
    np.testing.assert_array_equal(ours, network(W, mixup(KEY, X)))
    np.testing.assert_array_equal(theirs, network(V, mixup(KEY, X)))
    with pytest.raises(ValueError, match="needs key=, got None"):
        same_view(spy, spy, mixup)(W, V, X)


def test_no_gradient_reaches_the_teacher_on_any_way():
    ask = same_view(network, network)

    def loss(w, v, x):
        ours, theirs = ask(w, v, x)
        return kl(ours, theirs).mean() + (theirs**2).sum()

    of_student, of_teacher, of_x = jax.jit(jax.grad(loss, (0, 1, 2)))(W, V, X)
    assert of_student.any() and not of_teacher.any()
    # Inputs are learned from by the student alone.
    alone = jax.grad(lambda x: kl(network(W, x), network(V, X)).mean())(X)
    np.testing.assert_allclose(of_x, alone, rtol=1e-5, atol=1e-7)


def test_mixup_blends_pairs_of_the_batch():
    n = 64
    x = mixup(KEY, jnp.eye(n))
    np.testing.assert_allclose(x.sum(-1), 1, rtol=1e-6)
    assert ((x != 0).sum(-1) <= 2).all()
    own = jnp.diagonal(x)
    assert own.min() < 0.2 and own.max() > 0.8 and abs(own.mean() - 0.5) < 0.15
    assert mixup(KEY, jnp.ones((3, 2), jnp.bfloat16)).dtype == jnp.bfloat16
    assert (mixup(jax.random.key(5), jnp.eye(n)) != x).any()
