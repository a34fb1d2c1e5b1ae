# SPDX-License-Identifier: Apache-2.0
"""Products are timed where they stand, and codes are multiplied as they are stored."""

import math
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from jax import lax

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.program import Measured, always
from jaxcompress.program.integers._execute import prepare
from jaxcompress.program.integers._measure import programs
from jaxcompress.quantize import to_qarray

W = normal(16, 24)
X = normal(5, 10, 16, seed=1)


def packed(leaf, outputs, symmetric=True):
    scales = [n if i in outputs else 1 for i, n in enumerate(leaf.shape)]
    return {"w": to_qarray(leaf, Int(8, symmetric), scale_shape=scales)}


def run(fn, params, *args):
    return jc.execute(fn, pays=always).run(params, *args)


def recurrent(product):
    """A loop over the first axis of x, with the same weight in every trip."""

    def fn(params, x):
        def trip(h, x):
            return jnp.tanh(h + product(x, params["w"])), None

        return lax.scan(trip, jnp.zeros((x.shape[1], 24)), x)[0]

    return fn


@pytest.mark.parametrize(
    ("rows", "symmetric"),  # on CPU, few rows are padded
    [
        (3, True),
        pytest.param(10, False, marks=pytest.mark.slow),
        pytest.param(10, True, marks=pytest.mark.slow),
        pytest.param(3, False, marks=pytest.mark.slow),
    ],
)
def test_codes_are_multiplied_as_they_are_stored(rows, symmetric):
    """Sums of integers are exact, so every layout of a weight gives the same bits."""
    x = X[:, :rows]
    expected = run(recurrent(lambda x, w: x @ w), packed(W, [1], symmetric), x)
    cases = {
        "transposed": (lambda x, w: x @ w.T, packed(W.T, [0], symmetric)),
        "on the left": (lambda x, w: (w @ x.T).T, packed(W.T, [0], symmetric)),
        "heads": (
            lambda x, w: jnp.einsum("bi,hio->bho", x, w).reshape(rows, 24),
            packed(W.reshape(16, 4, 6).transpose(1, 0, 2), [0, 2], symmetric),
        ),
        "heads last": (
            lambda x, w: jnp.einsum("bi,oih->bho", x, w).reshape(rows, 24),
            packed(W.reshape(16, 4, 6).transpose(2, 0, 1), [0, 2], symmetric),
        ),
        "merged": (
            lambda x, w: x @ w.transpose(2, 0, 1).reshape(16, 24),
            packed(W.reshape(16, 4, 6).transpose(1, 2, 0), [0, 1], symmetric),
        ),
    }
    for name, (product, params) in cases.items():
        fn = recurrent(product)
        np.testing.assert_array_equal(run(fn, params, x), expected, err_msg=name)
        text = str(jax.make_jaxpr(lambda p, fn=fn: run(fn, p, x))(params))
        refuse_moved_codes(text)


def refuse_moved_codes(text):
    """XLA would fold it into the product, which then is slow."""
    assert "i8[" in text
    for shape in re.findall(r":[iu]8\[([\d,]+)\] = transpose", text):
        assert math.prod(map(int, shape.split(","))) != W.size, text


def test_training_multiplies_codes_as_weights_are_stored():
    def loss(product):
        run = jc.program.integer_forward(
            lambda params, x: product(x, params["w"]), pays=always
        ).run
        return lambda params: jnp.sum(run(params, X[0]) ** 2)

    first, other = loss(lambda x, w: x @ w), loss(lambda x, w: x @ w.T)
    (a, grad), (b, mirrored) = (
        jax.value_and_grad(loss)({"w": w}) for loss, w in ((first, W), (other, W.T))
    )
    assert a == b
    np.testing.assert_allclose(grad["w"], mirrored["w"].T, rtol=1e-5, atol=1e-5)
    text = str(jax.make_jaxpr(other)({"w": W.T}))
    refuse_moved_codes(text)
    assert "dimension_numbers=(([1], [1])" in text


def test_a_product_is_timed_in_the_loops_that_it_stands_in():
    def layers_of_loops(params, x):
        def layer(x, w):
            return lax.scan(lambda h, x: (h, jnp.tanh(x @ w)), 0, x)[1], None

        return lax.scan(layer, x, params["w"])[0]

    def loop(params, x):
        return lax.map(lambda x: x @ params["w"], x)

    stacked = normal(3, 16, 16, seed=2)
    long = jnp.zeros((20, 10, 16))
    for fn, params, x, lengths in [
        (layers_of_loops, packed(stacked, [0, 2]), X, {3, 5}),
        (loop, packed(W, [1]), long, {8}),  # no more than 8 trips
        (lambda params, x: x[0] @ params["w"], packed(W, [1]), X, set()),
    ]:
        (p,) = prepare(fn, None, lambda site: True, False, params, (x,), None).products
        for program in programs(p):
            text = str(jax.make_jaxpr(program)())
            assert set(map(int, re.findall(r"\blength=(\d+)", text))) == lengths
            assert jnp.isfinite(program()).all()


def test_integers_are_chosen_only_beyond_the_noise(monkeypatch):
    """With a clock that we set: floats take 10 +- 1, integers what is given."""

    def choice(integers):
        now, times = 0.0, []
        for seconds in [10, integers, *[9, integers, 11] * 3]:
            times += [now, now + seconds]
            now += seconds
        clock = SimpleNamespace(perf_counter=iter(times).__next__)
        monkeypatch.setattr("jaxcompress.program.integers._measure.time", clock)
        pays = jc.program.measured(
            lambda params, x: x @ params["w"], packed(W, [1]), X[0], rounds=3
        )
        monkeypatch.undo()
        assert pays.ratios["w"] == pytest.approx(integers / 10)
        assert pays.noise["w"] == pytest.approx(2 / 11)
        site = jc.sites(lambda params, x: x @ params["w"], {"w": W}, X[0])["w"]
        return pays(site)

    assert not choice(9.0)  # faster, but not by more than two equal runs differ
    assert choice(8.0)
    assert not Measured({})(jc.sites(lambda p, x: x @ p["w"], {"w": W}, X[0])["w"])
