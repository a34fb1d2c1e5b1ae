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
    attention,
    attention_params,
    close,
    compress,
    mlp,
    mlp_links,
    mlp_params,
)

import jaxcompress as jc
from jaxcompress.quantize import hadamard_rotation
from jaxcompress.quantize.equivalent import Link, hadamard, verify_links

KEY = jax.random.key(0)


def sylvester(n):
    h = np.ones((1, 1))
    while len(h) < n:
        h = np.kron([[1, 1], [1, -1]], h)
    return h / np.sqrt(n)


@examples(10)
@hypothesis.given(
    blocks=st.sampled_from([1, 3, 5]),
    block=st.sampled_from([2, 4, 8, 16]),
    others=st.lists(st.integers(1, 3), max_size=2),
    data=st.data(),
)
def test_the_transform_is_blocks_of_hadamard_matrices(blocks, block, others, data):
    axis = data.draw(st.integers(0, len(others)))
    n = blocks * block
    x = normal(*others[:axis], n, *others[axis:])
    matrix = np.kron(np.eye(blocks), sylvester(block))
    wanted = np.moveaxis(np.moveaxis(np.asarray(x), axis, -1) @ matrix, -1, axis)
    for along in (axis, axis - x.ndim):
        close(wanted, hadamard(x, along))
    close(x, hadamard(hadamard(x, axis), axis))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_norms_are_kept_and_so_is_the_dtype(dtype):
    x = normal(5, 64, dtype=dtype)
    y = jax.jit(hadamard)(x)
    assert y.dtype == dtype and y.shape == x.shape
    norms = [np.linalg.norm(np.asarray(a, np.float64), axis=-1) for a in (x, y)]
    np.testing.assert_allclose(*norms, rtol=4 * float(jnp.finfo(dtype).eps))


def test_long_axes_take_n_log_n():
    x = jnp.zeros(2**20).at[12345].set(1024.0)
    y = jax.jit(hadamard)(x)
    assert (jnp.abs(y) == 1).all()
    cost = jax.jit(hadamard).lower(x).compile().cost_analysis()
    assert cost is None or cost["flops"] < 10 * 20 * 2**20  # pyright: ignore[reportIndexIssue]


def test_what_has_no_transform_is_told():
    assert hadamard(jnp.array([3.0])).tolist() == [3.0]
    with pytest.raises(ValueError, match="odd length 7"):
        hadamard(jnp.ones((2, 7)))
    with pytest.raises(ValueError, match="odd length 0"):
        hadamard(jnp.ones((2, 0)))
    with pytest.raises(TypeError, match="needs a floating-point array, got int32"):
        hadamard(jnp.arange(4))


def linear(params, x):
    return x @ params["v"] @ params["o"]


def linear_params(n=24, dtype=jnp.float32):
    """Two layers, of which some channels have a range of forty times that of others."""
    s = jnp.ones(n).at[jnp.array([1, 17])].set(40.0)
    params = {"v": normal(16, n) * s[None], "o": normal(n, 8, seed=1) / s[:, None]}
    return jax.tree.map(lambda a: a.astype(dtype), params)


LINEAR_LINK = Link({"v": 1}, {"o": 0})


@pytest.mark.parametrize("key", [None, KEY])
def test_rotating_keeps_the_function(key):
    params, x = linear_params(), normal(4, 16)
    new = compress(hadamard_rotation([LINEAR_LINK], key=key), params)
    close(linear(params, x), linear(new, x))
    assert not np.allclose(new["v"], params["v"])
    verify_links(linear, params, [LINEAR_LINK], x, rotated=True)


def test_signs_make_an_outlier_of_no_mean():
    params = {"v": jnp.ones((3, 16)) + 0.1 * normal(3, 16), "o": normal(16, 3)}
    plain, signed = (
        compress(hadamard_rotation([LINEAR_LINK], key=key), params)["v"]
        for key in (None, KEY)
    )
    assert jnp.abs(signed).max() < 0.8 * jnp.abs(plain).max()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_and_outputs_of_each_head(dtype):
    params = attention_params(dtype=dtype)
    x = normal(2, 5, 12, dtype=dtype)
    verify_links(attention, params, [ATTENTION_LINK], x, rotated=True)
    new = compress(hadamard_rotation([ATTENTION_LINK], key=KEY), params)
    close(
        attention(params, x), attention(new, x), 1e-5 if dtype == jnp.float32 else 0.05
    )
    for name in ("q", "k"):
        np.testing.assert_array_equal(new[name], params[name])
    before, after = (jnp.linalg.norm(np.float32(p["v"]), axis=2) for p in (params, new))
    close(before, after, 0.02)  # within each head


