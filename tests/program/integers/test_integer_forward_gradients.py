# SPDX-License-Identifier: Apache-2.0
"""Derivatives of training on integer products: those of simulation, in every mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_hand import (
    FLOATS,
    INTEGERS,
    PLAIN,
    X,
    assert_close,
    direction,
    plain,
    products,
    rounded,
    simulated,
)
from draws import normal
from jax import lax
from models import MODELS

from jaxcompress.formats import Int
from jaxcompress.program import integer_forward

FORWARD, REVERSE = {"forward"}, {"reverse"}


@pytest.mark.parametrize(
    ("name", "modes"),
    [
        ("linen_cnn", REVERSE),
        pytest.param("linen_transformer", REVERSE, marks=pytest.mark.slow),
        pytest.param("nnx_cnn", REVERSE, marks=pytest.mark.slow),
        ("equinox_mlp", FORWARD),
        pytest.param(
            "loops", FORWARD, marks=pytest.mark.slow
        ),  # a `while` has no reverse mode
        ("linen_dropout", REVERSE),
        ("nested_scans", FORWARD | REVERSE),
    ],
)
def test_values_and_derivatives_are_those_of_rounded_floats(name, modes):
    model = MODELS[name]()
    run = integer_forward(model.fn, where="*").run

    def derivatives(run):
        def fn(params, *args):
            def of(params):
                return run(params, *args)

            def loss(params):
                out = of(params)
                return jnp.sum(jnp.sin(out)), out

            found = []
            if FORWARD <= modes:
                found.append(jax.jvp(of, (params,), (direction(params),)))
            if REVERSE <= modes:
                found.append(jax.value_and_grad(loss, has_aux=True)(params))
            return found

        return jax.jit(fn)(model.params, *model.args)

    assert_close(derivatives(run), derivatives(simulated(model.fn)))


@pytest.mark.parametrize("at_rounded", [True, False])
def test_the_gradient_is_straight_through(at_rounded):
    x, w, g = np.asarray(X), np.asarray(PLAIN[0]["kernel"]), np.asarray(normal(10, 16))
    run = integer_forward(lambda p, x: x @ p["kernel"], at_rounded=at_rounded).run
    out, pull = jax.vjp(run, {"kernel": w}, x)
    dw, dx = pull(jnp.asarray(g))
    np.testing.assert_allclose(out, rounded(x, 1) @ rounded(w, 0), atol=1e-4)
    x, w = (rounded(x, 1), rounded(w, 0)) if at_rounded else (x, w)
    np.testing.assert_allclose(dw["kernel"], x.T @ g, atol=1e-4)
    np.testing.assert_allclose(dx, g @ w.T, atol=1e-4)


@pytest.mark.parametrize(
    ("weights", "inputs"), [(Int(4), Int(8, symmetric=False)), (Int(2, False), Int(6))]
)
def test_other_formats(weights, inputs):
    run = integer_forward(plain, weights=weights, inputs=inputs).run
    by_hand = simulated(plain, weights, inputs)

    def step(run):
        return jax.jit(jax.value_and_grad(lambda p: jnp.mean(run(p, X) ** 2)))(PLAIN)

    assert_close(step(run), step(by_hand))


def test_second_derivatives_are_those_of_rounded_floats():
    def curvature(run):
        def loss(params):
            return jnp.sum(jnp.sin(run(params, X)))

        def product(params):
            along = direction(params)
            forward = jax.jvp(jax.grad(loss), (params,), (along,))[1]
            reverse = jax.grad(lambda p: jax.jvp(loss, (p,), (along,))[1])(params)
            return forward, reverse

        return jax.jit(product)(PLAIN)

    forward, reverse = curvature(integer_forward(plain).run)
    assert_close(forward, reverse)
    assert_close(forward, curvature(simulated(plain))[0])


def test_models_are_mapped_scanned_and_rematerialized():
    stack = jax.tree.map(lambda x: jnp.stack([x, x + 0.1, 1 - x]), PLAIN)
    run = integer_forward(plain).run

    def gradient(run):
        return jax.value_and_grad(lambda params: jnp.mean(run(params, X) ** 2))

    one = jax.jit(gradient(run))
    expected = [one(jax.tree.map(lambda x, i=i: x[i], stack)) for i in range(3)]
    expected = jax.tree.map(lambda *xs: jnp.stack(xs), *expected)
    assert_close(jax.jit(jax.vmap(gradient(run)))(stack), expected)
    assert_close(jax.jit(jax.vmap(gradient(jax.checkpoint(run))))(stack), expected)
    looped = jax.jit(lambda s: lax.map(gradient(run), s))
    assert_close(looped(stack), expected)


def test_forward_products_are_of_integers_and_backward_ones_of_floats():
    run = integer_forward(plain).run
    assert products(run, PLAIN, X) == [INTEGERS] * 3

    def loss(params, x):
        return jnp.sum(run(params, x) ** 2)

    # Of each layer a gradient of the weights and, but for the first, of the input.
    assert products(jax.grad(loss), PLAIN, X) == [INTEGERS] * 3 + [FLOATS] * 5
    both = products(jax.grad(loss, (0, 1)), PLAIN, X)
    assert sorted(both) == [FLOATS] * 6 + [INTEGERS] * 3
    compiled = jax.jit(jax.grad(loss)).lower(PLAIN, X).compile().as_text()
    assert " s32[10,16]{1,0} dot(" in str(compiled)
