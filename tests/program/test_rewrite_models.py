# SPDX-License-Identifier: Apache-2.0
"""A rule that changes nothing changes nothing, in no framework and no control flow."""

import re
from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from models import MODELS, assert_same_bits, unchanged
from variants import marked

import jaxcompress as jc

pytestmark = pytest.mark.filterwarnings("ignore::jaxcompress.program.OpaqueWarning")


def compiled(fn, model):
    return jax.jit(fn).lower(model.params, *model.args).compile()


def opcodes(executable):
    """How many operations of each kind a compiled program has."""
    return Counter(re.findall(r" = .*? ([a-z][a-z0-9-]*)\(", executable.as_text()))


def derivative(fn, name):
    """Of the sum of squares of all results, by all parameters."""

    def loss(params, *args):
        outs = jax.tree.leaves(fn(params, *args))
        return sum(jnp.sum(jnp.square(x)) for x in outs)

    def forwards(params, *args):
        return jax.jvp(lambda params: loss(params, *args), (params,), (params,))

    # A while has no gradient, but a derivative.
    return forwards if name == "loops" else jax.value_and_grad(loss)


@pytest.mark.parametrize("name", MODELS)
def test_it_compiles_to_the_same_operations_and_gives_the_same_bits(name):
    model = MODELS[name]()
    plain, through = compiled(model.fn, model), compiled(unchanged(model.fn), model)
    args = (model.params, *model.args)
    assert_same_bits(through(*args), plain(*args))
    assert opcodes(through) == opcodes(plain)


@pytest.mark.parametrize("name", MODELS)
def test_so_do_its_derivatives(name):
    model = MODELS[name]()
    plain, through = (
        compiled(derivative(fn, name), model) for fn in (model.fn, unchanged(model.fn))
    )
    args = (model.params, *model.args)
    assert_same_bits(through(*args), plain(*args))
    assert opcodes(through) == opcodes(plain)


# Networks of other libraries: one equation at a time, their programs hold nothing new.
ELSEWHERE = ("nnx_cnn", "equinox_mlp", "haiku_mlp")


@pytest.mark.parametrize("name", marked(MODELS, slow=ELSEWHERE))
def test_without_jit_the_bits_are_the_same_too(name):
    model = MODELS[name]()
    args = (model.params, *model.args)
    assert_same_bits(unchanged(model.fn)(*args), model.fn(*args))


@pytest.mark.parametrize("name", MODELS)
def test_what_is_rewritten_has_the_same_sites_and_can_be_rewritten_again(name):
    model = MODELS[name]()
    args = (model.params, *model.args)
    once = unchanged(model.fn)
    assert jc.sites(once, *args) == jc.sites(model.fn, *args)
    assert jc.sites(unchanged(once), *args) == jc.sites(model.fn, *args)


@pytest.mark.parametrize("name", MODELS)
def test_the_rule_gets_every_site_once_with_its_operands(name):
    model = MODELS[name]()
    sites = jc.sites(model.fn, model.params, *model.args)
    seen = []

    def rule(site, op, operands, state):
        assert [(x.shape, x.dtype) for x in operands] == [
            (x.shape, x.dtype) for x in site.operands
        ]
        result = op(*operands)
        assert (result.shape, result.dtype) == (site.result.shape, site.result.dtype)
        seen.append(site)
        assert state is None
        return result, state

    jax.eval_shape(jc.rewrite(model.fn, rule), model.params, {}, *model.args)
    assert {site.name: site for site in seen} == {site.name: site for site in sites}
