# SPDX-License-Identifier: Apache-2.0
"""Couplings found in a function are those that someone would list by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from prunable import CASES
from two_paths import PARAMS, X, fn

import jaxcompress as jc
from jaxcompress.program import find_couplings
from jaxcompress.prune.patterns import NOfM, permuted_for

KEY = jax.random.key(4)
BY_HAND = [
    {"down/kernel": 1, "in/kernel": 1, "out/kernel": 0, "up/kernel": 0},
    {"down/kernel": 0, "up/kernel": 1},
]


def test_a_residual_sum_couples_all_that_write_to_it_and_read_it():
    found = find_couplings(fn, PARAMS, X)
    assert sorted(map(dict, found), key=len) == sorted(BY_HAND, key=len)
    assert not found.skipped
    # Shapes alone say the same.
    shapes = jax.eval_shape(lambda: (PARAMS, X))
    assert list(find_couplings(fn, *shapes)) == list(found)


@pytest.mark.parametrize("name", ["transformer", "mixture of experts", "lstm", "u-net"])
def test_networks_of_any_kind_are_verified(name):
    case = CASES[name]()
    found = find_couplings(case.fn, case.params, *case.args)
    assert len(found) >= 1
    assert all(f"{place}: skipped" in repr(found) for place in found.skipped)
    assert ("Conv_0/bias" in str(found.skipped)) == (name == "u-net")


def between(change):
    return lambda params, x: change(x @ params["up"]) @ params["down"]


WEIGHTS = {
    "up": jax.random.normal(jax.random.key(1), (4, 8)),
    "down": jax.random.normal(jax.random.key(2), (8, 2)),
}
HIDDEN = {"up": 1, "down": 0}
REORDERED = {
    "gelu": jax.nn.gelu,
    # These sum or count values that pruning would change.
    "softmax": jax.nn.softmax,
    "mean": lambda h: h - h.mean(-1, keepdims=True),
    "shared noise": lambda h: h * jax.random.normal(KEY, (1, 1)),
}
IN_ORDER = {
    "sort": lambda h: jnp.sort(h, -1),
    "cumulative sum": lambda h: jnp.cumsum(h, -1),
    "own index": lambda h: h * jnp.arange(8.0)[None],
    "noise": lambda h: h * jax.random.normal(KEY, h.shape),
    "reversed": lambda h: h[:, ::-1] + h,
}


@pytest.mark.parametrize("name", REORDERED)
def test_channels_without_an_order_are_found(name):
    (found,) = find_couplings(between(REORDERED[name]), WEIGHTS, X)
    assert found == HIDDEN


@pytest.mark.parametrize("name", IN_ORDER)
def test_channels_with_an_order_are_not(name):
    assert not find_couplings(between(IN_ORDER[name]), WEIGHTS, X)


def test_layers_of_a_stack_stay_in_order():
    def stack(params, x):
        h = x @ params["up"]
        h, _ = lax.scan(lambda h, w: (h + jnp.tanh(h @ w), None), h, params["layers"])
        return h @ params["down"]

    params = WEIGHTS | {"layers": jax.random.normal(KEY, (3, 8, 8))}
    assert "layers[0]" in jc.trace_axes(stack, params, X).prunable
    (found,) = find_couplings(stack, params, X)
    assert found == {"up": 1, "layers": (1, 2), "down": 0}


def test_a_function_that_another_order_changes_is_refused():
    chaotic = between(lambda h: jnp.sin(1e9 * h.sum(-1, keepdims=True)) + h)
    with pytest.raises(
        ValueError, match=r"'down': 0.* changes the output by .* allowed"
    ):
        find_couplings(chaotic, WEIGHTS, X)
    with pytest.raises(ValueError, match="NaN or infinity"):
        find_couplings(between(jnp.log), WEIGHTS, X)


def test_all_channels_of_a_network_are_reordered_for_a_pattern():
    couplings = find_couplings(fn, PARAMS, X)
    pattern = NOfM(2, 4)
    new, orders = permuted_for(pattern, PARAMS, couplings, key=KEY)
    assert [len(order) for order in orders] == [12, 8]
    np.testing.assert_allclose(fn(new, X), fn(PARAMS, X), rtol=1e-4, atol=1e-4)

    def kept(params):
        layers = [params[name]["kernel"] for name in ("up", "down", "out")]
        groups = [np.abs(w.T).reshape(-1, 4) for w in layers]
        return sum(np.sort(own)[:, 2:].sum() for own in groups)

    assert kept(new) > kept(PARAMS)
    # By scores of one's own, which move along.
    scores = jax.tree.map(jnp.abs, PARAMS)
    same, _ = permuted_for(pattern, PARAMS, couplings, key=KEY, scores=scores)
    jax.tree.map(np.testing.assert_array_equal, same, new)


def test_channels_that_a_pattern_does_not_prune_stay():
    couplings = find_couplings(fn, PARAMS, X)
    _, orders = permuted_for(NOfM(1, 3), PARAMS, couplings, key=KEY)
    assert [order is not None for order in orders] == [True, False]  # of 12 and 8
