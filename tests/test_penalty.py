# SPDX-License-Identifier: Apache-2.0
"""Terms that a compressor of one's own adds to the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcompress as jc

PARAMS = {"kernel": jnp.asarray([[1.0, -2.0], [0.5, 3.0]])}


def with_penalty(penalty):
    return jc.Compressor(
        init=lambda params: (), apply=lambda params, state: params, penalty=penalty
    )


def l1(params, state):
    del state
    return {"l1": 0.1 * jnp.sum(jnp.abs(params["kernel"]))}


def loss_fn(view, batch):
    return jnp.sum(view["kernel"] * batch)


def one_step(compressor, loss=loss_fn, **kwargs):
    init, step = jc.train_step(loss, optax.sgd(1.0), compressor, **kwargs)
    return step(init(PARAMS), jnp.ones((2, 2)))


def test_its_gradient_joins_the_task_s():
    state, metrics = one_step(with_penalty(l1))
    step = 1 + 0.1 * jnp.sign(PARAMS["kernel"])
    np.testing.assert_allclose(state.params["kernel"], PARAMS["kernel"] - step, 1e-6)
    np.testing.assert_allclose(metrics["l1"], 0.65, 1e-6)
    np.testing.assert_allclose(metrics["loss"], 2.5 + 0.65, 1e-6)


def test_stages_see_what_those_before_them_leave():
    both = jc.chain(jc.magnitude_pruning(0.5), with_penalty(l1))
    _, metrics = one_step(both)
    np.testing.assert_allclose(metrics["l1"], 0.1 * (2 + 3), 1e-6)


def test_equal_names_add_up():
    _, metrics = one_step(jc.chain(with_penalty(l1), with_penalty(l1)))
    np.testing.assert_allclose(metrics["l1"], 2 * 0.65, 1e-6)


@pytest.mark.parametrize(
    ("penalty", "text"),
    [
        (
            lambda p, s: {"l1": jnp.ones(3)},
            "'l1' must be a float scalar, got float32 of",
        ),
        (lambda p, s: {"l1": "a"}, "the penalty 'l1' must be a float scalar"),
        (lambda p, s: {"l1": 1j}, "the penalty 'l1' must be a float scalar"),
        (
            lambda p, s: {1: jnp.ones(())},
            "must return a dict {name: scalar}, got other",
        ),
        (lambda p, s: jnp.ones(()), "must return a dict"),
        (lambda p, s: None, "must return a dict {name: scalar}, got a NoneType"),
    ],
)
def test_unfit_penalties_are_refused_in_training_and_by_the_laws(penalty, text):
    with pytest.raises(TypeError, match=text):
        one_step(with_penalty(penalty))
    with pytest.raises(TypeError, match=text):
        jc.testing.check_compressor(with_penalty(penalty), PARAMS)


def test_a_penalty_is_a_function():
    with pytest.raises(TypeError, match="penalty must be a function"):
        with_penalty({"l1": 1.0})


def test_the_loss_is_not_a_penalty():
    with pytest.raises(ValueError, match="Rename the one of the compressor's penalty"):
        one_step(with_penalty(lambda params, state: {"loss": jnp.ones(())}))


def test_the_laws_find_a_gradient_that_is_not_finite():
    def root(params, state):
        del state
        return {"root": jnp.sum(jnp.sqrt(jnp.abs(0 * params["kernel"])))}

    with pytest.raises(jc.testing.LawError, match="the penalty or its gradient"):
        jc.testing.check_compressor(with_penalty(root), PARAMS)


def test_an_optimizer_takes_it_in():
    c = with_penalty(l1)
    tx = jc.wrap_optimizer(optax.sgd(1.0), c)
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    step = 1 + 0.1 * jnp.sign(PARAMS["kernel"])
    jax.tree.map(
        lambda update: np.testing.assert_allclose(update, -step, 1e-6), updates
    )
