# SPDX-License-Identifier: Apache-2.0
"""Counts against what a hand counts, and against what XLA does."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from draws import normal
from jax import lax

import jaxcompress as jc


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def mlp(params, x):
    for layer in params:
        x = jax.nn.relu(x @ layer["kernel"] + jnp.broadcast_to(layer["bias"], (9, 32)))
    return x


MLP = [{"kernel": normal(n, 32), "bias": normal(32)} for n in (64, 32)]
X = normal(9, 64, seed=1)


def flops(fn, *args):
    """What XLA counts in the program that it makes."""
    analysis = jax.jit(fn).lower(*args).compile().cost_analysis()
    assert isinstance(analysis, dict)
    return analysis["flops"]


def test_xla_counts_two_operations_for_each_multiply_accumulate():
    counted = jc.count(mlp, MLP, X)
    assert counted.macs == 9 * 64 * 32 + 9 * 32 * 32
    # The rest are biases and rectifiers: two for a result that took 32 or 64.
    assert 2 * counted.macs <= flops(mlp, MLP, X) <= 2.2 * counted.macs


def stacked(params, x):
    return lax.scan(lambda x, w: (x @ w, None), x, params["kernel"])[0]


def unrolled(params, x):
    for i in range(10):
        x = x @ params["kernel"][i]
    return x


def test_scans_count_every_trip_while_xla_counts_one():
    params, x = {"kernel": normal(10, 32, 32)}, normal(9, 32)
    counted = jc.count(stacked, params, x)
    assert counted.macs == 10 * 9 * 32 * 32 == jc.count(unrolled, params, x).macs
    assert counted.activation_bytes == 10 * 2 * 9 * 32 * 4
    ratio = 2 * counted.macs / flops(stacked, params, x)
    assert 8 < ratio < 12


# Images of 2, 8 by 12, 6 channels to 4, by kernels of 3 by 5.
IMAGES, KERNEL = shape(2, 8, 12, 6), shape(3, 5, 6, 4)
NHWC = ("NHWC", "HWIO", "NHWC")


@pytest.mark.parametrize(
    ("options", "kernel", "macs"),
    [
        ({}, KERNEL, 2 * (8 * 12 * 4) * (3 * 5 * 6)),
        ({"padding": "VALID"}, KERNEL, 2 * (6 * 8 * 4) * (3 * 5 * 6)),
        ({"window_strides": (2, 3)}, KERNEL, 2 * (4 * 4 * 4) * (3 * 5 * 6)),
        (
            {"rhs_dilation": (2, 2), "padding": "VALID"},  # reaches over 5 by 9
            KERNEL,
            2 * (4 * 4 * 4) * (3 * 5 * 6),
        ),
        (
            {"feature_group_count": 2},
            shape(3, 5, 3, 4),
            2 * (8 * 12 * 4) * (3 * 5 * 3),
        ),
        (
            {"feature_group_count": 6},  # depthwise, two outputs for each input
            shape(3, 5, 1, 12),
            2 * (8 * 12 * 12) * (3 * 5),
        ),
    ],
    ids=["same", "valid", "strides", "dilation", "groups", "depthwise"],
)
def test_a_convolution_sums_over_window_and_inputs_for_each_result(
    options, kernel, macs
):
    settings = {"window_strides": (1, 1), "padding": "SAME", **options}

    def fn(params, x):
        return lax.conv_general_dilated(
            x, params["kernel"], dimension_numbers=NHWC, **settings
        )

    counted = jc.count(fn, {"kernel": kernel}, IMAGES)
    assert counted.macs == macs
    out = jax.eval_shape(fn, {"kernel": kernel}, IMAGES)
    assert counted.weight_bytes == 4 * math.prod(kernel.shape)
    assert counted.activation_bytes == 4 * (
        math.prod(IMAGES.shape) + math.prod(out.shape)
    )


def test_a_transposed_convolution_does_not_multiply_by_the_zeros_it_inserts():
    def fn(params, x):
        return lax.conv_transpose(
            x, params["kernel"], (2, 3), "SAME", dimension_numbers=NHWC
        )

    counted = jc.count(fn, {"kernel": KERNEL}, IMAGES)
    # Every pixel meets every weight once.
    assert counted.macs == 2 * (8 * 12 * 6) * (3 * 5 * 4)


def test_recurrent_networks_count_every_time_step():
    network, x = nn.RNN(nn.SimpleCell(16)), shape(2, 7, 5)
    params = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros(x.shape)))
    counted = jc.count(network.apply, params, x)
    assert counted.macs == 7 * 2 * (5 * 16 + 16 * 16)
    # Weights stay where they are from step to step; so do biases, of one of the two.
    assert counted.weight_bytes == 4 * (5 * 16 + 16 * 16 + 16)


def test_nested_scans_multiply_their_trips():
    def fn(params, x):
        def layer(x, w):
            return lax.scan(lambda h, _: (h @ w, None), x, None, length=5)[0], None

        return lax.scan(layer, x, params["kernel"])[0]

    counted = jc.count(fn, {"kernel": shape(3, 4, 4)}, shape(2, 4))
    assert counted.macs == 3 * 5 * 2 * 4 * 4
    assert counted.weight_bytes == 4 * 3 * 4 * 4


def test_all_branches_are_counted():
    def fn(params, x):
        branches = [lambda x: x @ params["kernel"], lambda x: x, lambda x: x @ x]
        return lax.switch(x[0, 0].astype(int), branches, x)

    counted = jc.count(fn, {"kernel": shape(4, 4)}, shape(4, 4))
    assert counted.macs == 2 * 4 * 4 * 4
    assert [s.weight_bytes for s in counted.sites] == [64, 0]


def test_a_while_is_counted_as_one_trip_and_says_so():
    def fn(params, x):
        x = x @ params["kernel"]
        return lax.while_loop(lambda x: x.sum() > 1, lambda x: x @ params["inner"], x)

    params = {"kernel": shape(4, 4), "inner": shape(4, 4)}
    counted = jc.count(fn, params, shape(2, 4))
    assert counted.unknown == ("inner",) and counted.macs == 2 * 2 * 4 * 4
    lines = str(counted).splitlines()
    assert lines[-1] == "in a while loop, counted as one trip: inner"
    assert not jc.count(mlp, MLP, X).unknown


@jax.custom_jvp
def guarded(x, w):
    return x @ w


guarded.defjvp(lambda xs, ts: (xs[0] @ xs[1], ts[0] @ xs[1] + xs[0] @ ts[1]))


def test_what_is_not_entered_is_not_counted_and_says_so():
    def fn(params, x):
        return guarded(x, params["kernel"]) @ params["last"]

    params = {"kernel": shape(4, 4), "last": shape(4, 4)}
    with pytest.warns(jc.program.OpaqueWarning, match="count leaves these parts"):
        counted = jc.count(fn, params, shape(2, 4))
    assert counted.macs == 2 * 4 * 4 and len(counted.opaque) == 1
    assert str(counted).splitlines()[-1].startswith("not entered: custom_jvp_call (1 ")
    # Its parameter is one all the same.
    assert (counted.other_bytes, counted.weight_bytes) == (64, 128)
    inside = jc.count(fn, params, shape(2, 4), inline_custom=True)
    assert inside.macs == 2 * 2 * 4 * 4 and inside.opaque == ()


class Tied(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        embed = nn.Embed(11, 8, name="embed")
        x = nn.LayerNorm()(embed(tokens))
        return embed.attend(nn.Dense(8)(x))


def test_a_leaf_used_twice_is_kept_once_and_a_look_up_multiplies_nothing():
    tokens = shape(2, 5, dtype=jnp.int32)
    params = jax.eval_shape(
        lambda: Tied().init(jax.random.key(0), jnp.zeros((2, 5), int))
    )
    counted = jc.count(Tied().apply, params, tokens)
    found = {s.name.removeprefix("params/"): s for s in counted.sites}
    first, again = found["embed/embedding"], found["embed/embedding#1"]
    assert (first.macs, first.weight_bytes) == (0, 4 * 11 * 8)
    assert (again.macs, again.weight_bytes) == (2 * 5 * 11 * 8, 0)
    assert first.activation_bytes == 4 * 2 * 5 * 8  # the rows that it writes
    assert counted.other_bytes == 4 * (8 + 8 + 8)  # scale and bias of the norm, a bias
    assert counted.weight_bytes == sum(
        4 * math.prod(x.shape) for x in jax.tree.leaves(params)
    )


def test_data_times_data_has_no_weights():
    def fn(params, q, k):
        return q @ k.T

    for dtype, size in [(jnp.float32, 4), (jnp.bfloat16, 2)]:
        q, k = shape(3, 4, dtype=dtype), shape(5, 4, dtype=dtype)
        (site,) = jc.count(fn, {}, q, k).sites
        assert (site.macs, site.weight_bytes, site.density) == (3 * 5 * 4, 0, 1)
        assert site.activation_bytes == size * (3 * 4 + 5 * 4 + 3 * 5)
        assert site.bits == (8 * size, 8 * size)


def test_a_table_ends_with_the_sum_of_its_rows():
    counted = jc.count(Tied().apply, filled(), jnp.zeros((2, 5), int))
    for name in ("macs", "effective_macs", "bit_ops", "activation_bytes"):
        rows = [getattr(s, name) for s in counted.sites]
        assert getattr(counted, name) == sum(rows) > 0
    assert counted.weight_bytes == counted.other_bytes + sum(
        s.weight_bytes for s in counted.sites
    )
    head, *rows, total = str(counted).splitlines()
    assert head.split("  ")[0] == "site" and len(rows) == len(counted.sites) == 3
    columns = "MACs density bits weight B activation B bit ops"
    assert " ".join(head.split()[1:]) == columns
    assert [row.split()[0] for row in rows] == [s.name for s in counted.sites]
    assert total.split() == [
        "total",
        f"{counted.macs:,}",
        f"{counted.weight_bytes:,.0f}",
        f"{counted.activation_bytes:,.0f}",
        f"{counted.bit_ops:,.0f}",
    ]


def filled():
    init = jax.eval_shape(
        lambda: Tied().init(jax.random.key(0), jnp.zeros((2, 5), int))
    )
    return jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), init)
