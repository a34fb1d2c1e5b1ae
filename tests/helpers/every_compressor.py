# SPDX-License-Identifier: Apache-2.0
"""Every compressor, with drawn settings: the table that the laws are tested over."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
from draws import put

import jaxcompress as jc
from jaxcompress import formats, prune, quantize
from jaxcompress.prune.budgets import erk, global_, uniform
from jaxcompress.prune.patterns import NOfM
from jaxcompress.quantize.equivalent import Link

BITS = st.sampled_from([4, *range(1, 9), 16])
EVERY = st.sampled_from([2, 1, 3])
RANK = st.sampled_from([2, 1, 3])
SPARSITY = st.floats(0.0, 0.95).map(lambda kept: 0.95 - kept)


def ramp(sparsity):
    return optax.polynomial_schedule(0.0, sparsity, 3, 5)


def gradual(draw, budget):
    sparsity = ramp(draw(SPARSITY))
    return jc.magnitude_pruning(sparsity, budget=budget, every=draw(EVERY))


def quantization(draw, granularity, bits=BITS):
    return jc.weight_quantization(
        bits=draw(bits), symmetric=draw(st.booleans()), granularity=granularity
    )


def sharing(draw):
    clusters = draw(st.sampled_from([8, *range(2, 21)]))
    return jc.weight_sharing(clusters, keep_zero=draw(st.booleans()))


# Every budget and granularity is in the table, not left to the draws.
COMPRESSORS = {
    "identity": lambda draw: jc.identity(),
    "one shot": lambda draw: jc.magnitude_pruning(draw(SPARSITY), budget=global_),
    "gradual": lambda draw: gradual(draw, erk),
    "n of m": lambda draw: jc.magnitude_pruning(
        draw(st.sampled_from([ramp(0.5), 0.5])), pattern=NOfM(2, 4)
    ),
    "straight through": lambda draw: jc.magnitude_pruning(
        draw(SPARSITY),
        pattern=prune.patterns.PerOutput(),
        pruned=prune.treatments.sr_ste(1e-3),
    ),
    "movement": lambda draw: jc.movement_pruning(ramp(draw(SPARSITY)), every=2),
    "blocks in turns": lambda draw: jc.magnitude_pruning(
        prune.schedules.alternating(0.5, begin=1, dense=1, sparse=1, end=9),
        pattern=prune.patterns.Blocks((4, 4)),
    ),
    "saving": lambda draw: jc.magnitude_pruning(
        draw(SPARSITY),
        budget=prune.budgets.saving(prune.budgets.coded_bytes(8), prune.budgets.owl()),
    ),
    "dynamic": lambda draw: draw(st.sampled_from([jc.rigl, jc.set_training]))(
        draw(SPARSITY), key=jax.random.key(0), until=9, every=draw(EVERY)
    ),
    "top-KAST": lambda draw: prune.top_kast(0.8, draw(st.sampled_from([0.5, 0.0]))),
    "lottery ticket": lambda draw: jc.lottery_ticket(
        0.9, rounds=3, every=2, rewind_to=draw(st.sampled_from([1, 0, None]))
    ),
    "proximal": lambda draw: draw(
        st.sampled_from([prune.l1_pruning, prune.l0_pruning, prune.group_lasso_pruning])
    )(draw(st.sampled_from([0.1, 0.01]))),
    "quantization": lambda draw: quantization(
        draw, jc.PerGroup(4), BITS.filter(lambda bits: bits > 1)
    ),
    "one bit": lambda draw: quantization(draw, jc.PerTensor(), st.just(1)),
    "formats": lambda draw: jc.weight_quantization(
        fmt=draw(st.sampled_from([formats.E2M1, formats.NF4, formats.E4M3])),
        granularity=jc.PerGroup(4),
        scale=draw(
            st.sampled_from(
                [
                    quantize.scales.two_level,
                    quantize.scales.power_of_two,
                    quantize.scales.moving_average(),
                ]
            )
        ),
    ),
    "searched scales": lambda draw: jc.weight_quantization(
        bits=draw(BITS),
        scale=draw(
            st.sampled_from(
                [
                    quantize.scales.mse(every=2),
                    quantize.scales.entropy(),
                    quantize.scales.percentile(0.9),
                ]
            )
        ),
    ),
    "learned scales": lambda draw: jc.weight_quantization(
        bits=draw(BITS),
        scale=draw(st.sampled_from([quantize.scales.lsq(), quantize.scales.pact()])),
    ),
    "learned offset": lambda draw: jc.weight_quantization(
        bits=draw(BITS), symmetric=False, scale=quantize.scales.lsq_plus()
    ),
    "rate": lambda draw: jc.rate.entropy_constrained(
        draw(st.sampled_from([0.3, optax.linear_schedule(0.0, 1.0, 4)])),
        granularity=draw(st.sampled_from([jc.PerTensor(), jc.PerChannel()])),
        every=2,
    ),
    "rate of shared values": lambda draw: jc.rate.entropy_constrained_sharing(
        draw(st.sampled_from([5, 9])), 0.3, every=draw(EVERY)
    ),
    "learned bits": lambda draw: jc.rate.learned_bits(
        draw(st.sampled_from([0.1, 1.0])), every=draw(EVERY)
    ),
    "rate for a size": lambda draw: jc.rate.entropy_constrained(
        target_bytes=400, bits=4, every=draw(EVERY), where="*/kernel"
    ),
    "stochastic rounding": lambda draw: jc.weight_quantization(
        bits=draw(BITS),
        scale=quantize.scales.held(quantize.scales.absmax),
        rounding=quantize.rounding.stochastic(jax.random.key(1)),
    ),
    "learned rounding": lambda draw: jc.weight_quantization(
        bits=draw(BITS),
        scale=quantize.scales.held(quantize.scales.absmax, every=10),
        rounding=quantize.rounding.learned(),
    ),
    "trained ternary": lambda draw: quantize.trained_ternary(
        draw(st.sampled_from([0.05, 0.5]))
    ),
    "sharing": sharing,
    "low rank": lambda draw: jc.low_rank(rank=draw(RANK), every=2),
    "own teacher": lambda draw: draw(
        st.sampled_from([jc.distill.ema_teacher(0.9), jc.distill.earlier_teacher(2)])
    ),
    "prune and quantize": lambda draw: jc.chain(
        gradual(draw, global_), quantization(draw, jc.PerChannel())
    ),
    "prune and share": lambda draw: jc.chain(
        gradual(draw, uniform), jc.weight_sharing(8)
    ),
    "partly dynamic": lambda draw: jc.masked(
        prune.training.dynamic_sparse(
            0.5,
            grow=prune.training.grow_by_gradient,
            key=jax.random.key(0),
            until=9,
            every=draw(EVERY),
        ),
        "*/kernel",
    ),
    "static": lambda draw: prune.static_sparse(draw(SPARSITY), key=jax.random.key(0)),
    "held zeros": lambda draw: jc.chain(jc.magnitude_pruning(0.5), prune.hold_zeros()),
    "soft movement": lambda draw: prune.soft_movement_pruning(regularization=0.1),
    "own penalty": lambda draw: prune.proximal(
        prune.training.soft_threshold, strength=0.1
    ),
    "own pruner and quantizer": lambda draw: jc.masked(
        jc.chain(
            prune.prune(0.5, score=prune.scores.saliency),
            quantize.quantize(formats.Int(4), granularity=jc.PerTensor()),
        ),
        "*/kernel",
    ),
    "blocks with scales of few bits": lambda draw: draw(
        st.sampled_from([quantize.mx_quantization, quantize.nvfp4_quantization])
    )(),
    "partition": lambda draw: jc.partition(
        {
            "*_0/kernel": quantization(draw, jc.PerTensor()),
            "*_1/kernel": jc.low_rank(rank=2),
        }
    ),
}

LINKS = [
    Link({"Dense_0/kernel": -1, "Dense_0/bias": 0}, {"Dense_1/kernel": 0}),
]
# What solves or moves weights by statistics: each with the extras that it needs.
WITH_STATISTICS = {
    "OBS": (lambda draw: prune.obs_pruning(draw(SPARSITY)), "stats"),
    "SparseGPT": (lambda draw: prune.sparsegpt_pruning(draw(SPARSITY)), "stats"),
    "block Fisher": (lambda draw: prune.fisher_pruning(draw(SPARSITY)), "fisher"),
    "GPTQ": (lambda draw: quantize.gptq_quantization(draw(st.integers(3, 8))), "stats"),
    "AdaRound": (
        lambda draw: quantize.adaround_quantization(draw(st.integers(3, 8)), steps=20),
        "stats",
    ),
    "own solver": (
        lambda draw: jc.masked(
            quantize.layerwise_quantization(
                formats.Int(4), granularity=jc.PerChannel(), solve=to_the_nearest
            ),
            "*/kernel",
        ),
        "stats",
    ),
    "AWQ": (
        lambda draw: quantize.awq(
            LINKS, formats.Int(4), granularity=jc.PerChannel(), grid=4
        ),
        "stats",
    ),
    "SmoothQuant": (lambda draw: quantize.smooth_quant(LINKS), "absmax"),
    "equalization": (lambda draw: quantize.cross_layer_equalization(LINKS), None),
    "rotation": (
        lambda draw: quantize.hadamard_rotation(LINKS, key=jax.random.key(0)),
        None,
    ),
}


def to_the_nearest(w, h, keep, grid, scale):
    """The simplest solver: it looks at no statistics."""
    del h, scale
    steps = jnp.clip(jnp.round(w / grid[0]), -7, 7)
    return jnp.where(keep, steps * grid[0], 0), grid


def statistics(name, params):
    """Of correlated inputs, for every kernel."""
    rng = np.random.default_rng(0)

    def inputs(kernel):
        mixing = rng.normal(size=(len(kernel),) * 2) * 0.3 + np.eye(len(kernel))
        return put(rng.normal(size=(64, len(kernel))) @ mixing)

    def of(layer):
        kernel, x = layer["kernel"], inputs(layer["kernel"])
        if name == "absmax":
            return jnp.max(jnp.abs(x), 0)[:, None]
        if name == "stats":
            return jc.program.statistics.Gram(jnp.uint32(64), x.T @ x)
        loss = lambda p, row: jnp.sum(jnp.tanh(row @ p["kernel"].astype(jnp.float32)))  # noqa: E731
        return prune.scores.fisher_blocks(loss, {"kernel": kernel}, x, 8)["kernel"]

    return {p: {"kernel": of(x), "bias": None} for p, x in params.items()}
