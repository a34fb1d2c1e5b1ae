# SPDX-License-Identifier: Apache-2.0
"""Statistics of every kind of product, against its Jacobian."""

import equinox as eqx
import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from examples import examples
from jax import lax
from rows import STATS, axes, check, conv, groups, integers, linen, seen, transposed


def equinox_linear(w, x):
    linear = eqx.nn.Linear(5, 3, use_bias=False, key=jax.random.key(0))
    return jax.vmap(eqx.tree_at(lambda m: m.weight, linear, w))(x)


def channels_first(w, x):
    return lax.conv_general_dilated(x, w, (1, 2), ((0, 1), (2, 0)))


def attend(w, x):
    return nn.Embed(7, 4).apply({"params": {"embedding": w}}, x, method="attend")


IMAGE, GROUPED = (2, 5, 4, 3), (2, 5, 4, 4)
PRODUCTS = {
    "dense": (linen(nn.Dense(3, use_bias=False)), (5, 3), (2, 4, 5), axes(0)),
    "a single row": (lambda w, x: x @ w, (5, 3), (5,), axes(0)),
    "equinox": (equinox_linear, (3, 5), (6, 5), axes(1)),
    "matrix-vector": (lambda w, x: w @ x, (3, 5), (5,), axes(1)),
    "transposed data": (lambda w, x: (w @ x.T).T, (3, 5), (6, 5), axes(1)),
    "to heads": (
        linen(nn.DenseGeneral((2, 3), use_bias=False)),
        (5, 2, 3),
        (2, 4, 5),
        axes(0),
    ),
    "from heads": (
        linen(nn.DenseGeneral(5, axis=(-2, -1), use_bias=False)),
        (2, 3, 5),
        (2, 4, 2, 3),
        axes(0, 1),
    ),
    "from heads, with data in another order": (
        lambda w, x: jnp.einsum("hbtd,dhm->btm", x, w),
        (3, 2, 5),
        (2, 2, 4, 3),
        axes(0, 1),
    ),
    "from heads, merged": (
        lambda w, x: x @ w.reshape(6, 5),
        (2, 3, 5),
        (4, 6),
        axes(0, 1),
    ),
    "attend": (attend, (7, 4), (2, 3, 4), axes(1)),
    "experts": (
        lambda w, x: jnp.einsum("enf,efg->eng", x, w),
        (3, 4, 2),
        (3, 5, 4),
        axes(1, batch=(0,)),
    ),
    "experts with outputs before inputs": (
        lambda w, x: jnp.einsum("enf,egf->eng", x, w),
        (3, 2, 4),
        (3, 5, 4),
        axes(2, batch=(0,)),
    ),
    "experts of one input": (
        lambda w, x: jnp.einsum("nf,efg->eng", x, w),
        (3, 4, 2),
        (5, 4),
        axes(1),
    ),
    "vmapped over parameters and data": (
        lambda w, x: jax.vmap(lambda w, x: x @ w)(w, x),
        (3, 4, 2),
        (3, 5, 4),
        axes(1, batch=(0,)),
    ),
    "convolution": (conv(), (3, 2, 3, 4), IMAGE, axes(0, 1, 2)),
    "strided": (conv(strides=(2, 1)), (3, 2, 3, 4), IMAGE, axes(0, 1, 2)),
    "unpadded": (conv(padding="VALID"), (3, 2, 3, 4), IMAGE, axes(0, 1, 2)),
    "kernel dilation": (
        conv(kernel_dilation=(1, 2)),
        (3, 2, 3, 4),
        IMAGE,
        axes(0, 1, 2),
    ),
    "1 x 1": (conv(size=(1, 1)), (1, 1, 3, 4), IMAGE, axes(0, 1, 2)),
    "one dimension": (conv(size=(3,)), (3, 3, 4), (2, 5, 3), axes(0, 1)),
    "channels first": (channels_first, (4, 3, 2, 3), (2, 3, 4, 5), axes(1, 2, 3)),
    "grouped": (conv(feature_group_count=2), (3, 2, 2, 4), GROUPED, groups(2)),
    "depthwise": (conv(feature_group_count=4), (3, 2, 1, 4), GROUPED, groups(4)),
    "depth multiplier": (
        conv(8, feature_group_count=4),
        (3, 2, 1, 8),
        GROUPED,
        groups(4),
    ),
    "transposed": (transposed(), (3, 2, 3, 2), (1, 3, 4, 3), axes(0, 1, 2)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_statistics_are_those_of_the_rows_that_every_weight_multiplies(name):
    product, shape, data, unfold = PRODUCTS[name]
    check(product, shape, integers(*data, seed=2), unfold)


@hypothesis.given(data=st.data())
@examples(10)
def test_any_einsum(data):
    """Letters: b is batched over, i and j are summed over, o is an output, n data."""
    sizes = {"b": 2, "i": 3, "j": 2, "o": 4, "n": 5}
    mine = data.draw(st.sampled_from(["io", "ijo", "bio", "bijo", "i", "bi", "ij"]))
    shared = [c for c in mine if c != "o"]
    leaf = data.draw(st.permutations(mine))
    theirs = data.draw(st.permutations([*shared, "n"]))
    kept = data.draw(st.permutations([c for c in "bon" if c in (*leaf, *theirs)]))
    spec = f"{''.join(theirs)},{''.join(leaf)}->{''.join(kept)}"
    hypothesis.note(spec)
    shape = tuple(sizes[c] for c in leaf)
    check(
        lambda w, x: jnp.einsum(spec, x, w),
        shape,
        integers(*(sizes[c] for c in theirs), seed=2),
        axes(
            *(i for i, c in enumerate(leaf) if c in "ij"),
            batch=tuple(i for i, c in enumerate(leaf) if c == "b"),
        ),
    )


@hypothesis.given(
    layout=st.sampled_from([("NHWC", "HWIO"), ("NCHW", "OIHW"), ("HWCN", "WIHO")]),
    window=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    padding=st.tuples(*[st.tuples(st.integers(0, 1), st.integers(0, 2))] * 2),
    inserted=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    count=st.sampled_from([1, 2]),
)
@examples(8)
def test_any_convolution(layout, window, strides, padding, inserted, dilation, count):
    data, kernel = layout
    of = {"N": 2, "H": 5, "W": 4, "C": 4}
    sizes = {"H": window[0], "W": window[1], "I": 4 // count, "O": 4}

    def product(w, x):
        return lax.conv_general_dilated(
            x,
            w,
            strides,
            padding,
            inserted,
            dilation,
            dimension_numbers=(data, kernel, data),
            feature_group_count=count,
        )

    def unfold(w):
        w = np.moveaxis(w, kernel.index("O"), -1)
        return groups(count)(w)

    x = integers(*(of[c] for c in data), seed=2)
    check(product, tuple(sizes[c] for c in kernel), x, unfold)


def test_narrow_activations_have_wide_statistics():
    x = integers(6, 5, seed=2)

    def product(w, x):
        return (x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)).astype(jnp.float32)

    narrow = seen(product, (5, 3), x, STATS)
    wide = seen(lambda w, x: x @ w, (5, 3), x, STATS)
    # Small integers are numbers of bfloat16 too; sums of their squares are not.
    assert jnp.abs(wide["g"].gram).max() > 256 / 4
    jax.tree.map(np.testing.assert_array_equal, narrow, wide)
    counts = [narrow["s"].count, narrow["g"].count]
    for leaf in jax.tree.leaves(narrow):
        assert leaf.dtype == (
            jnp.uint32 if any(leaf is c for c in counts) else jnp.float32
        )
