# SPDX-License-Identifier: Apache-2.0
"""A checker is worth what it catches: each law, broken on purpose."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from draws import normal
from jax.core import Tracer

import jaxcompress as jc
from jaxcompress.testing import LawError, check_compressor

PARAMS = {
    "a": {"kernel": normal(8, 4)},
    "b": {"kernel": normal(8, 4, seed=1)},
}


def each(fn):
    return lambda params, state: jax.tree.map(fn, params)


def stateless(apply, **kwargs):
    return jc.Compressor(init=lambda params: (), apply=apply, **kwargs)


def counting(update):
    return jc.Compressor(
        init=lambda params: jnp.zeros((), jnp.int32),
        apply=lambda params, state: params,
        update=update,
    )


ROUND = each(lambda p: jc.ste(p, jnp.round(p)))

BROKEN = {
    "law 1: apply.*structure": stateless(lambda params, state: list(params.values())),
    "law 1: apply.params. turned": stateless(each(lambda p: p.astype(jnp.bfloat16))),
    "law 2: state after update": counting(lambda p, s, **x: (p, s + 0.5)),
    "law 3: jit against eager": stateless(
        each(lambda p: p if isinstance(p, Tracer) else p + 1)
    ),
    "law 4: dense.finalize. against apply": stateless(
        ROUND, finalize=each(lambda p: jnp.round(p) + 1e-6)
    ),
    "law 6: apply twice": stateless(each(lambda p: p / 2)),
    "law 7: the gradient at 'a/kernel'": stateless(
        each(lambda p: jc.ste(jnp.sqrt(p - p), p))
    ),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_law_is_named(message):
    with pytest.raises(LawError, match=message):
        check_compressor(BROKEN[message], PARAMS)


def test_law_5_a_leaf_that_apply_leaves_alone_must_not_move_in_update():
    def update(params, state, **extras):
        return {**params, "b": jax.tree.map(lambda p: p + 1, params["b"])}, state

    only_a = jc.masked(stateless(ROUND), "a/*")
    with pytest.raises(LawError, match="law 5: update of what was not selected: 'b/"):
        check_compressor(dataclasses.replace(only_a, update=update), PARAMS)


def test_chains_that_depend_on_nesting_are_caught():
    traced = []

    def apply(params, state):
        traced.append(0)
        return jax.tree.map(lambda p: p + state, params)

    def init(params):
        return jnp.float32(len(traced))  # what ran before leaks into the state

    with pytest.raises(LawError, match="law"):
        check_compressor(jc.Compressor(init=init, apply=apply), PARAMS)


def test_the_result_lists_all_eleven_laws():
    result = check_compressor(jc.weight_quantization(bits=4), PARAMS)
    assert result == dict.fromkeys(range(1, 12), "held")


def test_a_compressor_of_the_whole_tree_reports_what_could_not_be_checked():
    # Without a leaf it could be restricted to, law 5 says so.
    def init(params):
        if len(jax.tree.leaves(params)) != 2:
            raise ValueError("all or nothing")
        return ()

    whole = dataclasses.replace(stateless(ROUND), init=init)
    assert check_compressor(whole, PARAMS)[5].startswith("not checked")


def test_an_init_that_needs_values_is_said():
    result = check_compressor(jc.low_rank(energy=0.5), PARAMS, rounding=1e-5)
    assert "held but for init, which is not traced: low_rank(energy" in result[11]