def test_a_residual_stream_with_rms_norms():
    params = {
        "embed": normal(9, 16),
        "w": normal(16, 32),
        "down": normal(32, 16, seed=2),
    }
    params["head"] = normal(16, 4, seed=3)

    def fn(params, tokens):
        def norm(x):
            return x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True))

        x = params["embed"][tokens]
        x = x + jax.nn.gelu(norm(x) @ params["w"]) @ params["down"]
        return norm(x) @ params["head"]

    stream = Link({"embed": 1, "down": 1}, {"w": 0, "head": 0})
    verify_links(fn, params, [stream], jnp.arange(9), rotated=True)
    with pytest.raises(ValueError, match="rescaling the link 'embed' -> 'w' changes"):
        verify_links(fn, params, [stream], jnp.arange(9))
    short = Link({"embed": 1}, {"w": 0, "head": 0})
    with pytest.raises(ValueError, match="rotating the link 'embed' -> 'w' changes"):
        verify_links(fn, params, [short], jnp.arange(9), rotated=True)


def test_4_bits_lose_less_where_there_were_outliers():
    loud = jnp.ones(32).at[jnp.array([1, 17])].set(8.0)
    params = {"v": normal(16, 32) * loud[None], "o": normal(32, 8, seed=1)}
    x = normal(64, 16)
    int4 = jc.weight_quantization(
        bits=4, granularity=jc.PerTensor(), where=lambda path, leaf: True
    )
    rotated = jc.chain(hadamard_rotation([LINEAR_LINK], key=KEY), int4)
    errors = []
    for c in (int4, rotated):
        new = jc.dense(compress(c, params))
        errors.append(float(jnp.linalg.norm(linear(new, x) - linear(params, x))))
    assert errors[1] < errors[0] / 2


def test_it_rotates_once():
    rotation, params = hadamard_rotation([LINEAR_LINK]), linear_params()
    update, state = jax.jit(rotation.update), rotation.init(params)
    new, state = update(params, state)
    held, state = update(new, state)
    jax.tree.map(np.testing.assert_array_equal, held, new)
    assert state.count == 1 and not np.allclose(new["v"], params["v"])


@pytest.mark.parametrize("act", [jax.nn.relu, jax.nn.gelu])
def test_across_what_is_not_linear_it_is_told(act):
    params, x = mlp_params(), normal(4, 6)
    with pytest.raises(ValueError, match="rotating the link .* is not linear .a ReLU"):
        verify_links(lambda p, x: mlp(p, x, act), params, mlp_links(), x, rotated=True)


@pytest.mark.slow  # `tests/test_laws.py` has it with other weights
@pytest.mark.filterwarnings("ignore:nothing is rotated")
def test_laws():
    rotation = hadamard_rotation([LINEAR_LINK], key=KEY)
    jc.testing.check_compressor(rotation, linear_params(), rounding=1e-5)


def test_zeros_that_it_destroys_are_told():
    params = linear_params()
    pruned = {**params, "v": params["v"].at[:, ::3].set(0)}
    rotation = hadamard_rotation([LINEAR_LINK])
    with pytest.warns(
        UserWarning, match="'v' has 33% zeros, which a rotation destroys"
    ):
        rotation.init(pruned)
    first = jc.chain(jc.masked(jc.magnitude_pruning(0.5, where="v"), "v"), rotation)
    with pytest.warns(UserWarning, match="'v' has 50% zeros"):
        first.update(params, first.init(params))


def test_careless_links_are_told():
    params = {"scale": jnp.ones(16), "w": normal(16, 4), "odd": normal(4, 5)}
    with pytest.raises(
        ValueError,
        match="at least one producer must be a kernel.* scale of a norm cannot",
    ):
        hadamard_rotation([Link({"scale": 0}, {"w": 0})]).init(params)
    with pytest.raises(
        ValueError,
        match="'odd' -> 'w': a Hadamard rotation needs an even number of channels, got 5",
    ):
        hadamard_rotation([Link({"odd": 1}, {"w": 0})]).init(
            {**params, "w": normal(5, 4)}
        )
    rotation = hadamard_rotation([LINEAR_LINK])
    with pytest.warns(UserWarning, match="nothing is rotated: there was no update"):
        rotation.finalize(linear_params(), rotation.init(linear_params()))
