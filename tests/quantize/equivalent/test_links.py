# SPDX-License-Identifier: Apache-2.0
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from examples import examples
from linked import (
    ATTENTION_LINK,
    CNN_LINKS,
    NETWORKS,
    attention,
    attention_params,
    cnn,
    cnn_params,
    mlp,
    mlp_links,
    mlp_params,
)

from jaxcompress.quantize.equivalent import Link, verify_links
from jaxcompress.quantize.equivalent._links import bind, by_channel, rescale, spread


@examples(12)
@hypothesis.given(
    dims=st.lists(st.integers(1, 3), min_size=1, max_size=2),
    times=st.lists(st.integers(1, 3), min_size=2, max_size=2),
    other=st.integers(1, 3),
    order=st.permutations(range(3)),
)
def test_channels_are_laid_out_as_the_docs_say(dims, times, other, order):
    """Against the definition, one index at a time."""
    sizes = [n * k for n, k in zip(dims, times, strict=False)]
    rank = len(dims) + 1
    place = [p for p in order if p < rank]  # axis i of (*sizes, other) is at place[i]
    axes = tuple(place[:-1])
    shape = [0] * rank
    for p, n in zip(place, (*sizes, other), strict=True):
        shape[p] = n
    s = np.arange(np.prod(dims)).reshape(dims)
    laid = np.broadcast_to(spread(jnp.asarray(s), shape, axes), shape)
    for index in np.ndindex(*shape):
        along = [index[a] for a in axes]
        channel = [i // k for i, k in zip(along[:-1], times, strict=False)]
        assert laid[index] == s[(*channel, along[-1] % dims[-1])]
    merged = np.asarray(by_channel(jnp.asarray(laid), tuple(dims), axes))
    np.testing.assert_array_equal(merged, np.broadcast_to(s[..., None], merged.shape))


@pytest.mark.parametrize("name", NETWORKS)
def test_rescaling_a_link_changes_nothing(name):
    fn, make, links, shape = NETWORKS[name]
    params, x = make(), normal(*shape, seed=7)
    verify_links(fn, params, links, x, tolerance=0)  # powers of two, to the last bit


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_16_bits_are_rescaled_without_rounding(dtype):
    params, x = mlp_params(dtype=dtype), normal(4, 6, dtype=dtype)
    verify_links(mlp, params, mlp_links(), x, tolerance=0)
    params, x = attention_params(dtype=dtype), normal(2, 5, 12, dtype=dtype)
    verify_links(attention, params, [ATTENTION_LINK], x, tolerance=0)


def test_each_leaf_is_rounded_once():
    params = {"w": normal(8, 8, dtype=jnp.bfloat16), "v": normal(8, 8)}
    links = [Link({"w": 1}, {"v": 0}), Link({"v": 1}, {"w": 0})]
    s = [jnp.full(8, 3.0), jnp.full(8, 3.0)]
    new = rescale(params, bind(links, params), s)  # divided by 3 and multiplied by 3
    np.testing.assert_array_equal(new["w"], params["w"])
    assert new["w"].dtype == jnp.bfloat16


def residual(params, x):
    return x @ params["Dense_0"]["kernel"] + mlp(params, x)[:, :1]


CARELESS = {
    "gelu": (lambda p, x: mlp(p, x, jax.nn.gelu), mlp_links()),
    "tanh": (lambda p, x: mlp(p, x, jnp.tanh), mlp_links()),
    "relu6": (lambda p, x: mlp(p, 9 * x, jax.nn.relu6), mlp_links()),
    "bias forgotten": (mlp, [Link({"Dense_0/kernel": 1}, {"Dense_1/kernel": 0})]),
    "a second consumer": (residual, mlp_links()),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", CARELESS)
def test_a_link_that_is_none_is_told(name, dtype):
    fn, links = CARELESS[name]
    params = mlp_params(dtype=dtype)
    message = (
        "rescaling the link 'Dense_0/kernel' -> 'Dense_1/kernel' changes the output"
    )
    with pytest.raises(ValueError, match=message):
        verify_links(fn, params, links, normal(4, 6, dtype=dtype))


def test_the_wrong_link_is_the_one_that_is_named():
    right, wrong = mlp_links()[0], Link({"Dense_1/kernel": 1}, {"Dense_2/kernel": 0})
    with pytest.raises(
        ValueError, match="'Dense_1/kernel' -> 'Dense_2/kernel' changes"
    ):
        verify_links(mlp, mlp_params(), [right, wrong], normal(4, 6))


def test_what_cannot_be_compared_is_told():
    params, links = mlp_params(), mlp_links()
    with pytest.raises(ValueError, match="fn returns NaN or infinity"):
        verify_links(mlp, params, links, jnp.full((1, 6), jnp.nan))
    with pytest.raises(ValueError, match="floating-point outputs: return logits"):
        verify_links(lambda p, x: jnp.argmax(mlp(p, x)), params, links, normal(1, 6))


def test_verification_traces_the_function_once():
    traced = []

    def fn(params, x, flag):
        traced.append(flag)
        return cnn(params, x)

    verify_links(fn, cnn_params(), CNN_LINKS, normal(1, 4, 4, 2), "evaluation")
    assert traced == ["evaluation"]


ERRORS = {
    "near miss": (
        Link({"Dense_0/kernal": 1}, {"Dense_1/kernel": 0}),
        "no leaf 'Dense_0/kernal'; closest: 'Dense_0/kernel'",
    ),
    "glob": (
        Link({"*/kernel": 1}, {"Dense_1/kernel": 0}),
        "Links need full paths, no globs",
    ),
    "axis out of range": (
        Link({"Dense_0/kernel": 2}, {"Dense_1/kernel": 0}),
        "'Dense_0/kernel' has shape .6, 16.: there is no axis 2",
    ),
    "one axis twice": (
        Link({"Dense_0/kernel": (1, -1)}, {"Dense_1/kernel": 0}),
        "'Dense_0/kernel': axis must be one axis or several distinct ones, got .1, -1.",
    ),
    "wrong axis": (
        Link({"Dense_0/kernel": 1}, {"Dense_1/kernel": 1}),
        "'Dense_0/kernel' has 16 channels .* 'Dense_1/kernel' of shape .16, 12. has 12",
    ),
    "another producer": (
        Link({"Dense_0/kernel": 0, "Dense_2/kernel": 0}, {"Dense_0/kernel": 0}),
        "Producers must have the same number, consumers the same number or a multiple",
    ),
    "rank": (
        Link({"Dense_0/kernel": 1}, {"Dense_1/kernel": (0, 1)}),
        "has 16 x 12 along .0, 1.",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_links_that_do_not_fit_are_refused(name):
    link, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        bind([link], mlp_params())


def test_a_leaf_in_two_links_along_one_axis_is_refused():
    params = {"a": normal(4, 4), "b": normal(4, 4), "c": normal(4, 4)}
    first, second = Link({"a": 1}, {"b": 0}), Link({"a": -1}, {"c": 0})
    message = "'a' is among the producers of two links along axis 1, 'a' -> 'b' and"
    with pytest.raises(ValueError, match=message):
        bind([first, second], params)
    with pytest.raises(ValueError, match="'b' is among the consumers of two links"):
        bind([first, Link({"c": 1}, {"b": 0})], params)
    with pytest.raises(ValueError, match="producers of two links"):
        bind([first, first], params)
    assert len(bind([first, Link({"b": 1}, {"c": 0})], params)) == 2


def test_empty_links_and_other_things_are_refused():
    with pytest.raises(ValueError, match="producers of a Link must be {path: axis}"):
        Link({}, {"a": 0})
    with pytest.raises(ValueError, match="consumers of a Link must be {path: axis}"):
        Link({"a": 0}, ["b"])  # pyright: ignore[reportArgumentType]
    link, params = Link({"a": 0}, {"b": 0}), {"a": jnp.ones(2), "b": jnp.ones(2)}
    with pytest.raises(TypeError, match="must be a sequence of Link, got one Link"):
        bind(link, params)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="must be a sequence of Link, got a dict in it"):
        bind([{"a": 0}], params)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="links must not be empty"):
        bind([], params)
    with pytest.raises(TypeError, match="must be floating-point, 'b' has dtype int32"):
        bind([link], {**params, "b": jnp.ones(2, jnp.int32)})
