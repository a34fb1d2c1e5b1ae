# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal

import jaxcompress as jc

KEY = jax.random.key(0)
PARAMS = {
    "a": {"kernel": jax.random.normal(KEY, (8, 6)), "bias": jnp.arange(6.0)},
    "b": {"kernel": normal(6, 4, seed=1), "bias": jnp.ones(4)},
}


def clip(bound, moves=True):
    """A projection: the view is clipped, and `update` clips what it sees."""

    def apply(params, state):
        return jax.tree.map(lambda p: jnp.clip(p, -bound, bound), params)

    def update(params, state, **extras):
        return (apply(params, state) if moves else params), state

    return jc.Compressor(init=lambda params: (), apply=apply, update=update)


def scale(factor):
    return jc.Compressor(
        init=lambda params: (),
        apply=lambda params, state: jax.tree.map(lambda p: factor * p, params),
    )


def test_chain_shows_each_stage_what_the_ones_before_left():
    c = jc.chain(scale(2.0), clip(1.0), scale(3.0))
    view = c.apply({"x": jnp.array([0.1, 4.0])}, c.init({"x": jnp.zeros(2)}))
    np.testing.assert_allclose(view["x"], [0.6, 3.0], rtol=1e-6)


def test_raw_parameters_move_by_what_a_stage_moves_its_view():
    c = jc.chain(scale(2.0), clip(1.0))
    params = {"x": jnp.array([0.25, 4.0])}
    moved, _ = c.update(params, c.init(params))
    # The view of 4 is 8; it was clipped to 1, so the raw value moves by 1 - 8.
    assert moved["x"].tolist() == [0.25, -3.0]


def test_a_first_stage_that_projects_sets_raw_parameters_exactly():
    c = jc.chain(jc.magnitude_pruning(0.5), jc.weight_quantization(bits=4))
    moved, state = c.update(PARAMS, c.init(PARAMS))
    pruner = jc.magnitude_pruning(0.5)
    alone, _ = pruner.update(PARAMS, pruner.init(PARAMS))
    np.testing.assert_array_equal(moved["a"]["kernel"], alone["a"]["kernel"])
    assert moved["a"]["bias"] is PARAMS["a"]["bias"]


def test_an_empty_chain_is_the_identity():
    assert jc.compress(jc.chain(), PARAMS) is PARAMS


def test_a_list_is_no_chain():
    with pytest.raises(
        TypeError, match="got a list. Pass what it holds as separate arguments"
    ):
        jc.chain([jc.identity()])  # pyright: ignore[reportArgumentType]


def test_zeros_survive_quantization_sharing_and_finalize():
    for last in (
        jc.weight_quantization(bits=4),
        jc.weight_quantization(bits=4, symmetric=False),
        jc.weight_quantization(bits=1),
        jc.weight_sharing(8),
    ):
        c = jc.chain(jc.magnitude_pruning(0.75), last)
        update, apply = jax.jit(c.update), jax.jit(c.apply)
        params, state = PARAMS, c.init(PARAMS)
        for i in range(5):
            params = jax.tree.map(lambda p, i=i: p + 0.1 * (i - 2), params)
            params, state = update(params, state)
            masks = np.asarray(state[0].masks["a"]["kernel"])
            view = np.asarray(apply(params, state)["a"]["kernel"])
            assert not view[~masks].any()
        dense = jc.dense(c.finalize(params, state))["a"]["kernel"]
        np.testing.assert_array_equal(dense, view)


@pytest.mark.parametrize(
    "second",
    [jc.weight_quantization(bits=4), jc.magnitude_pruning(0.5)],
    ids=["another representation", "another value"],
)
def test_one_leaf_has_one_representation_and_that_is_said_before_training(second):
    with pytest.raises(ValueError) as error:
        jc.chain(jc.weight_sharing(4), second).init(PARAMS)
    assert "'a/kernel' is already stored as a Codebook" in str(error.value)
    assert "put the stage that compresses it last" in str(error.value)


