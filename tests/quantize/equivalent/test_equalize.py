# SPDX-License-Identifier: Apache-2.0

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import normal
from examples import examples
from linked import (
    NETWORKS,
    STACKED_LINK,
    close,
    compress,
    mlp,
    mlp_links,
    mlp_params,
    stacked_params,
    uneven,
)

import jaxcompress as jc
from jaxcompress.quantize import cross_layer_equalization, smooth_quant
from jaxcompress.quantize.equivalent import EquivalentState, Link


def ranges(params, i):
    """Of the channels between layer i and the next one."""
    r1 = jnp.max(jnp.abs(params[f"Dense_{i}"]["kernel"]), axis=0)
    return r1, jnp.max(jnp.abs(params[f"Dense_{i + 1}"]["kernel"]), axis=1)


@pytest.mark.parametrize("name", NETWORKS)
def test_equalizing_keeps_the_function(name):
    fn, make, links, shape = NETWORKS[name]
    params, x = make(), normal(*shape, seed=7)
    new = compress(cross_layer_equalization(links), params)
    close(fn(params, x), fn(new, x))
    first = next(iter(links[0].consumers))
    paths = dict(jax.tree_util.tree_flatten_with_path(new)[0])
    old = dict(jax.tree_util.tree_flatten_with_path(params)[0])
    changed = {
        jax.tree_util.keystr(p, simple=True, separator="/")
        for p in paths
        if not np.array_equal(paths[p], old[p])
    }
    assert first in changed


def test_ranges_become_equal_and_stay():
    equal = cross_layer_equalization(mlp_links())
    new = compress(equal, mlp_params())
    for i in range(2):
        np.testing.assert_allclose(*ranges(new, i), rtol=1e-5)
    again = compress(equal, new)
    jax.tree.map(lambda a, b: close(a, b), new, again)


@examples(10)
@hypothesis.given(seed=st.integers(0, 999))
def test_one_link_is_the_formula_of_the_paper(seed):
    rng = np.random.default_rng(seed)
    w1, b1, w2 = (rng.normal(size=shape) for shape in [(4, 6), 6, (6, 3)])
    r1, r2 = np.abs(w1).max(0), np.abs(w2).max(1)
    s = np.sqrt(r1 * r2) / r2
    link = Link({"w1": 1, "b1": 0}, {"w2": 0})
    params = {"w1": w1, "b1": b1, "w2": w2}
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)
    new = compress(cross_layer_equalization([link]), params)
    close(w1 / s, new["w1"])
    close(b1 / s, new["b1"])
    close(w2 * s[:, None], new["w2"])


def test_several_consumers_share_the_largest_range():
    params = {
        "v": jnp.array([[4.0, 1.0]]),
        "a": jnp.array([[1.0], [0.5]]),
        "b": jnp.array([[0.25], [4.0]]),
    }
    link = Link({"v": 1}, {"a": 0, "b": 0})
    new = compress(cross_layer_equalization([link]), params)
    np.testing.assert_allclose(new["v"], [[2.0, 2.0]])
    np.testing.assert_allclose(new["a"], [[2.0], [0.25]])
    np.testing.assert_allclose(new["b"], [[0.5], [2.0]])


