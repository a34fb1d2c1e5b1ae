# SPDX-License-Identifier: Apache-2.0
"""What is not entered, what has no name, and how the sites say so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import AxisType, PartitionSpec
from models import MODELS, custom_rule, nested_scans

import jaxcompress as jc
from jaxcompress.program import ClosedOverWarning

PARAMS = {"w": normal(4, 4, scale=0.5)}
X = normal(4, 4, seed=1)


@jax.custom_jvp
def guarded_jvp(x, w):
    return x @ w


guarded_jvp.defjvp(lambda xs, ts: (xs[0] @ xs[1], ts[0] @ xs[1] + xs[0] @ ts[1]))


def sharded(params, x):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    rows = PartitionSpec("data")
    return jax.shard_map(
        lambda params, x: jnp.tanh(x @ params["w"]) @ params["w"],
        mesh=mesh,
        in_specs=(PartitionSpec(), rows),
        out_specs=rows,
    )(params, x)


def kernel(params, x):
    def body(x, w, out):
        out[...] = x[...] @ w[...]

    call = pl.pallas_call(body, jax.ShapeDtypeStruct((4, 4), jnp.float32))
    return call(x, params["w"])


def condition(params, x):
    # The body multiplies too, and that is a site.
    return lax.while_loop(
        lambda x: (x @ params["w"]).sum() > 1, lambda x: x @ params["w"] / 9, x
    )


def solved(params, x):
    def solve(matvec, b):
        return b / 2

    return lax.custom_linear_solve(lambda v: params["w"] @ v, x[0], solve)


def within(params, x):
    """An opaque part in a loop, and in a jitted function there."""

    def step(x, _):
        with jax.named_scope("step"):
            return jax.jit(guarded_jvp)(x, params["w"]), None

    return lax.scan(step, x, None, length=2)[0]


OWN_RULE = "it has a custom derivative rule"


@pytest.mark.parametrize(
    "fn, opaque, sites",
    [
        (lambda p, x: guarded_jvp(x, p["w"]), ("custom_jvp_call", 1, OWN_RULE), 0),
        (custom_rule().fn, ("custom_vjp_call", 1, OWN_RULE), 1),
        (sharded, ("shard_map", 2, "jaxcompress does not support this primitive"), 0),
        (kernel, ("pallas_call", None, "a kernel"), 0),
        (condition, ("while", 1, "in the condition of a loop"), 1),
        (
            solved,
            ("custom_linear_solve", 1, "jaxcompress does not support this primitive"),
            0,
        ),
        (within, ("step/custom_jvp_call", 1, OWN_RULE), 0),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_holds_products_and_is_not_entered_is_listed(fn, opaque, sites):
    params = {**PARAMS, "first": PARAMS["w"], "last": PARAMS["w"]}
    found = jc.sites(fn, params, X)
    assert len(found) == sites
    (part,) = found.opaque
    name, products, reason = opaque
    assert (part.name, part.products) == (name, products)
    assert part.reason.startswith(reason)


def test_what_holds_no_products_is_not_listed():
    def fn(params, x):
        x = jax.nn.relu(x @ params["w"])  # has a custom_jvp
        x = jax.nn.silu(jax.nn.logsumexp(x, keepdims=True, axis=0) + x)
        x = lax.sort(jnp.fft.irfft(jnp.fft.rfft(x), n=4))
        return lax.while_loop(lambda x: x.sum() > 1, lambda x: x / 2, x)

    found = jc.sites(fn, PARAMS, X)
    assert [site.name for site in found] == ["w"] and found.opaque == ()


def test_custom_rules_can_be_looked_into():
    model = custom_rule()
    found = jc.sites(model.fn, model.params, *model.args, inline_custom=True)
    assert [site.name for site in found] == ["first", "last"] and found.opaque == ()
    inside = jc.sites(within, PARAMS, X, inline_custom=True)
    assert [(site.name, site.trips) for site in inside] == [("w", 2)]


def test_a_model_of_every_framework_is_entered_whole():
    for name, make in MODELS.items():
        model = make()
        opaque = jc.sites(model.fn, model.params, *model.args).opaque
        assert len(opaque) == (name == "custom_rule")


def directly(table, x):
    return x @ table


def in_a_jitted_function(table, x):
    return jax.jit(lambda x: x @ table)(x)


def in_a_scan(table, x):
    return lax.scan(lambda x, _: (x @ table, None), x, None, length=2)[0]


def in_a_branch(table, x):
    return lax.cond(x.sum() > 0, lambda x: x @ table, lambda x: x, x)


def in_a_jitted_function_in_a_while(table, x):
    @jax.jit
    def halved(x):
        return x @ (table.T / 2)

    return lax.while_loop(lambda x: x.sum() > 1, halved, x)


@pytest.mark.parametrize(
    "use",
    [
        directly,
        in_a_jitted_function,
        in_a_scan,
        in_a_branch,
        in_a_jitted_function_in_a_while,
    ],
)
@pytest.mark.parametrize("array", [np.ones, jnp.ones])
def test_arrays_that_are_closed_over_are_told(use, array):
    table = array((4, 4), np.float32)

    def fn(params, x):
        return use(table, x @ params["w"])

    with pytest.warns(ClosedOverWarning) as caught:
        found = jc.sites(fn, PARAMS, X)
    assert [site.leaf for site in found] == ["w", None]
    (warning,) = caught
    text = str(warning.message)
    assert f"float32[4,4] at {found[1].name!r}" in text
    assert "Pass them in `params`" in text
    assert warning.filename == __file__


def test_constants_that_are_no_weights_are_not_told():
    def fn(params, x):
        x = jnp.ones((4, 4), jnp.int32) @ x.astype(jnp.int32) + jnp.eye(4)
        return (x @ params["w"]) @ np.ones(4, np.float32)

    assert [site.leaf for site in jc.sites(fn, PARAMS, X)] == [None, "w", None]


def test_sites_print_as_a_table_with_what_was_not_entered():
    model = nested_scans()

    lines = str(jc.sites(model.fn, model.params, *model.args)).splitlines()
    assert lines[0].split() == "site primitive operands result trips MACs".split()
    assert [line.split()[0] for line in lines[1:]] == list(model.names)
    row = "dot_general float32[2,4] x float32[4,4] float32[2,4] 15 480"
    assert " ".join(lines[1].split()[1:]) == row

    lines = str(jc.sites(condition, PARAMS, X)).splitlines()
    assert " ? " in lines[1]  # trips of a while
    assert lines[2:] == ["not entered: while (1 products): in the condition of a loop"]
    lines = str(jc.sites(kernel, PARAMS, X)).splitlines()
    assert lines[1:] == [
        "not entered: pallas_call (an unknown number of products): a kernel"
    ]


def test_sites_are_a_sequence_that_also_knows_names():
    model = nested_scans()
    sites = jc.sites(model.fn, model.params, *model.args)
    assert len(sites) == 3 and sites[-1] is sites["out"]
    assert sites["out"] in sites and list(sites)[2].name == "out"
    with pytest.raises(KeyError) as error:
        sites["layers/inn"]
    assert "no site named 'layers/inn'; the sites are ['layers/in', " in str(
        error.value
    )