def test_two_representations_on_different_leaves_are_fine():
    c = jc.chain(
        jc.weight_sharing(4, where="a/kernel"),
        jc.weight_quantization(bits=4, where="b/kernel"),
    )
    small = jc.compress(c, PARAMS)
    assert isinstance(small["a"]["kernel"], jc.Codebook)
    assert isinstance(small["b"]["kernel"], jc.QArray)


def test_a_finalize_that_needs_concrete_values_does_not_stop_a_chain():
    to_sparse = jc.Compressor(
        init=lambda params: (),
        apply=lambda params, state: params,
        finalize=lambda params, state: jc.sparsify(params),
    )
    c = jc.chain(jc.magnitude_pruning(0.9), to_sparse)
    assert isinstance(jc.compress(c, PARAMS)["a"]["kernel"], jc.SparseArray)


def test_masked_gives_extras_the_same_selection():
    seen = {}

    def update(params, state, *, grads=None, note=None):
        seen.update(params=params, grads=grads, note=note)
        return params, state

    spy = jc.Compressor(init=lambda p: (), apply=lambda p, s: p, update=update)
    c = jc.masked(spy, "a/*")
    c.update(PARAMS, c.init(PARAMS), grads=PARAMS, note={"other": "structure"})
    assert seen["grads"]["b"] == {"bias": None, "kernel": None}
    assert seen["grads"]["a"]["bias"] is PARAMS["a"]["bias"]
    assert seen["note"] == {"other": "structure"}


def test_unselected_leaves_are_the_same_objects():
    c = jc.masked(scale(2.0), "a/*")
    view = c.apply(PARAMS, c.init(PARAMS))
    assert view["b"]["kernel"] is PARAMS["b"]["kernel"]


def test_partition_gives_each_leaf_to_the_first_match():
    c = jc.partition({"a/*": scale(2.0), "*/kernel": scale(3.0)})
    view = c.apply(PARAMS, c.init(PARAMS))
    np.testing.assert_array_equal(view["a"]["kernel"], 2 * PARAMS["a"]["kernel"])
    np.testing.assert_array_equal(view["b"]["kernel"], 3 * PARAMS["b"]["kernel"])
    assert view["b"]["bias"] is PARAMS["b"]["bias"]


def test_partition_says_which_pattern_is_idle():
    with pytest.raises(ValueError, match="'c/.' selected none of 4 leaves; closest"):
        jc.partition({"c/*": scale(2.0)}).init(PARAMS)
    with pytest.raises(ValueError, match=r"'a/kernel' matches only leaves that \['a/"):
        jc.partition({"a/*": scale(2.0), "a/kernel": scale(3.0)}).init(PARAMS)


def test_low_rank_factors_are_leaves_that_can_be_compressed_in_turn():
    thin = jc.factorize(PARAMS, rank=2)
    int8 = jc.compress(jc.weight_quantization(bits=8), thin)
    assert isinstance(int8["a"]["kernel"].left, jc.QArray)
    close = jc.dense(int8)["a"]["kernel"] - jc.dense(thin)["a"]["kernel"]
    assert jnp.abs(close).max() < 0.02 * jnp.abs(PARAMS["a"]["kernel"]).max()


def test_traced_bits_go_through_a_chain():
    def view(bits):
        int_ = jc.weight_quantization(fmt=jc.formats.Int(bits))
        both = jc.chain(jc.magnitude_pruning(0.5), int_)
        return both.apply(PARAMS, both.init(PARAMS))

    traced, known = jax.jit(view)(jnp.int32(3)), view(3)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), traced, known
    )


def test_what_ships_as_it_is_seen_is_computed_once():
    calls = []

    def apply(params, state):
        del state
        calls.append(params)
        return jax.tree.map(lambda p: p / 2, params)

    halve = jc.Compressor(init=lambda params: (), apply=apply)
    c = jc.chain(jc.masked(halve, "*"), halve)
    params = {"kernel": jnp.ones((2, 2))}
    state = c.init(params)
    calls.clear()
    assert c.finalize(params, state)["kernel"][0, 0] == 0.25
    assert len(calls) == 2  # once a stage
