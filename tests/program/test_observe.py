# SPDX-License-Identifier: Apache-2.0
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from models import assert_same_bits, exact
from rows import equal, integers, linen

import jaxcompress as jc
from jaxcompress.program import observing
from jaxcompress.program.statistics import gram, magnitudes, max_magnitude, moments

STATS = {"m": max_magnitude(), "s": moments(), "g": gram(), "h": magnitudes()}


PARAMS = {
    "layers": {"w": integers(3, 4, 4), "b": integers(3, 4)},
    "last": {"w": integers(4, 2), "b": integers(2)},
}
X = integers(8, 4, seed=1)


def net(params, x):
    """Layers in a scan, and one more, on integers."""

    def layer(x, p):
        return jnp.clip(x @ p["w"] + p["b"][None], 0, 7), None

    x, _ = lax.scan(layer, x, params["layers"])
    return x @ params["last"]["w"] + params["last"]["b"][None]


def observed(batches, stats=STATS, fn=net, params=PARAMS, **options):
    return jc.observe(fn, params, batches, stats, **options)


@pytest.fixture(scope="module")
def whole():
    """What one batch of everything gives."""
    return observed([X])


@pytest.mark.parametrize("parts", [2, 8])
def test_micro_batches_have_the_bits_of_the_whole(parts, whole):
    found = observed(jnp.split(X, parts))
    # The mean of a power of two of integers is exact; merging 3 to 1 need not be.
    if parts == 2:
        equal(found, whole)
    for path in ("layers", "last"):
        for name in "mgh":
            equal(found[path]["w"][name], whole[path]["w"][name])
        moments, expected = found[path]["w"]["s"], whole[path]["w"]["s"]
        equal(moments.count, expected.count)
        for x, y in zip(moments[1:], expected[1:], strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_micro_batches_may_differ_in_size(whole):
    found = observed([X[:5], X[5:6], X[6:]])
    for path in ("layers", "last"):
        for name in "mgh":
            equal(found[path]["w"][name], whole[path]["w"][name])
        np.testing.assert_allclose(
            found[path]["w"]["s"].norm, whole[path]["w"]["s"].norm, rtol=1e-5
        )


def test_shards_have_the_bits_of_the_whole(whole):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    alone = NamedSharding(mesh, PartitionSpec())
    params, x = jax.device_put(PARAMS, alone), jax.device_put(X, rows)
    observer = observing(net, STATS)
    state = jax.device_put(observer.init(params, x), alone)
    out, state = jax.block_until_ready(jax.jit(observer.update)(params, state, x))
    assert_same_bits(jax.device_get(out), jax.device_get(jax.jit(net)(PARAMS, X)))
    found = observer.read(params, jax.device_get(state), x)
    equal(jax.device_get(found), jax.device_get(whole))


def test_states_of_two_hosts_merge(whole):
    observer = observing(net, STATS)
    update, start = jax.jit(observer.update), observer.init(PARAMS, X[:4])
    halves = [update(PARAMS, start, x)[1] for x in (X[:4], X[4:])]
    merged = observer.merge(PARAMS, *halves, X)
    equal(observer.read(PARAMS, merged, X), whole)
    # A state of no data is neutral.
    again = observer.merge(PARAMS, merged, start, X)
    equal(again, merged)


def test_an_observer_runs_in_a_loop_of_ones_own(whole):
    observer = observing(net, STATS)

    @jax.jit
    def run(params, batches):
        start = observer.init(params, batches[0])

        def step(state, x):
            out, state = observer.update(params, state, x)
            return state, out

        return lax.scan(step, start, batches)

    state, outs = run(PARAMS, X.reshape(2, 4, 4))
    equal(observer.read(PARAMS, state, X), whole)
    np.testing.assert_array_equal(outs.reshape(8, 2), net(PARAMS, X))


def test_shapes_are_enough_but_for_an_update(whole):
    observer = observing(net, STATS)
    params, x = jax.eval_shape(lambda *xs: xs, PARAMS, X)
    state = observer.init(params, x)
    _, state = jax.jit(observer.update)(PARAMS, state, X)
    state = observer.merge(params, state, observer.init(params, x), x)
    equal(observer.read(params, state, x), whole)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("linen_cnn_training", marks=pytest.mark.slow),
        pytest.param("linen_transformer", marks=pytest.mark.slow),
        "linen_dropout",
        "nnx_cnn",
        "nested_scans",
    ],
)
def test_observing_changes_no_bit_of_the_result(name):
    model, run = exact(name)
    observer = observing(model.fn, {"s": moments(), "g": gram()})
    state = observer.init(model.params, *model.args)
    out, new = run(observer.update)(model.params, state, *model.args)
    assert_same_bits(out, run(model.fn)(model.params, *model.args))
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, new)]
    assert shapes[0] == shapes[1]

    found = observer.read(model.params, new, *model.args)
    leaves, treedef = jax.tree.flatten(model.params)
    for leaf, stats in zip(leaves, treedef.flatten_up_to(found), strict=True):
        if stats is not None:
            scores = jnp.abs(leaf) * stats["s"].norm
            assert scores.shape == leaf.shape and jnp.isfinite(scores).all()


