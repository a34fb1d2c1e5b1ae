# SPDX-License-Identifier: Apache-2.0
"""What no technique can compress is refused by every technique, by the leaf's name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal, put

import jaxcompress as jc
from jaxcompress import formats, prune, quantize
from jaxcompress.factorize import low_rank
from jaxcompress.quantize.equivalent import Fold, Link, fold_batch_norm
from jaxcompress.share import share

KEY = jax.random.key(0)
GOOD = {
    "a": {"kernel": normal(16, 8), "bias": jnp.zeros(8)},
    "b": {"kernel": normal(8, 4, seed=1), "bias": jnp.zeros(4)},
}
LINKS = [Link({"a/kernel": -1, "a/bias": 0}, {"b/kernel": 0})]


def gram(kernel):
    return jc.program.statistics.Gram(
        put(64, jnp.uint32), put(64 * np.eye(len(kernel)))
    )


def by_layer(of):
    return {name: {"kernel": of(p["kernel"]), "bias": None} for name, p in GOOD.items()}


GRAMS = {"stats": by_layer(gram)}

# They compute codes, centroids, factors or a solution from every value.
REPRESENT = {
    "integers": (jc.weight_quantization(bits=4), {}),
    "ternary": (quantize.trained_ternary(), {}),
    "GPTQ": (quantize.gptq_quantization(4), GRAMS),
    "sharing": (jc.weight_sharing(4), {}),
    "low rank": (jc.low_rank(rank=1), {}),
    "energy": (jc.low_rank(energy=0.3), {}),
    "OBS": (prune.obs_pruning(0.5), GRAMS),
    "SparseGPT": (prune.sparsegpt_pruning(0.5), GRAMS),
    "AWQ": (
        quantize.awq(LINKS, formats.Int(4), granularity=jc.PerChannel(), grid=2),
        GRAMS,
    ),
    "SmoothQuant": (
        quantize.smooth_quant(LINKS),
        {"absmax": by_layer(lambda kernel: put(np.ones((len(kernel), 1))))},
    ),
    "equalization": (quantize.cross_layer_equalization(LINKS), {}),
    "rotation": (quantize.hadamard_rotation(LINKS, key=KEY), {}),
}
# They rank values, and infinity has a rank.
RANK = {
    "magnitude": jc.magnitude_pruning(0.5),
    "movement": jc.movement_pruning(0.5),
    "dynamic": jc.rigl(0.5, key=KEY, until=9, every=1),
    "static": prune.static_sparse(0.5, key=KEY),
    "top-KAST": prune.top_kast(0.5, 0.25),
    "lottery ticket": jc.lottery_ticket(0.5, rounds=1, every=1),
    "L1": prune.l1_pruning(0.1),
    "held zeros": jc.masked(prune.hold_zeros(), "*"),
}


def spoiled(value):
    kernel = GOOD["a"]["kernel"].at[3, 2].set(value)
    return {"a": {**GOOD["a"], "kernel": kernel}, "b": GOOD["b"]}


@pytest.mark.parametrize("value", [jnp.nan, -jnp.inf])
@pytest.mark.parametrize("name", REPRESENT)
def test_what_is_not_finite_is_named(name, value):
    c, extras = REPRESENT[name]
    message = "'a/kernel' holds NaN or infinite values"
    with pytest.raises(ValueError, match=message):
        c.init(spoiled(value))
    state = c.init(GOOD)
    with pytest.raises(ValueError, match=message):
        params, state = c.update(spoiled(value), state, **extras)
        c.finalize(params, state)


@pytest.mark.parametrize("name", RANK)
def test_what_has_no_rank_is_named(name):
    with pytest.raises(ValueError, match="'a/kernel' contains NaN"):
        RANK[name].init(spoiled(jnp.nan))


def test_an_infinite_weight_outranks_all_others():
    pruned = jc.compress(jc.magnitude_pruning(0.99), spoiled(-jnp.inf))["a"]["kernel"]
    assert jnp.isinf(pruned[3, 2]) and (pruned == 0).sum() == pruned.size - 1


@pytest.mark.parametrize(
    "compressor",
    [
        share(4),
        low_rank(rank=1, where="*"),
        quantize.quantize(formats.Int(4), granularity=jc.PerTensor()),
        quantize.trained_ternary(where="*"),
    ],
)
def test_leaves_without_floats_are_named(compressor):
    good = GOOD["a"]["kernel"]
    for steps in (jnp.arange(32).reshape(4, 8), good > 0):
        with pytest.raises(TypeError, match="'steps'.* has dtype"):
            compressor.init({"kernel": good, "steps": steps})
    with pytest.raises(ValueError, match=r"'none' has shape \(0, 8\)"):
        compressor.init({"kernel": good, "none": jnp.zeros((0, 8))})


def test_under_jit_an_infinity_ends_no_factorization():
    """It used to: LAPACK does not return from one."""
    c = jc.low_rank(rank=2, every=1)
    bad = spoiled(jnp.inf)
    _, state = jax.jit(c.update)(bad, c.init(GOOD))
    basis = state.bases["a"]["kernel"]
    np.testing.assert_allclose(basis.T @ basis, jnp.eye(2), atol=1e-5)
    view = jax.jit(c.apply)(bad, state)["a"]["kernel"]
    assert not jnp.isfinite(view[:, 2]).any() and jnp.isfinite(view[:, 3:]).all()


def test_a_norm_that_cannot_be_folded_is_named():
    params = {"conv": {"kernel": jnp.ones((4, 2)), "bias": jnp.zeros(2)}}
    params |= {"norm": {"scale": jnp.ones(2), "bias": jnp.zeros(2)}}
    stats = {"norm": {"mean": jnp.zeros(2), "var": jnp.array([1.0, jnp.nan])}}
    fold = Fold("conv/kernel", "norm", "conv/bias")
    with pytest.raises(ValueError, match="'conv/.*' holds NaN or infinite"):
        fold_batch_norm(params, stats, [fold], epsilon=1e-5)
