# SPDX-License-Identifier: Apache-2.0
"""Programs that are unusual: pruned exactly, or frozen with the reason."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal, put
from jax import lax

import jaxcompress as jc
from jaxcompress.structured import mask_params, slice_params, trace_blocks, verify

X = normal(3, 4)
KEY = jax.random.key(5)


def weights(**shapes):
    return {
        name: normal(*shape, seed=seed)
        for seed, (name, shape) in enumerate(shapes.items(), 1)
    }


PARAMS = weights(up=(4, 6), down=(6, 2))
CODES = put([1, 0, 1, 1, 0, 1], jnp.int32)


def between(change):
    """A network of two layers, with something between them."""

    def fn(params, x):
        return change(x @ params["up"]) @ params["down"]

    return fn


def norm(x, axis):
    return jnp.linalg.norm(x, axis=axis, keepdims=True)


def weight_norm(params, x):
    w = params["up"]
    return jnp.maximum(x @ (w / norm(w, 0)), 0) @ params["down"]


def weight_norm_by_a_factor(params, x):
    w = params["up"]
    factor = lax.rsqrt(jnp.square(w).sum(0))[None]
    return jnp.maximum(x @ (w * factor), 0) @ params["down"]


def weight_norm_of_rows(params, x):
    w = params["down"]
    return jnp.maximum(x @ params["up"], 0) @ (w / norm(w, 0))


def safe_weight_norm(params, x):
    w = params["up"]
    factor = lax.rsqrt(jnp.square(w).sum(0) + 1e-3)[None]
    return jnp.maximum(x @ (w * factor), 0) @ params["down"]


def standardized(epsilon):
    def change(h):
        return (h - h.mean(0)[None]) / jnp.sqrt(h.var(0) + epsilon)[None]

    return between(change)


NOT_ZERO = "not zero"
FROZEN = {
    "weight norm": (weight_norm, NOT_ZERO),
    "weight norm by a factor": (weight_norm_by_a_factor, NOT_ZERO),
    "standardized without epsilon": (standardized(0.0), NOT_ZERO),
    "divided by itself": (between(lambda h: h * (1 / h)), NOT_ZERO),
    "negative power": (between(lambda h: h * jnp.abs(h) ** -0.5), NOT_ZERO),
    "logarithm": (between(lambda h: h * jnp.log(jnp.abs(h))), NOT_ZERO),
    "remainder": (between(lambda h: lax.rem(h, jnp.abs(h))), NOT_ZERO),
    "noise": (between(lambda h: h + jax.random.normal(KEY, h.shape)), "random numbers"),
    "dropout": (
        between(lambda h: h * jax.random.bernoulli(KEY, 0.5, h.shape)),
        "random numbers",
    ),
}


@pytest.mark.parametrize("name", FROZEN)
def test_what_a_masked_network_computes_otherwise_is_frozen(name):
    fn, reason = FROZEN[name]
    groups = jc.trace_axes(fn, PARAMS, X)
    assert not groups.prunable
    assert reason in groups["up[1]"].frozen[0]


def sums_of_nothing(params, x):
    empty = x @ params["none"]
    rest = jnp.concatenate([empty, empty], -1).reshape(3, 0, 1).sum()
    return jnp.maximum(x @ params["up"], 0) @ params["down"] + rest


def axes_of_one(params, x):
    h = jnp.tile((x @ params["up"])[:, None, :, None], (1, 1, 1, 1)) * params["one"]
    return h.reshape(1, 3, 6, 1).squeeze((0, 3)) @ params["down"]


def complex_numbers(params, x):
    h = lax.complex(x @ params["up"], 2 * (x @ params["up"]))
    return h * 1j @ params["down"]


def keys(params, x):
    noise = jax.random.normal(params["key"], (2,))[None]
    return x @ params["up"] @ params["down"] + noise, jax.random.split(params["key"])


def counters(params, x):
    h = (x @ params["up"]) * (params["codes"] + 1)[None]
    return h @ params["down"], params["step"] + 1


def halves(params, x):
    h = jnp.tanh(x.astype(jnp.bfloat16) @ params["up"])
    return h @ params["down"]


EXACT = {
    "rows are normalized": (weight_norm_of_rows, PARAMS),
    "weight norm with epsilon": (safe_weight_norm, PARAMS),
    "standardized with epsilon": (standardized(1e-5), PARAMS),
    "noise that all channels share": (
        between(lambda h: h * jax.random.normal(KEY, (3, 1))),
        PARAMS,
    ),
    "empty arrays": (sums_of_nothing, PARAMS | {"none": put(np.ones((4, 0)))}),
    "axes of size one": (axes_of_one, PARAMS | {"one": put(np.ones((1, 1, 1, 1)))}),
    "complex numbers": (complex_numbers, PARAMS),
    "random keys": (keys, PARAMS | {"key": KEY}),
    "integers": (counters, PARAMS | {"codes": CODES, "step": put(3, jnp.int32)}),
    "bfloat16": (halves, jax.tree.map(lambda w: w.astype(jnp.bfloat16), PARAMS)),
}


@pytest.mark.parametrize("name", EXACT)
def test_what_is_exact_is_pruned_down_to_one_channel(name):
    fn, params = EXACT[name]
    groups = jc.trace_axes(fn, params, X)
    (group,) = groups.prunable.values()
    assert group.size == 6
    verify(fn, params, groups.plan({group.name: np.arange(6) == 3}), X)


@jax.custom_vjp
def with_codes_vjp(h, codes):
    return jnp.where(codes[None] > 0, h, 0.0)


with_codes_vjp.defvjp(
    lambda h, codes: (with_codes_vjp(h, codes), codes), lambda codes, g: (7.0 * g, None)
)


@jax.custom_jvp
def with_codes_jvp(h, codes):
    return h * codes[None]


with_codes_jvp.defjvp(
    lambda xs, ts: (with_codes_jvp(*xs), 5.0 * ts[0] * (1 + xs[1])[None])
)


@pytest.mark.parametrize("rule", [with_codes_vjp, with_codes_jvp])
def test_derivative_rules_of_functions_of_integers_are_kept(rule):
    def fn(params, x):
        return rule(x @ params["up"], params["codes"]) @ params["down"]

    params = PARAMS | {"codes": CODES}
    groups = jc.trace_axes(fn, params, X)
    (group,) = groups.prunable
    plan = groups.plan({group: np.arange(6) % 2 == 0})

    def grads(fn):
        def loss(weights, codes):
            return jnp.square(fn(weights | {"codes": codes}, X)).sum()

        return lambda params: jax.grad(loss)(
            {name: params[name] for name in PARAMS}, params["codes"]
        )

    wanted = grads(fn)(mask_params(params, plan))
    found = grads(jc.shrink(fn, plan))(slice_params(params, plan))
    for name, axis in (("up", 1), ("down", 0)):
        cut = wanted[name].take(jnp.arange(0, 6, 2), axis)
        np.testing.assert_allclose(found[name], cut, rtol=1e-4)


def test_scores_by_gradients_leave_out_integers():
    params = {name: {"kernel": w} for name, w in PARAMS.items()} | {"codes": CODES}

    def fn(params, x):
        h = (x @ params["up"]["kernel"]) * params["codes"][None]
        return jnp.square(h @ params["down"]["kernel"])

    grads = jax.grad(lambda params: fn(params, X).sum(), allow_int=True)(params)
    groups = jc.trace_axes(fn, params, X)
    (found,) = jc.structured.scores.taylor(groups, params, grads=grads).values()
    changes = [(PARAMS[name] * grads[name]["kernel"]) for name in ("up", "down")]
    wanted = jnp.square(changes[0].sum(0) + changes[1].sum(1))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


def with_rule(rule):
    @jax.custom_vjp
    def doubled(h):
        return 2 * h

    doubled.defvjp(lambda h: (2 * h, h), lambda h, g: (rule(h, g),))
    return between(doubled)


TABLE = put(np.arange(6.0)[None])


def refused(h, g):
    raise NotImplementedError("no second use")


RULES = {
    "a sum of values that are not zero": (lambda h, g: g * jax.nn.softmax(h), "zero"),
    "an order": (lambda h, g: jnp.sort(g), "order of the indices"),
    "an array of the full size": (lambda h, g: g * TABLE, "closes over"),
    "exact": (lambda h, g: g * jnp.sign(h), None),
    "refused": (refused, None),
}


@pytest.mark.parametrize("name", RULES)
def test_channels_that_a_derivative_rule_cannot_lose_are_frozen(name):
    rule, reason = RULES[name]
    frozen = jc.trace_axes(with_rule(rule), PARAMS, X)["up[1]"].frozen
    assert not frozen if reason is None else reason in frozen[0]


def test_a_block_that_divides_by_its_own_norm_stays():
    square = weights(up=(4, 6), mix=(6, 6), down=(6, 2))

    def fn(scale):
        def run(params, x):
            h, w = x @ params["up"], params["mix"]
            return (h + jnp.tanh(h) @ (w * scale(w))) @ params["down"]

        return run

    for scale in (
        lambda w: lax.rsqrt(jnp.square(w).sum()),
        lambda w: 1 / norm(w, 0),
        lambda w: 1 / jnp.std(w),
    ):
        assert "mix" not in trace_blocks(fn(scale), square, X)
    safe = fn(lambda w: 1 / (jnp.std(w) + 1e-3))
    blocks = trace_blocks(safe, square, X)
    verify(safe, square, blocks.plan(["mix"]), X)


def test_a_block_without_a_common_path_is_named_after_its_first_leaf():
    params = weights(inner=(4, 6), outer=(6, 4))
    blocks = trace_blocks(lambda p, x: x + x @ p["inner"] @ p["outer"], params, X)
    assert list(blocks) == ["inner"]
