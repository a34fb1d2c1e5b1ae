# SPDX-License-Identifier: Apache-2.0
"""Ranges of recurrent networks: a call counts once, whatever loops run in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.program import ActivationQuantizer
from jaxcompress.quantize.rounding import stochastic
from jaxcompress.quantize.scales import (
    absmax,
    held,
    lsq,
    lsq_plus,
    minmax,
    moving_average,
    pact,
    percentile,
)

PARAMS = {"w": normal(2, 5, 5, seed=1), "u": normal(5, 5, seed=2)}
# Two batches of sequences, (time, batch, features); the empty state comes first.
BATCHES = [normal(6, 3, 5, seed=3), 4 * normal(6, 3, 5, seed=4)]


def step(w, u, h, x):
    return jnp.tanh(h @ w) + x @ u


def rows(w, u, xs, h):
    """All states that a layer's loop reads."""
    before = []
    for x in xs:
        before.append(h)
        h = step(w, u, h, x)
    return jnp.stack(before)


def scanned(params, xs):
    """A scan over layers around one over time, and a loop without known length."""

    def layer(carry, w):
        h = jnp.zeros_like(xs[0])
        h, _ = jax.lax.scan(lambda h, x: (step(w, params["u"], h, x), None), h, xs)
        return carry + h, None

    out, _ = jax.lax.scan(layer, jnp.zeros_like(xs[0]), params["w"])

    def more(state):
        i, h = state
        return i + 1, step(params["w"][0], params["u"], h, xs[i])

    start = (jnp.zeros((), jnp.int32), jnp.zeros_like(xs[0]))
    _, h = jax.lax.while_loop(lambda state: state[0] < len(xs), more, start)
    return out + h


def calibrated(scale, bits=8, mode="calibrate", **options):
    way = ActivationQuantizer(Int(bits, symmetric=False), scale, **options)
    quantized = jc.quantize_activations(scanned, {"w*/input": way})
    ranges = quantized.init(PARAMS, BATCHES[0])
    run = jax.jit(getattr(quantized, mode))
    for xs in BATCHES:
        _, ranges = run(PARAMS, ranges, xs)
    return ranges


def expected(observe, start, i, merge):
    """Observe what a layer reads, batch by batch, as one array per call."""
    state = start
    for xs in BATCHES:
        read = rows(PARAMS["w"][i], PARAMS["u"], xs, jnp.zeros_like(xs[0]))
        state = observe(state, merge(read))
    return state


def largest(read):
    return read[jnp.argmax(jnp.max(jnp.abs(read), (1, 2)))]


def everything(read):
    return read


SCALES = {
    "moving average": (moving_average(), everything),
    "fast average": (moving_average(0.5), everything),
    "percentile": (percentile(), everything),
    "held": (held(absmax, every=2), largest),
    "lsq": (lsq(), largest),
    "lsq+": (lsq_plus(), largest),
    "pact": (pact(), largest),
}


@pytest.mark.parametrize("name", SCALES)
def test_a_call_counts_once(name):
    scale, merge = SCALES[name]
    kept, fmt = jc.quantize.scales.as_stateful(scale), Int(8, symmetric=False)
    got = calibrated(scale)
    assert set(got) == {"w/input", "w#1/input"}
    places = [(jax.tree.map(lambda x, i=i: x[i], got["w/input"]), i) for i in range(2)]
    for state, i in [*places, (got["w#1/input"], 0)]:
        wanted = expected(
            lambda s, x: kept.observe(s, x, fmt), kept.init((), fmt), i, merge
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5), state, wanted)


def test_training_rounds_to_what_the_call_has_shown_so_far():
    # With many bits rounding changes next to nothing.
    trained = calibrated(
        moving_average(0.5), 16, "train", rounding=stochastic(jax.random.key(0))
    )
    calm = calibrated(moving_average(0.5), 16)
    for name, state in trained.items():
        for a, b in zip(state.scale, calm[name], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_a_loop_that_never_runs_shows_nothing():
    def fn(params, x, n):
        return jax.lax.fori_loop(0, n, lambda i, h: h @ params["u"], x)

    quantized = jc.quantize_activations(fn, {"u/input": ActivationQuantizer()})
    x = normal(3, 5)
    ranges = quantized.init(PARAMS, x, 0)
    run = jax.jit(quantized.calibrate)
    _, never = run(PARAMS, ranges, x, 0)
    _, once = run(PARAMS, never, x, 1)
    jax.tree.map(np.testing.assert_array_equal, never, ranges)
    seen = once["u/input"]
    assert (seen.low, seen.high, seen.count) == (jnp.min(x), jnp.max(x), 1)


def test_a_recurrent_network_is_as_exact_as_with_its_whole_range():
    def error(scale):
        quantized = jc.quantize_activations(
            scanned, {"w*/input": ActivationQuantizer(scale=scale)}
        )
        x = BATCHES[0]
        ranges = quantized.init(PARAMS, x)
        out, ranges = jax.jit(quantized.calibrate)(PARAMS, ranges, x)
        rounded, _ = jax.jit(quantized.frozen)(PARAMS, ranges, x)
        return jnp.linalg.norm(rounded - out) / jnp.linalg.norm(out)

    assert error(moving_average()) == error(minmax()) < 0.05
