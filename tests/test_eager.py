# SPDX-License-Identifier: Apache-2.0
"""Compressors outside of jit: what has been compiled once is not compiled again."""

import contextlib
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from draws import normal

import jaxcompress as jc
from jaxcompress import quantize
from jaxcompress.numerics import cond

PARAMS = {"a": {"kernel": normal(12, 8)}, "b": {"kernel": normal(8, 6)}}
RAMP = lambda count: 0.5 * jnp.minimum(count / 10, 1)  # noqa: E731
COMPRESSORS = {
    "magnitude": jc.magnitude_pruning(RAMP),
    "rigl": jc.rigl(0.5, key=jax.random.key(0), until=99, every=1),
    "lottery": jc.lottery_ticket(0.9, rounds=9, every=1),
    "top-KAST": jc.prune.top_kast(0.8, 0.5, every=1),
    "sharing": jc.weight_sharing(4),
    "low rank": jc.low_rank(rank=2),
    "int4": jc.weight_quantization(bits=4),
    "searched": jc.weight_quantization(bits=4, scale=quantize.scales.mse(every=1)),
    "learned": jc.weight_quantization(bits=4, scale=quantize.scales.lsq()),
    "stochastic": jc.weight_quantization(
        bits=4, rounding=quantize.rounding.stochastic(jax.random.key(0))
    ),
    "rate": jc.rate.entropy_constrained(0.1, every=1),
    "erk": jc.magnitude_pruning(RAMP, budget=jc.prune.budgets.erk),
    "owl": jc.magnitude_pruning(RAMP, budget=jc.prune.budgets.owl()),
    "GPTQ": quantize.gptq_quantization(4),
    "AdaRound": quantize.adaround_quantization(4, steps=3),
    "SparseGPT": jc.prune.sparsegpt_pruning(0.5),
}
STATS = {
    name: {"kernel": jc.program.statistics.Gram(jnp.uint32(32), jnp.eye(size))}
    for name, size in (("a", 12), ("b", 8))
}


@contextlib.contextmanager
def compilations():
    """List the seconds of each compilation inside."""
    seconds = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seconds.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seconds
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_the_second_update_compiles_nothing(name):
    c, grads = COMPRESSORS[name], jax.tree.map(jnp.tanh, PARAMS)
    params, state, counts = PARAMS, c.init(PARAMS), []
    with compilations() as compiled:
        for _ in range(3):
            params, state = c.update(params, state, grads=grads, stats=STATS)
            c.apply(params, state)
            counts.append(len(compiled))
        jax.jit(lambda x: x + 1)(jnp.ones(3))  # what is new is counted
    assert counts[1] == counts[2] < len(compiled)


def test_a_condition_that_is_known_calls_one_function():
    def never(x):
        raise AssertionError("called")

    assert cond(jnp.array(True), lambda x: x + 1, never, jnp.ones(())) == 2
    assert cond(jnp.array(False), never, lambda x: x - 1, jnp.ones(())) == 0


def test_a_traced_condition_chooses_in_the_program():
    choose = jax.jit(lambda is_true, x: cond(is_true, jnp.sin, jnp.cos, x))
    x = normal(3)
    for is_true, wanted in ((True, jnp.sin), (False, jnp.cos)):
        assert jnp.array_equal(choose(is_true, x), jax.jit(wanted)(x))
    each = jax.vmap(lambda is_true: cond(is_true, jnp.sin, jnp.cos, x))
    assert each(jnp.array([True, False])).shape == (2, 3)


@pytest.mark.parametrize(
    "scale", [quantize.scales.mse, quantize.scales.entropy], ids=["mse", "entropy"]
)
def test_equal_searches_share_their_programs(scale):
    jc.weight_quantization(bits=4, scale=scale()).init(PARAMS)
    with compilations() as compiled:
        jc.weight_quantization(bits=4, scale=scale()).init(PARAMS)
        before = len(compiled)
        jax.jit(lambda x: x + 2)(jnp.ones(3))  # what is new is counted
    assert before == 0 < len(compiled)


def test_every_condition_of_the_package_is_that_one():
    files = Path(jc.__file__).parent.rglob("*.py")
    names = {f.name for f in files if "lax.cond(" in f.read_text()}
    assert names == {"_eager.py", "_compat.py"}  # the other one copies traced programs
