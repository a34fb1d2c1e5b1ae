# SPDX-License-Identifier: Apache-2.0
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr
from models import assert_same_bits, custom_rule, haiku_mlp, nested_scans, unchanged

import jaxcompress as jc
from jaxcompress.program import OpaqueWarning

PARAMS = {"a": normal(4, 4), "b": normal(4, 4, seed=1)}
X = normal(8, 4, seed=2)


def mlp(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"]


def doubling(site, op, operands, state):
    """Multiplies by twice the weight, which is exact."""
    operands = [2 * x if i == site.weight else x for i, x in enumerate(operands)]
    return op(*operands), state


def loss(fn):
    return lambda params, *args: jnp.sum(jnp.square(fn(params, *args)))


@pytest.mark.parametrize("model", [haiku_mlp, nested_scans])
def test_what_the_rule_returns_is_what_the_function_goes_on_with(model):
    fn, params, args, names = model()
    doubled = jax.tree_util.tree_map_with_path(
        lambda path, w: (
            2 * w
            if jax.tree_util.keystr(path, simple=True, separator="/") in names
            else w
        ),
        params,
    )
    out, state = jax.jit(jc.rewrite(fn, doubling))(params, {}, *args)
    assert_same_bits(out, jax.jit(fn)(doubled, *args))
    assert state == {}


def test_a_rule_may_change_one_site_and_one_use_of_it():
    def fn(params, x):
        return jnp.tanh(x @ params["a"]) @ params["a"]

    def last_only(site, op, operands, state):
        result = op(*operands)
        return (result * 2 if site.name == "a#1" else result), state

    out, _ = jc.rewrite(fn, last_only)(PARAMS, {}, X)
    assert_same_bits(out, 2 * fn(PARAMS, X))


def test_parameters_of_the_operation_are_kept():
    def fn(params, x):
        return lax.dot_general(
            x.astype(jnp.bfloat16),
            params["a"].astype(jnp.bfloat16),
            (((1,), (0,)), ((), ())),
            precision=lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )

    def dots(fn):
        return re.findall(r"dot_general\[[^\]]*\]", str(jax.make_jaxpr(fn)(PARAMS, X)))

    assert len(dots(fn)) == 1
    assert dots(unchanged(fn)) == dots(fn)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_vmap_over_parameters_and_over_data(axes):
    model = nested_scans()
    params, x = model.params, *model.args
    args = [
        jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), tree) if a == 0 else tree
        for tree, a in zip((params, x), axes, strict=True)
    ]
    plain, through = (
        jax.jit(jax.vmap(f, axes)) for f in (model.fn, unchanged(model.fn))
    )
    assert_same_bits(through(*args), plain(*args))


def test_a_training_loop_in_a_scan():
    def steps(fn):
        def step(params, x):
            grads = jax.grad(loss(fn))(params, x)
            return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads), None

        return jax.jit(lambda params, xs: lax.scan(step, params, xs)[0])

    xs = normal(3, 8, 4)
    assert_same_bits(steps(unchanged(mlp))(PARAMS, xs), steps(mlp)(PARAMS, xs))


def test_a_checkpoint_of_the_whole():
    plain, through = (
        jax.jit(jax.grad(loss(jax.checkpoint(fn)))) for fn in (mlp, unchanged(mlp))
    )
    assert_same_bits(through(PARAMS, X), plain(PARAMS, X))


POLICIES = [
    jax.checkpoint_policies.nothing_saveable,
    jax.checkpoint_policies.dots_saveable,
    jax.checkpoint_policies.everything_saveable,
]


