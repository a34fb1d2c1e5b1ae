# SPDX-License-Identifier: Apache-2.0
"""The eleven laws, over a table of every compressor, on drawn shapes and settings."""

import ast
import inspect
from pathlib import Path

import every_compressor
import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from draws import put
from every_compressor import (
    COMPRESSORS,
    EVERY,
    SPARSITY,
    WITH_STATISTICS,
    ramp,
    statistics,
)
from variants import marked

import jaxcompress as jc
from jaxcompress import prune, quantize

# Sums over weights (means, products) are ordered by the compiler as it likes.
SUMS = 1e-5

# An example compiles a dozen programs, so one is drawn (ten with the profile "thorough")
# and failures are not shrunk. The first is always the simplest: what a strategy names
# first should be no trivial choice.
FEW = hypothesis.settings(
    max_examples=max(1, hypothesis.settings().max_examples // 25),
    phases=[hypothesis.Phase.generate],
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)

# Other settings of a compressor that has a full pass of every law without them. They take
# a quarter of the time.
VARIANTS = (
    "one shot", "straight through", "blocks in turns", "saving", "one bit",
    "learned offset", "prune and share", "partly dynamic", "own pruner and quantizer",
    "rate for a size", "rate of shared values", "soft movement", "searched scales",
    "blocks with scales of few bits",
)  # fmt: skip

# No sum of weights enters their values: equal bits in jit and eager, on one device and
# on four. Groups are ranked by sums, but what remains of them is as it was.
EXACT = (
    "identity", "one shot", "gradual", "n of m", "quantization", "dynamic", "top-KAST",
    "lottery ticket",
)  # fmt: skip


def drawn_params(draw, dtypes, sizes=(16, 8, 12, 28), widths=(12, 8, 20)):
    rows = draw(st.sampled_from(sizes))
    hidden = draw(st.sampled_from(widths))
    outputs = draw(st.integers(7, 11))
    seed = draw(st.integers(0, 9999))
    first, last = draw(st.sampled_from(dtypes))
    normal = np.random.default_rng(seed).normal
    return {
        "Dense_0": {
            "kernel": put(normal(size=(rows, hidden)), first),
            "bias": put(np.zeros(hidden), first),
        },
        "Dense_1": {
            "kernel": put(3 * normal(size=(hidden, outputs)), last),
            "bias": put(normal(size=outputs), last),
        },
    }


@pytest.mark.parametrize("name", marked(COMPRESSORS, slow=VARIANTS))
def test_every_compressor_keeps_the_laws(name):
    # The SVD of half floats is taken in float32; its basis is then rounded, and is
    # orthonormal (hence idempotent) to that rounding only, so it is drawn in float32.
    # Half-precision levels lie beside the grid, and draws then find another level there.
    full = name in ("low rank", "partition", "stochastic rounding")
    half = jnp.float32 if full else jnp.bfloat16
    # The first example, which is the simplest, has both.
    dtypes = [(half, jnp.float32), (jnp.float32, jnp.float32), (half, half)]
    rounding = 0.0 if name in EXACT else SUMS

    @FEW
    @hypothesis.given(data=st.data())
    def check(data):
        # Their blocks hold 32 weights.
        whole = ((32,), (32, 64)) if name == "blocks with scales of few bits" else ()
        params = drawn_params(data.draw, dtypes, *whole)
        compressor = COMPRESSORS[name](data.draw)
        result = jc.testing.check_compressor(compressor, params, rounding=rounding)
        assert set(result.values()) <= {"held"} or name in ("identity", "own teacher")

    check()


@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_every_compressor_with_statistics_keeps_the_laws(name):
    make, extra = WITH_STATISTICS[name]

    @FEW
    @hypothesis.given(data=st.data())
    def check(data):
        params = drawn_params(data.draw, [(jnp.float32, jnp.float32)])
        extras = {extra: statistics(extra, params)} if extra else None
        result = jc.testing.check_compressor(
            make(data.draw), params, extras=extras, rounding=SUMS
        )
        assert set(result.values()) <= {"held"}

    check()


def test_structured_pruning_keeps_the_laws():
    @FEW
    @hypothesis.given(data=st.data())
    def check(data):
        params = drawn_params(data.draw, [(jnp.float32, jnp.float32)])
        x = jnp.ones((2, len(params["Dense_0"]["kernel"])))
        groups = jc.trace_axes(two_layers, params, x)
        pruner = jc.structured.structured_pruning(
            groups, ramp(data.draw(SPARSITY)), every=data.draw(EVERY)
        )
        result = jc.testing.check_compressor(pruner, params)
        assert set(result.values()) <= {"held"}

    check()


def two_layers(params, x):
    first, last = params["Dense_0"], params["Dense_1"]
    h = jnp.tanh(x @ first["kernel"] + first["bias"][None])
    return h @ last["kernel"] + last["bias"][None]


def test_the_table_names_every_factory():
    exported = {
        name
        for module in (
            jc, jc.prune, jc.quantize, jc.rate, jc.structured, jc.distill, prune.training,
            prune.second_order, quantize.post_training, quantize.equivalent,
        )
        for name in module.__all__
        if inspect.isfunction(getattr(module, name))
        and inspect.signature(getattr(module, name)).return_annotation == "Compressor"
    }  # fmt: skip
    used = {
        n.attr
        for file in (__file__, every_compressor.__file__)
        for n in ast.walk(ast.parse(Path(file).read_text()))
        if isinstance(n, ast.Attribute)
    }
    assert len(exported) >= 39 and exported <= used, exported - used
