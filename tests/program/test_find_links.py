# SPDX-License-Identifier: Apache-2.0
"""Links for equalization are found in the program, complete or not at all."""

import jax
import jax.numpy as jnp
import pytest
from draws import normal
from jax import lax
from linked import (
    NETWORKS,
    attention,
    attention_params,
    close,
    compress,
    mlp,
    mlp_params,
)
from prunable import CASES

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.program import find_links
from jaxcompress.quantize import (
    awq,
    cross_layer_equalization,
    hadamard_rotation,
    smooth_quant,
)
from jaxcompress.quantize.equivalent import verify_links

X = normal(3, 4, seed=9)
PARAMS = {"up": normal(4, 6), "mid": normal(6, 6, seed=1), "down": normal(6, 2, seed=2)}


def from_zero(params, links):
    """Links with all axes counted from 0, in any order."""

    def side(axes):
        listed = {p: (a,) if isinstance(a, int) else a for p, a in axes.items()}
        return frozenset(
            (p, tuple(i % params[p].ndim for i in own)) for p, own in listed.items()
        )

    return {(side(link.producers), side(link.consumers)) for link in links}


def by_path(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}


@pytest.mark.parametrize("name", ["mlp", "cnn", "stacked"])
def test_found_links_are_those_that_were_written_by_hand(name):
    fn, make, links, shape = NETWORKS[name]
    params = make()
    leaves = by_path(params)
    found = find_links(fn, params, normal(*shape, seed=7))
    assert from_zero(leaves, found) == from_zero(leaves, links)


def test_attention_has_links_between_values_and_between_queries_and_keys():
    links = find_links(attention, attention_params(), normal(2, 5, 12))
    found = [(dict(link.producers), dict(link.consumers)) for link in links]
    assert ({"q": 2}, {"k": 2}) in found
    assert ({"v": 2, "v_bias": 1}, {"out": 1}) in found
    # Two heads of queries share a head of values.
    assert "axis 0 of 'out' has other channels too" in links.skipped.values()


# Each is verified inside, on the arrays.
@pytest.mark.parametrize("name, count", [("grouped-query attention", 3), ("nnx", 1)])
def test_networks_of_other_libraries(name, count):
    case = CASES[name]()
    assert len(find_links(case.fn, case.params, *case.args)) == count


def relu_twice(params, x):
    """The first channels are read by a sigmoid, too: their link would be incomplete."""
    h = jax.nn.relu(x @ params["up"])
    y = jax.nn.relu(h @ params["mid"]) @ params["down"]
    return y + jax.nn.sigmoid(h).sum(-1, keepdims=True)


def returned(params, x):
    h = jax.nn.relu(x @ params["up"])
    return h, jax.nn.relu(h @ params["mid"]) @ params["down"]


def between(change):
    def fn(params, x):
        h = change(x @ params["up"])
        return jax.nn.relu(h @ params["mid"]) @ params["down"]

    return fn


ORDERED = {
    "a reader that is not homogeneous": relu_twice,
    "an output": returned,
    "a GELU": between(jax.nn.gelu),
    "reversed": between(lambda h: h[:, ::-1]),
    "selected": between(lambda h: h[:, jnp.array([5, 4, 3, 2, 1, 0])]),
    "strided": between(lambda h: jnp.concatenate([h[:, ::2], h[:, 1::2]], 1)),
    "sliced where the program runs": between(
        lambda h: jnp.pad(
            lax.dynamic_slice(h, (0, h.size - 20), (3, 4)), ((0, 0), (0, 2))
        )
    ),
    "sorted": between(lambda h: jnp.sort(h, -1)),
    "summed up": between(lambda h: jnp.cumsum(h, -1)),
    "averaged over channels": between(
        lambda h: lax.reduce_window(h, 0.0, lax.add, (1, 3), (1, 1), "SAME")
    ),
    "a constant": between(lambda h: jax.nn.relu(h + 1.0)),
}


@pytest.mark.parametrize("name", ORDERED)
def test_what_would_be_incomplete_is_not_offered(name):
    found = find_links(ORDERED[name], PARAMS, X)
    assert [dict(link.producers) for link in found] == [{"mid": 1}]


def test_shapes_are_enough():
    shapes = jax.eval_shape(lambda *trees: trees, PARAMS, X)
    found = find_links(between(jax.nn.relu), *shapes)
    assert {path for link in found for path in link.consumers} == {"mid", "down"}


def test_equivalent_rewrites_take_found_links():
    params, x = mlp_params(), normal(7, 6, seed=3)
    links = find_links(mlp, params, x)
    wanted = mlp(params, x)
    even = compress(cross_layer_equalization(links), params)
    close(mlp(even, x), wanted, 1e-4)
    absmax = jc.observe(mlp, params, [x], jc.program.statistics.max_magnitude())
    smooth = compress(smooth_quant(links), params, absmax=absmax)
    close(mlp(smooth, x), wanted, 1e-4)
    searched = awq(links, Int(4), granularity=jc.PerChannel(), grid=3)
    stats = jc.observe(mlp, params, [x], jc.program.statistics.gram())
    close(mlp(compress(searched, params, stats=stats), x), wanted, 1e-4)


def test_links_that_can_be_rotated_are_linear():
    assert not find_links(mlp, mlp_params(), normal(7, 6), rotated=True)
    params, x = attention_params(), normal(2, 5, 12)
    links = find_links(attention, params, x, rotated=True)
    found = [(dict(link.producers), dict(link.consumers)) for link in links]
    assert ({"q": 2}, {"k": 2}) in found
    assert ({"v": 2, "v_bias": 1}, {"out": 1}) in found
    verify_links(attention, params, links, x, rotated=True)
    turned = compress(hadamard_rotation(links), params)
    close(attention(turned, x), attention(params, x), 1e-4)


def test_scales_of_norms_and_odd_channels_are_not_rotated():
    def scaled(params, x):
        h = x @ params["up"] * params["scale"][None]
        return h @ params["mid"] @ params["odd"] @ params["last"]

    params = {
        "up": normal(4, 6),
        "scale": normal(6, seed=1),
        "mid": normal(6, 8, seed=2),
        "odd": normal(8, 3, seed=3),
        "last": normal(3, 2, seed=4),
    }
    links = find_links(scaled, params, X, rotated=True)
    assert [dict(link.producers) for link in links] == [{"mid": 1}]
    assert links.skipped == {"odd": "the number of channels is odd"}
