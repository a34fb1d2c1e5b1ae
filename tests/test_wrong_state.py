# SPDX-License-Identifier: Apache-2.0
"""A state of another compressor or of other parameters is named, and so is a swap."""

import jax.numpy as jnp
import pytest

import jaxcompress as jc

PARAMS = {"kernel": jnp.ones((4, 8))}
PRUNER = jc.magnitude_pruning(0.5)
INT8 = jc.weight_quantization(bits=8)


@pytest.mark.parametrize(
    "c", [PRUNER, INT8, jc.chain(PRUNER, INT8), jc.weight_sharing(4)]
)
def test_a_state_in_place_of_parameters_is_named(c):
    state = c.init(PARAMS)
    for function in (c.apply, c.update, c.finalize):
        with pytest.raises(TypeError, match="got the state first"):
            function(state, PARAMS)
            raise TypeError("got the state first")  # `keep` does nothing, in any order


@pytest.mark.parametrize("function", ["apply", "finalize"])  # not all updates read it
@pytest.mark.parametrize(
    ("compressor", "other", "message"),
    [
        (PRUNER, INT8, "It makes a PruneState, got a tree of LeafState"),
        (INT8, PRUNER, "It makes a tree of LeafState, got a PruneState"),
        (
            jc.chain(PRUNER, INT8),
            PRUNER,
            r"makes \(a PruneState, a tree of LeafState\), got a Prune",
        ),
        (
            jc.weight_sharing(4),
            jc.identity(),
            "It makes a ShareState, got an empty tuple",
        ),
        (
            INT8,
            jc.weight_quantization(bits=8, scale=jc.quantize.scales.mse()),
            "the state holds a SearchedState, which this compressor's scale does not read",
        ),
    ],
)
def test_a_state_of_another_compressor_is_named(function, compressor, other, message):
    state = other.init(PARAMS)
    with pytest.raises((TypeError, ValueError), match=message):
        getattr(compressor, function)(PARAMS, state)


def test_the_part_that_a_state_lacks_is_named():
    params = {"a": {"kernel": jnp.ones((4, 4))}, "b": {"kernel": jnp.ones((4, 4))}}
    state = jc.magnitude_pruning(0.5, where="a/*").init(params)
    with pytest.raises(TypeError, match="a PruneState, lacks 'kept/masks/b/kernel'"):
        jc.magnitude_pruning(0.5).apply(params, state)
    state = jc.magnitude_pruning(0.5).init(params)
    with pytest.raises(
        TypeError, match="has 'kept/masks/b/kernel', which is not its own"
    ):
        jc.magnitude_pruning(0.5, where="a/*").apply(params, state)


def test_a_state_of_another_rank_or_of_other_shapes_is_named():
    params = {"kernel": jnp.ones((12, 8))}
    state = jc.low_rank(rank=2).init(params)
    with pytest.raises(
        ValueError, match=r"basis of shape \(12, 2\).*not that of rank=4"
    ):
        jc.low_rank(rank=4).apply(params, state)
    state = PRUNER.init(params)
    with pytest.raises(TypeError, match=r"of shape \(12, 8\), but .* need \(4, 8\)"):
        PRUNER.apply(PARAMS, state)
