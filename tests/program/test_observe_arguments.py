# SPDX-License-Identifier: Apache-2.0
"""What batches, statistics and selections may be, and what is said where they may not."""

import warnings
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from models import custom_rule
from rows import integers

import jaxcompress as jc
from jaxcompress.program import OpaqueWarning, observing
from jaxcompress.program.statistics import gram, max_magnitude

PARAMS = {"first": {"w": integers(4, 3), "b": integers(3)}, "last": integers(3, 2)}
X = integers(8, 4, seed=1)


def net(params, x):
    x = x @ params["first"]["w"] + params["first"]["b"][None]
    return jnp.clip(x, -7, 7) @ params["last"]


def observed(batches, stats, fn=net, params=PARAMS, **options):
    return jc.observe(fn, params, batches, stats, **options)


class Batch(NamedTuple):
    image: Any
    label: Any


def test_a_tuple_is_several_arguments_and_every_other_batch_is_one():
    params, label = {"w": integers(4, 2)}, integers(8, 2)
    expected = jnp.abs(X).max(0)[:, None]
    for batch, fn in [
        ((X, label), lambda params, x, y: x @ params["w"] - y),
        ((X,), lambda params, x: x @ params["w"]),
        (Batch(X, label), lambda params, b: b.image @ params["w"] - b.label),
        ({"x": X, "y": label}, lambda params, b: b["x"] @ params["w"] - b["y"]),
        ([X, label], lambda params, b: b[0] @ params["w"] - b[1]),
    ]:
        found = observed(iter([batch]), max_magnitude(), fn, params)
        np.testing.assert_array_equal(found["w"], expected)


def test_no_batches_are_an_error():
    used_up = iter([X])
    observed(used_up, max_magnitude())
    with pytest.raises(ValueError) as error:
        observed(used_up, max_magnitude())
    assert str(error.value) == (
        "batches must contain at least one batch, got none. An iterator that was "
        "already consumed is empty."
    )


def test_nothing_to_observe_is_an_error():
    with pytest.raises(ValueError) as error:
        observed(
            [X], max_magnitude(), lambda params, x: x + params["b"][None], {"b": X[0]}
        )
    text = "no product of the function multiplies data by a parameter."
    assert text in str(error.value)


def test_a_selected_leaf_that_no_product_reads_is_named():
    with pytest.raises(ValueError) as error:
        observed([X], max_magnitude(), where="first/*")
    assert str(error.value) == (
        "the inputs of 'first/b' (no product reads it) cannot be observed. Select the "
        "other leaves with `where=`."
    )


def test_a_glob_that_matches_nothing_names_the_closest():
    with pytest.raises(ValueError, match="selected none of 3 leaves; closest: 'last'"):
        observed([X], max_magnitude(), where="lost")


def test_a_leaf_that_is_split_is_refused_and_can_be_left_out():
    params = {"split": integers(8, 2), "w": integers(2, 3)}

    def fn(params, x):
        x = jnp.einsum("nf,hfo->no", x, params["split"].reshape(2, 4, 2))
        return x @ params["w"]

    with pytest.raises(ValueError) as error:
        observed([X], max_magnitude(), fn, params)
    assert "'split' (the parameter reaches it through an operation that mixes" in str(
        error.value
    )
    assert "Select the other leaves with `where=`." in str(error.value)
    found = observed([X], max_magnitude(), fn, params, where="w")
    assert found["split"] is None and found["w"].shape == (2, 1)


def test_two_uses_that_sum_over_other_axes_have_nothing_in_common():
    params = {"w": integers(4, 4)}

    def fn(params, x):
        return x @ params["w"] @ params["w"].T

    with pytest.raises(ValueError) as error:
        observed([X], max_magnitude(), fn, params)
    text = str(error.value)
    assert text.startswith("'w' is used in two ways: 'w' sums over its axes (0,) ")
    assert "'w#1' over (1,)" in text and "cannot share statistics" in text
    assert text.endswith("Exclude the leaf with `where=`.")


def test_what_has_a_derivative_rule_of_its_own_is_said_or_looked_into():
    model = custom_rule()
    with pytest.warns(OpaqueWarning) as caught:
        found = observed([model.args], max_magnitude(), model.fn, model.params)
    text = str(caught[0].message)
    assert text.startswith("observe leaves these parts of the program unchanged:\n")
    assert "custom_vjp_call (1 products)" in text and "inline_custom=True" in text
    assert found["first"] is None and found["last"] is not None

    found = observed(
        [model.args], max_magnitude(), model.fn, model.params, inline_custom=True
    )
    expected = jnp.abs(model.args[0]).max(0)[:, None]
    np.testing.assert_array_equal(found["first"], expected)


def test_a_selected_leaf_inside_of_such_a_function_is_refused():
    model = custom_rule()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OpaqueWarning)
        with pytest.raises(ValueError) as error:
            observed(
                [model.args], max_magnitude(), model.fn, model.params, where="first"
            )
    assert "'first' (" in str(error.value) and "cannot be observed" in str(error.value)
    assert "not entered: custom_vjp_call (1 products)" in str(error.value)
    assert "inline_custom=True looks inside" in str(error.value)


@pytest.mark.parametrize("stats", [gram, {"a": gram(), "b": max_magnitude}, ["gram"]])
def test_what_is_no_statistic_is_refused(stats):
    with pytest.raises(TypeError) as error:
        observed([X], stats)
    kind = "str" if isinstance(stats, list) else "function"
    assert f"stats must be a Statistic or a tree of them, got a {kind}. Call" in str(
        error.value
    )
    assert "as in jaxcompress.program.statistics.gram()." in str(error.value)


def test_state_of_another_function_is_refused():
    observer = observing(net, max_magnitude())
    state = observer.init(PARAMS, X)
    with pytest.raises(ValueError, match="there is no state for 'last'"):
        observer.update(PARAMS, {"first/w": state["first/w"]}, X)
    with pytest.raises(ValueError, match="there is state for 'lost'"):
        observer.read(PARAMS, {**state, "lost": state["last"]}, X)


@pytest.mark.parametrize("batches", [jnp.ones((2, 4)), {"x": jnp.ones((2, 4))}])
def test_one_batch_is_no_list_of_batches(batches):
    def fn(params, x):
        return x @ params["w"]

    with pytest.raises(
        TypeError, match=r"iterable of batches, got a single .*Pass \[batch\]"
    ):
        jc.observe(fn, {"w": jnp.ones((4, 3))}, batches, max_magnitude())
