# SPDX-License-Identifier: Apache-2.0
"""Which products run on integers, why the others do not, and that they run all the same."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from jax import lax
from models import always

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.program import FloatWarning, Measured, OpaqueWarning, large, measured
from jaxcompress.quantize import to_qarray

KERNEL = normal(16, 8)
X = normal(9, 16, seed=1)


def packed(leaf=KERNEL, *, bits=8, symmetric=True, scales=None):
    columns = (*(1,) * (leaf.ndim - 1), leaf.shape[-1])
    return to_qarray(leaf, Int(bits, symmetric), scale_shape=scales or columns)


def product(params, x):
    return x @ params["kernel"]


def reason_of(fn, params, *args, pays=always):
    """Why the only product of a function runs on floats."""
    (step,) = jc.execute(fn, pays=pays).plan(params, *args).steps
    assert step.integers == (step.reason == "")
    return step.reason


def convolution(params, x):
    return lax.conv(x.reshape(1, 9, 4, 4), params["kernel"], (1, 1), "SAME")


def broadcast(params, x):
    experts = jnp.broadcast_to(params["kernel"], (3, 16, 8))
    return lax.dot_general(x.reshape(3, 3, 16), experts, (((2,), (1,)), ((0,), (0,))))


def repeated(params, x):
    wide = jnp.broadcast_to(params["kernel"][:, :, None], (16, 8, 2))
    return x @ wide.reshape(16, 16)


def shared_by_layers(params, x):
    def layer(x, bias):
        return jnp.tanh(x @ params["kernel"]) + bias * jnp.ones_like(x), None

    return lax.scan(layer, x[:, :8], params["bias"])[0]


CHANGED = "the parameter is changed before it is multiplied by"
MIXED = "the parameter reaches it through an operation that mixes its axes"


def compressed(compressor):
    return jc.compress(compressor, {"kernel": KERNEL})["kernel"]


def sparse():
    return jc.SparseArray.from_dense(jnp.where(KERNEL > 1, KERNEL, 0))


MASK = jnp.asarray(KERNEL > 0, jnp.float32)
# Made when they are needed: what is compiled here would be compiled by every worker.
FALLBACKS = {
    "the leaf is dense": lambda: (product, {"kernel": KERNEL}),
    "the leaf is a Codebook": lambda: (
        product,
        {"kernel": compressed(jc.weight_sharing(4))},
    ),
    "the leaf is a SparseArray": lambda: (product, {"kernel": sparse()}),
    "the leaf is a LowRank": lambda: (
        product,
        {"kernel": compressed(jc.low_rank(rank=2))},
    ),
    "the leaf has 16 bits": lambda: (product, {"kernel": packed(bits=16)}),
    "a convolution": lambda: (convolution, {"kernel": packed(normal(2, 9, 3, 3))}),
    "its scales vary along the axis that is summed over": lambda: (
        product,
        {"kernel": packed(scales=(4, 8))},
    ),
    "its scales belong to groups of outputs": lambda: (
        product,
        {"kernel": packed(scales=(1, 4))},
    ),
    "masked": lambda: (
        lambda p, x: x @ (p["kernel"] * p["mask"]),
        {"kernel": packed(), "mask": MASK},
    ),
    "squashed": lambda: (lambda p, x: x @ jnp.tanh(p["kernel"]), {"kernel": packed()}),
    "cut to integers": lambda: (
        lambda p, x: x @ p["kernel"].astype(jnp.int32).astype(jnp.float32),
        {"kernel": packed()},
    ),
    "a part": lambda: (lambda p, x: x[:, :8] @ p["kernel"][:8], {"kernel": packed()}),
    "one axis of two": lambda: (
        lambda p, x: x[:, :4] @ p["kernel"].reshape(4, 4, 8)[:, 1],
        {"kernel": packed()},
    ),
    "the loops over layers around it are not over this parameter's axes": lambda: (
        shared_by_layers,
        {"kernel": packed(KERNEL[:8]), "bias": normal(3)},
    ),
    "data times data": lambda: (
        lambda p, x: (x + p["bias"][0]) @ x.T,
        {"bias": normal(3)},
    ),
}
REASONS = {
    "masked": CHANGED,
    "squashed": CHANGED,
    "cut to integers": CHANGED,
    "a part": "the parameter",
    "one axis of two": MIXED,
}


@pytest.mark.parametrize("name", FALLBACKS)
def test_what_cannot_run_on_integers_says_why_and_runs_on_floats(name: str):
    fn, params = FALLBACKS[name]()
    reason = reason_of(fn, params, X)
    assert reason and REASONS.get(name, name) in reason
    run = jax.jit(jc.execute(fn, pays=always).run)
    with pytest.warns(FloatWarning) as caught:
        out = run(params, X)
    (warning,) = caught
    text = "no product of the packed tree runs on integers:\n"
    assert str(warning.message).startswith(text)
    assert str(warning.message).endswith(f": {reason}")
    np.testing.assert_allclose(out, fn(jc.dense(params), X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fn", [broadcast, repeated])
def test_a_weight_may_be_repeated(fn):
    params = {"kernel": packed(symmetric=False)}
    execution = jc.execute(fn, pays=always)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FloatWarning)
        out = jax.jit(execution.run)(params, X)
    # On integers or not: at most half a step of each input times its weight.
    exact = fn(jc.dense(params), X)
    step = abs(X).max(1, keepdims=True) / 127 * jnp.ones_like(X)
    room = fn(jax.tree.map(jnp.abs, jc.dense(params)), step / 2)
    assert (abs(out - exact) <= room + 1e-5).all()


def test_long_sums_and_small_products_are_told_from_shapes_alone():
    def shaped(*shape):
        return jax.eval_shape(lambda: {"kernel": packed(jnp.ones(shape))})

    for length, reason in [(2**15, ""), (2**15 + 1, "int32 does not hold sums of ")]:
        x = jax.ShapeDtypeStruct((2, length), jnp.float32)
        assert reason_of(product, shaped(length, 1), x).startswith(reason)
        assert bool(reason) == bool(reason_of(product, shaped(length, 1), x))
    for rows, inputs, reason in [
        (8, 1024, ""),
        (8, 1023, "it does not pay"),
        (7, 1024, "it does not pay"),
    ]:
        x = jax.ShapeDtypeStruct((rows, inputs), jnp.float32)
        assert reason_of(product, shaped(inputs, 1024), x, pays=large) == reason
    x = jax.ShapeDtypeStruct((8, 1024), jnp.float32)
    (step,) = jc.execute(product).plan(shaped(1024, 1024), x).steps
    assert step.integers  # `large` is the default
    with pytest.warns(FloatWarning, match="kernel: it does not pay"):
        jc.execute(product).run({"kernel": packed()}, X)


def tied(params, tokens):
    h = params["kernel"][tokens]
    h = jnp.tanh(h @ params["up"]["kernel"])
    h = lax.conv(h.reshape(2, 3, 4, 4), params["conv"]["kernel"], (1, 1), "SAME")
    return h.reshape(2, 2, 16)[:, :, :8] @ params["kernel"].T


def test_a_table_has_a_row_for_each_product_and_sums_what_runs_on_integers():
    params = {
        "kernel": packed(scales=(16, 1)),
        "up": {"kernel": packed(normal(8, 16, seed=4))},
        "conv": {"kernel": packed(normal(2, 3, 3, 3, seed=5))},
    }
    tokens = jnp.array([[1, 2, 3], [4, 5, 6]])
    steps = jc.execute(tied, pays=always).plan(params, tokens)
    lines = str(steps).splitlines()
    assert lines[0].split() == ["site", "MACs", "runs", "as"]
    # A look-up multiplies nothing, and is no step.
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "up/kernel 768 int8 x int8 -> int32",  # 2 * 3 rows, 8 by 16
        "conv/kernel 1,728 float: a convolution",  # 2 * 2 * 16 results of 27 products
        "kernel#1 512 int8 x int8 -> int32",  # 2 * 2 rows, 8 by 16
    ]
    assert steps.integer_macs == 768 + 512
    assert "up/kernel" == steps.steps[0].site.name


def test_a_weight_used_twice_runs_twice_and_trips_count():
    def fn(params, x):
        x = jnp.tanh(x @ params["kernel"]) @ params["kernel"].T
        return lax.scan(lambda x, _: (x @ params["last"], None), x, None, length=5)[0]

    params = {"kernel": packed(scales=(1, 1)), "last": packed(normal(16, 16, seed=2))}
    steps = jc.execute(fn, pays=always).plan(params, X)
    names = {s.site.name: s.integers for s in steps.steps}
    assert names == {"kernel": True, "kernel#1": True, "last": True}
    assert steps.integer_macs == 9 * 16 * 8 * 2 + 5 * 9 * 16 * 16
    out = jax.jit(jc.execute(fn, pays=lambda site: site.leaf != "last").run)(params, X)

    @jax.jit
    def by_hand(dense):
        h = jnp.tanh(quantized_rows(X) @ dense["kernel"])
        h = quantized_rows(h) @ dense["kernel"].T
        for _ in range(5):
            h = h @ dense["last"]
        return h

    assert_close(out, by_hand(jc.dense(params)))


def assert_close(out, expected):
    """Up to a code of an input or two: a tie may fall the other way in floats."""
    assert abs(out - expected).max() <= 0.02 * abs(expected).max()


def quantized_rows(x):
    return to_qarray(x, Int(8), scale_shape=(len(x), 1)).dense()


@jax.custom_jvp
def guarded(x, w):
    return x @ w


guarded.defjvp(lambda xs, ts: (xs[0] @ xs[1], ts[0] @ xs[1] + xs[0] @ ts[1]))


def test_parts_with_rules_of_their_own_are_told_and_can_be_looked_into():
    def fn(params, x):
        return guarded(x @ params["first"], params["last"])

    params = {"first": packed(), "last": packed(normal(8, 8, seed=2))}
    execution = jc.execute(fn, pays=always)
    assert [s.site.name for s in execution.plan(params, X).steps] == ["first"]
    with pytest.warns(OpaqueWarning, match="execute leaves these parts of the program"):
        part = execution.run(params, X)
    inside = jc.execute(fn, pays=always, inline_custom=True)
    assert [s.integers for s in inside.plan(params, X).steps] == [True, True]
    h = quantized_rows(X) @ jc.dense(params["first"])
    last = jc.dense(params["last"])
    np.testing.assert_allclose(part, h @ last, rtol=1e-4, atol=1e-4)
    assert_close(inside.run(params, X), quantized_rows(h) @ last)


@pytest.mark.slow
def test_every_product_that_can_run_on_integers_is_measured_and_no_other():
    def fn(params, x):
        x = x @ params["kernel"]
        x = params["left"] @ x.T
        x = (x @ x.T) @ params["dense"]
        return lax.scan(lambda x, w: (x @ w, None), x, params["layers"])[0]

    params = {
        "kernel": packed(symmetric=False),
        "left": packed(normal(5, 8), scales=(5, 1)),
        "dense": normal(5, 5),
        "layers": packed(normal(2, 5, 5), scales=(2, 1, 5)),
    }
    pays = measured(fn, params, jax.ShapeDtypeStruct(X.shape, X.dtype), rounds=1)
    assert set(pays.ratios) == {"kernel", "left", "layers"}
    assert all(0 < r < math.inf for r in pays.ratios.values())
    steps = jc.execute(fn, pays=pays).plan(params, X).steps
    ran = {s.site.name for s in steps if s.integers}
    faster = {name for name, r in pays.ratios.items() if r < 1 - pays.noise[name]}
    assert ran == faster
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        measured(fn, params, X, rounds=0)


def test_what_was_not_measured_does_not_pay():
    pays = Measured(
        {"kernel": 0.5, "slow": 2.0, "unsure": 0.9}, {"kernel": 0.1, "unsure": 0.2}
    )
    params = {name: packed() for name in ("kernel", "slow", "unsure", "other")}

    def fn(params, x):
        return sum(x @ w for w in params.values())

    steps = jc.execute(fn, pays=pays).plan(params, X).steps
    assert {s.site.name: s.reason for s in steps} == {
        "kernel": "",
        "slow": "it does not pay",
        "unsure": "it does not pay",
        "other": "it does not pay",
    }


def test_running_twice_traces_once():
    count = 0

    def fn(params, x):
        nonlocal count
        count += 1
        return product(params, x)

    run = jax.jit(jc.execute(fn, pays=always).run)
    params = {"kernel": packed()}
    first = run(params, X)
    traces = count
    np.testing.assert_array_equal(run(params, X), first)
    assert count == traces
