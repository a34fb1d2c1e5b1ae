# SPDX-License-Identifier: Apache-2.0
"""Observing through loops, branches and views, against rows that are written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from rows import STATS, close, equal, expected, integers, of_layer

import jaxcompress as jc
from jaxcompress.program.statistics import gram, max_magnitude

X = integers(8, 4, seed=1)


def bounded(x):
    """Keeps integers small ones."""
    return jnp.clip(x, -7, 7)


def scanned(params, x):
    return lax.scan(lambda x, w: (bounded(x @ w), None), x, params["w"])[0]


def checkpointed(params, x):
    layer = jax.checkpoint(lambda x, w: bounded(x @ w))
    return lax.scan(lambda x, w: (layer(x, w), None), x, params["w"])[0]


def backwards(params, x):
    """The same layers, stored in the other order."""
    return lax.scan(lambda x, w: (bounded(x @ w), None), x, params["w"], reverse=True)[
        0
    ]


def nested(params, x):
    def group(x, ws):
        return scanned({"w": ws}, x), None

    return lax.scan(group, x, params["w"])[0]


@pytest.mark.parametrize("loop", [scanned, checkpointed, jax.jit(scanned)])
def test_layers_of_a_scan_are_observed_one_by_one(loop):
    params = {"w": integers(3, 4, 4)}
    found = jc.observe(loop, params, [X], STATS)["w"]
    x = X
    for i in range(3):
        equal(of_layer(found, i), expected(x))
        x = bounded(x @ params["w"][i])


def test_layers_that_run_backwards_stay_in_their_places():
    params = {"w": integers(3, 4, 4)}
    found = jc.observe(backwards, params, [X], STATS)["w"]
    turned = jc.observe(scanned, {"w": params["w"][::-1]}, [X], STATS)["w"]
    equal(found, jax.tree.map(lambda x: x[::-1], turned))


def test_nested_layers_have_an_axis_each():
    w = integers(2, 3, 4, 4)
    found = jc.observe(nested, {"w": w}, jnp.split(X, 2), STATS)["w"]
    flat = jc.observe(
        lambda params, x: lax.scan(lambda x, w: (bounded(x @ w), None), x, params["w"])[
            0
        ],
        {"w": w.reshape(6, 4, 4)},
        [X],
        STATS,
    )["w"]
    assert found["m"].shape == (2, 3, 4, 1) and found["s"].count.shape == (2, 3)
    assert (jnp.abs(w) * found["s"].norm).shape == w.shape
    equal(jax.tree.map(lambda x: x.reshape(6, *x.shape[2:]), found), flat)


def test_a_recurrent_network_has_the_rows_of_all_times():
    params = {"in": integers(4, 3), "hidden": integers(3, 3, seed=2)}
    xs = integers(5, 2, 4, seed=3)

    def step(params, h, x):
        return bounded(x @ params["in"] + h @ params["hidden"])

    def fn(params, xs):
        def run(h, x):
            h = step(params, h, x)
            return h, h

        return lax.scan(run, jnp.zeros((2, 3)), xs)[1]

    found = jc.observe(fn, params, [xs], STATS)
    hs = [jnp.zeros((2, 3))]
    for x in xs:
        hs.append(step(params, hs[-1], x))
    # The running means of five steps round; nothing else does.
    for leaf, rows in [("in", xs), ("hidden", jnp.stack(hs[:-1]))]:
        close(found[leaf], expected(rows))
        equal(found[leaf]["g"], expected(rows)["g"])
        assert found[leaf]["s"].count == 10


def test_a_while_loop_has_the_rows_of_all_its_trips():
    params = {"w": integers(4, 4)}

    def fn(params, x, trips):
        def trip(carry):
            i, x = carry
            return i + 1, bounded(x @ params["w"])

        return lax.while_loop(lambda carry: carry[0] < trips, trip, (0, x))[1]

    found = jc.observe(fn, params, [(X, 3), (X, 0)], gram())["w"]
    x, rows = X, []
    for _ in range(3):
        rows.append(x)
        x = bounded(x @ params["w"])
    equal(found, expected(jnp.stack(rows))["g"])


def test_a_branch_has_the_rows_of_the_calls_that_took_it():
    params = {"a": integers(4, 4), "b": integers(4, 4, seed=2)}

    def fn(params, x, flag):
        return lax.cond(flag, lambda: x @ params["a"], lambda: bounded(x) @ params["b"])

    batches = [(X[:2], True), (X[2:5], False), (X[5:], True)]
    found = jc.observe(fn, params, batches, {"m": max_magnitude(), "g": gram()})
    taken = jnp.concatenate([X[:2], X[5:]])
    for leaf, rows in [("a", taken), ("b", bounded(X[2:5]))]:
        equal(found[leaf], expected(rows, "mg"))


def test_a_leaf_that_is_used_twice_has_the_rows_of_both_uses():
    params = {"w": integers(4, 4)}

    def fn(params, x):
        return bounded(x @ params["w"]) @ params["w"]

    found = jc.observe(fn, params, [X[:4], X[4:]], STATS)["w"]
    rows = jnp.concatenate([X, bounded(X @ params["w"])])
    equal(found, expected(rows))


def test_both_uses_of_stacked_layers():
    params = {"w": integers(3, 4, 4)}

    def fn(params, x):
        return scanned(params, scanned(params, x))

    found = jc.observe(fn, params, [X], gram())["w"]
    rows = [X]
    for i in range(6):
        rows.append(bounded(rows[-1] @ params["w"][i % 3]))
    for i in range(3):
        both = jnp.concatenate([rows[i], rows[i + 3]])
        equal(of_layer(found, i), expected(both)["g"])


def of_outputs_first(gram):
    """The same statistics of a leaf whose features are its second axis."""
    return gram._replace(squares=gram.squares.T)


def test_a_table_that_is_tied_has_the_rows_of_its_product_only():
    table = integers(7, 4)
    tokens = jnp.array([[1, 2, 6], [0, 2, 2]])

    def fn(params, tokens):
        x = bounded(params["table"][tokens] * 2)
        return x @ params["table"].T

    found = jc.observe(fn, {"table": table}, [tokens], STATS)["table"]
    rows = bounded(table[tokens] * 2)
    np.testing.assert_array_equal(found["m"], expected(rows)["m"].T)
    equal(found["g"], of_outputs_first(expected(rows)["g"]))


def test_what_is_looked_up_only_is_not_observed():
    params = {"table": integers(7, 4), "w": integers(4, 3)}

    def fn(params, tokens):
        return params["table"][tokens] @ params["w"]

    tokens = jnp.array([0, 3, 3])
    found = jc.observe(fn, params, [tokens], max_magnitude())
    assert found["table"] is None
    with pytest.raises(ValueError, match="'table' .* cannot be observed"):
        jc.observe(fn, params, [tokens], max_magnitude(), where="table")


@pytest.mark.parametrize(
    "view",
    [
        lambda params: params["w"] * params["mask"],
        lambda params: jnp.where(params["mask"] > 0, params["w"], 0),
        lambda params: params["w"] * params["mask"][:, :1],
    ],
)
def test_rows_are_those_that_a_masked_weight_is_given(view):
    params = {"w": integers(4, 3), "mask": integers(4, 3, seed=2) % 2}
    found = jc.observe(lambda params, x: x @ view(params), params, [X], STATS)
    assert found["mask"] is None
    equal(found["w"], expected(X))


def test_vmapped_examples_are_rows():
    params = {"w": integers(3, 4), "b": integers(3)}

    def one(params, x):
        return params["w"] @ x + params["b"]

    found = jc.observe(jax.vmap(one, (None, 0)), params, [X], STATS)["w"]
    np.testing.assert_array_equal(found["m"], expected(X)["m"].T)
    equal(found["g"], of_outputs_first(expected(X)["g"]))