def test_gradients_are_those_of_the_function_alone():
    observer = observing(net, gram())
    state = observer.init(PARAMS, X)

    def loss(params, x):
        out, new = observer.update(params, state, x)
        return jnp.sum(out**2), new

    grads, new = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(PARAMS, X)
    expected = jax.jit(
        jax.grad(lambda params, x: jnp.sum(net(params, x) ** 2), argnums=(0, 1))
    )(PARAMS, X)
    assert_same_bits(grads, expected)
    # Statistics are no way for a gradient.
    through = jax.grad(
        lambda x: observer.update(PARAMS, state, x)[1]["layers/w"][0].gram.sum()
    )(X)
    assert not through.any()


def test_batches_of_one_shape_are_traced_once():
    def traces(batches):
        seen = []

        def fn(params, x):
            seen.append(x.shape)
            return net(params, x)

        observed(batches, max_magnitude(), fn)
        return len(seen)

    once = traces([X[:4]])
    assert traces([X[:4]] * 6) == once
    assert traces([X[:4]] * 3 + [X[:2]]) == once + 1


def test_the_result_has_the_structure_of_the_parameters_and_of_the_statistics(whole):
    alone = observed([X], moments())
    assert alone["layers"]["b"] is None and alone["last"]["b"] is None
    equal(alone["last"]["w"], whole["last"]["w"]["s"])
    assert set(whole["layers"]) == {"w", "b"} and set(whole["layers"]["w"]) == set(
        STATS
    )
    assert whole["layers"]["w"]["m"].shape == (3, 4, 1)
    assert whole["layers"]["w"]["g"].gram.shape == (3, 4, 4)
    assert whole["layers"]["w"]["g"].count.tolist() == [8, 8, 8]
    assert whole["layers"]["w"]["h"].counts.shape[:-1] == (3, 2)
    pair = observed([X], (max_magnitude(), [gram()]))
    equal(pair["last"]["w"][0], whole["last"]["w"]["m"])
    equal(pair["last"]["w"][1][0], whole["last"]["w"]["g"])


@pytest.mark.parametrize(
    "where",
    [
        "last/*w",
        lambda path, leaf: path.startswith("last") and leaf.ndim == 2,
        {"layers": {"w": False, "b": False}, "last": {"w": True, "b": False}},
    ],
    ids=["glob", "function", "tree"],
)
def test_leaves_are_selected_as_everywhere(where, whole):
    found = observed([X], where=where)
    assert found["layers"] == {"w": None, "b": None} and found["last"]["b"] is None
    equal(found["last"]["w"], whole["last"]["w"])


def test_statistics_of_somebody_else():
    """A count of the zeros: a statistic is four functions."""
    zeros = jc.program.statistics.Statistic(
        empty=lambda groups, features: jnp.zeros((groups, features), jnp.int32),
        of=lambda rows: jnp.sum(rows == 0, 1),
        merge=jnp.add,
        read=lambda summary, like_leaf: like_leaf(summary),
    )
    found = observed(jnp.split(X, 2), zeros)
    np.testing.assert_array_equal(
        found["layers"]["w"][0, :, 0], (np.asarray(X) == 0).sum(0)
    )


def test_the_norm_of_an_input_times_its_weight_is_what_its_removal_costs():
    """So says Wanda, whose scores these are."""
    product = linen(nn.Dense(3, use_bias=False))
    kernel, x = normal(5, 3), normal(16, 5, seed=1)

    def fn(params, x):
        return product(params["kernel"], x)

    found = jc.observe(fn, {"kernel": kernel}, jnp.split(x, 4), moments())["kernel"]
    scores = jnp.abs(kernel) * found.norm
    cost = product(kernel, x) - product(kernel.at[2, 1].set(0), x)
    np.testing.assert_allclose(scores[2, 1], jnp.linalg.norm(cost), rtol=1e-5)


def test_an_empty_batch_is_refused():
    params = {"w": jnp.ones((4, 2))}
    for batches in ([jnp.ones((0, 4))], [jnp.ones((2, 4)), jnp.ones((0, 4))]):
        with pytest.raises(ValueError, match="a batch is empty"):
            jc.observe(lambda p, x: x @ p["w"], params, batches, gram())