def test_dead_channels_and_zeros_are_left_alone():
    params = mlp_params()
    first, second = params["Dense_0"], params["Dense_1"]
    first["kernel"] = first["kernel"].at[:, 3].set(0).at[2, :].set(0)
    second["kernel"] = second["kernel"].at[5].set(0).at[:, 1].set(0)
    new = compress(cross_layer_equalization(mlp_links()), params)
    np.testing.assert_array_equal(new["Dense_0"]["bias"][3], first["bias"][3])
    np.testing.assert_array_equal(new["Dense_0"]["kernel"][:, 5], first["kernel"][:, 5])
    for name in params:
        zeros = params[name]["kernel"] == 0
        np.testing.assert_array_equal(new[name]["kernel"] == 0, zeros)
    close(mlp(params, normal(4, 6)), mlp(new, normal(4, 6)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_16_bits(dtype):
    params, x = mlp_params(dtype=dtype), normal(4, 6)
    new = compress(cross_layer_equalization(mlp_links()), params)
    assert jax.tree.leaves(new)[0].dtype == dtype
    for i in range(2):
        np.testing.assert_allclose(*map(np.float32, ranges(new, i)), rtol=0.02)
    wide = [jax.tree.map(lambda a: a.astype(jnp.float32), p) for p in (params, new)]
    close(mlp(wide[0], x), mlp(wide[1], x), rtol=0.03)


def test_int8_with_one_scale_for_a_leaf_loses_less():
    # The inverse of what equalizing does: the same function, with uneven channels.
    params = jax.tree.map(lambda a: a, mlp_params())
    s = uneven(16, seed=3, decades=4)
    params["Dense_0"]["kernel"] = params["Dense_0"]["kernel"] * s[None]
    params["Dense_0"]["bias"] = params["Dense_0"]["bias"] * s
    params["Dense_1"]["kernel"] = params["Dense_1"]["kernel"] / s[:, None]
    int8 = jc.weight_quantization(bits=8, granularity=jc.PerTensor())
    equal = jc.chain(cross_layer_equalization(mlp_links()), int8)
    x = normal(64, 6)
    errors = [
        float(jnp.linalg.norm(mlp(jc.dense(compress(c, params)), x) - mlp(params, x)))
        for c in (int8, equal)
    ]
    assert errors[1] < errors[0] / 5


def test_it_moves_once_and_restarts_the_optimizer():
    equal = cross_layer_equalization(mlp_links())
    params, state = mlp_params(), equal.init(mlp_params())
    assert (
        isinstance(state, EquivalentState)
        and state.count == 0
        and not state.restart.now
    )
    view = equal.apply(params, state)
    jax.tree.map(np.testing.assert_array_equal, view, params)
    update = jax.jit(equal.update)
    new, state = update(params, state)
    assert state.count == 1 and state.restart.now
    trained = jax.tree.map(lambda a: a + 0.1 * jnp.abs(a) ** 2, new)
    held, state = update(trained, state)
    jax.tree.map(np.testing.assert_array_equal, held, trained)
    assert state.count == 1 and not state.restart.now


def test_momentum_of_other_units_is_dropped():
    params, tx = mlp_params(), optax.sgd(0.0, momentum=0.9)
    equal = cross_layer_equalization(mlp_links())
    init, step = jc.train_step(lambda p, x: jnp.sum(mlp(p, x) ** 2), tx, equal)
    state = init(params)
    state, _ = step(state, normal(4, 6))  # moves
    state, _ = step(state, normal(4, 6))  # starts anew
    grads = jax.grad(lambda p: jnp.sum(mlp(p, normal(4, 6)) ** 2))(state.params)
    trace = state.opt_state[0].trace["Dense_0"]["kernel"]
    close(trace, grads["Dense_0"]["kernel"])


@pytest.mark.slow
def test_after_pruning_masks_are_kept():
    chain = jc.chain(
        jc.magnitude_pruning(0.5),
        cross_layer_equalization(mlp_links()),
        jc.weight_quantization(bits=8),
    )
    pruned = compress(jc.magnitude_pruning(0.5), mlp_params())
    new = jc.dense(compress(chain, mlp_params()))
    for name in pruned:
        assert ((new[name]["kernel"] == 0) >= (pruned[name]["kernel"] == 0)).all()


@pytest.mark.slow  # `tests/test_laws.py` has it with other weights
@pytest.mark.parametrize("make", [cross_layer_equalization, smooth_quant])
def test_laws(make):
    c, params = make(mlp_links(2)), mlp_params((4, 6, 3))
    statistic = jc.program.statistics.max_magnitude()
    extras = {"absmax": jc.observe(mlp, params, [normal(8, 4)], statistic)}
    jc.testing.check_compressor(c, params, extras=extras, rounding=1e-5)


def test_each_layer_of_a_stack_has_its_own_scales():
    params = stacked_params()
    new = compress(cross_layer_equalization([STACKED_LINK]), params)
    up, down = new["up"]["kernel"], new["down"]["kernel"]
    np.testing.assert_allclose(
        jnp.max(jnp.abs(up), axis=1), jnp.max(jnp.abs(down), axis=2), rtol=1e-5
    )


def test_what_was_never_moved_warns():
    equal = cross_layer_equalization(mlp_links())
    with pytest.warns(UserWarning, match="nothing is equalized: there was no update"):
        equal.finalize(mlp_params(), equal.init(mlp_params()))


def test_careless_use_is_told():
    norm = Link({"scale": 0}, {"q": 0})
    params = {"scale": jnp.ones(4), "q": jnp.ones((4, 2))}
    with pytest.raises(ValueError, match="iterations must be at least 1 sweep, got 0"):
        cross_layer_equalization([norm], iterations=0)
    with pytest.raises(
        ValueError, match="at least one producer must be a kernel.* use smooth_quant"
    ):
        cross_layer_equalization([norm]).init(params)
    with pytest.raises(TypeError, match="must be a sequence of Link, got one Link"):
        cross_layer_equalization(norm)  # pyright: ignore[reportArgumentType]
