# SPDX-License-Identifier: Apache-2.0
"""Widths that training chooses under a cost."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcompress as jc
from jaxcompress.rate import costs

SCALES = {"a": 1.0, "b": 0.1, "c": 0.001}


def network():
    draws = np.random.default_rng(0)
    kernels = {k: draws.normal(size=(32, 16)) * s for k, s in SCALES.items()}
    return {k: {"kernel": jnp.asarray(x, "f")} for k, x in kernels.items()}


def error(view, batch):
    """What quantization changes, so large weights need more bits."""
    del batch
    return sum(
        jnp.mean((view[k]["kernel"] - x["kernel"]) ** 2) for k, x in network().items()
    )


def widths(compressor, steps=120):
    init, step = jc.train_step(
        error, optax.sgd(0.0), compressor, learned_tx=optax.adam(0.1)
    )
    state = init(network())
    for _ in range(steps):
        state, metrics = step(state, jnp.zeros(()))
        assert "cost" in metrics
    shipped = compressor.finalize(state.params, state.compression)
    view = compressor.apply(state.params, state.compression)
    jax.tree.map(np.testing.assert_array_equal, jc.dense(shipped), view)
    return [jc.rate.widths_of(shipped)[f"{k}/kernel"] for k in SCALES]


def test_weights_that_matter_more_get_more_bits():
    a, b, c = widths(jc.rate.learned_bits(0.1))
    assert a > c == 2 and a >= b >= c


def test_without_a_cost_nothing_becomes_narrower():
    assert widths(jc.rate.learned_bits(0.0), steps=20) == [8, 8, 8]


def test_a_target_is_reached_from_both_sides():
    full = 3 * 32 * 16
    found = widths(jc.rate.learned_bits(target=0.6 * full, every=2), steps=400)
    assert 0.4 * full <= sum(32 * 16 * w / 8 for w in found) <= 0.75 * full
    assert found[0] >= found[1] >= found[2]


def test_costs_are_those_of_their_units():
    leaf, bits = jnp.zeros((32, 16)), jnp.float32(4)
    assert float(costs.bytes_()("a/kernel", leaf, bits)) == 256
    params, x = network(), jnp.ones((8, 32))
    sites = jc.sites(
        lambda params, x: x @ params["a"]["kernel"] + x @ params["b"]["kernel"],
        params,
        x,
    )
    price = costs.bit_operations(sites, activation_bits=8)
    assert float(price("a/kernel", leaf, bits)) == 8 * 32 * 16 * 4 * 8
    with pytest.raises(ValueError, match="'c/kernel' was not counted"):
        price("c/kernel", leaf, bits)
    table = costs.measured({"a/*": {2: 1.0, 4: 2.0, 8: 8.0}})
    assert [float(table("a/kernel", leaf, jnp.float32(b))) for b in (2, 4, 6, 8)] == [
        1, 2, 5, 8,
    ]  # fmt: skip
    assert float(jax.grad(lambda b: table("a/kernel", leaf, b))(jnp.float32(5))) == 1.5
    with pytest.raises(ValueError, match="matches none of the measured patterns"):
        table("b/kernel", leaf, bits)


def test_leaves_that_cost_more_time_become_narrower_first():
    """Two layers of equal weights; only the first is slow at 8 bits."""
    table = costs.measured({"a/*": {2: 0.0, 8: 100.0}, "*": {2: 0.0, 8: 0.001}})
    params = {k: {"kernel": network()["a"]["kernel"]} for k in "ab"}

    def loss(view, batch):
        del batch
        return sum(
            jnp.mean((view[k]["kernel"] - params[k]["kernel"]) ** 2) for k in "ab"
        )

    c = jc.rate.learned_bits(3.0, cost=table)
    init, step = jc.train_step(loss, optax.sgd(0.0), c, learned_tx=optax.adam(0.1))
    state = init(params)
    for _ in range(120):
        state, _ = step(state, jnp.zeros(()))
    found = jc.rate.widths_of(c.finalize(state.params, state.compression))
    assert found["a/kernel"] < found["b/kernel"] == 8


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({}, ValueError, "pass multiplier= or target=."),
        ({"multiplier": 1.0, "widths": (8,)}, ValueError, "two or more of 2 to 8"),
        ({"multiplier": 1.0, "widths": (1, 8)}, ValueError, "got (1, 8)"),
        ({"multiplier": 1.0, "widths": 8}, TypeError, "such as (2, 4, 8), got 8"),
        ({"multiplier": -1.0}, ValueError, "multiplier must be a finite number"),
        ({"multiplier": 1.0, "cost": 3}, TypeError, "cost must be a cost such as"),
        ({"multiplier": 1.0, "cost": costs.bytes_}, TypeError, "call it, bytes_(...)"),
        ({"multiplier": 1.0, "every": 0}, ValueError, "every must be at least 1"),
    ],
)
def test_unfit_arguments_are_refused(kwargs, error, text):
    with pytest.raises(error, match=re.escape(text)):
        jc.rate.learned_bits(**kwargs)


def test_a_target_below_the_narrowest_says_the_least():
    with pytest.raises(
        ValueError, match="at the narrowest width these leaves cost 384"
    ):
        jc.rate.learned_bits(target=100).init(network())


def test_widths_are_known_only_outside_of_jit():
    c = jc.rate.learned_bits(1.0)
    params = network()
    with pytest.raises(TypeError, match="call finalize there"):
        jax.jit(c.finalize)(params, c.init(params))


def test_a_cost_that_was_missed_is_said():
    params, c = network(), jc.rate.learned_bits(target=500)
    with pytest.warns(
        UserWarning, match="the learned widths cost 1536, but target=500"
    ):
        c.finalize(params, c.init(params))


def test_a_tree_that_is_not_quantized_has_no_widths():
    with pytest.raises(ValueError, match="nothing in this tree is quantized"):
        jc.rate.widths_of(network())


def test_unfit_tables_are_refused():
    with pytest.raises(ValueError, match="got an empty table"):
        costs.measured({})
    with pytest.raises(ValueError, match="needs finite costs of at least 0"):
        costs.measured({"*": {4: -1.0, 8: 2.0}})
    with pytest.raises(ValueError, match="no product of these sites"):
        costs.bit_operations([])


def test_one_measured_width_is_refused():
    with pytest.raises(ValueError, match="needs costs of two or more widths"):
        costs.measured({"*": {8: 1.0}})