def equations(jaxpr):
    """All equations of a traced function, those inside of others included."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in jax.tree.leaves(list(eqn.params.values())):
            if isinstance(value, ClosedJaxpr | Jaxpr):
                yield from equations(getattr(value, "jaxpr", value))


@pytest.mark.parametrize("prevent_cse", [False, True])
def test_checkpoint_policies_are_kept(prevent_cse):
    def counts(policy, through):
        block = jax.checkpoint(mlp, policy=policy, prevent_cse=prevent_cse)

        def fn(params, x):
            stacked = jax.tree.map(lambda w: jnp.stack([w, w]), params)
            x, _ = lax.scan(lambda x, w: (block(w, x), None), x, stacked)
            return block(params, x)

        fn = through(fn)
        forward = list(equations(jax.make_jaxpr(fn)(PARAMS, X)))
        blocks = [e.params for e in forward if "prevent_cse" in e.params]
        assert [p["policy"] for p in blocks] == [policy, policy]
        assert [p["prevent_cse"] for p in blocks] == [prevent_cse, prevent_cse]
        gradient = equations(jax.make_jaxpr(jax.grad(loss(fn)))(PARAMS, X))
        found = Counter(eqn.primitive.name for eqn in gradient)
        return found["dot_general"], found["tanh"]

    plain = [counts(policy, lambda fn: fn) for policy in POLICIES]
    assert len(set(plain)) == 3  # or the policies would not be told apart
    assert [counts(policy, unchanged) for policy in POLICIES] == plain


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("jit", [False, True])
def test_effects_happen_as_often_and_in_order(ordered, jit):
    seen = []

    def note(label, x):
        jax.debug.callback(lambda x: seen.append((label, int(x))), x, ordered=ordered)

    def fn(params, x):
        note("first", x.shape[0])
        x = x @ params["a"]

        def step(x, i):
            note("step", i)
            return jnp.tanh(x @ params["b"]), None

        x, _ = lax.scan(step, x, jnp.arange(3))
        note("last", 0)
        return x

    through = unchanged(fn)
    (jax.jit(through) if jit else through)(PARAMS, X)
    jax.effects_barrier()
    expected = [("first", 8), ("step", 0), ("step", 1), ("step", 2), ("last", 0)]
    assert (seen if ordered else sorted(seen)) == (
        expected if ordered else sorted(expected)
    )


def test_prints_survive(capfd):
    def fn(params, x):
        jax.debug.print("the sum is {}", jnp.sum(x).astype(int))
        return x @ params["a"]

    jax.jit(unchanged(fn))(PARAMS, jnp.ones((2, 4)))
    jax.effects_barrier()
    assert capfd.readouterr().out == "the sum is 8\n"


def test_relu_keeps_its_gradient_at_zero():
    """Its own rule says 0; the maximum that it is made of would say one half."""

    def fn(params, x):
        return jax.nn.relu(x @ params["a"]).sum()

    zeros = jnp.zeros((2, 4))
    gradient = jax.grad(unchanged(fn), argnums=1)(PARAMS, zeros)
    np.testing.assert_array_equal(gradient, zeros)


def test_functions_with_rules_of_their_own_are_left_alone_with_a_warning():
    model = custom_rule()
    gradient = jax.grad(loss(model.fn))(model.params, *model.args)
    with pytest.warns(OpaqueWarning) as caught:
        through = jax.grad(loss(unchanged(model.fn)))(model.params, *model.args)
    assert_same_bits(through, gradient)
    text = str(caught[0].message)
    assert text.startswith("rewrite leaves these parts of the program unchanged:\n")
    assert "custom_vjp_call (1 products)" in text and "inline_custom=True" in text


def test_looking_into_them_loses_their_rules():
    model = custom_rule()
    options = {"inline_custom": True}
    gradient = jax.grad(loss(model.fn))(model.params, *model.args)["first"]
    through = jax.grad(loss(unchanged(model.fn, **options)))(model.params, *model.args)
    # The rule of this one halves the gradient.
    np.testing.assert_allclose(through["first"], 2 * gradient, rtol=1e-5)


def test_rewritings_compose():
    def noting(site, op, operands, state):
        return op(*operands), state + jnp.abs(operands[site.weight]).max()

    doubled = jc.rewrite(mlp, doubling)
    twice = jc.rewrite(lambda params, x: doubled(params, {}, x)[0], noting)
    out, seen = jax.jit(twice)(PARAMS, {"a": 0.0, "b": 0.0}, X)
    whole = jax.tree.map(lambda w: 2 * w, PARAMS)
    assert_same_bits(out, jax.jit(mlp)(whole, X))
    for name, w in whole.items():
        assert seen[name] == jnp.abs(w).max()


def test_the_gradient_of_a_rewriting_has_forward_sites_only():
    seen = []

    def noting(site, op, operands, state):
        seen.append(site.name)
        return op(*operands), state

    def total(params, x):
        return loss(lambda p, x: jc.rewrite(mlp, noting)(p, {}, x)[0])(params, x)

    grads = jax.grad(total)(PARAMS, X)
    assert seen == ["a", "b"]
    assert_same_bits(grads, jax.grad(loss(mlp))(PARAMS, X))


def test_backward_products_are_sites_of_a_rewritten_gradient():
    sites = jc.sites(jax.grad(loss(mlp)), PARAMS, X)
    # Two forwards; of each a product for its weight, and one for the hidden layer.
    assert len(sites) == 5 and [s.leaf for s in sites].count("b") == 2


def test_results_of_every_kind_come_back_as_they_were():
    def fn(params, x):
        return {"out": x @ params["a"], "given": x, "none": None, "one": jnp.ones(3)}

    out = unchanged(fn)(PARAMS, X)
    assert_same_bits(out, fn(PARAMS, X))
