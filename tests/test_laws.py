# SPDX-License-Identifier: Apache-2.0
"""The eleven laws, over a table of every compressor, on drawn shapes and settings."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import optax
import pytest

import jaxcompress as jc
from jaxcompress.prune import NOfM, erk, global_, uniform

# Sums over weights (means, products) are ordered by the compiler as it likes.
SUMS = 1e-5

# An example compiles some thirty programs, so few are drawn and failures are not shrunk.
FEW = hypothesis.settings(
    max_examples=3,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)

BITS = st.sampled_from([*range(1, 9), 16])
SPARSITY = st.floats(0.0, 0.95)


def ramp(sparsity):
    return optax.polynomial_schedule(0.0, sparsity, 3, 5)


def gradual(draw):
    budget = draw(st.sampled_from([uniform, erk, global_]))
    every = draw(st.integers(1, 3))
    return jc.magnitude_pruning(ramp(draw(SPARSITY)), budget=budget, every=every)


def quantization(draw):
    granularities = [jc.PerTensor(), jc.PerChannel(), jc.PerGroup(4)]
    return jc.weight_quantization(
        bits=draw(BITS),
        symmetric=draw(st.booleans()),
        granularity=draw(st.sampled_from(granularities)),
    )


def sharing(draw):
    return jc.weight_sharing(draw(st.integers(2, 20)), keep_zero=draw(st.booleans()))


COMPRESSORS = {
    "identity": lambda draw: jc.identity(),
    "one shot": lambda draw: jc.magnitude_pruning(draw(SPARSITY)),
    "gradual": gradual,
    "n of m": lambda draw: jc.magnitude_pruning(ramp(0.5), pattern=NOfM(2, 4)),
    "quantization": quantization,
    "sharing": sharing,
    "low rank": lambda draw: jc.low_rank(rank=draw(st.integers(1, 3)), every=2),
    "prune and quantize": lambda draw: jc.chain(gradual(draw), quantization(draw)),
    "prune and share": lambda draw: jc.chain(gradual(draw), jc.weight_sharing(8)),
    "partition": lambda draw: jc.partition(
        {"*_0/kernel": quantization(draw), "*_1/kernel": jc.low_rank(rank=2)}
    ),
}


def drawn_params(draw, dtype):
    rows = draw(st.sampled_from([8, 12, 16, 28]))
    hidden = draw(st.sampled_from([8, 12, 20]))
    outputs = draw(st.integers(7, 11))
    keys = jax.random.split(jax.random.key(draw(st.integers(0, 9999))), 3)
    return {
        "Dense_0": {
            "kernel": jax.random.normal(keys[0], (rows, hidden), dtype),
            "bias": jnp.zeros(hidden, dtype),
        },
        "Dense_1": {
            "kernel": 3 * jax.random.normal(keys[1], (hidden, outputs), dtype),
            "bias": jax.random.normal(keys[2], (outputs,), dtype),
        },
    }


@pytest.mark.parametrize("name", COMPRESSORS)
@FEW
@hypothesis.given(data=st.data())
def test_every_compressor_keeps_the_laws(name, data):
    # The SVD of half floats is taken in float32; its basis is then rounded, and is
    # orthonormal (hence idempotent) to that rounding only, so it is drawn in float32.
    half = [] if name in ("low rank", "partition") else [jnp.bfloat16]
    params = drawn_params(data.draw, data.draw(st.sampled_from([jnp.float32, *half])))
    compressor = COMPRESSORS[name](data.draw)
    result = jc.testing.check_compressor(compressor, params, rounding=SUMS)
    assert set(result.values()) <= {"held"} or name == "identity"


@pytest.mark.parametrize("name", ["one shot", "gradual", "n of m", "quantization"])
@FEW
@hypothesis.given(data=st.data())
def test_what_sums_no_weights_has_equal_bits_everywhere(name, data):
    if name == "n of m":  # ranks groups by the sum of what they lose
        compressor = jc.magnitude_pruning(0.5, pattern=NOfM(2, 4))
    elif name == "quantization":  # one bit takes the mean magnitude
        compressor = jc.weight_quantization(bits=data.draw(st.integers(2, 8)))
    else:
        compressor = COMPRESSORS[name](data.draw)
    params = drawn_params(data.draw, jnp.float32)
    jc.testing.check_compressor(compressor, params, rounding=0.0)
