# SPDX-License-Identifier: Apache-2.0
"""Features from inside of loops, and from where none can leave."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from models import nested_scans

import jaxcompress as jc
from jaxcompress.program import tap_names

W = {"w": normal(4, 4, scale=0.5)}
X = normal(2, 4, seed=1)


def close(x, y):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def recurrent(params, xs):
    def step(h, x):
        h = checkpoint_name(jnp.tanh(x @ params["in"] + h @ params["hidden"]), "h")
        return h, h @ params["out"]

    return lax.scan(step, jnp.zeros((xs.shape[1], 3)), xs)


RECURRENT = {
    "in": normal(4, 3),
    "hidden": normal(3, 3, seed=1),
    "out": normal(3, 2, seed=2),
}
XS = normal(5, 2, 4, seed=3)


def states(params, xs):
    """All states of the recurrent network, the first one included."""
    hs = [jnp.zeros((2, 3))]
    for x in xs:
        hs.append(jnp.tanh(x @ params["in"] + hs[-1] @ params["hidden"]))
    return jnp.stack(hs)


def test_features_over_time_are_stacked():
    (last, ys), found = jc.taps(recurrent, "*")(RECURRENT, XS)
    hs = states(RECURRENT, XS)
    close(found["h"], hs[1:])
    close(found["in/input"], XS)
    close(found["hidden/input"], hs[:-1])
    close(found["out/output"], hs[1:] @ RECURRENT["out"])
    np.testing.assert_array_equal(found["h"][-1], last)
    np.testing.assert_array_equal(found["out/output"], ys)


def layers(params, x):
    @jax.checkpoint
    def layer(x, w):
        return x + checkpoint_name(jnp.tanh(x @ w), "step")

    return lax.scan(lambda x, w: (layer(x, w), None), x, params["w"])[0]


def steps(params, x):
    """What the layers add, one after another."""
    found = []
    for w in params["w"]:
        found.append(jnp.tanh(x @ w))
        x = x + found[-1]
    return jnp.stack(found)


@pytest.mark.parametrize(
    "fn, name, params, x, by_hand",
    [
        (recurrent, "h", RECURRENT, XS, lambda *xs: states(*xs)[1:]),
        (layers, "step", {"w": normal(3, 4, 4, seed=5)}, X, steps),
    ],
    ids=["time", "checkpointed layers"],
)
def test_gradients_flow_out_of_loops(fn, name, params, x, by_hand):
    weights = normal(*jax.eval_shape(by_hand, params, x).shape, seed=7)

    def by_taps(params, x):
        return jc.taps(fn, name)(params, x)[1][name]

    def total(features):
        return lambda params, x: jnp.sum(weights * features(params, x) ** 2)

    found, expected = (
        jax.jit(jax.grad(total(f), argnums=(0, 1)))(params, x)
        for f in (by_taps, by_hand)
    )
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
        found,
        expected,
    )


def test_a_backward_scan_keeps_the_order_of_its_data():
    def fn(params, xs):
        def step(h, x):
            return jnp.tanh(x @ params["w"] + h), None

        return lax.scan(step, jnp.zeros((2, 4)), xs, reverse=True)[0]

    _, found = jc.taps(fn, "w/input")(W, XS)
    np.testing.assert_array_equal(found["w/input"], XS)


def test_loops_in_loops_have_an_axis_each():
    model = nested_scans(batch=2)  # 3 layers within 5 steps
    out, found = jc.taps(model.fn, "*")(model.params, *model.args)
    assert found["layers/in/input"].shape == (5, 3, 2, 4)
    assert found["out/input"].shape == (5, 2, 4)
    # The first layer reads the data, and every other one what the one below gives.
    close(found["layers/in/input"][:, 0], model.args[0].swapaxes(0, 1))
    h = jnp.tanh(found["add"])
    close(found["layers/in/input"][:, 1:], h[:, :-1])
    close(found["layers/hidden/input"][1:], h[:-1])
    close(found["out/input"], h[:, -1])
    np.testing.assert_array_equal(found["out/output"], out)


def test_a_loop_whose_length_is_known_is_a_scan():
    def fn(params, x):
        return lax.fori_loop(0, 3, lambda _, x: jnp.tanh(x @ params["w"]), x)

    out, found = jc.taps(fn, "w/*")(W, X)
    assert found["w/input"].shape == (3, 2, 4)
    close(jnp.tanh(found["w/output"][-1]), out)


def test_what_does_not_change_in_a_loop_is_there_in_every_trip():
    def fn(params, x):
        return lax.scan(lambda h, _: (h + x @ params["w"], None), X, None, length=3)[0]

    _, found = jc.taps(fn, "w/input")(W, X)
    np.testing.assert_array_equal(found["w/input"], jnp.stack([X] * 3))


def test_a_mapped_function_is_a_loop_too():
    def fn(params, x):
        return lax.map(lambda row: jnp.tanh(row @ params["w"]), x)

    _, found = jc.taps(fn, "w/output")(W, X)
    close(found["w/output"], X @ W["w"])


def in_a_while(params, x):
    return lax.while_loop(lambda x: x.sum() > 9, lambda x: x @ params["w"], x)


def in_a_branch(params, x):
    return lax.cond(x.sum() > 0, lambda x: x @ params["w"], lambda x: x, x)


def in_a_scan_in_a_branch(params, x):
    def loop(x):
        return lax.scan(lambda x, _: (x @ params["w"], None), x, None, length=2)[0]

    return lax.cond(x.sum() > 0, loop, lambda x: x, x)


def in_a_branch_in_a_scan(params, x):
    return lax.scan(lambda x, _: (in_a_branch(params, x), None), x, None, length=2)[0]


def in_a_checkpoint_in_a_while(params, x):
    body = jax.checkpoint(lambda x: x @ params["w"])
    return lax.while_loop(lambda x: x.sum() > 9, body, x)


@pytest.mark.parametrize(
    "fn",
    [
        in_a_while,
        in_a_branch,
        in_a_scan_in_a_branch,
        in_a_branch_in_a_scan,
        in_a_checkpoint_in_a_while,
    ],
)
def test_no_feature_leaves_a_while_loop_or_a_branch(fn):
    def around(params, x):
        return jnp.tanh(x @ params["v"]) + fn(params, x)

    params = {**W, "v": W["w"].T}
    names = tap_names(around, params, X)
    assert "v/input" in names and not any(name.startswith("w/") for name in names)
    # A glob for everything means everything there is.
    _, found = jc.taps(around, "*")(params, X)
    assert list(found) == list(names)
    with pytest.raises(ValueError) as error:
        jc.taps(around, "w/*")(params, X)
    assert str(error.value) == (
        "'w/*' matches 'w/input', but features inside a while loop or a branch "
        "cannot be returned. Choose a feature outside."
    )


def test_features_around_a_branch_leave():
    def fn(params, x):
        return in_a_branch(params, jnp.tanh(x @ params["v"])) @ params["v"]

    params = {**W, "v": W["w"].T}
    _, found = jc.taps(fn, "v*")(params, X)
    close(found["v#1/input"], in_a_branch(params, jnp.tanh(X @ params["v"])))
