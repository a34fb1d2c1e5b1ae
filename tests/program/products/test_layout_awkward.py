# SPDX-License-Identifier: Apache-2.0
"""Weights that are moved, cut or mixed: observed rightly, or refused with a reason."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from rows import columns, conv, integers, seen, transposed

import jaxcompress as jc
from jaxcompress.program.statistics import max_magnitude


def in_groups_and_whole(w, x):
    both = conv(4, (3,), feature_group_count=2)(w, x), conv(4, (3,))(w, x[..., :2])
    return jnp.stack(both)


def in_a_scan(axis, kept=slice(None)):
    """Layers that do not follow one another, so that the result is linear in them."""

    def product(w, x):
        w = jnp.moveaxis(w, axis, 0)[kept]
        return lax.scan(lambda _, xs: (None, xs[0] @ xs[1]), None, (x, w))[1]

    return product


AWKWARD = {
    "layers along the second axis": (in_a_scan(1), (4, 3, 2), (3, 5, 4)),
    "layers along the second axis, which is as long": (
        in_a_scan(1),
        (3, 3, 3),
        (3,) * 3,
    ),
    "layers along the last axis": (in_a_scan(2), (3, 2, 3), (3, 5, 3)),
    "some of the layers": (in_a_scan(0, slice(2)), (3, 4, 2), (2, 5, 4)),
    "layers backwards": (
        lambda w, x: lax.scan(
            lambda _, xs: (None, xs[0] @ xs[1]), None, (x, w), reverse=True
        )[1],
        (3, 4, 2),
        (3, 5, 4),
    ),
    "some of the experts": (
        lambda w, x: jnp.einsum("enf,efg->eng", x, w[1:]),
        (3, 4, 2),
        (2, 5, 4),
    ),
    "a weight that is repeated for every batch": (
        lambda w, x: jnp.einsum("bnf,bfg->bng", x, jnp.broadcast_to(w, (2, 4, 6))),
        (4, 6),
        (2, 5, 4),
    ),
    "reversed inputs": (lambda w, x: x @ jnp.flip(w, 0), (4, 2), (5, 4)),
    "reversed outputs": (lambda w, x: x @ jnp.flip(w, 1), (4, 2), (5, 4)),
    "sums of weights": (lambda w, x: x @ jnp.cumsum(w, 0), (4, 2), (5, 4)),
    "a transposed convolution with a flipped kernel": (
        transposed(transpose_kernel=True),
        (3, 2, 2, 3),
        (1, 3, 4, 3),
    ),
    "one of several matrices": (lambda w, x: x @ w[1], (3, 4, 2), (5, 4)),
    "a convolution of one pixel as a matrix": (
        lambda w, x: x @ w[0, 0],
        (1, 1, 4, 2),
        (5, 4),
    ),
    "some of the outputs": (lambda w, x: x @ w[:, 1:], (4, 3), (5, 4)),
    "some of the inputs": (lambda w, x: x @ w[1:], (5, 3), (5, 4)),
    "some of the outputs in groups": (
        lambda w, x: conv(4, (3,), feature_group_count=2)(w[..., 2:6], x),
        (3, 2, 8),
        (2, 5, 4),
    ),
    "in groups, and by all of them": (in_groups_and_whole, (3, 2, 4), (2, 5, 4)),
    "a split axis": (
        lambda w, x: jnp.einsum("nf,hfo->nho", x, w.reshape(2, 3, 4)),
        (6, 4),
        (5, 3),
    ),
    "reordered inputs": (
        lambda w, x: x @ w.transpose(1, 0, 2).reshape(6, 4),
        (2, 3, 4),
        (5, 6),
    ),
    "a permutation": (lambda w, x: x @ w[jnp.array([2, 0, 1])], (3, 4), (5, 3)),
    "a diagonal": (lambda w, x: x @ jnp.diag(w), (4,), (5, 4)),
    "a convolution with a kernel of data": (
        lambda w, x: lax.conv_general_dilated(w, x, (1, 1), "VALID"),
        (2, 3, 4, 4),
        (2, 3, 2, 2),
    ),
    "vmapped kernels": (
        lambda w, x: jax.vmap(conv(2, (3,)), (0, None))(w, x),
        (3, 3, 2, 2),
        (2, 5, 2),
    ),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_an_awkward_use_is_observed_rightly_or_refused(name):
    product, shape, data = AWKWARD[name]
    x = integers(*data, seed=2)
    try:
        found = seen(product, shape, x, max_magnitude())
    except ValueError as error:
        text = str(error)
        assert "'w' " in text and "`where=`" in text
        return
    out = np.abs(columns(product, shape, x)).max(0)
    # A weight that nothing is multiplied by may have any statistic.
    used = out > 0
    assert jnp.broadcast_shapes(found.shape, shape) == shape
    np.testing.assert_array_equal(np.broadcast_to(found, shape)[used], out[used])


@pytest.mark.parametrize(
    "name, reason",
    [
        ("a split axis", "reaches it through an operation that mixes its axes"),
        (
            "some of the inputs",
            "multiplies by a part of the parameter, or by reordered",
        ),
        ("reordered inputs", "multiplies by a part of the parameter, or by reordered"),
    ],
)
def test_a_refusal_says_why(name, reason):
    product, shape, data = AWKWARD[name]
    with pytest.raises(ValueError, match=reason):
        seen(product, shape, integers(*data), max_magnitude())


def test_a_product_of_parameters_alone_has_no_rows():
    params = {"a": integers(4, 3), "b": integers(3, 2)}

    def fn(params, x):
        return params["a"] @ params["b"] + x

    with pytest.raises(ValueError, match="its input does not depend on data"):
        jc.observe(fn, params, [integers(4, 2)], max_magnitude())


@pytest.mark.parametrize("count", [2, 3])
def test_one_of_several_matrices_in_a_loop_over_others(count):
    """The loop is over axes of another leaf, also where those are as long."""
    params = {"fixed": integers(count, 4, 4), "layers": integers(3, 4, 4, seed=1)}

    def fn(params, x):
        def layer(x, w):
            return jnp.clip(x @ w, -7, 7), x @ params["fixed"][1]

        return lax.scan(layer, x, params["layers"])[1]

    x = integers(2, 4)
    with pytest.raises(ValueError, match="'fixed' .* cannot be observed"):
        jc.observe(fn, params, [x], max_magnitude())
    assert jc.observe(fn, params, [x], max_magnitude(), where="layers")["fixed"] is None


def test_a_weight_that_the_layers_of_a_loop_share_is_refused():
    params = {"shared": integers(4, 4), "layers": integers(3, 4, 4, seed=1)}

    def fn(params, x):
        def layer(x, w):
            return jnp.clip(x @ w @ params["shared"], -7, 7), None

        return lax.scan(layer, x, params["layers"])[0]

    with pytest.raises(ValueError) as error:
        jc.observe(fn, params, [integers(2, 4)], max_magnitude())
    assert "'shared' (the loops over layers around it are not over this" in str(
        error.value
    )
