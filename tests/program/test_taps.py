# SPDX-License-Identifier: Apache-2.0
"""Features by name: that they are what they are called, and how they are chosen."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import normal
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from models import assert_same_bits, custom_rule

import jaxcompress as jc
from jaxcompress.program import OpaqueWarning, tap_names

PARAMS = {
    "first": {"w": normal(4, 6), "b": normal(6, seed=1)},
    "last": {"w": normal(6, 3, seed=2), "b": normal(3, seed=3)},
}
X = normal(5, 4, seed=4)


def net(params, x):
    x = jax.nn.relu(x @ params["first"]["w"] + params["first"]["b"][None])
    return x @ params["last"]["w"] + params["last"]["b"][None]


def hidden(params, x):
    return jax.nn.relu(x @ params["first"]["w"] + params["first"]["b"][None])


def close(x, y):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_probabilities_are_the_left_operand_where_they_are_written_there():
    def fn(params, x):
        q, k, v = (x @ params[name] for name in "qkv")
        with jax.named_scope("attend"):
            return jax.nn.softmax(q @ k.T) @ v

    params = {name: normal(4, 4, seed=i) for i, name in enumerate("qkv")}
    out, found = jc.taps(fn, "attend/*")(params, X)
    close(found["attend/dot_general#1/lhs"].sum(-1), jnp.ones(5))
    np.testing.assert_array_equal(found["attend/dot_general#1/rhs"], X @ params["v"])
    np.testing.assert_array_equal(found["attend/dot_general/lhs"], X @ params["q"])
    close(found["attend/dot_general#1/output"], out)


def test_inputs_and_outputs_of_products_are_those_by_hand():
    out, found = jc.taps(net, "*")(PARAMS, X)
    assert_same_bits(out, net(PARAMS, X))
    assert set(found) == {
        f"{leaf}/w/{side}" for leaf in ("first", "last") for side in ("input", "output")
    }
    np.testing.assert_array_equal(found["first/w/input"], X)
    # Bias and rectifier belong to the output.
    close(found["first/w/output"], hidden(PARAMS, X))
    np.testing.assert_array_equal(found["last/w/input"], found["first/w/output"])
    np.testing.assert_array_equal(found["last/w/output"], out)


def test_what_a_scope_gives_twice_is_numbered():
    def fn(params, x):
        with jax.named_scope("pair"):
            a, b = jnp.tanh(x), jnp.sin(x)
        return (a + b) @ params["first"]["w"]

    _, found = jc.taps(fn, "pair*")(PARAMS, X)
    assert set(found) == {"pair", "pair#1"}
    close(found["pair"], jnp.tanh(X))
    close(found["pair#1"], jnp.sin(X))


def test_scopes_nest():
    def fn(params, x):
        with jax.named_scope("outer"):
            with jax.named_scope("inner"):
                x = jnp.tanh(x)
            x = jnp.sin(x)
        return x @ params["first"]["w"]

    _, found = jc.taps(fn, ["outer", "outer/inner"])(PARAMS, X)
    close(found["outer/inner"], jnp.tanh(X))
    close(found["outer"], jnp.sin(jnp.tanh(X)))


def test_any_value_can_be_marked():
    def fn(params, x):
        x = checkpoint_name(jnp.sin(x), "sines")
        return (
            jax.jit(lambda x: checkpoint_name(x * 2, "twice"))(x) @ params["first"]["w"]
        )

    _, found = jc.taps(fn, ["sines", "twice"])(PARAMS, X)
    close(found["sines"], jnp.sin(X))
    close(found["twice"], 2 * jnp.sin(X))


def test_a_mark_that_is_set_twice_is_numbered_like_everything_else():
    """As of a block that is called for every layer."""

    def fn(params, x):
        for _ in range(2):
            x = checkpoint_name(jnp.sin(x), "sines")
        return x @ params["first"]["w"]

    _, found = jc.taps(fn, "sines*")(PARAMS, X)
    assert list(found) == ["sines", "sines#1"]
    close(found["sines"], jnp.sin(X))
    close(found["sines#1"], jnp.sin(jnp.sin(X)))


def test_gradients_flow_through_features():
    target = normal(5, 6, seed=9)

    def by_taps(params, x):
        _, found = jc.taps(net, "first/w/output")(params, x)
        return jnp.mean((found["first/w/output"] - target) ** 2)

    def by_hand(params, x):
        return jnp.mean((hidden(params, x) - target) ** 2)

    found, expected = (
        jax.grad(f, argnums=(0, 1))(PARAMS, X) for f in (by_taps, by_hand)
    )
    jax.tree.map(close, found, expected)
    assert jnp.abs(found[0]["first"]["w"]).max() > 0 and not found[0]["last"]["w"].any()


@pytest.mark.parametrize("transform", ["jit", "vmap", "checkpoint", "jit of vmap"])
def test_transformations_of_taps(transform):
    tapped = jc.taps(net, "first/w/output")
    run = {
        "jit": jax.jit(tapped),
        "vmap": lambda params, x: jax.vmap(tapped, (None, 0))(params, x[:, None]),
        "checkpoint": jax.checkpoint(tapped),
        "jit of vmap": jax.jit(jax.vmap(tapped, (None, 0))),
    }[transform]
    out, found = run(PARAMS, X[:, None] if "of" in transform else X)
    close(out.reshape(5, 3), net(PARAMS, X))
    close(found["first/w/output"].reshape(5, 6), hidden(PARAMS, X))


def test_taps_of_a_rewritten_function():
    rewritten = jc.rewrite(
        net, lambda site, op, operands, state: (op(*operands), state)
    )

    def fn(params, x):
        return rewritten(params, {}, x)[0]

    _, found = jc.taps(fn, "first/w/output")(PARAMS, X)
    close(found["first/w/output"], hidden(PARAMS, X))


def test_features_of_a_teacher_in_a_training_step():
    names = ["first/w/output", "last/w/output"]
    student, teacher = jc.taps(net, names), jc.taps(net, names)
    teacher_params = jax.tree.map(lambda x: x[..., ::-1] + 0.1, PARAMS)
    pruner = jc.masked(jc.magnitude_pruning(0.5), "*/w")

    def loss_fn(params, x, teacher_params):
        _, mine = student(params, x)
        _, theirs = teacher(teacher_params, x)
        theirs = lax.stop_gradient(theirs)
        return sum(jnp.mean((mine[name] - theirs[name]) ** 2) for name in names)

    def by_hand(params, x, teacher_params):
        return jnp.mean(
            (hidden(params, x) - hidden(teacher_params, x)) ** 2
        ) + jnp.mean((net(params, x) - net(teacher_params, x)) ** 2)

    ends, losses = [], []
    for loss in (loss_fn, by_hand):
        init, step = jc.train_step(loss, optax.sgd(0.1), pruner)
        state = init(PARAMS)
        for _ in range(3):
            state, metrics = step(state, X, teacher_params)
        ends.append(state.params)
        losses.append(float(metrics["loss"]))
    jax.tree.map(close, *ends)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_glob_several_globs_and_a_function_select():
    def chosen(select):
        return list(jc.taps(net, select)(PARAMS, X)[1])

    assert chosen("first/*") == ["first/w/input", "first/w/output"]
    assert chosen(["last/w/input", "first/*"]) == ["last/w/input", *chosen("first/*")]
    assert chosen(("*/input", "last/w/input")) == ["first/w/input", "last/w/input"]
    assert chosen(lambda name: name.endswith("output")) == [
        "first/w/output",
        "last/w/output",
    ]


def test_globs_that_can_be_read_once_select_in_every_call():
    tapped = jc.taps(net, (f"{leaf}/w/input" for leaf in ("first", "last")))
    names = ["first/w/input", "last/w/input"]
    for _ in range(2):
        assert list(tapped(PARAMS, X)[1]) == names


def test_an_unknown_glob_names_the_closest():
    with pytest.raises(ValueError) as error:
        jc.taps(net, ["first/*", "last/w/outptu"])(PARAMS, X)
    text = str(error.value)
    start = "'last/w/outptu' matches none of 4 features; closest: 'last/w/output', "
    assert text.startswith(start) and text.endswith(". Globs match the whole name.")


def test_a_function_that_selects_nothing_is_told_what_there_is():
    with pytest.raises(ValueError) as error:
        jc.taps(net, lambda name: False)(PARAMS, X)
    text = str(error.value)
    assert text.startswith("the function selected none of 4 features, which include ")
    assert "'first/w/input'" in text


def test_shapes_are_enough_for_names():
    shapes = jax.eval_shape(lambda *xs: xs, PARAMS, X)
    assert tap_names(net, *shapes) == tap_names(net, PARAMS, X)


def test_what_has_a_derivative_rule_of_its_own_is_said_or_looked_into():
    model = custom_rule()
    with pytest.warns(OpaqueWarning, match="^taps leaves these parts of the program"):
        _, found = jc.taps(model.fn, "*")(model.params, *model.args)
    assert set(found) == {"last/input", "last/output"}
    _, found = jc.taps(model.fn, "*", inline_custom=True)(model.params, *model.args)
    expected = jax.nn.relu(model.args[0] @ model.params["first"])
    close(found["first/output"], expected)
