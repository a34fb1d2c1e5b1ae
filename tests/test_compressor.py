# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import pytest

import jaxcompress as jc
from jaxcompress._compressor import split_learned

PARAMS = {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.ones(2)}


def test_finalize_defaults_to_apply_and_update_to_nothing():
    double = jc.Compressor(
        init=lambda params: (),
        apply=lambda params, state: jax.tree.map(lambda p: 2 * p, params),
    )
    assert double.finalize is double.apply
    assert double.update(PARAMS, (), grads=None) == (PARAMS, ())


def test_a_compressor_is_keyword_only_and_frozen():
    with pytest.raises(TypeError):
        jc.Compressor(lambda p: (), lambda p, s: p)  # pyright: ignore
    with pytest.raises(AttributeError):
        jc.identity().init = None  # pyright: ignore


def test_identity_returns_the_same_leaves():
    assert jc.compress(jc.identity(), PARAMS) is PARAMS


def test_compress_passes_extras_to_update():
    seen = {}

    def update(params, state, **extras):
        seen.update(extras)
        return params, state

    spy = jc.Compressor(init=lambda p: (), apply=lambda p, s: p, update=update)
    jc.compress(spy, PARAMS, stats=3)
    assert seen == {"stats": 3}


def test_learned_values_come_out_and_go_back():
    state = {"a": jc.Learned({"step": jnp.ones(2)}), "b": (jnp.zeros(()), None)}
    learned, rebuild = split_learned(state)
    assert [list(x) for x in learned] == [["step"]]
    again = rebuild(jax.tree.map(lambda x: x + 1, learned))
    assert jax.tree.structure(again) == jax.tree.structure(state)
    assert again["a"].value["step"].tolist() == [2.0, 2.0]
    assert split_learned(())[0] == []
