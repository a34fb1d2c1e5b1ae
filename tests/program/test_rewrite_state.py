# SPDX-License-Identifier: Apache-2.0
"""State that a rule keeps: which place it belongs to, and that its kind stays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from jax import lax
from models import MODELS, linen_transformer, nested_scans

import jaxcompress as jc
from jaxcompress.program import observing
from jaxcompress.program.statistics import max_magnitude

W = {"w": normal(4, 4, scale=0.5), "v": normal(4, 4, seed=1, scale=0.5)}
X = normal(3, 4, seed=2)


def counting(site, op, operands, state):
    """How often the site ran."""
    return op(*operands), None if state is None else state + 1


def ranging(site, op, operands, state):
    """The largest magnitude that the data operand has had."""
    if state is None:
        return op(*operands), None
    seen = jnp.abs(operands[1 - (1 if site.weight is None else site.weight)]).max()
    return op(*operands), jnp.maximum(state, seen)


def zeros(fn, params, *args):
    """For each site a zero, or one a layer."""
    return {s.name: jnp.zeros(s.layers) for s in jc.sites(fn, params, *args)}


def run(fn, rule, params, *args):
    """New state, under jit and without it."""
    state = zeros(fn, params, *args)
    _, eager = jc.rewrite(fn, rule)(params, state, *args)
    _, new = jax.jit(jc.rewrite(fn, rule))(params, state, *args)
    for name in state:
        assert (new[name].shape, new[name].dtype) == (
            state[name].shape,
            state[name].dtype,
        )
        np.testing.assert_allclose(eager[name], new[name], rtol=1e-5)
    assert new.keys() == state.keys()
    return new


@pytest.mark.parametrize(
    "name", [n for n in MODELS if n not in ("custom_rule", "loops")]
)
def test_every_site_counts_its_trips_in_every_model(name):
    fn, params, args, _ = MODELS[name]()
    sites = jc.sites(fn, params, *args)
    new = jax.jit(jc.rewrite(fn, counting))(params, zeros(fn, params, *args), *args)[1]
    assert new.keys() == {s.name for s in sites}
    for s in sites:
        counts = new[s.name]
        assert counts.shape == s.layers
        assert counts.sum() == s.trips and (counts == counts.max()).all()


def test_each_layer_of_a_scan_has_state_of_its_own():
    params = {"layers": jnp.stack([W["w"], 2 * W["v"], 3 * W["w"]])}

    def fn(params, x):
        return lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["layers"])[0]

    x, expected = X, []
    for w in params["layers"]:
        expected.append(jnp.abs(x).max())
        x = jnp.tanh(x @ w)
    np.testing.assert_allclose(
        run(fn, ranging, params, X)["layers"], expected, rtol=1e-5
    )


def test_reversed_layers_find_their_own_state():
    params = {"layers": jnp.stack([W["w"], 2 * W["v"], 3 * W["w"]])}

    def fn(params, x):
        def layer(x, w):
            return jnp.tanh(x @ w), None

        return lax.scan(layer, x, params["layers"], reverse=True, unroll=2)[0]

    x, expected = X, []
    for w in params["layers"][::-1]:
        expected.append(jnp.abs(x).max())
        x = jnp.tanh(x @ w)
    new = run(fn, ranging, params, X)["layers"]
    np.testing.assert_allclose(new, expected[::-1], rtol=1e-5)


def test_layers_under_remat_and_tied_leaves():
    model = linen_transformer()
    new = run(model.fn, ranging, model.params, *model.args)
    query = new["params/layers/attention/query/kernel"]
    # The three of them see the same activations.
    for name in ("key", "value"):
        np.testing.assert_array_equal(
            query, new[f"params/layers/attention/{name}/kernel"]
        )
    assert len(set(query.tolist())) == 3
    indices = model.args[0]
    assert new["params/embed/embedding"] == indices.max()
    assert new["params/embed/embedding#1"] > 0


def test_a_recurrence_carries_its_state_through_time():
    def fn(params, xs):
        def step(h, x):
            return jnp.tanh(x @ params["v"] + h @ params["w"]), None

        return lax.scan(step, jnp.zeros((3, 4)), xs)[0]

    xs, h, largest = normal(5, 3, 4), jnp.zeros((3, 4)), jnp.zeros(())
    for x in xs:
        largest = jnp.maximum(largest, jnp.abs(h).max())
        h = jnp.tanh(x @ W["v"] + h @ W["w"])
    new = run(fn, ranging, W, xs)
    np.testing.assert_allclose(new["w"], largest, rtol=1e-5)
    np.testing.assert_allclose(new["v"], jnp.abs(xs).max(), rtol=1e-6)


def test_layers_inside_of_time_keep_one_state_a_layer_over_time():
    model = nested_scans()
    params, (x,) = model.params, model.args
    hidden, largest = [jnp.zeros((2, 4))] * 3, [jnp.zeros(())] * 3
    for step in x.swapaxes(0, 1):
        for i in range(3):
            w_in, w_hidden = (params["layers"][k][i] for k in ("in", "hidden"))
            largest[i] = jnp.maximum(largest[i], jnp.abs(hidden[i]).max())
            step = hidden[i] = jnp.tanh(step @ w_in + hidden[i] @ w_hidden)
    new = run(model.fn, ranging, params, x)
    np.testing.assert_allclose(new["layers/hidden"], largest, rtol=1e-5)


def test_a_while_carries_its_state():
    def fn(params, x):
        def trip(carry):
            i, x = carry
            return i + 1, jnp.tanh(x @ params["w"])

        return lax.while_loop(lambda carry: carry[0] < 4, trip, (0, x @ params["v"]))[1]

    assert run(fn, counting, W, X) == {"w": 4, "v": 1}


@pytest.mark.parametrize("taken", [True, False])
def test_of_two_branches_the_one_that_is_taken_changes_its_state(taken):
    def fn(params, x):
        return lax.cond(
            taken == (x[0, 0] == x[0, 0]),
            lambda x: x @ params["w"],
            lambda x: x @ params["v"],
            x,
        )

    assert run(fn, counting, W, X) == {"w": taken, "v": not taken}


@pytest.mark.parametrize("index, runs", [(-1, 0), (0, 0), (1, 1), (2, 2), (7, 2)])
def test_so_in_a_switch(index, runs):
    """The index is clamped, as it was."""

    def fn(params, index, x):
        branches = [
            lambda x: x,
            lambda x: x @ params["w"],
            lambda x: x @ params["w"] @ params["w"],
        ]
        return lax.switch(index, branches, x)

    new = run(fn, counting, W, jnp.asarray(index), X)
    assert sum(new.values()) == runs


def test_branches_in_layers_in_time_in_a_while():
    """Everything at once: layer i multiplies at the steps that i divides."""
    params = {"layers": normal(3, 4, 4), "numbers": jnp.arange(1.0, 4.0)}

    def fn(params, x):
        def layer(carry, layer_params):
            t, x = carry
            w, number = layer_params
            branch = jax.checkpoint(lambda w, x: jnp.tanh(x @ w))
            x = lax.cond(t % number == 0, branch, lambda w, x: x, w, x)
            return (t, x), None

        def step(x, t):
            return lax.scan(layer, (t, x), (params["layers"], params["numbers"]))[0][
                1
            ], None

        def epoch(carry):
            i, x = carry
            return i + 1, lax.scan(step, x, jnp.arange(6.0))[0]

        return lax.while_loop(lambda carry: carry[0] < 2, epoch, (0, x))[1]

    new = run(fn, counting, params, X)
    # Of six steps from 0 on all, three and two; and this twice.
    np.testing.assert_array_equal(new["layers"], [12, 6, 4])


def test_state_may_be_any_tree_and_for_some_sites_only():
    def fn(params, x):
        return jnp.tanh(x @ params["w"]) @ params["v"]

    def rule(site, op, operands, state):
        result = op(*operands)
        if state is None:
            return result, None
        return result, {"calls": state["calls"] + 1, "last": (result, None)}

    state = {"v": {"calls": jnp.asarray(5), "last": (jnp.zeros((3, 4)), None)}}
    out, new = jc.rewrite(fn, rule)(W, state, X)
    assert new.keys() == {"v"} and new["v"]["calls"] == 6
    np.testing.assert_array_equal(new["v"]["last"][0], out)
    assert state["v"]["calls"] == 5  # what was passed in stays as it was


def test_vmap_gives_every_member_its_state():
    def fn(params, x):
        return x @ params["w"]

    xs = jnp.stack([X, 3 * X])
    step = jax.vmap(jc.rewrite(fn, ranging), (None, 0, 0))
    _, new = step({"w": W["w"]}, {"w": jnp.zeros(2)}, xs)
    np.testing.assert_allclose(new["w"], jnp.abs(xs).max((1, 2)))


def test_gradients_flow_through_state():
    def fn(params, x):
        return x @ params["w"]

    def rule(site, op, operands, state):
        return op(*operands), state * jnp.sum(operands[1])

    def last(params):
        return jc.rewrite(fn, rule)(params, {"w": 2.0}, X)[1]["w"]

    np.testing.assert_array_equal(
        jax.grad(last)({"w": W["w"]})["w"], jnp.full((4, 4), 2.0)
    )


def turned(new):
    return lambda site, op, operands, state: (op(*operands), new)


@pytest.mark.parametrize(
    "old, new, text",
    [
        (1.0, jnp.asarray(1), "from float32() to int32()"),
        (1.0, jnp.ones(2), "from float32() to float32(2,)"),
        (1.0, (1.0,), "from float32() to ('float32()',)"),
        (1.0, None, "from float32() to None"),
        (
            jnp.zeros(2, jnp.bfloat16),
            jnp.zeros(2),
            "from bfloat16(2,) to float32(2,)",
        ),
    ],
)
@pytest.mark.parametrize("layered", [False, True])
def test_a_rule_that_changes_the_kind_of_its_state_is_refused(old, new, text, layered):
    def fn(params, x):
        if not layered:
            return x @ params["w"]
        return lax.scan(lambda x, w: (x @ w, None), x, params["w"][None])[0]

    state = jax.tree.map(lambda x: jnp.asarray(x)[None], old) if layered else old
    with pytest.raises(ValueError) as error:
        jc.rewrite(fn, turned(new))({"w": W["w"]}, {"w": state}, X)
    assert f"it changed the state of 'w' {text}." in str(error.value)
    assert "must keep the structure, shapes and dtypes" in str(error.value)


def test_a_rule_that_makes_up_state_is_refused():
    with pytest.raises(ValueError, match=r"state of 'w' from None to float32\(\)"):
        jc.rewrite(lambda p, x: x @ p["w"], turned(1.0))(W, {}, X)


def test_a_rule_that_forgets_its_state_is_told():
    """Also where the result has two rows, which would unpack into result and state."""

    def forgetful(site, op, operands, state):
        return op(*operands)

    with pytest.raises(
        TypeError, match=r"must return \(result, state\), got .* at 'w'"
    ):
        jc.rewrite(lambda p, x: x @ p["w"], forgetful)(W, {}, X[:2])


def test_arguments_in_another_order_are_told():
    def fn(params, x):
        return x @ params["w"]

    quantized = jc.quantize_activations(fn)
    observer = observing(fn, max_magnitude())
    for swapped in (jc.rewrite(fn, counting), quantized.train, observer.update):
        with pytest.raises(
            TypeError, match=r"second argument: \(params, state, \*args\)"
        ):
            swapped(W, X, {})


def test_state_for_another_function_is_refused():
    model = linen_transformer()
    with pytest.raises(ValueError) as error:
        jc.rewrite(model.fn, counting)(
            model.params, {"params/layers/upp/kernel": 0.0}, *model.args
        )
    text = str(error.value)
    assert "'params/layers/upp/kernel', which this function does not have" in text
    assert "closest: 'params/layers/up/kernel', " in text

    with pytest.raises(ValueError, match="closest: none"):
        jc.rewrite(lambda p, x: x + p["w"][:3], counting)(W, {"w": 0.0}, X)
